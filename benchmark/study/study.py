"""Configuration -> objects. The only user of Hydra and OmegaConf.

A `Study` is one loss x data set x trunk x protocol. It is known by a hash of what can change a result (its scientific
configuration and the data's fingerprint); trials asked for, executor, display and folders are not part of it, so a
search can be extended and continued elsewhere.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from benchmark.core import records
from benchmark.core.paths import conf_dir
from benchmark.searchers import Parameter, Searcher
from benchmark.study import identity, recipes
from benchmark.study.command import command_for
from benchmark.study.config import Config, schema
from benchmark.study.instantiate import build

if TYPE_CHECKING:  # PyTorch takes seconds to import, and a configuration is checked without it
    import numpy as np
    import torch

    from benchmark.images import Images
    from benchmark.protocol.folds import Fold
    from benchmark.samplers import Sampler
    from benchmark.training.components import HeadModule, LossModule, TrunkModule


@dataclass(frozen=True, eq=False)
class Study:
    """One loss x data set x trunk x protocol: its configuration and the makers of its parts.

    Attributes:
        raw: the configuration as plain data, interpolations unresolved; it travels to workers as JSON.
        config: the same, resolved and typed.
    """

    raw: dict[str, Any]
    config: Config

    @classmethod
    def of(cls, raw: Any, setting: dict[str, Any] | None = None) -> Study:
        """Build a study from a composed or stored configuration.

        Args:
            raw: a mapping with the keys of `schema.Config`.
            setting: hyper-parameters that replace the loss's published ones.

        Raises:
            omegaconf.errors.OmegaConfBaseException: unknown key, missing key or wrong type.
            ValueError: there is no such preset.
        """
        return _stored(json.dumps([raw, setting])) if isinstance(raw, dict) else cls._composed(raw, setting)

    @classmethod
    def _composed(cls, raw: Any, setting: dict[str, Any] | None) -> Study:
        merged = OmegaConf.merge(schema(), raw)
        preset = recipes.preset_setting(OmegaConf.to_object(merged)) if merged.preset else {}  # type: ignore[arg-type]
        for name, value in (preset | (setting or {})).items():
            OmegaConf.update(merged, f"loss.setting.{name}", value, force_add=False)
        if recipe := merged.training.recipe:
            given: Any = OmegaConf.to_container(merged.training)
            body = recipes.read_recipe(conf_dir() / "recipe", recipe)
            filled = recipes.with_recipe(given, body, merged.dataset.name, merged.trunk.name)
            OmegaConf.update(merged, "training", filled, force_add=True)
        config = OmegaConf.to_object(merged)
        assert isinstance(config, Config)
        plain = OmegaConf.to_container(merged, resolve=False)
        assert isinstance(plain, dict)
        return cls(raw=plain, config=config)  # type: ignore[arg-type]

    def with_setting(self, setting: Mapping[str, float | int]) -> Study:
        """This study with other hyper-parameters of its loss; the last few are kept."""
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
        """Where this study's records live."""
        c = self.config
        group = "-".join((c.dataset.name, c.trunk.name, c.protocol.name))
        return Path(c.results_dir) / "studies" / group / "-".join(filter(None, (c.loss.name, c.preset, c.variant)))

    @property
    def title(self) -> str:
        """How messages name this study."""
        return f"{self.config.loss.name} on {self.config.dataset.name}"

    def command(self, target: str, loss: str | None = None) -> str:
        """The shell command that runs a make target for this study, or for another loss in its place."""
        return command_for(self.config, target, loss)

    def science(self, fingerprint: str) -> dict[str, Any]:
        """What can change a result, see `identity.science`."""
        plain: Any = OmegaConf.to_container(OmegaConf.merge(schema(), self.raw), resolve=True)
        return identity.science(plain, self.config, fingerprint)

    def identity(self, fingerprint: str) -> str:
        """A short hash of `science`."""
        return records.digest(self.science(fingerprint))[:16]

    # -- makers -------------------------------------------------------------------------------------------------

    def make_dataset(self) -> Any:
        """The data set; its `test()` is for `final_eval` and `traditional` only."""
        from benchmark.study import data

        return data.make_dataset(self.config)

    def make_images(self, images: Any) -> Images:
        """A half's pixels or picture files, on the study's device, as they are trained on and evaluated."""
        from benchmark.study import data

        return data.make_images(self.config, images, self.make_device())

    def make_folds(self, trainval_classes: np.ndarray, total_classes: int) -> list[Fold]:
        """The protocol's folds, checked to be class-disjoint."""
        from benchmark.protocol import folds as fold_rules

        p = self.config.protocol
        folds = fold_rules.make_folds(
            trainval_classes,
            rule=p.fold_rule,  # type: ignore[arg-type]
            num_folds=p.num_folds,
            total_classes=total_classes,
        )
        fold_rules.check_class_disjoint(folds, trainval_classes)
        return folds

    def make_trunk(self, in_channels: int, seed: int) -> TrunkModule:
        """(B, in_channels, H, W) -> (B, F), weights drawn from `seed`."""
        trunk: TrunkModule = _seeded(seed, lambda: build(self.config.trunk.module, in_channels=in_channels))
        return trunk

    def make_head(self, in_features: int, seed: int) -> HeadModule:
        """(B, F) -> (B, D), weights drawn from `seed`; a loss may ask for other options or for a head of its own."""
        asked, dim = self.config.loss.head, self.config.protocol.embedding_dim
        node = asked if "_target_" in asked else self.config.head.module | asked
        head: HeadModule = _seeded(seed, lambda: build(node, in_features=in_features, embedding_dim=dim))
        return head

    def make_loss(self, num_classes: int, seed: int, class_to_super: np.ndarray, num_images: int) -> LossModule:
        """The loss with its own state, for a fold of `num_classes` training classes.

        Args:
            num_classes: C, training classes of the fold.
            seed: of the loss's own state.
            class_to_super: (C,) super class of each training class, for losses that ask for it; as `true_groups` it is
                for their diagnostics only.
            num_images: training images of the fold.
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
            raise ValueError(
                f"conf/loss/{self.config.loss.name}.yaml needs {', '.join(unknown)}; on offer: {', '.join(offered)}."
            )
        wanted = {key: offered[key] for key in self.config.loss.needs}
        loss: LossModule = _seeded(seed, lambda: build(self.config.loss.module, **wanted))
        return loss

    def make_optimizers(self, **parts: torch.nn.Module) -> dict[str, torch.optim.Optimizer]:
        """One optimiser for each of trunk, head and loss that has parameters."""
        return recipes.make_optimizers(self.config, parts)

    def make_sampler(self, labels: np.ndarray, seed: int) -> Sampler:
        """Which images make a batch."""
        node = {"_target_": "benchmark.samplers.m_per_class.MPerClass"} | self.config.loss.sampler
        sampler: Sampler = build(node, labels=labels, batch_size=self.config.protocol.batch_size, seed=seed)
        return sampler

    def make_space(self) -> dict[str, Parameter]:
        """The loss's search space."""
        return {
            name: Parameter((float(low), float(high)), p.scale, p.type)  # type: ignore[arg-type]
            for name, p in self.config.loss.space.items()
            for low, high in [self.bounds(name)]
        }

    def bounds(self, name: str) -> list[float]:
        """Bounds of a searched hyper-parameter for this data set."""
        return identity.bounds(self.config, name)

    def make_searcher(self) -> Searcher:
        """What proposes settings."""
        searcher: Searcher = build(self.config.searcher.module, space=self.make_space(), seed=self.config.seed)
        return searcher

    def make_device(self) -> torch.device:
        """The device of the study's jobs."""
        import torch

        name = self.config.device
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


@functools.lru_cache(maxsize=4)
def _stored(raw_and_setting: str) -> Study:
    """A study from JSON, kept because all folds of a trial want the same one and composing it takes 0.06 s."""
    return Study._composed(*json.loads(raw_and_setting))


def _seeded(seed: int, make: Callable[[], Any]) -> Any:
    """Run a constructor with torch's global generator set to `seed`, and put that generator back."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        return make()
