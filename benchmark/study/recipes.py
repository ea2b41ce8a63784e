"""What papers publish with a loss: settings (presets), learning rates of its parameters, and trainings (recipes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core import conf_files, plain_yaml
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
    return plain_yaml.read_mapping(known[name])


def preset_setting(config: Config) -> Node:
    """The hyper-parameters of the configuration's preset for its data set and trunk; preset "default" has none.

    Raises:
        UserError: the loss has no such preset for the data set and the trunk.
    """
    loss, dataset, preset, trunk = config.loss, config.dataset.name, config.preset, config.trunk.name
    if preset == "default" or (preset == "base" and loss.base is not None):  # `study.base` fills in the latter
        return {}
    found = published_setting(config, preset)
    if found is not None:
        return found
    target, instead = ("traditional", "To train") if config.protocol.story == "traditional" else ("bo", "To search")
    rest = f"{instead} instead: {command(target, {'dataset': dataset, 'trunk': trunk, 'loss': loss.name})}"
    if preset == "base":
        raise UserError(
            f"preset=base takes what the search of a loss's base chose, and {loss.name} adds nothing to another loss. "
            f"Allowed with preset=base: {', '.join(_losses_with_a_base())}. {rest}"
        )
    known = ["preset=base at what its base's search chose"] * (loss.base is not None and target == "bo")
    for name, settings in loss.presets.items():
        by_trunk = settings.get("trunks")
        known += [f"preset={name} for {', '.join(settings)}"] if by_trunk is None else []
        known += [f"preset={name} with {one} for {', '.join(own)}" for one, own in (by_trunk or {}).items()]
    raise UserError(
        f"preset={preset}: conf/loss/{loss.name}.yaml holds no such setting for {dataset} with the trunk {trunk}. "
        f"It has {'; '.join(known) or 'none'}; preset=default takes the setting that a search tries first. {rest}"
    )


def _losses_with_a_base() -> list[str]:
    """The losses of this project that add a term to another one."""
    return [name for name in conf_files.names("loss") if "base" in conf_files.content("loss", name)]


def published_setting(config: Config, preset: str) -> Node | None:
    """A preset's hyper-parameters for the data set and trunk, whichever preset is selected; None if there are none.

    Args:
        config: the configuration, whose loss holds the presets.
        preset: name of the preset.
    """
    settings = config.loss.presets.get(preset, {})
    if "trunks" in settings:
        settings = settings["trunks"].get(config.trunk.name, {})
    return settings.get(config.dataset.name)


def usual_values(config: Config) -> Node:
    """The values of `loss.usual` that the authors publish for this data set, trunk and recipe.

    A key of a loss that depends on these refers to `loss.usual`, so that a value on the command line replaces the
    reference and wins. The values are the preset "authors", if there is one, and those in `usual` of `loss.authors`.
    They are empty where learning rates are searched: there, `loss.usual` stays as its file has it.
    """
    if config.protocol.loss_optimizer == "searched":
        return {}
    found = (published_setting(config, "authors") or {}) | authors_recipe(config).get("usual", {})
    return {name: value for name, value in found.items() if name in config.loss.usual}


def with_recipe(training: Node, recipe: Node, dataset: str, trunk: str) -> Node:
    """Fill null training options from a recipe; explicit values take precedence.

    >>> recipe = {"epochs": 60, "cases": [{"when": {"trunk": ["resnet50"]}, "set": {"epochs": 40}}]}
    >>> with_recipe({"epochs": None, "shift": 2}, recipe, "cub", "resnet50")
    {'epochs': 40, 'shift': 2}

    Args:
        training: a configuration of `conf/training`, in which any option may be null.
        recipe: a file of `conf/recipe`: training options, under `protocol` values for `protocol.usual`, and under
            `cases` the options for some data sets and trunks, where a later case overrides an earlier one. Options of
            optimisers and values for the protocol are replaced one by one, all others as a whole.
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
    """`old`, updated with the values of `new` that are not null.

    Values of the protocol and options of optimisers are replaced one by one.
    """
    merged = old | {key: value for key, value in new.items() if value is not None or key not in old}
    if "protocol" in old:
        merged["protocol"] = old["protocol"] | new.get("protocol", {})
    parts = new.get("optimizers") or {}
    if "optimizers" in old:
        merged["optimizers"] = {
            part: node | {key: value for key, value in parts.get(part, {}).items() if value is not None}
            for part, node in old["optimizers"].items()
        }
    return merged


@dataclass(frozen=True)
class ComposedTraining:
    """How a study trains, with every choice of recipe, protocol, loss and command line made.

    Attributes:
        recipe: name of the recipe, or of the training if it has none.
        epochs: passes over the training images; None where early stopping ends the training.
        batch_size: images in a batch.
        sampler: images of each class in a batch, or `shuffled`.
        optimizer: class name of the trunk's optimiser, or of the head's if the trunk is frozen.
        trunk_lr: learning rate of the trunk; None if it is frozen.
        head_lr: learning rate of the head.
        loss_lr: learning rate of the loss's parameters; None if it has none.
        group_lrs: learning rates of groups of them, by prefix of their names.
        weight_decay: weight decay of the trunk, or of the head if the trunk is frozen.
        loss_weight_decay: weight decay of the loss's parameters; None if it has none.
        warmup_epochs: epochs at the start in which the trunk is frozen.
        decay: schedule of the learning rates; empty for constant ones.
        clip: gradient clipping; empty for none.
        pooling: pooling of the trunk's last map; empty for a transformer, whose feature is a token.
        embedding_dim: D.
        setting: hyper-parameters of the loss.
    """

    recipe: str
    epochs: int | None
    batch_size: int
    sampler: str
    optimizer: str
    trunk_lr: float | None
    head_lr: float
    loss_lr: float | None
    group_lrs: dict[str, float]
    weight_decay: float
    loss_weight_decay: float | None
    warmup_epochs: int
    decay: Node
    clip: Node
    pooling: str
    embedding_dim: int
    setting: Node

    def cells(self) -> dict[str, str]:
        """The row of a table: texts by the title of their column."""
        groups = "".join(f", {name} {rate:g}" for name, rate in self.group_lrs.items())
        return {
            "recipe": self.recipe,
            "epochs": "until it stops improving" if self.epochs is None else str(self.epochs),
            "batch": f"{self.batch_size} {self.sampler}",
            "optimiser": self.optimizer,
            "lr trunk": "frozen" if self.trunk_lr is None else f"{self.trunk_lr:g}",
            "lr head": f"{self.head_lr:g}",
            "lr loss": "-" if self.loss_lr is None else f"{self.loss_lr:g}{groups}",
            "weight decay": f"{self.weight_decay:g}",
            "pooling": self.pooling or "-",
            "dim": str(self.embedding_dim),
            "warm-up": str(self.warmup_epochs),
            "decay": _words(self.decay) or "none",
            "clip": _words(self.clip) or "none",
        }


def _words(node: Node) -> str:
    """Options as text: the kind, then names and values."""
    rest = (f"{key} {value}" for key, value in node.items() if key != "kind")
    return " ".join([*([str(node["kind"])] if "kind" in node else []), *rest])


def composed_training(config: Config) -> ComposedTraining:
    """How a study with this configuration trains, in one row.

    Raises:
        UserError: the loss's YAML gives no learning rate.
    """
    training, optimizers, sampler = config.training, config.training.optimizers, config.loss.sampler
    if config.protocol.story == "traditional" and sampler == {"m": 1}:
        sampler = training.sampler or {}
    m = sampler.get("m")
    own = optimizer_options(config) if config.loss.optimizer else {}
    decays = dict(optimizers["loss"]) | own
    network = _of_network(config)
    return ComposedTraining(
        recipe=training.recipe or training.name,
        epochs=training.epochs,
        batch_size=training.batch_size or config.protocol.batch_size,
        sampler="shuffled"
        if m is None
        else f"x {m} per class{', no class twice' * bool(sampler.get('fresh_classes'))}",
        optimizer=str(network["_target_"]).rpartition(".")[2],
        trunk_lr=optimizers["trunk"].get("lr"),
        head_lr=optimizers["head"]["lr"],
        loss_lr=own.get("lr"),
        group_lrs={name: group["lr"] for name, group in own.get("groups", {}).items() if "lr" in group},
        weight_decay=network.get("weight_decay") or 0.0,
        loss_weight_decay=decays.get("weight_decay") if own else None,
        warmup_epochs=warmup_epochs(config),
        decay=training.decay or {},
        clip=training.clip or {},
        pooling=config.trunk.module.get("pool", ""),
        embedding_dim=config.protocol.embedding_dim,
        setting=config.loss.setting,
    )


def warmup_epochs(config: Config) -> int:
    """Epochs at the start in which the trunk is frozen: the loss's authors' number, else the recipe's."""
    found: int = authors_recipe(config).get("warmup_epochs", config.training.warmup_epochs or 0)
    return found


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
    """How the authors optimise the loss on this data set and trunk, with this recipe; empty where rates are searched.

    The parts of `loss.authors` replace one another in this order: its own values, those of the data set, of the trunk
    and of the recipe, the last two again with their own values for the data set.
    """
    if config.protocol.loss_optimizer == "searched":
        return {}
    authors, here = config.loss.authors, config.dataset.name
    trunk = authors.get("trunks", {}).get(config.trunk.name, {})
    recipe = authors.get("recipes", {}).get(config.training.recipe, {})
    return _for_dataset(authors, here) | _for_dataset(trunk, here) | _for_dataset(recipe, here)


def _for_dataset(node: Node, dataset: str) -> Node:
    plain = {key: value for key, value in node.items() if key not in ("datasets", "trunks", "recipes")}
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
    if not {"lr", "lr_multiplier"} & recipe.keys():
        raise UserError(
            f"{path} has parameters but neither authors.lr nor authors.lr_multiplier; use "
            "protocol.loss_optimizer=searched."
        )
    optimizers = config.training.optimizers
    return _multiplied(recipe, optimizers["loss"].get("lr") or _of_network(config)["lr"])


def _of_network(config: Config) -> Node:
    """Options of the trunk's optimiser, or of the head's if the trunk is frozen."""
    optimizers = config.training.optimizers
    return dict(optimizers["trunk"] or optimizers["head"])


def _multiplied(recipe: Node, rate: float) -> Node:
    """Optimiser options from a recipe, in which an `lr_multiplier` is a multiple of `rate`."""
    own = ("lr_multiplier", "groups", "warmup_epochs", "usual")
    options = {key: value for key, value in recipe.items() if key not in own and value is not None}
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
