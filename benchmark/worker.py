"""One unit of work, run anywhere: train one model on one fold.

A unit comes as JSON (study configuration, trial or run, fold, setting), rebuilds what it needs, and leaves a record.
It is idempotent: a finished unit returns its record, an unfinished one goes on from its checkpoint. It can read
training classes only.

Run as `python -m benchmark.worker`, it serves units to a driver, see `executors/serving.py`.
"""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark import pulse, recipes, records, unit_log
from benchmark.curves import write_curves
from benchmark.datasets import Split
from benchmark.images import Images
from benchmark.parts import Parts, Schedule, Scored
from benchmark.protocol.folds import Fold
from benchmark.protocol.seeds import stable_seed
from benchmark.provenance import check_software, provenance
from benchmark.study import Study
from benchmark.threads import use_threads
from benchmark.train import Outcome, train_fold, write_state

CURVES_SECONDS = 30.0  # training curves on disk are at most this old; they cost a few disk flushes each time
LOCK_SECONDS = 180.0  # a network file system frees the lock of a lost machine after its lease, mostly 90 s
Report = Callable[[dict[str, Any]], None]


def train_unit(spec: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train one fold, or return its record if that is done already.

    Args:
        spec: `study` (raw configuration), `fingerprint` of the data, `kind` (`trial` or `run`), `index`, `fold`,
            `setting` (hyper-parameters), `directory` of the unit, `keep_weights`, and `software` of the driver.
        report: called with small dictionaries for a display.

    Returns:
        `result`, `provenance` and `notes` (sentences about damaged files that were done again).

    Raises:
        ValueError: the data or the software on this machine is not the driver's, or another process holds the unit for
            too long.
    """
    check_software(spec["software"])
    unit = Path(spec["directory"])
    with records.only_one(unit / "lock", f"Unit {unit}", wait_seconds=LOCK_SECONDS):
        record, note = records.read_or_set_aside(unit / "record.json")
        if record is not None and _weights_are_there(spec, record, unit):
            for left in ("checkpoint.pt", pulse.NAME):  # by a worker that was killed at the very end
                (unit / left).unlink(missing_ok=True)
            return {"result": record.result, "provenance": record.provenance, "notes": []}
        with at_work(spec) as heart:
            outcome, notes, _ = train(spec, report, heart, lambda: build(spec))
            write_curves(unit / "curves", outcome.result["history"])
            record = records.Record("fold", _result(spec, outcome), _provenance(spec, outcome))
            if spec["keep_weights"] and outcome.weights is not None:
                write_state(unit / "best.pt", outcome.weights)
            records.write_record(unit / "record.json", record)
            (unit / "checkpoint.pt").unlink(missing_ok=True)
        return {"result": record.result, "provenance": record.provenance, "notes": [n for n in (note, *notes) if n]}


@contextlib.contextmanager
def at_work(spec: dict[str, Any]) -> Iterator[pulse.Heart]:
    """Keep a unit's log and its beat for the time of the block."""
    unit, executor = Path(spec["directory"]), Study.of(spec["study"]).config.executor
    minutes = executor.timeout_minutes
    with unit_log.kept(unit, capture=executor.name != "inline"):
        every = pulse.BEAT_SECONDS if minutes is None else min(pulse.BEAT_SECONDS, 60 * minutes / 4)
        heart = pulse.Heart(unit, every)
        try:
            yield heart
        finally:
            heart.stop()


def _weights_are_there(spec: dict[str, Any], record: records.Record, unit: Path) -> bool:
    """A unit whose weights are still needed is done only while they can be read."""
    if not spec["keep_weights"] or record.result["map_at_r"] is None:
        return True
    try:
        records.read_checked(unit / "best.pt")
    except (FileNotFoundError, records.CorruptFileError):
        return False
    return True


def train(
    spec: dict[str, Any], report: Report, heart: pulse.Heart, make: Callable[[], tuple[Parts, Schedule]]
) -> tuple[Outcome, list[str], Parts]:
    """Train from the checkpoint; from the start where that is damaged.

    Args:
        spec: of the unit.
        report: is told of each evaluation.
        heart: beats at each batch.
        make: fresh parts and their schedule.

    Returns:
        What was found, sentences about damaged files, and the parts as the last epoch left them.
    """
    use_threads(Study.of(spec["study"]).config.threads)
    unit = Path(spec["directory"])
    written = time.monotonic()

    def on_epoch(history: list[dict[str, Any]]) -> None:
        nonlocal written
        if not history:
            return
        heart.epoch = history[-1]["epoch"]
        unit_log.note(unit, epoch_line(history[-1]))
        if time.monotonic() - written >= CURVES_SECONDS:
            write_curves(unit / "curves", history)
            written = time.monotonic()
        report({"kind": spec["kind"], "index": spec["index"], "fold": spec.get("fold"), "row": history[-1]})

    def attempt() -> tuple[Outcome, Parts]:
        parts, schedule = make()
        parts.beat = heart.beat
        if (unit / "checkpoint.pt").exists():
            unit_log.note(unit, "resume: the checkpoint is of")
        return train_fold(parts, schedule, unit / "checkpoint.pt", on_epoch), parts

    try:
        outcome, parts = attempt()
        return outcome, [], parts
    except records.CorruptFileError as error:
        kept = records.set_aside(unit / "checkpoint.pt")
        note = f"{error} It is kept as {kept.name}; this fold starts again."
        unit_log.note(unit, note)
        outcome, parts = attempt()
        return outcome, [note], parts


def epoch_line(row: dict[str, Any]) -> str:
    """A line of a unit's log about an epoch that was scored."""
    cells = [f"epoch {row['epoch']}", *([] if row["loss"] is None else [f"loss {row['loss']:.4g}"])]
    cells += [f"validation MAP@R {100 * row['map_at_r']:.2f}"] if "map_at_r" in row else []
    return "   ".join(cells)


def build(spec: dict[str, Any]) -> tuple[Parts, Schedule]:
    """The parts of a unit, fresh, and its schedule.

    Folds' batches, augmentation, trunk and head are seeded by (seed, data set, trial or run, fold), so that losses
    are compared on paired runs; the loss's own state adds the loss's name.
    """
    study = Study.of(spec["study"], spec["setting"])
    config = study.config
    split, folds = _trainval(json.dumps(spec["study"]), spec["fingerprint"])
    images, labels, fold = study.make_images(split.images), split.labels, folds[spec["fold"]]
    key = (config.seed, config.dataset.name, spec["kind"], spec["index"], spec["fold"])
    train, validation = (np.flatnonzero(np.isin(labels, c)) for c in (fold.train_classes, fold.validation_classes))
    parts = make_parts(study, split, images.part(train), labels[train], key)
    parts.validation = Scored(images.part(validation), torch.from_numpy(labels[validation]).to(images.device))
    return parts, make_schedule(study, stable_seed(*key, "train"))


def make_parts(study: Study, split: Split, images: Images, labels: np.ndarray, key: tuple[Any, ...]) -> Parts:
    """What trains on these images, with nothing yet to be scored on.

    Args:
        study: with the setting to train.
        split: the half that the images are of.
        images: to train on.
        labels: (N,) class id of each.
        key: of every seed.
    """
    classes = np.unique(labels)
    ranked = np.searchsorted(classes, labels)  # 0..C-1 by sorted rank, as MLRC
    class_to_super = split.super_labels[np.searchsorted(np.asarray(split.class_ids), classes)]
    trunk = study.make_trunk(images.channels, stable_seed(*key, "trunk"))
    head = study.make_head(trunk.out_features, stable_seed(*key, "head"))  # type: ignore[arg-type]
    loss_seed = stable_seed(*key, "loss", study.config.loss.name)
    loss = study.make_loss(len(classes), loss_seed, class_to_super, num_images=len(ranked))
    for part in (trunk, head, loss):
        part.to(images.device)
    return Parts(
        trunk, head, loss,
        study.make_optimizers(trunk=trunk, head=head, loss=loss),
        study.make_sampler(ranked, stable_seed(*key, "batches")),
        images, torch.from_numpy(ranked).to(images.device), validation=None,
    )  # fmt: skip


def make_schedule(study: Study, seed: int) -> Schedule:
    """The protocol's and the data set's constants for one training."""
    c = study.config
    return Schedule(
        iterations_per_epoch=c.protocol.iterations_per_epoch,
        evaluate_every=c.dataset.evaluate_every,
        patience=c.dataset.patience,
        max_epochs=c.dataset.max_epochs,
        freeze_batchnorm=c.training.freeze_batchnorm,
        retrieval=c.loss.retrieval,
        retrieval_options=c.loss.retrieval_options,
        warmup_epochs=recipes.authors_recipe(c).get("warmup_epochs", c.training.warmup_epochs or 0),
        clip=c.training.clip or {},
        decay=c.training.decay or {},
        seed=seed,
    )


@functools.lru_cache(maxsize=2)
def _trainval(study_json: str, fingerprint: str) -> tuple[Split, list[Fold]]:
    """The training classes and their folds; kept between units, since a worker lives long."""
    study = Study.of(json.loads(study_json))
    dataset = same_dataset(study, fingerprint)
    split = dataset.trainval()
    return split, study.make_folds(np.asarray(split.class_ids), dataset.total_classes)


def same_dataset(study: Study, fingerprint: str) -> Any:
    """The study's data set as it is on this machine, if it is the driver's."""
    dataset = study.make_dataset()
    if dataset.fingerprint != fingerprint:
        raise ValueError(
            f"Data set {study.config.dataset.name} on this machine has fingerprint {dataset.fingerprint}, the study "
            f"was started with {fingerprint}. Run make data DATASET={study.config.dataset.name} on both and compare."
        )
    return dataset


def _result(spec: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """What the fold found, with what a reader of HPL's records asks first."""
    best = next((r for r in outcome.result["history"] if r["epoch"] == outcome.result["best_epoch"]), None)
    diagnostics = outcome.result["history"][-1]["diagnostics"] if outcome.result["history"] else {}
    return outcome.result | {
        "fold": spec["fold"],
        "setting": spec["setting"],
        "best_epoch_in_warmup": best["diagnostics"].get("kmeans_done") == 0 if best else None,
        "coarse_updates": diagnostics.get("coarse_updates"),
    }


def _provenance(spec: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    return provenance(seconds=outcome.seconds, finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                      fingerprint=spec["fingerprint"])  # fmt: skip


if __name__ == "__main__":
    from benchmark.executors.local import serve

    serve(train_unit)
