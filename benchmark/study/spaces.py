"""The search space of a loss, adapted to how and on what it is trained.

The file of a loss has the space that was published or that follows its conventions: rates of proxies from 1e-6, and
linear scales for almost everything else. Both belong to the fine-tuning of a pretrained trunk for thousands of
iterations. A training (`conf/training`) or a data set (`conf/dataset`) may replace the bounds and the scale of a
hyper-parameter, by its name, for all losses that have it:

    space:
      proxy_lr: {bounds: [1.0e-4, 1.0], default: 0.02}

`default` takes the place of the loss's own value in its default setting, which the first trial tries with
`defaults_first`, and which `preset=default` and the traditional protocol train without a search. A training with
`space_scales: log` searches every range of positive numbers that spans at least `WIDE` on a log scale: the scales of
cosines and softmaxes, from 0.01 to 100, half of whose linear range lies above 50.

A number in place of bounds, such as `datasets: {sop: 0.0}`, fixes a hyper-parameter on a data set, on which it is then
not searched. `preset=default` has that value too; the traditional protocol, which has no search, keeps the loss's own.

What is more specific wins: the loss's own values, then those of its `datasets` for the data set, the scale that
`space_scales` implies, the training's, the data set's, and finally what the command line gives as
`loss.space.NAME.bounds` and `loss.space.NAME.scale`. All is applied once, when the command line is composed, so that a
stored configuration has the space that was searched.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from benchmark.core import plain_yaml
from benchmark.core.errors import UserError
from benchmark.core.invocation import key_of
from benchmark.searchers import Parameter
from benchmark.study.config import Config
from benchmark.study.plugins import conf_dirs

WIDE = 100.0  # ratio of the bounds from which `space_scales: log` applies
SCALES = ("published", "log")
KEYS = ("bounds", "scale")


def adapt(config: DictConfig, overrides: Sequence[str]) -> None:
    """Replace bounds and scales of the loss's search space by those for the training and the data set.

    A value of the wrong type is left to the checks of the whole configuration.

    Args:
        config: what Hydra composed; it is changed.
        overrides: the overrides on the command line, whose values are kept.

    Raises:
        OmegaConfBaseException: a value refers to one that does not exist.
    """
    given = set(map(key_of, overrides))
    space = OmegaConf.select(config, "loss.space")
    if not isinstance(space, DictConfig):
        return
    tables = [table for group in ("training", "dataset")
              if isinstance(table := OmegaConf.select(config, f"{group}.space"), DictConfig)]  # fmt: skip
    for name in list(space):
        if isinstance(space[name], DictConfig) and not _fixed(config, str(name), given):
            entries = [table[name] for table in tables if isinstance(table.get(name), DictConfig)]
            merged = {key: value for entry in entries for key, value in entry.items() if value is not None}
            _adapt_one(config, str(name), merged, given)


def _fixed(config: DictConfig, name: str, given: set[str]) -> bool:
    """Fix a hyper-parameter that is not searched on the data set, and return whether it was one.

    Bounds or a scale on the command line ask for its search.

    Args:
        config: what Hydra composed.
        name: the hyper-parameter.
        given: keys of the command line.
    """
    value = fixed_value(config.loss.space[name].get("datasets"), config.dataset.name)
    keys = {f"loss.space.{name}", *(f"loss.space.{name}.{part}" for part in KEYS)}
    if value is None or keys & given or OmegaConf.select(config, "protocol.story") == "traditional":
        return False
    with open_dict(config.loss):
        del config.loss.space[name]
        if config.loss.get("base"):  # whose own search fixes it, too
            config.loss.base.setting.pop(name, None)
    if f"loss.setting.{name}" not in given:
        OmegaConf.update(config, f"loss.setting.{name}", value)
    return True


def _adapt_one(config: DictConfig, name: str, entry: dict[str, Any], given: set[str]) -> None:
    """Adapt one hyper-parameter.

    Args:
        config: what Hydra composed.
        name: the hyper-parameter.
        entry: what training and data set say about it.
        given: keys of the command line.
    """
    node, key = config.loss.space[name], f"loss.space.{name}"
    own = for_dataset(node.get("datasets"), config.dataset.name)
    fixed = {part for part in KEYS if {key, f"{key}.{part}"} & given}
    if any(f"{other}.".startswith(f"{key}.datasets.") for other in given):
        fixed |= own.keys()
    for part in KEYS:
        if part in entry and part not in fixed:
            node[part] = entry[part]
        if part in own and ((part in entry and part not in fixed) or f"{key}.{part}" in given):
            own.pop(part)
            node.datasets[config.dataset.name] = own
    scales, chosen = config.training.get("space_scales"), fixed | entry.keys() | own.keys()
    if scales == "log" and "scale" not in chosen and _is_wide(own.get("bounds", node.get("bounds"))):
        node.scale = "log"
    if "default" in entry and not {f"loss.setting.{name}", f"{key}.default"} & given:
        OmegaConf.update(node, "default", entry["default"], force_add=True)
        preset, story = (OmegaConf.select(config, key, default="") for key in ("preset", "protocol.story"))
        if preset == "default" or (story == "traditional" and not preset):
            OmegaConf.update(config, f"loss.setting.{name}", entry["default"], force_add=False)


def _is_wide(bounds: object) -> bool:
    """Whether bounds are two positive numbers with a ratio of at least `WIDE`."""
    if not (isinstance(bounds, list | ListConfig) and len(bounds) == 2):
        return False
    low, high = bounds
    return isinstance(low, int | float) and isinstance(high, int | float) and 0 < WIDE * low <= high


def for_dataset(datasets: object, name: str) -> dict[str, Any]:
    """What a searched hyper-parameter has for one data set: its `bounds`, its `scale`, or both; empty if it is fixed.

    >>> for_dataset({"sop": [0.01, 200.0]}, "sop"), for_dataset({"sop": {"scale": "log"}}, "cub")
    ({'bounds': [0.01, 200.0]}, {})

    Args:
        datasets: the hyper-parameter's `datasets`: bounds, a mapping with bounds and scale, or a number, by data set.
        name: the data set.
    """
    entry = datasets.get(name) if isinstance(datasets, dict | DictConfig) else None
    if isinstance(entry, dict | DictConfig):
        return dict(entry)
    return {} if entry is None or isinstance(entry, int | float) else {"bounds": entry}


def fixed_value(datasets: object, name: str) -> float | None:
    """The value of a hyper-parameter that is not searched on a data set; None if it is searched.

    >>> fixed_value({"sop": 0.0}, "sop"), fixed_value({"sop": [0.01, 200.0]}, "sop"), fixed_value(None, "cub")
    (0.0, None, None)

    Args:
        datasets: the hyper-parameter's `datasets`, see `for_dataset`.
        name: the data set.
    """
    entry = datasets.get(name) if isinstance(datasets, dict | DictConfig) else None
    return entry if isinstance(entry, int | float) else None


def check_names(config: Config) -> None:
    """Check that what training and data set replace in search spaces are hyper-parameters that some loss searches.

    Raises:
        UserError: no loss, of this project or of a plug-in, searches one of them.
    """
    asked = {name: group for group in ("training", "dataset") for name in getattr(config, group).space}
    unknown = asked.keys() - config.loss.space.keys()
    if unknown and (absent := sorted(unknown - (known := _searched_names(config.plugins)))):
        near = difflib.get_close_matches(absent[0], known, n=1)
        meant = f"Did you mean {near[0]}?" if near else f"Searched are {', '.join(sorted(known))}."
        raise UserError(f"{asked[absent[0]]}.space.{absent[0]}: no loss searches {absent[0]}. {meant}")


def _searched_names(plugins: Sequence[str]) -> set[str]:
    """The names of all hyper-parameters that a file of a loss lists in its search space."""
    files = [path for folder in conf_dirs(plugins) for path in sorted((folder / "loss").glob("*.yaml"))]
    return {name for path in files for name in plain_yaml.read_mapping(path).get("space") or {}}


def described(space: Mapping[str, Parameter]) -> str:
    """A search space in a line.

    >>> described({"proxy_lr": Parameter((1e-4, 1.0), "log"), "num_bins": Parameter((2, 32), type="int")})
    'proxy_lr [0.0001, 1] log, num_bins [2, 32] int'

    Args:
        space: searched hyper-parameters by name.
    """
    marks = {name: " log" * (p.scale == "log") + " int" * (p.type == "int") for name, p in space.items()}
    return ", ".join(f"{name} [{p.bounds[0]:g}, {p.bounds[1]:g}]{marks[name]}" for name, p in space.items())
