"""Training under the traditional protocol: its images, its epochs as passes over them, and the epochs it reports.

Source: the protocol that the papers of deep metric learning use, see `benchmark/traditional.py`.
"""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.datasets import Split
from benchmark.protocol.seeds import stable_seed
from benchmark.study import schedules
from benchmark.study.assemble import SeedPrefix, make_parts, make_schedule, same_dataset
from benchmark.study.study import Study
from benchmark.study.testset import Expected, OpenedTestSet, open_test_set
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents

SHUFFLED = {"_target_": "benchmark.samplers.random.Random"}


@dataclass(frozen=True)
class Plan:
    """The data that every run of a study trains on, and the study adapted to their number.

    Attributes:
        study: the study in passes over the data, see `in_passes`.
        split: the training half of the data, N images.
        train: rows of the images to train on, ascending.
        held_out: rows of the held-out images, on which the epoch is chosen, ascending.
    """

    study: Study
    split: Split
    train: np.ndarray
    held_out: np.ndarray


@functools.lru_cache(maxsize=2)
def make_plan(study: Study, fingerprint: str) -> Plan:
    """Divide the training half into training and held-out images; cached for the units of a long-lived worker.

    Args:
        study: the study as configured.
        fingerprint: identifies the driver's data.

    Raises:
        OtherDataError: this machine's data differ from the driver's.
        UserError: `protocol.held_out` or the batch size does not fit the data.
    """
    split = same_dataset(study, fingerprint).trainval()
    kept_out = np.isin(split.labels, held_out_classes(np.asarray(split.class_ids), study.config.protocol.held_out))
    train_rows = np.flatnonzero(~kept_out)
    return Plan(in_passes(study, len(train_rows)), split, train_rows, np.flatnonzero(kept_out))


def held_out_classes(class_ids: np.ndarray, share: float) -> np.ndarray:
    """The last classes (H,) in ascending order, held out to choose the epoch; none for a share of 0.

    Args:
        class_ids: (C,) int64, ids of the training classes.
        share: fraction of the classes, in [0, 1).

    Raises:
        UserError: fewer than two classes would be held out, or remain for training.
    """
    count = round(share * len(class_ids))
    if share != 0 and not 2 <= count <= len(class_ids) - 2:
        raise UserError(
            f"protocol.held_out={share:g}: {count} of {len(class_ids)} classes would be held out to choose the epoch. "
            "Give 0, or a share that leaves 2 or more on each side: "
            f"{2 / len(class_ids):.3g} to {1 - 2 / len(class_ids):.3g}."
        )
    return np.sort(class_ids)[len(class_ids) - count :]


def in_passes(study: Study, num_images: int) -> Study:
    """The study with epochs that are passes over the training images.

    A pass leaves out the incomplete last batch. The loss's schedule is converted to passes, every epoch is scored, and
    there is no early stopping. Proxy losses, which get class-balanced batches under the other protocols, get those of
    `training.sampler`, or shuffled ones.

    Args:
        study: the study as configured.
        num_images: number of training images.

    Raises:
        UserError: the batch size exceeds the number of training images.
    """
    raw, c = copy.deepcopy(study.raw), study.config
    batch_size, num_epochs = c.training.batch_size or c.protocol.batch_size, c.training.epochs or c.dataset.max_epochs
    if batch_size > num_images:
        raise UserError(
            f"A batch of {batch_size} images exceeds the {num_images} training images of {study.title}. Set "
            f"training.batch_size={max(2, num_images // 4)} or less."
        )
    raw["protocol"]["batch_size"] = batch_size
    raw["dataset"] |= {"max_epochs": num_epochs, "patience": num_epochs, "evaluate_every": 1}
    if c.loss.sampler == {"m": 1}:
        raw["loss"]["sampler"] = c.training.sampler or SHUFFLED
    if c.training.epochs:
        batches = num_images // batch_size
        raw["protocol"]["iterations_per_epoch"] = batches
        if "usual" in c.loss.schedule:
            usual = schedules.in_passes(c.loss.schedule, batches, c.protocol.iterations_per_epoch)
            raw["loss"]["schedule"]["usual"] = usual
    return Study.of(raw)


def trained_parts(plan: Plan, run: int) -> TrainingComponents:
    """The components of a run on all classes that are not held out, without evaluation sets."""
    images = plan.study.make_images(plan.split.images).part(plan.train)
    return make_parts(plan.study, plan.split, images, plan.split.labels[plan.train], seed_prefix(plan, run))


def seed_prefix(plan: Plan, run: int) -> SeedPrefix:
    """The common prefix of a run's seeds; it does not include the loss, so that losses are compared on paired runs."""
    return plan.study.config.seed, plan.study.config.dataset.name, "traditional", run


def build(
    plan: Plan, study: Study, run: int, entry: JsonObject, expected: Expected
) -> tuple[OpenedTestSet, TrainingComponents, Schedule]:
    """The test classes, fresh components of a run that monitor them, and its schedule; the access is logged first.

    Args:
        plan: what all runs train on.
        study: the study as configured, whose folder holds the test ledger.
        run: number of the run.
        entry: further fields of the entry in the test ledger.
        expected: the data that this machine must have.

    Raises:
        OtherDataError: this machine has other data.
    """
    planned = plan.study
    parts, device = trained_parts(plan, run), planned.make_device()
    if len(plan.held_out):
        images = planned.make_images(plan.split.images).part(plan.held_out)
        parts.validation = EvaluationSet(images, torch.from_numpy(plan.split.labels[plan.held_out]).to(device))
    looks = {"run": run, "story": "traditional", "looks": "after every epoch, the best of which is reported"}
    test = open_test_set(study, looks | entry, expected)
    parts.monitored = EvaluationSet(test.images, test.labels, test.is_query, tuple(planned.config.dataset.recall_at))
    return test, parts, make_schedule(planned, stable_seed(*seed_prefix(plan, run), "train"))


def select(history: Sequence[JsonObject], held_out_epoch: int | None, completed: bool) -> dict[str, JsonObject | None]:
    """Test metrics at each reported epoch, by the keys of `traditional_rows.KINDS`; None without such an epoch.

    Args:
        history: one row per epoch, the untrained one first.
        held_out_epoch: the epoch chosen on the held-out classes; None if there are none.
        completed: whether the training reached its last epoch.
    """
    trained = [row for row in history if row["epoch"] > 0]
    best = max(trained, key=lambda row: float(row["watched"]["precision_at_1"]), default=None)  # ties: the earliest
    chosen = {
        "best_on_test": best,
        "last_epoch": trained[-1] if completed else None,
        "held_out": next((row for row in trained if row["epoch"] == held_out_epoch), None),
    }
    return {kind: row and {"epoch": row["epoch"]} | row["watched"] for kind, row in chosen.items()}
