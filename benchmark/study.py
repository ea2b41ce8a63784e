"""Configuration -> objects. The only user of Hydra and OmegaConf.

A `Study` is one loss x data set x trunk x protocol. It is known by a hash of what can change a result (its scientific
configuration and the data's fingerprint); trials asked for, executor, display and folders are not part of it, so a
search can be extended and continued elsewhere.
"""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import hydra.errors
import hydra.utils
import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmark import records
from benchmark.protocol import folds as fold_rules
from benchmark.schema import Config
from benchmark.searchers import Parameter

TARGETS = ("benchmark.", "pytorch_metric_learning.", "torch.", "torchvision.")
NOT_SCIENCE = ("trials", "results_dir", "executor", "display", "keep", "device", "variant")
PROSE = ("label", "description", "source")



def conf_dir() -> Path:
    """The folder of the YAML files: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent
    return next(d for d in (package / "conf", package.parent / "conf") if (d / "config.yaml").exists())


@dataclass(frozen=True)
class Study:
    """One loss x data set x trunk x protocol: its configuration and the makers of its parts.

    Attributes:
        raw: the configuration as plain data, interpolations unresolved; it travels to workers as JSON.
        config: the same, resolved and typed.
    """

    raw: dict[str, Any]
    config: Config

    @classmethod
    def of(cls, raw: Any, setting: dict[str, Any] | None = None) -> "Study":
        """Build a study from a composed or stored configuration.

        Args:
            raw: a mapping with the keys of `schema.Config`.
            setting: hyper-parameters that replace the loss's published ones.

        Raises:
            omegaconf.errors.OmegaConfBaseException: unknown key, missing key or wrong type.
        """
        merged = OmegaConf.merge(OmegaConf.structured(Config), raw)
        for name, value in (setting or {}).items():
            OmegaConf.update(merged, f"loss.setting.{name}", value, force_add=False)
        config = OmegaConf.to_object(merged)
        assert isinstance(config, Config)
        plain = OmegaConf.to_container(merged, resolve=False)
        assert isinstance(plain, dict)
        return cls(raw=plain, config=config)  # type: ignore[arg-type]

    @property
    def directory(self) -> Path:
        """Where this study's records live."""
        c = self.config
        group = "-".join((c.dataset.name, c.trunk.name, c.protocol.name))
        return Path(c.results_dir) / "studies" / group / (c.loss.name + (f"-{c.variant}" if c.variant else ""))

    @property
    def title(self) -> str:
        """How messages name this study."""
        return f"{self.config.loss.name} on {self.config.dataset.name}"

    def command(self, target: str, *extra: str) -> str:
        """The shell command that runs a make target for this study."""
        c = self.config
        return " ".join(("make", target, f"DATASET={c.dataset.name}", f"LOSS={c.loss.name}", *extra))

    def science(self, fingerprint: str) -> dict[str, Any]:
        """What can change a result: the resolved configuration without bookkeeping and prose, and the data."""
        plain: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(Config), self.raw), resolve=True)
        kept = {key: value for key, value in plain.items() if key not in NOT_SCIENCE}
        for group in ("dataset", "protocol"):
            kept[group] = {k: v for k, v in kept[group].items() if k != "trials"}
        for group, value in kept.items():
            if isinstance(value, dict):
                kept[group] = {k: v for k, v in value.items() if k not in PROSE}
        return kept | {"data": fingerprint}

    def identity(self, fingerprint: str) -> str:
        """A short hash of `science`."""
        return records.digest(self.science(fingerprint))[:16]

    # -- makers -------------------------------------------------------------------------------------------------

    def make_dataset(self) -> Any:
        """The data set; its `test()` is for `final_eval` only."""
        return _build(self.config.dataset.module)

    def make_folds(self, trainval_classes: np.ndarray, total_classes: int) -> list[fold_rules.Fold]:
        """The protocol's folds, checked to be class-disjoint."""
        p = self.config.protocol
        folds = fold_rules.make_folds(
            trainval_classes, rule=p.fold_rule, num_folds=p.num_folds, total_classes=total_classes
        )
        fold_rules.check_class_disjoint(folds, trainval_classes)
        return folds

    def make_trunk(self, in_channels: int, seed: int) -> torch.nn.Module:
        """(B, in_channels, H, W) -> (B, F), weights drawn from `seed`."""
        return _seeded(seed, lambda: _build(self.config.trunk.module, in_channels=in_channels))

    def make_head(self, in_features: int, seed: int) -> torch.nn.Module:
        """(B, F) -> (B, D), weights drawn from `seed`."""
        return _seeded(
            seed,
            lambda: _build(
                self.config.head.module, in_features=in_features, embedding_dim=self.config.protocol.embedding_dim
            ),
        )

    def make_loss(self, num_classes: int, seed: int, class_to_super: np.ndarray) -> torch.nn.Module:
        """The loss with its own state, for a fold of `num_classes` training classes.

        Args:
            num_classes: C, training classes of the fold.
            seed: of the loss's own state.
            class_to_super: (C,) super class of each training class, for losses that ask for it.
        """
        offered = {
            "num_classes": num_classes,
            "embedding_dim": self.config.protocol.embedding_dim,
            "seed": seed % 2**31,
            "class_to_super": class_to_super,
        }
        unknown = sorted(set(self.config.loss.needs) - set(offered))
        if unknown:
            raise ValueError(
                f"conf/loss/{self.config.loss.name}.yaml needs {', '.join(unknown)}; on offer: {', '.join(offered)}."
            )
        wanted = {key: offered[key] for key in self.config.loss.needs}
        return _seeded(seed, lambda: _build(self.config.loss.module, **wanted))

    def make_optimizers(self, **parts: torch.nn.Module) -> dict[str, torch.optim.Optimizer]:
        """One optimiser for each of trunk, head and loss that has parameters."""
        optimizers = {}
        for name, part in parts.items():
            parameters = [p for p in part.parameters() if p.requires_grad]
            if not parameters:
                continue
            node = dict(self.config.training.optimizers[name])
            if name == "loss":
                node |= self.config.loss.optimizer or {}
            if "lr" not in node:
                raise ValueError(f"conf/loss/{self.config.loss.name}.yaml has parameters but no optimizer.lr.")
            optimizers[name] = _build(node, params=parameters)
        return optimizers

    def make_sampler(self, labels: np.ndarray, seed: int) -> Any:
        """Which images make a batch."""
        from benchmark.samplers.m_per_class import MPerClass

        settings = dict(self.config.loss.sampler)
        return MPerClass(labels, batch_size=self.config.protocol.batch_size, seed=seed, **settings)

    def make_space(self) -> dict[str, Parameter]:
        """The loss's search space."""
        return {
            name: Parameter((float(p.bounds[0]), float(p.bounds[1])), p.scale, p.type)  # type: ignore[arg-type]
            for name, p in self.config.loss.space.items()
        }

    def make_searcher(self) -> Any:
        """What proposes settings."""
        return _build(self.config.searcher.module, space=self.make_space(), seed=self.config.seed)

    def make_device(self) -> torch.device:
        """The device of the study's jobs."""
        name = self.config.device
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _seeded(seed: int, make: Callable[[], Any]) -> Any:
    """Run a constructor with torch's global generator set to `seed`, and put that generator back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        return make()


def _build(node: dict[str, Any], **arguments: Any) -> Any:
    """Instantiate a `_target_` node; only code of this project and of its libraries can be named.

    Raises:
        ValueError: the target is none of those.
    """
    for target in _targets(node):
        if not re.match("|".join(re.escape(t) for t in TARGETS), target):
            raise ValueError(f"_target_ {target!r} is not allowed; it must start with one of {', '.join(TARGETS)}.")
    return hydra.utils.instantiate(node | {"_partial_": True}, _convert_="all")(**arguments)


def _targets(node: Any) -> list[str]:
    """Every `_target_` below a node."""
    if isinstance(node, dict):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [t for value in node.values() for t in _targets(value)]
    return [t for value in node for t in _targets(value)] if isinstance(node, list) else []


# -- the command line -------------------------------------------------------------------------------------------------


def main(story: Callable[[Study, list[str]], None]) -> None:
    """Run a story for the study that the command line describes; Hydra's own flags work.

    A mistake of the user's ends with a sentence and exit status 2, Ctrl-C with 130; only a defect of ours shows a
    traceback.

    Args:
        story: takes the study and the overrides that the user gave.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us instead of being printed

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def run(config: Any) -> None:
        given = hydra.core.hydra_config.HydraConfig.get().overrides.task
        story(Study.of(config), [str(override) for override in given])

    try:
        run()
    except KeyboardInterrupt:
        _leave("Stopped. Nothing finished is lost: the same command goes on from here.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (hydra.errors.HydraException, OmegaConfBaseException) as error:
        _leave(explain(error), 2)
    except (ValueError, OSError) as error:
        if not _is_ours(error):
            raise
        _leave(str(error.strerror if isinstance(error, OSError) and error.strerror else error), 2)


def _leave(message: str, status: int) -> None:
    print(f"\n{message}", file=sys.stderr)
    raise SystemExit(status)


def _is_ours(error: Exception) -> bool:
    """Whether our own code raised it, on purpose and with a message for people."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).resolve().is_relative_to(Path(__file__).resolve().parent)


def explain(error: Exception) -> str:
    """What is wrong with the configuration, the nearest thing that exists, and how to see what is allowed."""
    text = str(error.__cause__ or error).strip()
    if isinstance(error, hydra.errors.MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return _unknown(f"{group} {name!r}", name, list(error.options), f"Allowed: {', '.join(error.options)}.")
    if found := re.search(r"Could not override '([^']+)'|[Kk]ey '([^']+)' (?:is )?not in", str(error)):
        key = found.group(1) or found.group(2)
        return _unknown(f"key {key!r}", key, known_keys(), "See them all: python -m benchmark.bo --cfg job")
    return f"The configuration does not fit. {text}\nSee what a command would use: python -m benchmark.bo --cfg job"


def _unknown(what: str, name: str, known: list[str], ending: str) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"There is no {what}." + (f" Did you mean {near[0]!r}?" if near else "") + f"\n{ending}"


def known_keys() -> list[str]:
    """Every key of the default configuration, dotted."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return _dotted(OmegaConf.to_container(compose("config"), resolve=False))


def _dotted(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    return [prefix + str(k) for k in node] + [n for k, v in node.items() for n in _dotted(v, f"{prefix}{k}.")]
