"""What can be made ready and checked before any training, so that a mistake costs seconds and not hours."""

import re
from typing import Any

import numpy as np

from benchmark.study import Study

CHOICES = {
    "protocol.noise": ("inferred", "fold_sem"),
    "protocol.select": ("raw", "model"),
    "protocol.fold_rule": ("auto", "mlrc", "kfold"),
    "keep": ("none", "best"),
    "display": ("auto", "live", "plain", "quiet"),
    "executor.name": ("inline", "local"),
}
POSITIVE = ("trials", "threads", "protocol.batch_size", "protocol.embedding_dim", "protocol.num_runs",
            "protocol.iterations_per_epoch", "dataset.evaluate_every", "dataset.max_epochs")  # fmt: skip
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")


def prepare(study: Study) -> str:
    """Build the data set's cache where it is missing, saying so, and return the data's fingerprint."""
    dataset = study.make_dataset()
    found = dataset.prepare()
    if found["drawn"]:
        print(describe(study, found), flush=True)
    return str(dataset.fingerprint)


def describe(study: Study, found: dict[str, Any]) -> str:
    """What a data set holds, a line each."""
    halves = [
        f"{half}: {found[half]['images']:,} images, {found[half]['classes']:,} classes, "
        f"{found[half]['super_classes']} super classes"
        for half in ("trainval", "test")
    ]
    rest = [f"{key}: {found[key]}" for key in ("licence", "fingerprint", "folder")]
    return "\n  ".join([f"{study.config.dataset.label}: {found['images']:,} images", *halves, *rest])


def check_before_search(study: Study) -> None:
    """Check names, choices, the search space, the folds, and the loss at the corners of its space.

    Raises:
        ValueError: something cannot work; the message says what, which values are allowed and what to do.
    """
    check_values(study)
    check_space(study)
    check_folds(study)


def check_values(study: Study) -> None:
    """Names that become paths, choices, and numbers that must be positive."""
    c = study.config
    for name in (c.dataset.name, c.loss.name, c.trunk.name, c.protocol.name, *([c.variant] if c.variant else [])):
        if not NAME.fullmatch(name):
            raise ValueError(f"Name {name!r} becomes part of a path: use letters, digits and underscores only.")
    for key, allowed in CHOICES.items():
        if (value := _get(study, key)) not in allowed:
            raise ValueError(f"{key}={value!r}: allowed are {', '.join(allowed)}.")
    for key in POSITIVE:
        if _get(study, key) < 1:
            raise ValueError(f"{key}={_get(study, key)}: must be at least 1.")
    if c.protocol.num_folds < 2:
        raise ValueError(f"protocol.num_folds={c.protocol.num_folds}: cross-validation needs at least 2.")


def _get(study: Study, key: str) -> Any:
    value: Any = study.config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def check_space(study: Study) -> None:
    """Bounds in order, positive where the scale is log, and the published setting inside them."""
    space, setting = study.make_space(), study.config.loss.setting
    file = f"conf/loss/{study.config.loss.name}.yaml"
    if not space:
        raise ValueError(f"{file} has no search space: nothing to search.")
    for name, parameter in space.items():
        low, high = parameter.bounds
        if parameter.scale not in ("linear", "log") or parameter.type not in ("float", "int"):
            raise ValueError(
                f"loss.space.{name}: scale is linear or log, type is float or int; got {parameter.scale}, {parameter.type}."
            )
        if not low < high or (parameter.scale == "log" and low <= 0):
            raise ValueError(f"loss.space.{name}.bounds=[{low:g}, {high:g}]: need low < high, and low > 0 on a log scale.")
        if name not in setting:
            raise ValueError(f"{file} searches {name} but has no setting.{name} (its published or recommended value).")
        if not low <= float(setting[name]) <= high:
            raise ValueError(
                f"loss.setting.{name}={setting[name]:g} lies outside its space [{low:g}, {high:g}]. Change the value, or "
                f"widen the space: loss.space.{name}.bounds=[LOW,HIGH]."
            )


def check_folds(study: Study) -> None:
    """Build folds, sampler and loss for the smallest fold, at the defaults and both ends of the space."""
    dataset = study.make_dataset()
    split = dataset.trainval()
    folds = study.make_folds(np.asarray(split.class_ids), dataset.total_classes)
    smallest = min(folds, key=lambda fold: len(fold.train_classes))
    fewest = min(len(fold.validation_classes) for fold in folds)
    if fewest < 2:
        raise ValueError(
            f"{study.config.dataset.name} has a fold with {fewest} validation class(es); retrieval needs at least 2. "
            f"It has {len(split.class_ids)} classes for {len(folds)} folds: lower protocol.num_folds."
        )
    classes = np.sort(smallest.train_classes)
    labels = split.labels[np.isin(split.labels, classes)]
    study.make_sampler(np.searchsorted(classes, labels), seed=0)
    class_to_super = split.super_labels[np.searchsorted(np.asarray(split.class_ids), classes)]
    space = study.make_space()
    corners = {
        "its setting": {},
        "the lower ends of its search space": {name: _typed(p, p.bounds[0]) for name, p in space.items()},
        "the upper ends of its search space": {name: _typed(p, p.bounds[1]) for name, p in space.items()},
    }
    for where, setting in corners.items():
        try:
            Study.of(study.raw, setting).make_loss(len(classes), 0, class_to_super)
        except ValueError as error:
            raise ValueError(
                f"{study.config.loss.name} cannot be built at {where} for {len(classes)} training classes: {error}"
            ) from error


def _typed(parameter: Any, value: float) -> float | int:
    return int(value) if parameter.type == "int" else float(value)
