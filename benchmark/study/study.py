"""Build a study's components from its configuration, which is composed by Hydra and OmegaConf.

A `Study` is one loss x data set x trunk x protocol. It is identified by a hash of everything that can change a result
(its scientific configuration and the data's fingerprint). The hash does not cover the number of trials and runs, the
executor, the display and folders, so that a search can be extended and resumed elsewhere.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmark.core.devices import device_here
from benchmark.core.errors import UserError
from benchmark.core.names import similar_name
from benchmark.core.paths import conf_dir
from benchmark.core.typed import LARGEST_INT
from benchmark.protocol.seeds import stable_seed
from benchmark.searchers import Kind, Parameter, Scale, Searcher, num_settings
from benchmark.study import identity, messages, recipes
from benchmark.study.command import command_for, command_for_folder, results_dir_of, tables_command
from benchmark.study.config import Config, Node, schema
from benchmark.study.instantiate import NodeKind, build
from benchmark.study.plugins import check_names, conf_dirs
from benchmark.study.stored import read_study
from benchmark.study.unused import searches, settings_read
from benchmark.study.version_1 import upgrade

if TYPE_CHECKING:  # PyTorch takes seconds to import, and a configuration is checked without it
    import numpy as np
    import torch

    from benchmark.datasets import Dataset
    from benchmark.images import Images
    from benchmark.protocol.folds import Fold
    from benchmark.samplers import Sampler
    from benchmark.study.data import ImageSource
    from benchmark.training.components import HeadModule, LossModule, TrunkModule

Made = TypeVar("Made")


class ConfigurationError(UserError):
    """A configuration with an unknown or missing key, or a value of the wrong type; caused by OmegaConf's error."""


@dataclass(frozen=True, eq=False)
class Study:
    """One loss x data set x trunk x protocol: its configuration and the methods that build its components.

    Attributes:
        raw: the configuration as plain data with unresolved interpolations; it travels to workers as JSON.
        config: the resolved, typed configuration.
        merged: `raw` as OmegaConf's typed container, if it is at hand; it saves reading `raw` once more.
    """

    raw: Node
    config: Config
    merged: DictConfig | None = field(default=None, repr=False)

    @classmethod
    def of(cls, raw: Node | DictConfig, setting: Node | None = None) -> Study:
        """Build a study from a composed or stored configuration.

        Args:
            raw: a mapping with the keys of `config.Config`; one of version 1 is converted.
            setting: hyper-parameters that replace the loss's published ones.

        Raises:
            ConfigurationError: a key is unknown or missing, or a value has the wrong type.
            UserError: the preset or the recipe does not exist.
        """
        try:
            return _stored(json.dumps([raw, setting])) if isinstance(raw, dict) else cls._composed(_plain(raw), setting)
        except OmegaConfBaseException as error:
            raise ConfigurationError(messages.does_not_fit(str(error))) from error

    @classmethod
    def _composed(cls, raw: Node, setting: Node | None) -> Study:
        merged = _merged(upgrade(raw))
        if merged.loss.untrained:
            OmegaConf.update(merged, "preset", merged.preset or "default")
            OmegaConf.update(merged, "protocol.num_runs", 1)
        named = merged.preset not in ("", "default")
        preset = recipes.preset_setting(cast(Config, OmegaConf.to_object(merged))) if named else {}
        for name, value in (preset | (setting or {})).items():
            OmegaConf.update(merged, f"loss.setting.{name}", value, force_add=False)
        check_names(_plain(merged.plugins))
        if recipe := merged.training.recipe:
            body = recipes.read_recipe([folder / "recipe" for folder in conf_dirs(merged.plugins)], recipe)
            filled = recipes.with_recipe(_plain(merged.training), body, merged.dataset.name, merged.trunk.name)
            OmegaConf.update(merged, "protocol.usual", filled.pop("protocol", {}), force_add=True)
            OmegaConf.update(merged, "training", filled, force_add=True)
        if merged.trunk.name == merged.trunk.network != "":  # whose dots a folder's name cannot have
            OmegaConf.update(merged, "trunk.name", similar_name(merged.trunk.network))
        if None in merged.trunk.images.values():
            from benchmark.trunks.timm_trunk import image_options  # imports PyTorch, which takes seconds

            options = image_options(merged.trunk.network, _plain(merged.trunk.images))
            OmegaConf.update(merged, "trunk.images", options, force_add=True)
        config = cast(Config, OmegaConf.to_object(merged))
        if usual := recipes.usual_values(config):
            OmegaConf.update(merged, "loss.usual", usual, force_add=True)
            config = cast(Config, OmegaConf.to_object(merged))
        return cls(raw=_plain(merged), config=config, merged=merged)

    def with_setting(self, setting: Mapping[str, float | int]) -> Study:
        """This study with other hyper-parameters of its loss; the most recent ones are cached."""
        return Study.of(self.raw, dict(setting))

    @functools.cached_property
    def key(self) -> str:
        """The configuration as text, by which studies are compared and cached."""
        return json.dumps(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Study) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def directory(self) -> Path:
        """The folder of this study's records: the one that was named, else that of its loss, data set, ..."""
        c = self.config
        if c.study:
            return Path(c.study)
        group = "-".join((c.dataset.name, c.trunk.name, c.protocol.name))
        number = f"search{c.search}" if c.search else ""
        names = filter(None, (c.loss.name, c.preset, c.variant, number))
        return Path(c.results_dir) / "studies" / group / "-".join(names)

    @property
    def title(self) -> str:
        """The name of this study in messages."""
        c = self.config
        return f"{c.loss.name} on {c.dataset.name}" + f" (search{c.search})" * (c.search > 0)

    @property
    def seed(self) -> int:
        """Seed of the study's random numbers: `seed`, or for a repeated search one that its number is part of.

        It is at most `LARGEST_INT`, so that records can hold it.
        """
        c = self.config
        return stable_seed(c.seed, "search", c.search) % LARGEST_INT if c.search else c.seed

    def repetitions(self) -> list[Study]:
        """This study and, with `searches`, those that repeat its search; only itself if it is one of these."""
        more = range(1, 1 if self.config.search else self.config.searches)
        return [self, *(self._repetition(number) for number in more)]

    def _repetition(self, number: int) -> Study:
        folder = self.raw.get("study")
        named = {"study": f"{folder}-search{number}"} if folder else {}
        return Study.of(self.raw | {"search": number, "searches": 1} | named)

    def command(self, target: str, *more: str) -> str:
        """The shell command that runs a target for this study.

        Args:
            target: names of commands, separated by blanks, such as `bo final-eval`.
            more: further overrides, for a study that is stored.
        """
        if target == "tables":
            return tables_command(results_dir_of(self.directory))
        if target not in ("data", "splits") and (self.directory / "study.yaml").is_file():
            return command_for_folder(self.directory, target, *self._other_budget(), *more)
        return command_for(self.config, target)

    def _other_budget(self) -> list[str]:
        """Overrides for the numbers of trials and runs that differ from those in the folder's `study.yaml`."""
        try:
            stored = read_study(self.directory)
        except UserError:  # the command that is suggested reports it
            return []
        trials, num_runs = self.num_trials, self.config.protocol.num_runs
        return [f"trials={trials}"] * (trials != stored.trials) + [f"protocol.num_runs={num_runs}"] * (
            num_runs != stored.num_runs
        )

    def science(self, fingerprint: str) -> Node:
        """Everything that can change a result, see `identity.science`."""
        return identity.science(copy.deepcopy(self._resolved), self.config, self.setting, fingerprint)

    @functools.cached_property
    def setting(self) -> dict[str, float | int]:
        """The hyper-parameters of the loss that the study reads; a search proposes values for all of them."""
        names = self.config.loss.setting if searches(self.config) else settings_read(self.raw, self.config)
        return {name: self.config.loss.setting[name] for name in names}

    @functools.cached_property
    def _resolved(self) -> Node:
        """The configuration with interpolations resolved; kept because resolving takes 0.01 s."""
        merged = OmegaConf.merge(schema(), self.raw) if self.merged is None else self.merged
        return cast(Node, OmegaConf.to_container(merged, resolve=True))

    def identity(self, fingerprint: str) -> str:
        """A short hash of `science`."""
        return identity.short_digest(self.science(fingerprint))

    # -- components ----------------------------------------------------------------------------------------------

    def make_dataset(self) -> Dataset:
        """Build the data set; only `final_eval` and `traditional` may call its `test()`."""
        from benchmark.study import data

        return data.make_dataset(self.config)

    def make_images(self, images: ImageSource) -> Images:
        """Prepare a half for training and evaluation on the study's device: its images, or a frozen trunk's features.

        Args:
            images: pixels, or image files.
        """
        from benchmark.study import frozen

        if self.config.training.views is not None:
            return frozen.feature_images(self, images)
        return self.make_pixels(images)

    def make_pixels(self, images: ImageSource) -> Images:
        """Prepare the pixels or image files of a half on the study's device, in the format of the trunk."""
        from benchmark.study import data

        return data.make_images(self.config, images, self.make_device())

    def make_folds(self, trainval_classes: np.ndarray, total_classes: int) -> list[Fold]:
        """Divide classes into the protocol's folds, and check that these are class-disjoint.

        Args:
            trainval_classes: int64 (C,), ids of the classes that may be trained on.
            total_classes: number of classes in both halves.
        """
        from benchmark.protocol import folds as fold_rules

        p = self.config.protocol
        return fold_rules.make_folds(
            trainval_classes,
            rule=cast(fold_rules.FoldRule, p.fold_rule),  # which checks it
            num_folds=p.num_folds,
            total_classes=total_classes,
        )

    def make_trunk(self, in_channels: int, seed: int) -> TrunkModule:
        """Build the trunk, (B, in_channels, H, W) -> (B, F), with weights drawn from `seed`."""
        node = self.config.trunk.module
        trunk: TrunkModule = _seeded(seed, lambda: self._build(node, "trunk", in_channels=in_channels))
        return trunk

    def make_trained_trunk(self, images: Images, seed: int) -> TrunkModule:
        """The trunk that training changes: that of `make_trunk` or, on the features of a frozen one, a mere passage.

        Args:
            images: what `make_images` returned, or a part of it.
            seed: seed of random weights.
        """
        from benchmark.images.features import FeatureImages
        from benchmark.trunks.precomputed import Precomputed

        if isinstance(images, FeatureImages):
            return cast("TrunkModule", Precomputed(images.channels))
        return self.make_trunk(images.channels, seed)

    def make_head(self, in_features: int, seed: int) -> HeadModule:
        """Build the head, (B, F) -> (B, D), with weights drawn from `seed`; a loss may require another head."""
        asked, dim = self.config.loss.head, self.config.protocol.embedding_dim
        node = asked if "_target_" in asked else self.config.head.module | asked
        head: HeadModule = _seeded(seed, lambda: self._build(node, "head", in_features=in_features, embedding_dim=dim))
        return head

    def make_loss(self, num_classes: int, seed: int, class_to_super: np.ndarray, num_images: int) -> LossModule:
        """Build the loss for a fold.

        Args:
            num_classes: C, number of training classes of the fold.
            seed: determines the initial state of the loss.
            class_to_super: int64 (C,), super class of each training class. A loss gets it as `class_to_super` to train
                with, or as `true_groups` for its diagnostics.
            num_images: number of training images of the fold.

        Raises:
            UserError: the loss needs an argument that does not exist, or refuses a setting.
        """
        offered = {
            "num_classes": num_classes,
            "embedding_dim": self.config.protocol.embedding_dim,
            "seed": seed % 2**31,
            "class_to_super": class_to_super,
            "true_groups": class_to_super,
            "num_images": num_images,
        }
        unknown = sorted(set(self.config.loss.needs) - set(offered))
        if unknown:
            raise UserError(
                f"conf/loss/{self.config.loss.name}.yaml needs {', '.join(unknown)}; available: {', '.join(offered)}."
            )
        wanted = {key: offered[key] for key in self.config.loss.needs}
        loss: LossModule = _seeded(seed, lambda: self._build(self.config.loss.module, "loss", **wanted))
        return loss

    def make_optimizers(self, **parts: torch.nn.Module) -> dict[str, torch.optim.Optimizer]:
        """Build one optimiser for each of trunk, head and loss that has trainable parameters."""
        return recipes.make_optimizers(self.config, parts)

    def make_sampler(self, labels: np.ndarray, seed: int) -> Sampler:
        """Build the sampler of batches.

        Args:
            labels: int64 (N,) in 0..C-1, the class of each training image.
            seed: determines all batches.
        """
        asked, per_class = self.config.loss.sampler, "benchmark.samplers.m_per_class.MPerClass"
        shuffled = "_target_" not in asked and asked.get("m", 1) is None
        node = {"_target_": "benchmark.samplers.random.Random"} if shuffled else {"_target_": per_class} | asked
        batch_size = self.config.protocol.batch_size
        sampler: Sampler = self._build(node, "sampler", labels=labels, batch_size=batch_size, seed=seed)
        return sampler

    def make_space(self) -> dict[str, Parameter]:
        """The loss's search space."""
        return {
            name: Parameter((float(low), float(high)), cast(Scale, self.scale(name)), cast(Kind, p.type))
            for name, p in self.config.loss.space.items()
            for low, high in [self.bounds(name)]
        }

    def bounds(self, name: str) -> list[float]:
        """Bounds of a searched hyper-parameter for the study's data set."""
        return identity.bounds(self.config, name)

    def scale(self, name: str) -> str:
        """Scale of a searched hyper-parameter for the study's data set: linear or log."""
        return identity.scale(self.config, name)

    @property
    def first_trial(self) -> dict[str, float | int]:
        """The setting that a search tries first with `protocol.defaults_first`."""
        start = self.config.searcher.module.get("defaults", self.config.loss.setting)
        return {name: start.get(name) if p.default is None else p.default for name, p in self.config.loss.space.items()}

    @property
    def num_trials(self) -> int:
        """Number of trials of the search: `trials`, or the number of settings in the search space if that is lower."""
        try:
            limit = num_settings(self.make_space())
        except UserError:  # `check_space` reports what is wrong with it
            limit = None
        return min(self.config.trials, limit or self.config.trials)

    def make_searcher(self) -> Searcher:
        """Build the searcher."""
        node, space = self.config.searcher.module, self.make_space()
        shared = identity.shared_parameters(self.config)
        more = {"shared": shared} if shared else {}
        if "defaults" in node:
            node = node | {"defaults": self.first_trial}
        searcher: Searcher = self._build(node, "searcher", space=space, seed=self.seed, **more)
        return searcher

    def _build(self, node: Node, kind: NodeKind, **arguments: object) -> Any:
        return build(node, kind, plugins=self.config.plugins, **arguments)

    def make_device(self) -> torch.device:
        """The device on which this process trains.

        Raises:
            UserError: this machine has no such device.
        """
        return device_here(self.config.device)


@dataclass(frozen=True)
class _Part:
    """A part of a configuration; it equals one with the same text, so that what is made from it can be cached."""

    text: str
    value: Node = field(compare=False)

    @classmethod
    def of(cls, value: Node) -> _Part:
        return cls(repr(value), value)


def _merged(raw: Node) -> DictConfig:
    """`OmegaConf.merge(schema(), raw)`, in a third of its time for sections that were merged before.

    Raises:
        OmegaConfBaseException: the one that `merge` raises.
    """
    sections = {key: value for key, value in raw.items() if isinstance(value, dict)}
    rest = {key: value for key, value in raw.items() if key not in sections}
    try:
        merged = OmegaConf.merge(_merged_sections(_Part.of(sections)), rest)
    except OmegaConfBaseException:  # of several mistakes, `merge` names the first
        merged = OmegaConf.merge(schema(), raw)
    return cast(DictConfig, merged)


@functools.lru_cache(maxsize=16)
def _merged_sections(part: _Part) -> DictConfig:
    """Sections with the schema's types and defaults; shared, so that it must be copied, as `OmegaConf.merge` does."""
    merged = copy.deepcopy(schema())
    for key, value in part.value.items():
        merged[key] = _merged_section(_Part.of({key: value}))[key]  # a copy
    return merged


@functools.lru_cache(maxsize=256)
def _merged_section(part: _Part) -> DictConfig:
    return cast(DictConfig, OmegaConf.merge(schema(), part.value))


@functools.lru_cache(maxsize=16)
def _stored(raw_and_setting: str) -> Study:
    """A study from JSON; cached because all folds of a trial need it and composing takes 0.06 s."""
    return Study._composed(*json.loads(raw_and_setting))


def read_loss(name: str) -> Node:
    """The content of `conf/loss/NAME.yaml` for the default data set, interpolations unresolved."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return _plain(compose("config", [f"loss={name}"]).loss)


def _plain(config: object) -> Node:
    """A configuration as nested dictionaries, interpolations unresolved."""
    return cast(Node, OmegaConf.to_container(config, resolve=False))


def _seeded(seed: int, make: Callable[[], Made]) -> Made:
    """Run a constructor with torch's global generator set to `seed`, and restore that generator afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        return make()
