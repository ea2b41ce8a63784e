"""make final-eval: retrain the chosen setting (or a preset) in 10 runs x 4 folds and score the unseen classes.

A run's four models are each trained as in the search, early stopping on their own validation classes included; nothing
is ever trained on all of them. *Separated*: each model's embedding is scored alone and the four scores are averaged.
*Concatenated*: the four embeddings, each L2-normalised, are joined and scored once.

This is the only story but `traditional` that can read test classes, and each look leaves a line in the study's
`test_ledger.jsonl` before it happens.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3.
Departure: 10 fresh runs; the best search trial, which is selected for being good, is not one of them.
"""

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.core import records
from benchmark.core.console import Display
from benchmark.core.errors import IncompleteError
from benchmark.core.provenance import check_software, commit, provenance
from benchmark.core.threads import use_threads
from benchmark.images import Images
from benchmark.images.batches import embed
from benchmark.jobs.placement import check_executor
from benchmark.jobs.queue import Jobs, incomplete
from benchmark.jobs.train_unit import Report, at_work, train_unit
from benchmark.protocol.modes import score
from benchmark.protocol.neighbours import nearest_neighbours
from benchmark.protocol.statistics import t_interval
from benchmark.study import layout
from benchmark.study.cli import main
from benchmark.study.preflight import check_values
from benchmark.study.prepare import prepare
from benchmark.study.study import Study
from benchmark.study.unseen import Unseen, open_test

METRICS = {"map_at_r": "MAP@R", "precision_at_1": "P@1", "r_precision": "RP"}
MODES = ("concatenated", "separated")
NUM_NEIGHBOURS = 10


def final_eval(study: Study, overrides: list[str]) -> None:
    """Evaluate the named study, or every study whose search is finished when none is named."""
    if layout.names_a_study(overrides):
        evaluate(study)
        return
    chosen = []
    for directory in layout.all_studies(Path(study.config.results_dir)):
        try:
            stored = layout.read_study(directory)["config"]
        except records.CorruptFileError as error:
            print(
                f"Left out: {error} Run make bo for it again: the file is written anew, and nothing is trained again."
            )
            continue
        other = Study.of(stored | {key: study.raw[key] for key in layout.BOOKKEEPING})
        if other.config.preset or (directory / "bo" / "best.yaml").exists():
            chosen.append(other)
        else:
            print(f"{other.title}: its search is unfinished, left out ({other.command('bo')})")
    if not chosen:
        raise ValueError(f"There is no finished search below {study.config.results_dir}. Run make bo first.")
    missing = []
    for other in chosen:
        try:
            evaluate(other)
        except IncompleteError as error:  # the others are worth having
            missing.append(str(error))
    if missing:
        raise IncompleteError("\n\n".join(missing))


def evaluate(study: Study) -> None:
    """Train and score the missing runs of a study's chosen setting, and say what they come to."""
    check_values(study)  # before names become folders
    check_executor(study.config)
    layout.read_chosen(study)  # before a folder is made for a study that there is not
    with records.only_one(study.directory / "lock", f"Study {study.title}"):
        choice = layout.read_chosen(study)
        fingerprint = prepare(study, "trainval", "test")
        warnings = layout.open_study(study, fingerprint)
        num_runs, dataset = study.config.protocol.num_runs, study.config.dataset
        found = layout.finished_runs(study, choice.trial, warnings.append)
        done = {r: rec for r, rec in found.items() if r < num_runs}
        display = Display(study.config.display, study.title, "run", num_runs, len(done), dataset.max_epochs)
        for line in warnings:
            display.say(line)
        for run in done:
            drop_weights(study, layout.run_dir(study, choice.trial, run))
        lost: dict[int, list[dict[str, Any]]] = {}
        if len(done) < num_runs:
            with Jobs(study, run_unit, ["benchmark.final_eval", "--serve"], display.report) as jobs, display:
                for run in (r for r in range(num_runs) if r not in done):
                    for unit in fold_units(study, fingerprint, choice, run):
                        jobs.add(unit)
                lost = collect(study, jobs, choice, done, display)
        summary(study, [done[run] for run in sorted(done)], display)
        if lost:
            raise incomplete(study, "final-eval", {f"run {run + 1}": units for run, units in sorted(lost.items())})


def fold_units(study: Study, fingerprint: str, choice: layout.Chosen, run: int) -> list[dict[str, Any]]:
    """The trainings of one run."""
    directory = layout.run_dir(study, choice.trial, run)
    return [
        {
            "unit": "train", "study": study.raw, "fingerprint": fingerprint, "kind": "run", "index": run, "fold": fold,
            "setting": choice.setting, "directory": str(directory / f"fold_{fold}"), "keep_weights": True,
        }
        for fold in range(study.config.protocol.num_folds)
    ]  # fmt: skip


def collect(
    study: Study, jobs: Jobs, choice: layout.Chosen, done: dict[int, records.Record], display: Display
) -> dict[int, list[dict[str, Any]]]:
    """Score each run once its folds are trained, and add its record to `done`; return the units lost, by run."""
    lost: dict[int, list[dict[str, Any]]] = {}
    trained: dict[int, dict[int, dict[str, Any]]] = {}
    for spec, answer in jobs.finished():
        for line in answer.get("notes", []):
            display.say(line)
        run = spec["index"]
        if "lost" in answer:
            lost.setdefault(run, []).append(answer["lost"])
        elif spec["unit"] == "train":
            folds = trained.setdefault(run, {})
            folds[spec["fold"]] = answer
            if len(folds) == study.config.protocol.num_folds:
                answers = [folds[f] for f in sorted(folds)]
                jobs.add(spec | {
                    "unit": "score", "trial": choice.trial, "directory": str(layout.run_dir(study, choice.trial, run)),
                    "folds": [a["result"] for a in answers], "seconds": [a["provenance"]["seconds"] for a in answers],
                }, first=True)  # fmt: skip
        else:
            done[run] = records.read_record(layout.run_path(study, choice.trial, run))
            display.finished(run, run_line(done[run].result))
    return lost


def run_unit(spec: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train a fold or score a run: what `final_eval`'s workers can do, and `bo`'s cannot."""
    return train_unit(spec, report) if spec["unit"] == "train" else score_unit(spec)


def score_unit(spec: dict[str, Any]) -> dict[str, Any]:
    """Score a run's models on the unseen classes, keep what figures need, and write the run's record."""
    check_software(spec["software"])
    with at_work(spec) as heartbeat:
        return score_run(spec, heartbeat.tick)


def score_run(spec: dict[str, Any], beat: Callable[[], None]) -> dict[str, Any]:
    """The same, calling `beat` for each batch."""
    started = time.perf_counter()
    study, directory = Study.of(spec["study"], spec["setting"]), Path(spec["directory"])
    path = directory.with_suffix(".json")
    result: dict[str, Any] = {"run": spec["index"], "trial": spec["trial"], "setting": spec["setting"]}
    contents = None
    missing = [f"fold {f['fold']}: {f['reason']}" for f in spec["folds"] if f["map_at_r"] is None]
    if missing:
        result |= {"status": "failed", "reason": "; ".join(missing), "separated": None, "concatenated": None}
    else:
        use_threads(study.config.threads)
        look = {
            "run": spec["index"],
            "trial": spec["trial"],
            "commit": commit(),
            "identity": study.identity(spec["fingerprint"]),
        }
        unseen = open_test(json.dumps(spec["study"]), study.directory, look)
        contents = unseen.contents
        embeddings = torch.stack(
            [embed_fold(study, directory / f"fold_{f}", unseen.images, beat) for f in range(len(spec["folds"]))]
        )
        loss = study.config.loss
        options = {"is_query": unseen.is_query, "metric": loss.retrieval} | loss.retrieval_options
        result |= {"status": "completed", "reason": None} | score(embeddings, unseen.labels, tuple(METRICS), **options)
        keep_for_figures(study, directory, embeddings, unseen)
    result["folds"] = spec["folds"]
    totals = {key: sum(s[key] for s in spec["seconds"]) for key in ("train", "evaluate")}
    seconds = totals | {"score": time.perf_counter() - started}
    records.write_record(path, records.Record("run", result, provenance(seconds=seconds, test_contents=contents)))
    drop_weights(study, directory)  # only now: a run killed before its record needs them again
    return {"result": {"run": spec["index"]}}


def embed_fold(study: Study, unit: Path, images: Images, beat: Callable[[], None]) -> Tensor:
    """(N, D) embeddings of a fold's best-epoch model, L2-normalised where they are compared by cosine."""
    state = torch.load(
        io.BytesIO(records.read_checked(unit / "best.pt")), map_location=images.device, weights_only=True
    )
    trunk = study.make_trunk(images.channels, seed=0).to(images.device)
    head = study.make_head(trunk.out_features, seed=0).to(images.device)  # type: ignore[arg-type]
    trunk.load_state_dict(state["trunk"])
    head.load_state_dict(state["head"])

    def embedder(batch: Tensor) -> Tensor:
        beat()
        return head(trunk(batch))

    embeddings = embed(embedder, images, trunk, head)
    return torch.nn.functional.normalize(embeddings, dim=1) if study.config.loss.retrieval == "cosine" else embeddings


def keep_for_figures(study: Study, directory: Path, embeddings: Tensor, unseen: Unseen) -> None:
    """Keep test embeddings (half precision), proxies and nearest neighbours; weights only where asked."""
    loss = study.config.loss
    neighbours = nearest_neighbours(
        embeddings, unseen.is_query, NUM_NEIGHBOURS, metric=loss.retrieval, threads=study.config.threads,
        **loss.retrieval_options,
    )  # fmt: skip
    kept = {
        "embeddings": embeddings.cpu().numpy().astype(np.float16),
        "labels": unseen.labels.cpu().numpy(),
        "neighbours": neighbours.astype(np.int32),
    }
    if unseen.is_query is not None:
        kept["is_query"] = unseen.is_query.cpu().numpy()
    for fold in range(len(embeddings)):
        unit = directory / f"fold_{fold}"
        state = torch.load(io.BytesIO(records.read_checked(unit / "best.pt")), map_location="cpu", weights_only=True)
        kept |= {f"fold_{fold}.{name}": value.numpy().astype(np.float16) for name, value in state["loss"].items()}
    buffer = io.BytesIO()
    np.savez(buffer, **kept)  # type: ignore[arg-type]
    records.write_whole(directory / "embeddings.npz", buffer.getvalue())


def drop_weights(study: Study, directory: Path) -> None:
    """Delete a scored run's weights unless they are to be kept."""
    if study.config.keep == "none":
        for path in directory.glob("fold_*/best.pt"):
            path.unlink()


def run_line(result: dict[str, Any]) -> str:
    """One line about a scored run."""
    if result["concatenated"] is None:
        return f"no score ({result['reason']})"
    return "   ".join(
        f"{mode} MAP@R {100 * result[mode]['map_at_r']:.2f} P@1 {100 * result[mode]['precision_at_1']:.2f}"
        for mode in MODES
    )


def summary(study: Study, runs: list[records.Record], display: Display) -> None:
    """Mean and interval of each number over the runs that have one."""
    scored = [r.result for r in runs if r.result["concatenated"] is not None]
    confidence = study.config.protocol.confidence
    display.say(
        f"\n{study.title}, unseen classes: mean +- {100 * confidence:.0f} % t-interval over n = {len(scored)} runs, %"
    )
    for mode in MODES:
        cells = []
        for key, name in METRICS.items():
            if scored:
                interval = t_interval([100 * r[mode][key] for r in scored], confidence)
                half = "" if interval.half_width is None else f" +- {interval.half_width:.2f}"
                cells.append(f"{name} {interval.mean:.2f}{half}")
        display.say(f"  {mode:13s} " + "   ".join(cells))
    if len(scored) < len(runs):
        display.say(
            f"  {len(runs) - len(scored)} run(s) have no score and stay missing; see {study.directory}/final_eval"
        )
    display.say("Next: make tables")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        from benchmark.jobs.executors.serve import serve

        serve(run_unit)
    else:
        main(final_eval)
