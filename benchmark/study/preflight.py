"""Checks before any training, so that a mistake costs seconds and not hours."""

import json
import math
import operator
import re
from collections.abc import Iterator
from typing import get_args

import numpy as np

from benchmark.core.devices import check_device_name
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments, command
from benchmark.core.names import check_case, check_name
from benchmark.core.pretraining import image_sets
from benchmark.core.typed import LARGEST_INT
from benchmark.protocol.folds import Fold
from benchmark.searchers import Parameter, Rule, Value
from benchmark.study import spaces
from benchmark.study.config import Node, TrainingConfig
from benchmark.study.stored import check_references
from benchmark.study.study import Study
from benchmark.training.lr_schedule import learning_rate_factor

CHOICES: dict[str, tuple[str | bool | None, ...]] = {
    "protocol.noise": ("inferred", "fold_sem"),
    "protocol.select": get_args(Rule),
    "protocol.failed": ("worst", "zero", None),
    "protocol.fold_rule": ("auto", "mlrc", "kfold"),
    "loss.retrieval": ("cosine", "l2", "hyperbolic"),
    "protocol.loss_optimizer": ("searched", "authors"),
    "folds": ("concatenated", "separated"),
    "keep": ("none", "first", "best"),
    "tracker": ("none", "tensorboard", "wandb", "mlflow"),
    "descriptor": ("thumbnail", "features"),
    "display": ("auto", "live", "plain", "quiet"),
    "decode": ("once", "always"),
    "image_memory": ("auto", "device", "pinned", "host"),
    "precision": ("ieee", "tf32", "bf16", "fast"),
    "training.freeze_batchnorm": (True, False, "all"),
    "training.space_scales": spaces.SCALES,
}
# Lowest and highest number that a key allows; null is checked elsewhere. The upper ends are far beyond what is useful:
# they only keep a slip of the finger from filling the memory or the disk.
RANGES: dict[str, tuple[int, int]] = {
    "seed": (0, LARGEST_INT),  # the largest integer that records can hold
    "trials": (1, 100_000),
    "searches": (1, 1000),
    "search": (0, 999),
    "threads": (1, 1024),
    "protocol.trials": (1, 100_000),
    "protocol.batch_size": (1, 1_000_000),
    "protocol.embedding_dim": (1, 65_536),
    "protocol.num_folds": (2, 1000),
    "protocol.num_runs": (1, 10_000),
    "protocol.iterations_per_epoch": (1, 100_000_000),
    "dataset.trials": (1, 100_000),
    "dataset.evaluate_every": (1, 1_000_000),
    "dataset.patience": (0, 1_000_000),
    "dataset.max_epochs": (1, 1_000_000),
    "dataset.iterations_per_epoch": (1, 100_000_000),
    "dataset.recall_at": (1, 1_000_000),
    "training.shift": (0, 1024),
    "training.views": (1, 1000),
    "training.batch_size": (1, 1_000_000),
    "training.gradient_chunk": (0, 1_000_000),
    "training.epochs": (1, 1_000_000),
    "training.warmup_epochs": (0, 1_000_000),
    "trunk.width": (1, 4096),
    "trunk.crop": (1, 4096),
    "executor.workers": (1, 100_000),
    "executor.retries": (0, 1_000_000),
    "searcher.round": (1, 10_000),
    "image_threads": (0, 1024),
    "checkpoint_seconds": (0, 86_400),
    "bootstrap": (0, 1_000_000),
    "classes": (0, 1_000_000),
    "keep_epochs": (1, 1_000_000),
    "run": (0, 10_000),
    "nearest": (1, 1_000_000),
    "embed_batch": (1, 1_000_000),
}
NOT_NEGATIVE = ("lr", "weight_decay", "momentum", "dampening", "eps", "lr_multiplier")  # options of optimisers
NAMES = ("dataset.name", "loss.name", "trunk.name", "head.name", "training.name", "protocol.name", "searcher.name",
         "executor.name", "variant", "preset")  # fmt: skip
MAY_BE_EMPTY = ("variant", "preset")


def check_values(study: Study, story: str = "search") -> None:
    """Check names that become paths, choices, and ranges of numbers, before anything is written.

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
    if story == "traditional" and c.loss.untrained:
        instead = command("final-eval", {"loss": c.loss.name})
        raise UserError(f"loss={c.loss.name}: it trains nothing, so it has no epochs to report. Run {instead}.")
    _check_names(study)
    for key, allowed in CHOICES.items():
        if (value := operator.attrgetter(key)(c)) not in allowed:
            words = ("null" if choice is None else str(choice).lower() for choice in allowed)
            raise UserError(f"{key}={value!r}: allowed are {', '.join(words)}.")
    for key in ("dataset.label", "loss.label"):
        if not operator.attrgetter(key)(c).strip():
            raise UserError(f"{key} is empty: it is the name in tables. Give a text, or leave {key}= out.")
    try:
        check_references(study.raw | {"study": ""})  # else its study.yaml could be written, but not read
    except ValueError as error:
        raise UserError(f"{error}. Write the value itself.") from error
    if strange := list(_not_finite(study.raw)):
        raise UserError(f"{', '.join(strange)}: only finite numbers can be recorded; give one, or omit the key.")
    if c.image_threads != "auto" and type(c.image_threads) is not int:
        raise UserError(f"image_threads={c.image_threads!r}: give a whole number of at least 0, or auto.")
    for key in RANGES:
        check_range(key, operator.attrgetter(key)(c))
    if c.searcher.asynchronous and c.searcher.round == 1:
        raise UserError("searcher.asynchronous=true with searcher.round=1 trains one trial at a time; say how many "
                        "may train together, such as searcher.round=4.")  # fmt: skip
    if (points := c.searcher.stop_behind) is not None and not 0 < points <= 100:
        raise UserError(f"searcher.stop_behind={points:g}: give points of MAP@R above 0 and at most 100, such as 2, or "
                        "null to train every fold.")  # fmt: skip
    _check_searches(study)
    _check_rule(study)
    if c.preset == "base" and c.protocol.story != "search":
        raise UserError(f"preset=base: protocol={c.protocol.name} has no searches, so {c.loss.name}'s base has none.")
    _check_pretraining(study)
    check_training(c.training)
    _check_batches(study)
    check_optimizer("loss.optimizer", c.loss.optimizer or {})
    _check_width(study)
    if not 0 < c.protocol.confidence < 1:
        raise UserError(f"protocol.confidence={c.protocol.confidence:g}: must lie between 0 and 1, such as 0.95.")
    if not 0 <= c.protocol.held_out < 1:
        raise UserError(f"protocol.held_out={c.protocol.held_out:g}: must be at least 0 and below 1, such as 0.1.")
    if not 0 <= c.protocol.label_noise < 1:
        raise UserError(
            f"protocol.label_noise={c.protocol.label_noise:g}: must be at least 0 and below 1, such as 0.2."
        )
    if (minutes := c.executor.timeout_minutes) is not None and not minutes > 0:
        raise UserError(f"executor.timeout_minutes={minutes:g}: give a number above 0, or null for no limit.")
    check_device_name(c.device)  # whether a machine has the device is found out where it is used


def _check_names(study: Study) -> None:
    """Check the names that become parts of paths, and that no folder differs from the study's only in its case."""
    for key in NAMES:
        name = operator.attrgetter(key)(study.config)
        if name or key not in MAY_BE_EMPTY:
            check_name(key, name)
    if re.fullmatch("search[0-9]+", study.config.variant):
        raise UserError(f"variant={study.config.variant}: such names are those of repeated searches. Take another one.")
    if not study.config.study:
        check_case(study.directory.parent)
        check_case(study.directory)


def _check_pretraining(study: Study) -> None:
    """Check the names of sets of images, which marks in tables depend on."""
    config, known = study.config, image_sets()
    named = {"trunk.pretrained_on": config.trunk.pretrained_on or (), "dataset.overlaps": config.dataset.overlaps}
    for key, names in named.items():
        if unknown := [name for name in names if name not in known]:
            raise UserError(f"{key} has {', '.join(unknown)}; allowed are {', '.join(known)}.")


def _check_rule(study: Study) -> None:
    """Check that the searcher chooses by the study's rule."""
    rule, searcher = study.config.protocol.select, study.config.searcher
    if rule == "raw":
        return
    if "select" not in searcher.module:
        raise UserError(
            f"protocol.select={rule}: searcher={searcher.name} chooses the trial with the highest mean. Give "
            "protocol.select=raw, or searcher=ax."
        )
    if rule == "tested" and not searcher.module.get("defaults_first"):
        raise UserError(
            "protocol.select=tested compares the best trial with the default setting, which this search does not try. "
            "Give protocol.defaults_first=true, or protocol.select=raw."
        )


def _check_searches(study: Study) -> None:
    """Check that there is a search where one is to be repeated."""
    c = study.config
    if c.searches == 1 and c.search == 0:
        return
    given = f"search={c.search}" if c.search else f"searches={c.searches}"
    if c.protocol.story != "search":
        raise UserError(f"{given}: protocol={c.protocol.name} searches nothing that could be repeated. Leave it out.")
    if c.preset not in ("", "base"):
        raise UserError(f"{given}: preset={c.preset} is a fixed setting, and no search is repeated. Leave it out.")
    if c.search and c.searches > 1:
        raise UserError(
            f"search={c.search} is one search, and searches={c.searches} asks for several. Leave out one of them."
        )


def check_range(key: str, value: object) -> None:
    """Check a number, or each number of a list, against the range of its key; null and words are left to other checks.

    Args:
        key: a key of `RANGES`.
        value: its value.

    Raises:
        UserError: it lies outside the range.
    """
    lowest, highest = RANGES[key]
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, int | float) and not lowest <= number <= highest:
            raise UserError(f"{key}={number}: must be at least {lowest} and at most {highest}.")


def check_training(training: TrainingConfig) -> None:
    """Check the lengths, the learning-rate schedule, the gradient clipping and the optimisers of a training.

    Raises:
        UserError: a value is out of range, or an option is unknown.
    """
    for key in ("batch_size", "gradient_chunk", "epochs", "warmup_epochs"):
        check_range(f"training.{key}", getattr(training, key))
    _check_decay(training.decay or {})
    clip = training.clip or {}
    if len(clip) > 1 or not clip.keys() <= {"value", "norm"} or any(limit <= 0 for limit in clip.values()):
        raise UserError(f"training.clip={clip}: give value or norm with a number above 0, such as {{value: 10}}.")
    for part in ("trunk", "head", "loss"):
        key = f"training.optimizers.{part}"
        if not isinstance(node := training.optimizers.get(part), dict):
            what = "null" if node is None else node
            raise UserError(f"{key}={what}: give the options of an optimiser, such as {key}.lr=0.001.")
        check_optimizer(key, node)


def _check_decay(decay: Node) -> None:
    """Check the settings of a learning-rate schedule."""
    for name in ("every", "factor", "epochs"):
        for number in _listed(decay.get(name, [])):
            if not _is_rate(number) or number == 0 or (name != "factor" and not isinstance(number, int)):
                kind = "numbers" if name == "factor" else "whole numbers"
                raise UserError(f"training.decay.{name}={decay[name]}: allowed are {kind} above 0.")
    if type(skip := decay.get("skip", 0)) is not int or skip < 0:
        raise UserError(f"training.decay.skip={skip}: give a whole number of epochs, at least 0.")
    learning_rate_factor(decay, 1, 1)  # refuses unknown options


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def check_optimizer(key: str, options: Node) -> None:
    """Check the numbers among an optimiser's options, and in its groups of parameters.

    Args:
        key: the configuration key of the options.
        options: the options; null takes the default, and what is not a number here is checked by the optimiser.

    Raises:
        UserError: a learning rate, weight decay or momentum is no number, or is negative.
    """
    for name, value in options.items():
        if name == "groups" and isinstance(value, dict):
            for prefix, group in value.items():
                check_optimizer(f"{key}.groups.{prefix}", group if isinstance(group, dict) else {})
        elif name in NOT_NEGATIVE and value is not None and not _is_rate(value):
            raise UserError(f"{key}.{name}={value}: give a number of at least 0, such as 0.001.")


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _check_batches(study: Study) -> None:
    """Check that a batch has room for images of two classes, without which no loss can compare anything."""
    sampler, batch_size = study.config.loss.sampler, study.config.protocol.batch_size
    m = sampler.get("m", 1)
    if "_target_" in sampler or m is None:
        return
    if type(m) is not int or m < 1:
        raise UserError(
            f"loss.sampler.m={m}: give the number of images per class in a batch, at least 1, or null for batches "
            "that are drawn from all images regardless of their classes."
        )
    if study.config.protocol.story != "search":  # the recipe supplies the batch size
        return
    if batch_size < 2 * m:
        raise UserError(
            f"protocol.batch_size={batch_size}: a batch has at least two classes, and {study.config.loss.name} draws "
            f"{m} images of each (loss.sampler.m={m}). Give {2 * m} or more."
        )


def _check_width(study: Study) -> None:
    """Check that a trunk gets a width if, and only if, it takes one."""
    trunk = study.config.trunk
    takes = "${trunk.width}" in json.dumps(study.raw["trunk"]["module"])
    if takes and trunk.width is None:
        raise UserError(f"trunk.width=null: {trunk.name} needs a number of channels, such as trunk.width=64.")
    if not takes and trunk.width is not None:
        raise UserError(f"trunk.width={trunk.width} is not used: {trunk.name} has one size. Leave it out.")


def _not_finite(node: object, key: str = "") -> Iterator[str]:
    """Yield every non-finite number in a node, as `key=value`."""
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _not_finite(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, float) and not math.isfinite(node):
        yield f"{key}={node}"


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
    spaces.check_names(study.config)
    start = study.first_trial
    adapted = study.config.training.space.keys() | study.config.dataset.space.keys()
    for name, p in loss.space.items():
        limits, scale = study.bounds(name), study.scale(name)
        key, bounds = f"loss.space.{name}", "[" + ", ".join(f"{b:g}" for b in limits) + "]"
        if scale not in ("linear", "log") or p.type not in ("float", "int"):
            raise UserError(f"{key}: scale={scale} may be linear or log, type={p.type} may be float or int.")
        if len(limits) != 2 or not limits[0] < limits[1]:
            raise UserError(f"{key}.bounds={bounds}: give two numbers, the lower one first.")
        if scale == "log" and limits[0] <= 0:
            raise UserError(f"{key}.bounds={bounds}: a log scale needs a lower bound above 0; or {key}.scale=linear.")
        if p.type == "int" and any(b != int(b) for b in limits):
            raise UserError(f"{key}.bounds={bounds}: type int needs whole numbers; or {key}.type=float.")
        if name not in loss.setting:
            raise UserError(
                f"{key}: {loss.name} has no setting {name}, only {', '.join(loss.setting)}. Give its published or "
                f"recommended value too: +loss.setting.{name}=VALUE."
            )
        # Bounds of one data set or training may exclude the default, which then matters only as trial 0.
        if study.config.protocol.defaults_first:
            check_setting(name, start[name], bounds, limits)
        elif p.bounds == limits and name not in adapted:
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
    """Build the components of the smallest fold, with the loss at its setting and at both ends of what is searched.

    An exception other than `UserError` in the constructor of a plug-in is a defect and passes through.

    Raises:
        UserError: a plug-in refuses its options; for a loss, the message says at which end of the space. Or the
            two-pass gradient does not fit the network.
    """
    from benchmark.study.data import num_channels
    from benchmark.training.loop import check_chunks

    dataset = study.make_dataset()
    split = dataset.trainval()
    class_ids = np.asarray(split.class_ids)
    classes = smallest_fold(study, class_ids, dataset.total_classes)
    labels = split.labels[np.isin(split.labels, classes)]
    study.make_sampler(np.searchsorted(classes, labels), seed=0)
    trunk = study.make_trunk(num_channels(split.images), seed=0)
    head = study.make_head(trunk.out_features, seed=0)
    training = study.config.training
    check_chunks(training.gradient_chunk or 0, training.freeze_batchnorm, trunk, head)
    trained = {} if training.views is not None else {"trunk": trunk}
    searched = not study.config.preset
    if searched:
        study.make_searcher()
    class_to_super = split.super_labels[np.searchsorted(class_ids, classes)]
    for where, setting in (corners(study.make_space()) if searched else {"at its setting": {}}).items():
        at = Study.of(study.raw, setting)
        try:
            loss = at.make_loss(len(classes), 0, class_to_super, len(labels))
        except UserError as error:
            fold = f"in a fold of {len(classes)} training classes"
            advice = "\nNarrow the space: loss.space.NAME.bounds=[LOW,HIGH]." if setting else ""
            raise UserError(f"{at.config.loss.name} cannot be built {where}, {fold}: {error}{advice}") from error
        at.make_optimizers(**trained, head=head, loss=loss)


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
            f"{fewest} for validation in a fold, and retrieval needs at least 2. Take fewer folds, at most "
            f"{max(2, len(class_ids) // 2)}: {arguments({'protocol.num_folds': max(2, len(class_ids) // 2)})}"
        )
    return np.sort(min((fold.train_classes for fold in folds), key=len))
