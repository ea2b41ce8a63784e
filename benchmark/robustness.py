"""make robustness: score the kept models of a study on corrupted test images.

    make robustness STUDY=results/studies/GROUP/hist

Source: Lim, Yun, Park and Choi, "Hypergraph-Induced Semantic Tuplet Loss for Deep Metric Learning", CVPR 2022,
supplement, A.3; `images/corruptions.py` has the nine corruptions.

Under the traditional protocol, `corruptions=[training]` scores the classes that a model was trained on instead: how
much higher they are than the test classes is its over-fitting.

Nothing is trained: the models are those whose weights a study has kept (`keep=best`). Each run is scored as after its
training, once for every corruption and once without. The record of each score is written as soon as it is known, so the
same command resumes. Every look at the test classes is logged in the study's `test_ledger.jsonl` before it happens.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("robustness"))

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark.core import records
from benchmark.core.console import counting, write
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.provenance import commit, device_facts, provenance
from benchmark.core.threads import use_threads
from benchmark.core.wording import plus_minus, ranges
from benchmark.images.corruptions import CORRUPTIONS, PAPER, CorruptedImages
from benchmark.protocol.statistics import t_interval
from benchmark.report import figures, formats
from benchmark.report.robustness import METRICS, NONE, TRAINING, sheet, table, title
from benchmark.study import contents, kept_models
from benchmark.study.identity import Identity
from benchmark.study.kept_models import KeptRun
from benchmark.study.layout import robustness_path
from benchmark.study.passes import held_out_classes
from benchmark.study.prepare import prepare
from benchmark.study.scoring import score_images
from benchmark.study.selected import names_a_study
from benchmark.study.stored import StoredStudy, read_study
from benchmark.study.study import Study
from benchmark.study.testset import Expected, OpenedTestSet, open_test_set, super_labels_of
from benchmark.training.precision import check_precision, effective_precision, use_precision

NUM_EXAMPLES = 8


def robustness(study: Study, overrides: Sequence[str]) -> None:
    """Score the kept models of a study under every corruption, and write the table and a sheet of examples.

    Args:
        study: the study, whose `corruptions` says which ones; all nine of the paper if it is empty.
        overrides: the overrides on the command line.

    Raises:
        UserError: no study or an unknown corruption is named, or the study has kept no weights.
    """
    # 1. find the models
    if not names_a_study(overrides):
        raise UserError(f"Name the study whose models to score: {command('robustness', {'study': 'FOLDER'})}")
    names = [NONE, *chosen_corruptions(study.config.corruptions)]
    stored = read_study(study.directory)
    if TRAINING in names and stored.facts.story != "traditional":
        raise UserError(
            f"corruptions=[{TRAINING}]: each fold of {study.directory} trained on other classes. Name a study of "
            "protocol=traditional, or another corruption."
        )
    with records.only_one(study.directory / "lock", f"Study {study.title}"):
        kept = kept_models.find(study, stored)
        check_data(study, stored, *(["trainval"] * (TRAINING in names)))
        if kept.without:
            write(f"{study.title}: runs without kept weights are left out: {ranges(kept.without)}")
        device = study.make_device()
        check_precision(study.config.precision, device)
        use_precision(study.config.precision, device, study.config.deterministic)
        use_threads(study.config.threads)

        # 2. score what has no record
        units = [Unit(study, stored, kept.chosen, run, name) for run in kept.runs for name in names]
        missing = [unit for unit in units if not unit.is_finished()]
        show = counting(f"{study.title}: runs x corruptions scored", study.config.display)
        for number, unit in enumerate(missing):
            unit.score()
            show(number + 1, len(missing))

        # 3. write the table, and the sheet of examples
        folder = study.directory / "robustness" / kept.chosen
        found = {name: [contents.read(u.path, contents.Robustness) for u in units if u.name == name] for name in names}
        drawn = table("robustness", stored, found)
        paths = formats.write_table(drawn, folder)
        paths += draw_examples(study, [name for name in names if name != TRAINING], folder / "examples")
    for line in [*summary(study, found), *over_fitting(stored, found)]:
        write(line)
    for path in paths:
        write(f"wrote {path}")
    write(f"Next: {study.command('tables')}")


def chosen_corruptions(asked: Sequence[str]) -> list[str]:
    """The corruptions that a command applies, in the order of `CORRUPTIONS`, and then the training classes.

    Args:
        asked: their names, or `TRAINING`; empty for the nine of the paper.

    Raises:
        UserError: there is no corruption of a name.
    """
    allowed = (*CORRUPTIONS, TRAINING)
    if unknown := [name for name in asked if name not in allowed]:
        raise UserError(f"corruptions=[{','.join(asked)}]: there is no {unknown[0]}. Allowed: {', '.join(allowed)}.")
    return [name for name in allowed if name in (asked or PAPER)]


def check_data(study: Study, stored: StoredStudy, *halves: str) -> None:
    """Prepare the test images, and check that the data are those that the models were trained on.

    Args:
        study: the study.
        stored: the content of its `study.yaml`.
        halves: further halves that will be read.

    Raises:
        UserError: they differ, or cannot be prepared.
    """
    if (here := prepare(study, "test", *halves)) != stored.fingerprint:
        raise UserError(
            f"The data of {study.title} have the fingerprint {here} here, but the models were trained on "
            f"{stored.fingerprint}. Run {study.command('data')}, and compare."
        )


@dataclass(frozen=True)
class Unit:
    """The evaluation of one run under one corruption.

    Attributes:
        study: the study.
        stored: the content of its `study.yaml`.
        chosen: name of the folder of its runs.
        run: the run.
        name: name of the corruption, `none` or `training`.
    """

    study: Study
    stored: StoredStudy
    chosen: str
    run: KeptRun
    name: str

    @property
    def path(self) -> Path:
        """Where its record is."""
        return robustness_path(self.study.directory, self.chosen, self.run.number, self.name)

    def identity(self) -> Identity:
        """The identity of its record: that of the run, and the code that scores."""
        return kept_models.robustness_identity(self.stored, self.run.record)

    def is_finished(self) -> bool:
        """Whether there is a record of these models and this code; one that does not belong here is quarantined.

        Raises:
            NewerFileError: a newer version wrote the record.
        """
        try:
            record = contents.read(self.path, contents.Robustness)
        except FileNotFoundError:
            return False
        except records.CorruptFileError as error:
            write(f"{error} It is kept as {records.quarantine(self.path, error.why).name}, and scored again.")
            return False
        if not self.identity().mismatch(record.identity) and record.result["seed"] == self.study.config.seed:
            return True
        kept = records.quarantine(self.path, "other")
        write(f"{self.path} has the scores of other models or other code. It is kept as {kept.name}, and scored again.")
        return False

    def score(self) -> None:
        """Score the run's models, and write the record.

        Raises:
            CorruptFileError: a weights file is damaged, or belongs to another training.
            WriteError: the record cannot be written.
        """
        started, seed, identity = time.perf_counter(), self.study.config.seed, self.identity().to_json()
        entry = {"run": self.run.number, "story": "robustness", "corruption": self.name}
        if self.name == TRAINING:
            test = training_classes(self.study)
        else:
            expected = Expected(self.stored.fingerprint, self.run.record.provenance.get("test_contents"))
            test = open_test_set(self.study, entry | {"commit": commit(), "identity": identity}, expected)
        images = test.images if self.name in (NONE, TRAINING) else CorruptedImages(test.pixels, self.name, seed)
        scores = score_images(self.run.study, self.run.weights, test, images)
        device, precision = test.images.device, self.study.config.precision
        result = {"run": self.run.number, "corruption": self.name, "seed": seed}
        result |= {mode: scores[mode] for mode in ("separated", "concatenated")}
        origin = provenance(
            seconds={"score": time.perf_counter() - started}, test_contents=test.contents,
            device=device_facts(device, effective_precision(precision, device)),
        )  # fmt: skip
        contents.write(self.path, records.Record("robustness", result, origin, identity), contents.Robustness)


def training_classes(study: Study) -> OpenedTestSet:
    """The images of the classes that a model was trained on, every one of them a query, in place of the test images.

    Args:
        study: a study under the traditional protocol.
    """
    split = study.make_dataset().trainval()
    kept_out = held_out_classes(np.asarray(split.class_ids), study.config.protocol.held_out)
    rows = np.flatnonzero(~np.isin(split.labels, kept_out))
    images, pixels = study.make_images(split.images).part(rows), study.make_pixels(split.images).part(rows)
    labels, super_labels = (
        torch.from_numpy(ids[rows]).to(images.device) for ids in (split.labels, super_labels_of(split))
    )
    return OpenedTestSet(images, pixels, labels, super_labels, None, None, {})


def draw_examples(study: Study, names: Sequence[str], stem: Path) -> list[Path]:
    """Write a sheet of test images under each corruption, unless it exists, and return its path.

    Args:
        study: the study.
        names: names of the corruptions, the first of them `none`.
        stem: path of the sheet without its suffix.
    """
    stem = stem.with_name("_".join([stem.name, *(names[1:] if tuple(names[1:]) != PAPER else ())]))
    path = stem.with_name(f"{stem.name}.png")
    if path.exists():
        return [path]
    test = open_test_set(study, {"story": "robustness", "looks": "examples of corrupted images", "commit": commit()})
    rows = np.linspace(0, len(test.pixels) - 1, min(NUM_EXAMPLES, len(test.pixels))).astype(np.int64)
    shown = {}
    for name in names:
        images = test.pixels if name == NONE else CorruptedImages(test.pixels, name, study.config.seed)
        shown[name] = images.plain(rows).permute(0, 2, 3, 1).cpu().numpy()
    return figures.save(sheet(shown), stem, ("png",))


def summary(study: Study, found: dict[str, list[records.Record]]) -> list[str]:
    """The mean over runs under each corruption, one line each."""
    count = len(found[NONE])
    lines = [f"\n{study.title}, corrupted test images: mean over n = {count} run{'s' * (count > 1)}, %"]
    for name, scored in found.items():
        cells = [
            f"{text} {100 * sum(r.result['concatenated'][key] for r in scored) / count:6.2f}"
            for key, text in METRICS.items()
        ]
        lines.append(f"  {title(name):20s} {'   '.join(cells)}")
    return lines


def over_fitting(stored: StoredStudy, found: dict[str, list[records.Record]]) -> list[str]:
    """How much higher the training classes score than the test classes, as a line; none if they were not scored.

    Args:
        stored: the study.
        found: for each corruption, the records of the same runs.
    """
    cells = []
    for key, text in METRICS.items() if TRAINING in found else ():
        pairs = zip(found[TRAINING], found[NONE], strict=True)
        gap = t_interval([100 * (a.result["concatenated"][key] - b.result["concatenated"][key]) for a, b in pairs],
                         stored.facts.confidence)  # fmt: skip
        cells.append(f"{text} {plus_minus(gap.mean, gap.half_width, sign='+')}")
    return [f"  training minus test classes: {', '.join(cells)}"] if cells else []
