"""Options without effect: a value that the user gave, and that nothing in the study reads, is refused.

A protocol reads the whole configuration but for the parts that it ignores (`_ignored`) and the parts that only hold
values for other keys (`HOLDERS`). The latter are read through references, such as `loss.setting.margin` through
`margin: ${loss.setting.margin}`. To learn whether a key is read, its value is replaced by a mark, which is then looked
for among all values that are read. A key that is unknown here counts as read, so nothing is refused by mistake.

What a loss reads depends on its own options, too: its YAML lists under `unread` which values switch a part of it off,
and which keys only that part reads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString

from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.study import recipes
from benchmark.study.command import first_target
from benchmark.study.config import Config, Node
from benchmark.study.identity import NOT_SCIENCE
from benchmark.study.spaces import for_dataset
from benchmark.study.stored import REFERENCE, value_at

if TYPE_CHECKING:
    from benchmark.study.study import Study

HOLDERS = (
    "loss.setting", "loss.usual", "loss.recipe", "protocol.images", "protocol.pooling", "protocol.sop_cut",
    "protocol.trials", "protocol.noise", "protocol.failed", "protocol.defaults_first", "protocol.usual",
    "training.defaults_first", "dataset.trials", "dataset.iterations_per_epoch", "trunk.width", "trunk.network",
)  # fmt: skip
SEARCH = (
    "trials", "searcher", "loss.space", "training.space", "training.space_scales", "dataset.space", "protocol.select",
)  # fmt: skip
OF_SEARCHES = (
    *SEARCH, "searches", "search", "protocol.num_folds", "protocol.fold_rule", "protocol.noise", "protocol.failed",
    "protocol.trials", "protocol.defaults_first", "training.defaults_first", "dataset.trials",
)  # fmt: skip
ABOUT_SCHEDULE = ("starts", "counts", "traditional")  # keys of `loss.schedule` that are read without a reference
# Choices of files of which something is always read, and what is applied before a study exists.
EXEMPT = ("dataset", "loss", "trunk", "training", "protocol")
MARK = object()
Compose = Callable[[list[str]], "Study"]
OF_TRUNK = ("training.freeze_batchnorm", "training.optimizers.trunk", "training.warmup_epochs")  # of a trained one


def check_used(study: Study, overrides: Sequence[str], compose: Compose) -> None:
    """Check that every value that the user gave has an effect, or else equals the default.

    Args:
        study: the study that the command line selects.
        overrides: the overrides of the command line, in Hydra's grammar.
        compose: composes a study from overrides; called only if a value has no effect.

    Raises:
        UserError: a value has no effect; the message says why, and what to give instead.
    """
    for override in _given(overrides):
        key = override.key_or_group
        if not is_read(study.raw, study.config, key):
            why, instead = _reason(study, key)
        elif cause := _switched_off_by(study, key):
            why, instead = f"{cause} switches off what reads it", ""
        elif _is_replaced(override, study.raw):
            why, instead = f"{_by_what(study.config, key)} sets {_shown(study.raw, key)}", ""
        else:
            continue
        rest = [other for other in overrides if other != override.input_line]
        at_default = study.config.study == "" and key != "levels"  # whose default asks for what this protocol lacks
        if not (at_default and _is_default(override, compose(rest).raw)):
            raise _without_effect(study.config, override, why, instead, rest)


def check_kept(study: Study, adapted: Study, overrides: Sequence[str]) -> None:
    """Check that the study, adapted to its data, still has every value that the user gave.

    Args:
        study: the study as configured.
        adapted: the study that is trained.
        overrides: the overrides of the command line, in Hydra's grammar.

    Raises:
        UserError: a value was replaced; the message has the one that would be trained with.
    """
    for override in _given(overrides):
        key = override.key_or_group
        if not _is_replaced(override, study.raw) and _is_replaced(override, adapted.raw):
            why = f"protocol={study.config.protocol.name} converts it to {_shown(adapted.raw, key)}"
            rest = [other for other in overrides if other != override.input_line]
            raise _without_effect(study.config, override, why, _instead_of_schedule(study, key), rest)


def settings_read(raw: Node, config: Config) -> list[str]:
    """The hyper-parameters of the loss that a study reads; others hold no value that a training used.

    Args:
        raw: the study's configuration, references unresolved.
        config: the typed configuration.
    """
    return [name for name in config.loss.setting if is_read(raw, config, f"loss.setting.{name}")]


def searches(config: Config) -> bool:
    """Whether the settings of the loss are searched, in place of those that the configuration gives."""
    return config.protocol.story == "search" and not config.preset


def _switched_off_by(study: Study, key: str) -> str:
    """The values of the loss's options that switch off whatever reads a key; empty if it is read."""
    for case in study.config.loss.unread.values():
        values = {f"loss.{name}": value for name, value in case.when.items()}
        if any(value_at(study.raw, name, None) != value for name, value in values.items()):
            continue
        if not is_read(study.raw, study.config, key, [f"loss.{name}" for name in case.keys]):
            return " and ".join(_shown(study.raw, name) for name in values) or f"loss={study.config.loss.name}"
    return ""


def is_read(raw: Node, config: Config, key: str, more_ignored: Sequence[str] = ()) -> bool:
    """Whether a study reads the value of a key.

    Args:
        raw: the study's configuration, references unresolved.
        config: the typed configuration.
        key: a dotted key, or a group of `conf/`.
        more_ignored: keys that the loss ignores.
    """
    marked = copy.deepcopy(raw)
    _set(marked, key.replace("/", ".").split("."), MARK)
    setting = marked["loss"]["setting"] if marked["loss"] is not MARK else None
    if searches(config) and not config.protocol.defaults_first and isinstance(setting, dict):
        setting |= dict.fromkeys(config.loss.space, 0)  # every trial replaces them
    return any(leaf is MARK for leaf in _leaves(_read_part(marked, config, more_ignored), marked))


def _read_part(raw: Node, config: Config, more_ignored: Sequence[str]) -> Node:
    """The configuration without what the study ignores, and without what it reads only through references."""
    read = {group: dict(value) if isinstance(value, dict) else value for group, value in raw.items()}
    if read["loss"] is MARK or read["protocol"] is MARK:
        return read
    read["training"]["optimizers"] = copy.copy(read["training"]["optimizers"])
    loss, dataset, schedule = read["loss"], read["dataset"], raw["loss"].get("schedule", {})
    if isinstance(loss.get("authors"), dict):
        marked = replace(config, loss=replace(config.loss, authors=loss["authors"]))
        loss["authors"] = recipes.authors_recipe(marked)
    if isinstance(loss.get("space"), dict):
        loss["space"] = {name: _space(node, config.dataset.name) for name, node in loss["space"].items()}
    for part in (read["training"], dataset):  # a name that the loss lacks is without effect
        if isinstance(part.get("space"), dict):
            part["space"] = {name: node for name, node in part["space"].items() if name in config.loss.space}
    if isinstance(schedule, dict):
        loss["schedule"] = {name: schedule[name] for name in ABOUT_SCHEDULE if name in schedule}
    replaced = [*config.trunk.images, *(["crop"] if config.trunk.crop else [])]
    if replaced and isinstance(images := _followed(dataset.get("images"), raw), dict):
        dataset["images"] = {name: value for name, value in images.items() if name not in replaced}
    for key in (*HOLDERS, *_ignored(config), *more_ignored):
        _drop(read, key.split("."))
    return read


def _ignored(config: Config) -> Iterator[str]:
    """Yield the keys that the study's protocol, preset or other values make superfluous."""
    training, loss, traditional = config.training, config.loss, config.protocol.story == "traditional"
    if traditional:
        yield from (
            *SEARCH,
            "levels",
            "searches",
            "search",
            "protocol.num_folds",
            "protocol.fold_rule",
            "dataset.patience",
            "dataset.evaluate_every",
        )
        if training.epochs:
            yield "dataset.max_epochs"
            if not loss.schedule.get("counts"):
                yield "protocol.iterations_per_epoch"
        if training.batch_size:
            yield "protocol.batch_size"
        if loss.sampler != {"m": 1}:
            yield "training.sampler"
    else:
        yield from ("training.epochs", "training.batch_size", "training.sampler", "protocol.held_out")
        yield from ("keep_epochs", "dataset.recall_at", "loss.schedule.counts", "loss.schedule.traditional")
        if config.preset:
            yield from SEARCH
    searched = config.protocol.loss_optimizer == "searched"
    yield "loss.authors" if searched else "loss.optimizer"
    own = (loss.optimizer or {}) if searched else recipes.authors_recipe(config)
    if own:
        yield from (f"training.optimizers.loss.{name}" for name in own)
        if "warmup_epochs" in own:
            yield "training.warmup_epochs"
    else:  # a loss without parameters
        yield "training.optimizers.loss"
    if training.views is not None:
        yield from OF_TRUNK
    if "_target_" in loss.head:
        yield "head"
    if not config.dataset.images:
        yield from ("trunk.crop", "trunk.images")
    elif str(config.dataset.module.get("_target_")).startswith("benchmark.datasets."):
        yield "training.shift"  # of images in memory; these are files


def _space(node: object, dataset: str) -> object:
    """The part of a searched hyper-parameter that is read: its values for the data set in place of all others."""
    if not isinstance(node, dict) or not isinstance(own := node.get("datasets", {}), dict):
        return node
    return {name: value for name, value in node.items() if name != "datasets"} | for_dataset(own, dataset)


# -- nested mappings --------------------------------------------------------------------------------------------------


def _set(node: Any, path: list[str], value: object) -> None:
    """Set the value at a path of nested mappings and lists, where it exists or can be added."""
    for name in path[:-1]:
        if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict):
            node = node.setdefault(name, {})
    if isinstance(node, list) and path[-1].isdecimal() and int(path[-1]) < len(node):
        node[int(path[-1])] = value
    elif isinstance(node, dict):
        node[path[-1]] = value


def _drop(node: Any, path: list[str]) -> None:
    """Delete what is at a path of nested mappings and lists, if it exists; only the outermost two mappings are changed.

    The element of a list becomes None, so that the others keep their places.
    """
    *above, last = path
    for depth, name in enumerate(above):
        place: Any = int(name) if isinstance(node, list) and name.isdecimal() else name
        if not (place in node if isinstance(node, dict) else isinstance(node, list) and 0 <= place < len(node)):
            return
        if depth:
            node[place] = copy.copy(node[place])
        node = node[place]
    if isinstance(node, dict):
        node.pop(last, None)
    elif isinstance(node, list) and last.isdecimal() and int(last) < len(node):
        node[int(last)] = None


def _followed(value: object, root: Node) -> object:
    """A value, or what it refers to."""
    while isinstance(value, str) and (found := REFERENCE.fullmatch(value)):
        node: Any = root
        for name in found[1].split("."):
            if node is MARK:
                return MARK
            node = node[int(name)] if isinstance(node, list) else node[name]
        value = node
    return value


def _leaves(value: object, root: Node) -> Iterator[object]:
    """Yield every value inside nested mappings and lists, references followed."""
    value = _followed(value, root)
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner, root)
    else:
        yield value


# -- what was given ---------------------------------------------------------------------------------------------------


def _given(overrides: Sequence[str]) -> list[Override]:
    """The overrides that are checked."""
    parsed = OverridesParser.create().parse_overrides([*overrides])
    return [
        override
        for override in parsed
        if (key := override.key_or_group) in ("trials", "searches", "keep_epochs")
        or (key == "levels" and override.value() is True)
        or (key not in EXEMPT and not key.startswith("loss.presets.") and key.partition(".")[0] not in NOT_SCIENCE)
    ]


def _is_replaced(override: Override, raw: Node) -> bool:
    """Whether a configuration has another value than the override gave, or none; null stands for any value."""
    value = _plain(override.value())
    if override.is_delete() or value is None or isinstance(value, dict) or "${" in str(value):
        return False
    missing = object()
    now = value_at(raw, override.key_or_group, missing)
    if isinstance(now, dict):  # the choice of a file
        return False
    return now is missing or not (now == value or str(now) == str(value))


def _plain(value: object) -> object:
    """A value of Hydra's grammar without its quotes."""
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.text if isinstance(value, QuotedString) else value


def _is_default(override: Override, default: Node) -> bool:
    """Whether a configuration without the override has its value anyway."""
    if override.key_or_group in default and isinstance(chosen := default[override.key_or_group], dict):
        return bool(chosen.get("name") == override.value())
    return not override.is_delete() and not _is_replaced(override, default)


def _shown(raw: Node, key: str) -> str:
    return f"{key}={value_at(raw, key, 'nothing')}"


# -- messages ---------------------------------------------------------------------------------------------------------


def _without_effect(config: Config, override: Override, why: str, instead: str, rest: Sequence[str]) -> UserError:
    target = first_target(config)
    again = command(target, overrides=[entry for entry in rest if entry != f"protocol={target}"])
    return UserError(f"{override.input_line} has no effect: {why}.{instead and f' {instead}'}\nWithout it: {again}")


def _by_what(config: Config, key: str) -> str:
    if key.startswith("loss.setting.") and config.preset not in ("", "default"):
        return f"preset={config.preset}"
    return f"training.recipe={config.training.recipe}" if config.training.recipe else "the configuration"


def _instead_of_schedule(study: Study, key: str) -> str:
    """Advice for a value of a loss's schedule, which a setting that refers to it can replace."""
    name = next((n for n, v in study.raw["loss"]["setting"].items() if v == f"${{{key}}}"), None)
    return f"Give loss.setting.{name}, which is used as it is." if name else ""


def _reason(study: Study, key: str) -> tuple[str, str]:
    """Why a key is not read, and what has the effect that it seems to have."""
    config, name = study.config, key.rpartition(".")[2]
    p, training, story = config.protocol, config.training, config.protocol.story
    if (
        searches(config)
        and key.startswith(("training.space.", "dataset.space."))
        and key.split(".")[2] not in config.loss.space
    ):
        return f"{config.loss.name} does not search {key.split('.')[2]}, only {', '.join(config.loss.space)}", ""
    if any(f"{key}.".startswith(f"{part}.") for part in OF_SEARCHES):
        if story == "traditional":
            return f"protocol={p.name} has neither a search nor folds", "The commands bo and final-eval have them."
        if config.preset:
            return f"preset={config.preset} needs no search", "The command bo searches."
        return f"searcher={config.searcher.name}, or another value, leaves nothing that reads it", ""
    if key.startswith(("loss.setting.", "loss.schedule.")) and searches(config) and name in config.loss.space:
        return f"the search chooses {name} within loss.space.{name}", f"To fix it, add ~loss.space.{name}."
    if key.startswith("loss.setting.") and p.loss_optimizer == "authors":
        absolute = "lr" in recipes.authors_recipe(config)
        return (
            f"protocol={p.name} takes the loss's learning rates from its authors"
            + ", as multiples of the trunk's" * (not absolute),
            f"Give loss.authors.{'lr' if absolute else 'lr_multiplier'}=VALUE, or protocol.loss_optimizer=searched, "
            "which reads it.",
        )
    if key.startswith("loss.authors.") and p.loss_optimizer == "authors":
        d, t = f"datasets.{config.dataset.name}", f"trunks.{config.trunk.name}"
        places = [f"loss.authors.{place}.{name}" for place in (f"{t}.{d}", t, d)]
        found = [place for place in places if value_at(study.raw, place, None) and is_read(study.raw, config, place)]
        return "other values replace it on this data set and trunk", f"Give {found[0]}=VALUE." if found else ""
    if training.views is not None and key.startswith(OF_TRUNK):
        return f"training.views={training.views} freezes the trunk", "training=finetune trains it."
    if key.startswith("training.optimizers.loss"):
        where = "loss.optimizer" if p.loss_optimizer == "searched" else "loss.authors"
        return f"{where} replaces it, or the loss has no parameters", f"Give {where}.{name}=VALUE."
    if key.startswith(("loss.optimizer", "loss.authors")):
        return f"it is not read with protocol.loss_optimizer={p.loss_optimizer}", ""
    if key.startswith("head"):
        return f"{config.loss.name} brings its own head", "See loss.head."
    if key.startswith("trunk.images."):
        return "images in memory are used as they are", ""
    if (name := key.removeprefix("protocol.images.")) in config.trunk.images:
        return f"trunk.images.{name} replaces it, or images are used as they are", f"Give trunk.images.{name}=VALUE."
    return {
        "dataset.patience": (f"protocol={p.name} never stops early", "Give training.epochs=N."),
        "dataset.evaluate_every": (f"protocol={p.name} scores every epoch", ""),
        "dataset.max_epochs": (
            f"training.epochs={training.epochs} counts passes over the data",
            "Give training.epochs.",
        ),
        "protocol.batch_size": (
            f"training.batch_size={training.batch_size} replaces it",
            "Give training.batch_size=N.",
        ),
        "training.batch_size": (f"protocol={p.name} has its own batch size", "Give protocol.batch_size=N."),
        "training.epochs": (f"protocol={p.name} counts epochs of a fixed length", "Give dataset.max_epochs=N."),
        "protocol.held_out": ("folds choose the epoch here", "The command traditional reads it."),
        "levels": (f"protocol={p.name} does not score the levels of a hierarchy", "The command final-eval does."),
        "keep_epochs": ("final-eval keeps the embeddings of the best epoch", "The command traditional reads it."),
        "dataset.recall_at": ("Recall@K is not computed here", "The command traditional reads it."),
        "training.warmup_epochs": ("the loss's authors set it", "Give loss.authors.warmup_epochs=N."),
        "training.shift": ("it shifts images in memory, and these are files", "See protocol.images."),
        "trunk.crop": ("images in memory are used as they are", ""),
        "protocol.images.crop": (f"the side of an image is trunk.crop={config.trunk.crop}, or it is not cropped", ""),
    }.get(key, (f"nothing reads it in {study.title} with protocol={p.name}", ""))
