"""Assemble a training: its data, components and schedule, with all their seeds."""

import functools
import platform
from collections.abc import Mapping

import numpy as np
import torch

from benchmark.core.errors import UserError
from benchmark.datasets import Dataset, Split
from benchmark.images import Images
from benchmark.protocol.folds import Fold
from benchmark.protocol.label_noise import with_symmetric_noise
from benchmark.protocol.seeds import stable_seed
from benchmark.study import recipes
from benchmark.study.study import Study
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents

SeedPrefix = tuple[int | str, ...]


class OtherDataError(UserError):
    """The data on this machine are not the data that the study was started with."""


def build(
    study: Study, setting: Mapping[str, float | int], *, fingerprint: str, kind: str, index: int, fold: int
) -> tuple[TrainingComponents, Schedule]:
    """Fresh components and the schedule for training one fold.

    All seeds derive from (seed, data set, kind, index, fold) and from no name of a loss, so that losses are compared on
    paired runs, and two losses with equal proxies start from the same ones.

    Args:
        study: the study to train, without `setting` applied.
        setting: hyper-parameters that replace the loss's own.
        fingerprint: identifies the driver's data.
        kind: `trial` or `run`.
        index: number of the trial or run.
        fold: number of the fold.

    Raises:
        OtherDataError: this machine's data differ from the driver's.
        UserError: a component refuses its configuration.
    """
    split, folds = _trainval(study, fingerprint)
    study = study.with_setting(setting)
    images, labels, classes = study.make_images(split.images), split.labels, folds[fold]
    seed_prefix = (study.seed, study.config.dataset.name, kind, index, fold)
    train, validation = (
        np.flatnonzero(np.isin(labels, c)) for c in (classes.train_classes, classes.validation_classes)
    )
    parts = make_parts(study, split, images.part(train), labels[train], seed_prefix)
    parts.validation = EvaluationSet(images.part(validation), torch.from_numpy(labels[validation]).to(images.device))
    return parts, make_schedule(study, stable_seed(*seed_prefix, "train"))


def make_parts(
    study: Study, split: Split, images: Images, labels: np.ndarray, seed_prefix: SeedPrefix
) -> TrainingComponents:
    """Components that train on the given images, without evaluation sets.

    Args:
        study: the study, with the setting to train.
        split: the half of the data that the images belong to.
        images: N training images.
        labels: (N,) int64, global class id of each image.
        seed_prefix: common prefix of the keys of all seeds; losses with equal prefixes are paired.

    Raises:
        UserError: a component refuses its configuration.
    """
    classes = np.unique(labels)
    ranked = np.searchsorted(classes, labels)  # (N,) 0..C-1 by sorted rank, as in MLRC
    class_to_super = split.super_labels[np.searchsorted(np.asarray(split.class_ids), classes)]  # (C,)
    if share := study.config.protocol.label_noise:  # within the training classes; nothing else reads these labels
        ranked = with_symmetric_noise(ranked, share, stable_seed(*seed_prefix, "label_noise"))
    trunk = study.make_trained_trunk(images, stable_seed(*seed_prefix, "trunk"))
    head = study.make_head(trunk.out_features, stable_seed(*seed_prefix, "head"))
    loss = study.make_loss(len(classes), stable_seed(*seed_prefix, "loss"), class_to_super, num_images=len(ranked))
    for part in (trunk, head, loss):
        part.to(images.device)
    return TrainingComponents(
        trunk, head, loss,
        study.make_optimizers(trunk=trunk, head=head, loss=loss),
        study.make_sampler(ranked, stable_seed(*seed_prefix, "batches")),
        images, torch.from_numpy(ranked).to(images.device), validation=None, precision=study.config.precision,
    )  # fmt: skip


def make_schedule(study: Study, seed: int) -> Schedule:
    """The protocol's and the data set's constants for one training.

    Args:
        study: the study that the training belongs to.
        seed: seeds the augmentation.
    """
    c = study.config
    return Schedule(
        iterations_per_epoch=c.protocol.iterations_per_epoch,
        evaluate_every=c.dataset.evaluate_every,
        patience=c.dataset.patience,
        max_epochs=0 if c.loss.untrained else c.dataset.max_epochs,
        freeze_batchnorm=c.training.freeze_batchnorm,
        retrieval=c.loss.retrieval,
        retrieval_options=c.loss.retrieval_options,
        warmup_epochs=recipes.warmup_epochs(c),
        clip=c.training.clip or {},
        gradient_chunk=c.training.gradient_chunk or 0,
        decay=c.training.decay or {},
        seed=seed,
    )


@functools.lru_cache(maxsize=2)
def _trainval(study: Study, fingerprint: str) -> tuple[Split, list[Fold]]:
    """The training classes and their folds, cached for the units of a long-lived worker."""
    dataset = same_dataset(study, fingerprint)
    split = dataset.trainval()
    return split, study.make_folds(np.asarray(split.class_ids), dataset.total_classes)


def same_dataset(study: Study, fingerprint: str) -> Dataset:
    """The study's data set on this machine, which must equal the driver's.

    Args:
        study: the study whose data set is built.
        fingerprint: identifies the driver's data.

    Raises:
        OtherDataError: this machine's data differ.
    """
    dataset: Dataset = study.make_dataset()
    if dataset.fingerprint != fingerprint:
        raise OtherDataError(
            f"Data set {study.config.dataset.name} on {platform.node()} has fingerprint {dataset.fingerprint}, but the "
            f"study was started with {fingerprint}. Run {study.command('data')} on both machines and compare."
        )
    return dataset
