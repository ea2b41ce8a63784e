"""Checks before any training, so that a mistake costs seconds and not hours."""

import json
import math
import operator
import re
from collections.abc import Iterator

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments
from benchmark.core.typed import LARGEST_INT
from benchmark.protocol.folds import Fold
from benchmark.searchers import Parameter, Value
from benchmark.study.config import TrainingConfig
from benchmark.study.stored import check_references
from benchmark.study.study import Study
from benchmark.training.lr_schedule import learning_rate_factor

CHOICES: dict[str, tuple[str | bool, ...]] = {
    "protocol.noise": ("inferred", "fold_sem"),
    "protocol.select": ("raw", "model"),
    "protocol.fold_rule": ("auto", "mlrc", "kfold"),
    "loss.retrieval": ("cosine", "l2", "hyperbolic"),
    "protocol.loss_optimizer": ("searched", "authors"),
    "keep": ("none", "best"),
    "display": ("auto", "live", "plain", "quiet"),
    "decode": ("once", "always"),
    "precision": ("ieee", "tf32", "bf16"),
    "training.freeze_batchnorm": (True, False, "all"),
}
AT_LEAST = dict.fromkeys(("trials", "threads", "protocol.batch_size", "protocol.embedding_dim", "protocol.num_runs",
                          "protocol.iterations_per_epoch", "dataset.evaluate_every", "dataset.max_epochs"), 1) | {
    "protocol.num_folds": 2, "seed": 0, "dataset.patience": 0, "training.shift": 0, "executor.retries": 0,
    "searcher.round": 1}  # fmt: skip
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}")


def check_before_search(study: Study) -> None:
    """Check the search space and the folds, and build every component of a training once.

    Raises:
        UserError: a value is not allowed; the message has the allowed values and the next step.
    """
    check_space(study)
    check_parts(study)


def check_values(study: Study, story: str = "search") -> None:
    """Check names that become paths, choices, and ranges of numbers, before the study's folder is created.

    Args:
        study: the study to check.
        story: the command that is running, as in `protocol.story`.

    Raises:
        UserError: a value is not allowed; the message has the key, its value and the allowed values.
    """
    c = study.config
    if c.protocol.story != story:
        target = "traditional" if c.protocol.story == "traditional" else "bo"
        raise UserError(f"protocol={c.protocol.name} is run by another command: {study.command(target)}")
    for key in ("dataset.name", "loss.name", "trunk.name", "protocol.name", "variant", "preset"):
        if not NAME.fullmatch(name := operator.attrgetter(key)(c)) and (name or key not in ("variant", "preset")):
            raise UserError(f"{key}={name!r} becomes part of a path: use up to 64 letters, digits and underscores.")
    for key, allowed in CHOICES.items():
        if (value := operator.attrgetter(key)(c)) not in allowed:
            raise UserError(f"{key}={value!r}: allowed are {', '.join(str(a).lower() for a in allowed)}.")
    for key, lowest in AT_LEAST.items():
        if (value := operator.attrgetter(key)(c)) < lowest:
            raise UserError(f"{key}={value}: must be at least {lowest}.")
    if c.seed > LARGEST_INT:
        raise UserError(f"seed={c.seed}: must be at most {LARGEST_INT}, the largest integer that records can hold.")
    if c.searcher.asynchronous and c.searcher.round == 1:
        raise UserError("searcher.asynchronous=true with searcher.round=1 trains one trial at a time; say how many "
                        "may train together, such as searcher.round=4.")  # fmt: skip
    if c.image_threads != "auto" and (type(c.image_threads) is not int or c.image_threads < 0):
        raise UserError(f"image_threads={c.image_threads!r}: give a whole number of at least 0, or auto.")
    try:
        check_references(study.raw)  # else its study.yaml could be written, but not read
    except ValueError as error:
        raise UserError(f"{error}. Write the value itself.") from error
    if strange := list(_not_finite(study.raw)):
        raise UserError(f"{', '.join(strange)}: only finite numbers can be recorded; give one, or omit the key.")
    check_training(c.training)
    if not 0 < c.protocol.confidence < 1:
        raise UserError(f"protocol.confidence={c.protocol.confidence:g}: must lie between 0 and 1, such as 0.95.")
    if (minutes := c.executor.timeout_minutes) is not None and not minutes > 0:
        raise UserError(f"executor.timeout_minutes={minutes:g}: give a number above 0, or null for no limit.")
    if c.device not in ("auto", "cpu") and c.device not in (here := devices()):
        raise UserError(f"device={c.device!r}: allowed on this machine are {', '.join(here)}.")


def check_training(training: TrainingConfig) -> None:
    """Check the lengths, the learning-rate schedule and the gradient clipping of a training.

    Raises:
        UserError: a value is out of range, or an option is unknown.
    """
    for key, lowest in {"batch_size": 1, "epochs": 1, "warmup_epochs": 0}.items():
        if (value := getattr(training, key)) is not None and value < lowest:
            raise UserError(f"training.{key}={value}: must be at least {lowest}.")
    learning_rate_factor(training.decay or {}, 1, 1)  # refuses unknown options
    clip = training.clip or {}
    if len(clip) > 1 or not clip.keys() <= {"value", "norm"} or any(limit <= 0 for limit in clip.values()):
        raise UserError(f"training.clip={clip}: give value or norm with a number above 0, such as {{value: 10}}.")


def _not_finite(node: object, key: str = "") -> Iterator[str]:
    """Yield every non-finite number in a node, as `key=value`."""
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _not_finite(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, float) and not math.isfinite(node):
        yield f"{key}={node}"


def devices() -> list[str]:
    """Names of the devices that PyTorch can use on this machine."""
    import torch

    count = torch.cuda.device_count()
    gpus = ["cuda", *(f"cuda:{i}" for i in range(count))] if count else []
    return ["auto", "cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def check_space(study: Study) -> None:
    """Check the bounds of the search space, and that every setting lies within them and is used.

    Raises:
        UserError: bounds are out of order or do not fit their scale, or a setting is unused or outside its bounds.
    """
    loss, text = study.config.loss, json.dumps(study.raw)
    for name in loss.setting:
        if f"loss.setting.{name}" not in text:
            used = ", ".join(n for n in loss.setting if n != name)
            raise UserError(f"loss.setting.{name} is not used: {loss.name} takes {used}. Remove it.")
    if not loss.space:
        raise UserError(
            f"conf/loss/{loss.name}.yaml has no search space, so there is nothing to search. Add one under space."
        )
    for name, p in loss.space.items():
        limits = study.bounds(name)
        key, bounds = f"loss.space.{name}", "[" + ", ".join(f"{b:g}" for b in limits) + "]"
        if p.scale not in ("linear", "log") or p.type not in ("float", "int"):
            raise UserError(f"{key}: scale={p.scale} may be linear or log, type={p.type} may be float or int.")
        if len(limits) != 2 or not limits[0] < limits[1]:
            raise UserError(f"{key}.bounds={bounds}: give two numbers, the lower one first.")
        if p.scale == "log" and limits[0] <= 0:
            raise UserError(f"{key}.bounds={bounds}: a log scale needs a lower bound above 0; or {key}.scale=linear.")
        if p.type == "int" and any(b != int(b) for b in limits):
            raise UserError(f"{key}.bounds={bounds}: type int needs whole numbers; or {key}.type=float.")
        if name not in loss.setting:
            raise UserError(
                f"{key}: {loss.name} has no setting {name}, only {', '.join(loss.setting)}. Give its published or "
                f"recommended value too: +loss.setting.{name}=VALUE."
            )
        # Bounds of one data set may exclude the default, which then matters only as trial 0.
        if p.bounds == limits or study.config.protocol.defaults_first:
            check_setting(name, loss.setting[name], bounds, limits)


def check_setting(name: str, value: object, bounds: str, limits: list[float]) -> None:
    """Check that a published setting is a number within its bounds.

    Args:
        name: the hyper-parameter's name.
        value: its published value.
        bounds: the bounds, for messages.
        limits: lowest and highest value.

    Raises:
        UserError: it is not a number, or lies outside its bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"loss.setting.{name}={value}: give a number within {bounds}.")
    if not limits[0] <= value <= limits[1]:
        raise UserError(
            f"loss.setting.{name}={value:g} lies outside its space {bounds}. Change the value, or widen the space: "
            f"loss.space.{name}.bounds=[LOW,HIGH]."
        )


def check_parts(study: Study) -> None:
    """Build the components of the smallest fold, with the loss at its published setting and both ends of its space.

    An exception other than `UserError` in the constructor of a plug-in is a defect and passes through.

    Raises:
        UserError: a plug-in refuses its options; for a loss, the message says at which end of the space.
    """
    from benchmark.study.data import num_channels

    dataset = study.make_dataset()
    split = dataset.trainval()
    class_ids = np.asarray(split.class_ids)
    classes = smallest_fold(study, class_ids, dataset.total_classes)
    labels = split.labels[np.isin(split.labels, classes)]
    study.make_sampler(np.searchsorted(classes, labels), seed=0)
    trunk = study.make_trunk(num_channels(split.images), seed=0)
    head = study.make_head(trunk.out_features, seed=0)
    study.make_searcher()
    class_to_super = split.super_labels[np.searchsorted(class_ids, classes)]
    for where, setting in corners(study.make_space()).items():
        at = Study.of(study.raw, setting)
        try:
            loss = at.make_loss(len(classes), 0, class_to_super, len(labels))
        except UserError as error:
            fold = f"in a fold of {len(classes)} training classes"
            advice = "\nNarrow the space: loss.space.NAME.bounds=[LOW,HIGH]." if setting else ""
            raise UserError(f"{at.config.loss.name} cannot be built {where}, {fold}: {error}{advice}") from error
        at.make_optimizers(trunk=trunk, head=head, loss=loss)


def corners(space: dict[str, Parameter]) -> dict[str, dict[str, Value]]:
    """Settings with which the loss must build, by their description in messages; the published one is empty."""
    return {
        "at its setting": {},
        "at the lower ends of its search space": {name: p.cast(p.bounds[0]) for name, p in space.items()},
        "at the upper ends of its search space": {name: p.cast(p.bounds[1]) for name, p in space.items()},
    }


def folds_of(study: Study, class_ids: np.ndarray, total_classes: int) -> list[Fold]:
    """Divide the classes that may be trained on into the protocol's folds.

    Args:
        study: the study whose protocol sets the number of folds.
        class_ids: int64 (C,), ids of the classes.
        total_classes: number of classes in both halves.

    Raises:
        UserError: there are fewer classes than folds.
    """
    num_classes, num_folds = len(class_ids), study.config.protocol.num_folds
    if num_classes >= num_folds:
        return study.make_folds(class_ids, total_classes)
    least = max(2, num_classes)
    raise UserError(
        f"{study.config.dataset.label} ({study.config.dataset.name}) has {num_classes} of {total_classes} classes to "
        f"train and validate on, and protocol.num_folds={num_folds} needs {num_folds} or more: each fold validates on "
        f"different ones. Add classes, or take fewer folds: {arguments({'protocol.num_folds': least})} needs {least}."
    )


def smallest_fold(study: Study, class_ids: np.ndarray, total_classes: int) -> np.ndarray:
    """Training classes of the fold that has the fewest, as ascending ids, int64 (C_fold,).

    Args:
        study: the study whose protocol sets the number of folds.
        class_ids: int64 (C,), ids of the classes that may be trained on.
        total_classes: number of classes in both halves.

    Raises:
        UserError: there are fewer classes than folds, or a fold has fewer than 2 validation classes.
    """
    folds = folds_of(study, class_ids, total_classes)
    fewest = min(len(fold.validation_classes) for fold in folds)
    if fewest < 2:
        raise UserError(
            f"protocol.num_folds={len(folds)}: {study.config.dataset.name} has {len(class_ids)} classes, which leaves "
            f"{fewest} for validation in a fold, and retrieval needs at least 2. Take fewer folds."
        )
    return np.sort(min((fold.train_classes for fold in folds), key=len))
