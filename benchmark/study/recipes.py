"""What was published beside a loss: settings (presets), rates of its own parameters, and whole trainings (recipes)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmark.study.config import Config
from benchmark.study.instantiate import build

if TYPE_CHECKING:
    import torch


def read_recipe(folder: Path, name: str) -> dict[str, Any]:
    """A paper's training under the customary protocol.

    Raises:
        ValueError: the folder has no such file.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise ValueError(f"training.recipe={name!r}: allowed are {', '.join(known)}.")
    return dict(yaml.safe_load(known[name].read_text(encoding="utf-8")))


def preset_setting(config: Config) -> dict[str, Any]:
    """The hyper-parameters that the configuration's preset holds for its data set; "default" adds nothing.

    Raises:
        ValueError: the loss has no such preset for the data set.
    """
    loss, dataset, preset = config.loss, config.dataset.name, config.preset
    if preset == "default":
        return {}
    try:
        return loss.presets[preset][dataset]
    except KeyError:
        known = "; ".join(f"preset={name} for {', '.join(settings)}" for name, settings in loss.presets.items())
        raise ValueError(
            f"preset={preset}: conf/loss/{loss.name}.yaml holds no such setting for {dataset}. It has "
            f"{known or 'none'}; preset=default takes the file's own setting. To search instead: "
            f"make bo DATASET={dataset} LOSS={loss.name}"
        ) from None


def with_recipe(training: dict[str, Any], recipe: dict[str, Any], dataset: str, trunk: str) -> dict[str, Any]:
    """The training with a paper's values wherever it says null; what it gives itself wins.

    >>> recipe = {"epochs": 60, "cases": [{"when": {"trunk": ["resnet50"]}, "set": {"epochs": 40}}]}
    >>> with_recipe({"epochs": None, "shift": 2}, recipe, "cub", "resnet50")
    {'epochs': 40, 'shift': 2}

    Args:
        training: a configuration of `conf/training`; it may hold null.
        recipe: a file of `conf/recipe`: keys of a training, and under `cases` those of some data sets and trunks, the
            later over the earlier. Options of optimisers are replaced one by one, everything else as a whole.
        dataset: name, as in a case's `when`.
        trunk: name.

    Raises:
        ValueError: a case asks for anything but data set and trunk.
    """
    here = {"dataset": dataset, "trunk": trunk}
    chosen = {key: value for key, value in recipe.items() if key != "cases"}
    for case in recipe.get("cases", []):
        if unknown := sorted(case["when"].keys() - here.keys()):
            raise ValueError(f"A recipe's case asks for {', '.join(unknown)}; allowed are {', '.join(here)}.")
        if all(here[key] in names for key, names in case["when"].items()):
            chosen = _over(chosen, case["set"])
    return _over(chosen, training)


def _over(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new` over `old` where it is not null; the options of each optimiser one by one."""
    merged = old | {key: value for key, value in new.items() if value is not None or key not in old}
    parts = new.get("optimizers") or {}
    if "optimizers" in old:
        merged["optimizers"] = {
            part: node | {key: value for key, value in parts.get(part, {}).items() if value is not None}
            for part, node in old["optimizers"].items()
        }
    return merged


def make_optimizers(config: Config, parts: dict[str, torch.nn.Module]) -> dict[str, torch.optim.Optimizer]:
    """One optimiser for each of the parts (trunk, head, loss) that has parameters."""
    optimizers = {}
    for name, part in parts.items():
        if any(p.requires_grad for p in part.parameters()):
            node = dict(config.training.optimizers[name]) | (optimizer_options(config) if name == "loss" else {})
            optimizers[name] = build(node, params=parameter_groups(part, node.pop("groups", {})))
    return optimizers


def authors_recipe(config: Config) -> dict[str, Any]:
    """What the loss's YAML says under `authors` for data set and trunk; nothing where the rates are searched."""
    if config.protocol.loss_optimizer == "searched":
        return {}
    authors, here = config.loss.authors, config.dataset.name
    return _for_dataset(authors, here) | _for_dataset(authors.get("trunks", {}).get(config.trunk.name, {}), here)


def _for_dataset(node: dict[str, Any], dataset: str) -> dict[str, Any]:
    plain = {key: value for key, value in node.items() if key not in ("datasets", "trunks")}
    return plain | node.get("datasets", {}).get(dataset, {})


def optimizer_options(config: Config) -> dict[str, Any]:
    """Options of the optimiser of a loss's parameters, and under `groups` those of parameters by prefix of their name.

    Raises:
        ValueError: the loss's YAML gives no learning rate.
    """
    path = f"conf/loss/{config.loss.name}.yaml"
    if config.protocol.loss_optimizer == "searched":
        if "lr" not in (config.loss.optimizer or {}):
            raise ValueError(f"{path} has parameters but no optimizer.lr.")
        return dict(config.loss.optimizer or {})
    recipe = authors_recipe(config)
    if "lr_multiplier" not in recipe:
        raise ValueError(f"{path} has parameters but no authors.lr_multiplier; use protocol.loss_optimizer=searched.")
    optimizers = config.training.optimizers
    return _multiplied(recipe, optimizers["loss"].get("lr") or optimizers["trunk"]["lr"])


def _multiplied(recipe: dict[str, Any], rate: float) -> dict[str, Any]:
    """Optimiser options from a recipe, whose learning rates are multiples of `rate`."""
    options = {key: value for key, value in recipe.items() if key not in ("lr_multiplier", "groups", "warmup_epochs")}
    if "lr_multiplier" in recipe:
        options["lr"] = rate * recipe["lr_multiplier"]
    if "groups" in recipe:
        options["groups"] = {prefix: _multiplied(group, rate) for prefix, group in recipe["groups"].items()}
    return options


def parameter_groups(part: torch.nn.Module, groups: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Parameter groups of an optimiser: parameters whose name starts with a prefix get that group's options.

    Args:
        part: whose parameters.
        groups: options by prefix.

    Raises:
        ValueError: no parameter's name starts with a prefix.
    """
    named = {name: p for name, p in part.named_parameters() if p.requires_grad}
    found: list[dict[str, Any]] = []
    for prefix, options in groups.items():
        own = [named.pop(name) for name in list(named) if name.startswith(prefix)]
        if not own:
            have = ", ".join(name for name, _ in part.named_parameters())
            raise ValueError(f"The optimizer group {prefix!r} has no parameter; names here are {have}.")
        found.append({"params": own} | options)
    return [{"params": list(named.values())}, *found] if named else found
