"""A unit -> what it trains: data, components and schedule, with all their seeds."""

import functools
import json
from typing import Any

import numpy as np
import torch

from benchmark.datasets import Split
from benchmark.images import Images
from benchmark.protocol.folds import Fold
from benchmark.protocol.seeds import stable_seed
from benchmark.study import recipes
from benchmark.study.study import Study
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents


def build(spec: dict[str, Any]) -> tuple[TrainingComponents, Schedule]:
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
    parts.validation = EvaluationSet(images.part(validation), torch.from_numpy(labels[validation]).to(images.device))
    return parts, make_schedule(study, stable_seed(*key, "train"))


def make_parts(
    study: Study, split: Split, images: Images, labels: np.ndarray, key: tuple[Any, ...]
) -> TrainingComponents:
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
    return TrainingComponents(
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
