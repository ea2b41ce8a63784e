"""What papers publish with a loss: settings (presets), learning rates of its parameters, and trainings (recipes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.study.config import Config, Node
from benchmark.study.instantiate import build

if TYPE_CHECKING:
    import torch


def read_recipe(folders: Sequence[Path], name: str) -> Node:
    """Read how a paper trains under the traditional protocol.

    Args:
        folders: folders with one YAML file per recipe.
        name: file name without its extension.

    Raises:
        UserError: no folder has such a file.
    """
    known = {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise UserError(f"training.recipe={name!r}: allowed are {', '.join(known)}.")
    return dict(yaml.safe_load(known[name].read_text(encoding="utf-8")))


def preset_setting(config: Config) -> Node:
    """The hyper-parameters of the configuration's preset for its data set; preset "default" has none.

    Raises:
        UserError: the loss has no such preset for the data set.
    """
    loss, dataset, preset = config.loss, config.dataset.name, config.preset
    if preset == "default":
        return {}
    try:
        return loss.presets[preset][dataset]
    except KeyError:
        known = "; ".join(f"preset={name} for {', '.join(settings)}" for name, settings in loss.presets.items())
        raise UserError(
            f"preset={preset}: conf/loss/{loss.name}.yaml holds no such setting for {dataset}. It has "
            f"{known or 'none'}; preset=default takes the file's own setting. To search instead: "
            f"{command('bo', {'dataset': dataset, 'loss': loss.name})}"
        ) from None


def with_recipe(training: Node, recipe: Node, dataset: str, trunk: str) -> Node:
    """Fill null training options from a recipe; explicit values take precedence.

    >>> recipe = {"epochs": 60, "cases": [{"when": {"trunk": ["resnet50"]}, "set": {"epochs": 40}}]}
    >>> with_recipe({"epochs": None, "shift": 2}, recipe, "cub", "resnet50")
    {'epochs': 40, 'shift': 2}

    Args:
        training: a configuration of `conf/training`, in which any option may be null.
        recipe: a file of `conf/recipe`: training options, and under `cases` the options for some data sets and trunks,
            where a later case overrides an earlier one. Options of optimisers are replaced one by one, all others as a
            whole.
        dataset: name of the data set, compared with a case's `when`.
        trunk: name of the trunk, compared with a case's `when`.

    Raises:
        UserError: a case depends on something other than data set and trunk.
    """
    here = {"dataset": dataset, "trunk": trunk}
    chosen = {key: value for key, value in recipe.items() if key != "cases"}
    for case in recipe.get("cases", []):
        if unknown := sorted(case["when"].keys() - here.keys()):
            raise UserError(f"A recipe's case depends on {', '.join(unknown)}; allowed are {', '.join(here)}.")
        if all(here[key] in names for key, names in case["when"].items()):
            chosen = _over(chosen, case["set"])
    return _over(chosen, training)


def _over(old: Node, new: Node) -> Node:
    """`old`, updated with the values of `new` that are not null; options of optimisers are replaced one by one."""
    merged = old | {key: value for key, value in new.items() if value is not None or key not in old}
    parts = new.get("optimizers") or {}
    if "optimizers" in old:
        merged["optimizers"] = {
            part: node | {key: value for key, value in parts.get(part, {}).items() if value is not None}
            for part, node in old["optimizers"].items()
        }
    return merged


def make_optimizers(config: Config, parts: Mapping[str, torch.nn.Module]) -> dict[str, torch.optim.Optimizer]:
    """Build one optimiser for each component that has trainable parameters.

    Args:
        config: holds the options of the optimisers.
        parts: components by name: trunk, head, loss.

    Raises:
        UserError: the loss has parameters but no learning rate, or an optimiser refuses its options.
    """
    optimizers = {}
    for name, part in parts.items():
        if any(p.requires_grad for p in part.parameters()):
            node = dict(config.training.optimizers[name]) | (optimizer_options(config) if name == "loss" else {})
            optimizers[name] = build(
                node, "optimizer", plugins=config.plugins, params=parameter_groups(part, node.pop("groups", {}))
            )
    return optimizers


def authors_recipe(config: Config) -> Node:
    """How the authors optimise the loss on this data set and trunk; empty where learning rates are searched."""
    if config.protocol.loss_optimizer == "searched":
        return {}
    authors, here = config.loss.authors, config.dataset.name
    return _for_dataset(authors, here) | _for_dataset(authors.get("trunks", {}).get(config.trunk.name, {}), here)


def _for_dataset(node: Node, dataset: str) -> Node:
    plain = {key: value for key, value in node.items() if key not in ("datasets", "trunks")}
    return plain | dict(node.get("datasets", {}).get(dataset, {}))


def optimizer_options(config: Config) -> Node:
    """Options of the optimiser of the loss's parameters; `groups` holds options by prefix of a parameter's name.

    Raises:
        UserError: the loss's YAML gives no learning rate.
    """
    path = f"conf/loss/{config.loss.name}.yaml"
    if config.protocol.loss_optimizer == "searched":
        if "lr" not in (config.loss.optimizer or {}):
            raise UserError(f"{path} has parameters but no optimizer.lr.")
        return dict(config.loss.optimizer or {})
    recipe = authors_recipe(config)
    if "lr_multiplier" not in recipe:
        raise UserError(f"{path} has parameters but no authors.lr_multiplier; use protocol.loss_optimizer=searched.")
    optimizers = config.training.optimizers
    return _multiplied(recipe, optimizers["loss"].get("lr") or optimizers["trunk"]["lr"])


def _multiplied(recipe: Node, rate: float) -> Node:
    """Optimiser options from a recipe, in which learning rates are multiples of `rate`."""
    options = {key: value for key, value in recipe.items() if key not in ("lr_multiplier", "groups", "warmup_epochs")}
    if "lr_multiplier" in recipe:
        options["lr"] = rate * recipe["lr_multiplier"]
    if "groups" in recipe:
        options["groups"] = {prefix: _multiplied(group, rate) for prefix, group in recipe["groups"].items()}
    return options


def parameter_groups(part: torch.nn.Module, groups: Mapping[str, Node]) -> list[Node]:
    """Divide trainable parameters into the groups of an optimiser by the start of their names.

    Args:
        part: the module whose parameters are divided.
        groups: options by prefix; parameters that match none form a group without options.

    Raises:
        UserError: no parameter's name starts with a prefix.
    """
    named = {name: p for name, p in part.named_parameters() if p.requires_grad}
    found: list[Node] = []
    for prefix, options in groups.items():
        own = [named.pop(name) for name in list(named) if name.startswith(prefix)]
        if not own:
            have = ", ".join(name for name, _ in part.named_parameters())
            raise UserError(f"The optimizer group {prefix!r} matches no parameter; the names are {have}.")
        found.append({"params": own} | options)
    return [{"params": list(named.values())}, *found] if named else found
