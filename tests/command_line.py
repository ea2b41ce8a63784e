"""Run commands as the command line does, but in this process and with trainings of milliseconds."""

import contextlib
import copy
import functools
import io
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import omegaconf
import pytest
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.default_element import InputDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, ListConfig, Node, grammar_parser, nodes
from torch import Tensor, nn

from benchmark import bo, traditional
from benchmark.__main__ import VERBS
from benchmark.core import invocation, plain_yaml, records
from benchmark.core.paths import conf_dir
from benchmark.jobs import train_unit as worker
from benchmark.study import lengths, spaces
from benchmark.study.cli import main
from benchmark.study.study import Study
from benchmark.training.checkpoint import Checkpoint

TINY = (
    "dataset=glyphs_small", "loss=proxy_nca", "trunk.width=8", "dataset.iterations_per_epoch=2", "dataset.max_epochs=1",
    "protocol.batch_size=16", "protocol.num_folds=2", "protocol.num_runs=2", "searcher=sobol", "trials=2",
    "checkpoint_seconds=0", "executor=inline", "display=plain",
)  # fmt: skip
OF_SEARCHES = ("dataset.max_epochs", "protocol.batch_size", "protocol.num_folds", "searcher", "trials")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status and what it printed."""

    status: int
    out: str
    err: str


def copied(node: Node, parent: Any = None) -> Any:
    """A deep copy of a part of a configuration, as OmegaConf makes it in ten times the time."""
    made = object.__new__(type(node))
    fields, own = node.__dict__, made.__dict__
    own.update(fields)
    own["_parent"] = parent
    metadata = own["_metadata"] = object.__new__(type(fields["_metadata"]))
    metadata.__dict__.update(fields["_metadata"].__dict__)
    metadata.flags = None if metadata.flags is None else dict(metadata.flags)
    cache = metadata.resolver_cache
    metadata.resolver_cache = copy.deepcopy(cache) if cache else defaultdict(dict)
    own["_flags_cache"] = None
    content = fields.get("_content")
    if isinstance(content, dict):
        own["_content"] = {key: copied(value, made) for key, value in content.items()}
    elif isinstance(content, list):
        own["_content"] = [copied(value, made) for value in content]
    elif isinstance(content, Node):  # of a union
        own["_content"] = copied(content, made)
    return made


def copy_fast() -> None:
    """Let OmegaConf copy a configuration with `copied`; copying takes half of the time of composing."""
    values = (nodes.AnyNode, nodes.StringNode, nodes.IntegerNode, nodes.FloatNode, nodes.BooleanNode)
    for kind in (DictConfig, ListConfig, *values):
        kind.__deepcopy__ = lambda node, _: copied(node, node._get_parent())  # type: ignore[method-assign, union-attr]


def read_once(scheme: str, path: str) -> None:
    """Let Hydra read each file of one place once a process; parsing YAML takes half of the time of composing."""
    source = SourcesRegistry.instance().resolve(scheme)
    load, files = source.load_config, dict[tuple[str, str], ConfigResult]()

    def load_config(self: ConfigSource, config_path: str) -> ConfigResult:
        if self.path != path:
            return load(self, config_path)
        key = (config_path, self.provider)
        if key not in files:
            files[key] = load(self, config_path)
        return copy.deepcopy(files[key])

    source.load_config = load_config  # type: ignore[method-assign]


def list_choices_where_needed() -> None:
    """Let Hydra collect the choices of a defaults list only if an entry refers to one; a third of choosing files."""
    collect = defaults_list._create_interpolation_map

    def collected(overrides: Any, entries: list[InputDefault], self_added: bool) -> DictConfig:
        needed = any(entry.is_interpolation() for entry in entries)
        return collect(overrides, entries, self_added) if needed else DictConfig({})

    defaults_list._create_interpolation_map = collected


def parse_once() -> None:
    """Let OmegaConf parse each interpolation once a process, a quarter of the time of composing; trees never change."""
    parse = functools.cache(grammar_parser.parse)
    for module in (omegaconf.base, omegaconf._utils):
        module.parse = parse  # type: ignore[attr-defined]


def load_once() -> None:
    """Let this package parse a text of YAML once; a command reads the description of a study several times."""
    load = functools.lru_cache(maxsize=64)(plain_yaml.load)

    def loaded(data: bytes) -> Any:
        return copy.deepcopy(load(data))

    plain_yaml.load = loaded


copy_fast()
parse_once()
load_once()
list_choices_where_needed()
Plugins.instance()  # registers Hydra's sources
read_once("file", str(conf_dir()))
read_once("pkg", "hydra.conf")
CHOSEN: dict[tuple[str, ...], DictConfig] = {}  # what Hydra composes, by the overrides that choose a file
compose_anew = hydra.compose


@functools.cache
def parsed_once(override: str) -> Override:
    """An override as Hydra parses it, which takes 5 ms for those of a command; nothing changes it."""
    return OverridesParser.create().parse_overrides([override])[0]


@functools.cache
def is_group(key: str) -> bool:
    return (conf_dir() / key).is_dir()


def compose(name: str, overrides: list[str]) -> DictConfig:
    """What Hydra composes, which takes 0.1 s for each choice of files; Hydra itself sets the other values in a copy."""
    try:
        parsed = [parsed_once(override) for override in overrides]
    except HydraException:  # as it will raise below
        return compose_anew(name, overrides)
    if any(override.is_sweep_override() or override.is_hydra_override() for override in parsed):
        return compose_anew(name, overrides)  # refused, or with files of a plug-in
    choices = [override for override in parsed if is_group(override.key_or_group)]
    values = [override for override in parsed if override not in choices]
    chosen = tuple(str(override.input_line) for override in choices)
    if chosen not in CHOSEN:
        CHOSEN[chosen] = compose_anew(name, list(chosen))
    config = copy.deepcopy(CHOSEN[chosen])
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    return config


def adapted(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """What a command makes of a composed configuration, which is changed."""
    for part in (lengths, spaces):
        part.adapt(config, overrides)
    return config


def with_values(config: DictConfig, values: list[str]) -> DictConfig:
    """A configuration with these overrides, none of which chooses a file; it is changed."""
    ConfigLoaderImpl._apply_overrides_to_config([parsed_once(value) for value in values], config)
    return config


def run(command: Callable[..., None], *overrides: str, protocol: str = "") -> Ended:
    """Run a command with these overrides and its own protocol. A defect, which would show a traceback, is raised."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    name = command.__name__.replace("_", "-")
    verb = VERBS.get(name)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["benchmark", *overrides])
        patch.setattr(hydra, "compose", compose)
        try:
            several = ("loss",) if name in invocation.OF_SEVERAL_LOSSES else ()
            main(command, protocol, verb is not None and verb.group in ("use", "look"), several)
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Ended(status, out.getvalue(), err.getvalue())


def commanded(verb: str, *overrides: str) -> Ended:
    """Run a command as `run` does, up to the point at which it would open a study to train it."""

    def command(study: Study, given: list[str]) -> None:
        VERBS[verb](study, given)

    def reached(study: Study, given: list[str]) -> None:
        print(f"reached: {study.directory} with seed {study.config.seed}")

    command.__name__ = verb.replace("-", "_")
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((bo, "bo"), (traditional, "traditional")):
            patch.setattr(module, name, reached)
        return run(command, *overrides, protocol=VERBS[verb].protocol)


def on_tiny(*overrides: str) -> list[str]:
    """The overrides of the tiny study, with these added or in their place."""
    keys = {override.split("=")[0] for override in overrides}
    return [override for override in TINY if override.split("=")[0] not in keys] + list(overrides)


def tiny(command: Callable[..., None], results_dir: Path, *overrides: str, protocol: str = "") -> Ended:
    """Run a command on the tiny study; the given overrides win, and the traditional protocol gets none of a search."""
    words = on_tiny(f"results_dir={results_dir}", *overrides)
    if protocol == "traditional" or "protocol=traditional" in overrides:
        words = [word for word in words if word in overrides or word.split("=")[0] not in OF_SEARCHES]
    return run(command, *words, protocol=protocol)


def assert_refused(ended: Ended, *phrases: str) -> None:
    """The command ended as it does for a user's mistake: status 2 and a message with these phrases, no traceback."""
    assert ended.status == 2, ended
    for phrase in phrases:
        assert phrase in ended.err, ended.err
    for noise in ("Traceback", "Error executing job", "hydra.cc"):
        assert noise not in ended.err, ended.err


def study_dir(results_dir: Path, name: str = "proxy_nca") -> Path:
    return results_dir / "studies" / "glyphs_small-small_conv-hpl" / name


def results_of(folder: Path) -> dict[str, Any]:
    """The result of every record below a folder, by its path; in `logs` are messages between processes."""
    paths = sorted(path for path in folder.rglob("*.json") if path.parent.name != "logs")
    return {str(path.relative_to(folder)): records.read_record(path).result for path in paths}


@contextlib.contextmanager
def trainings(change: Callable[[int, Any], None] = lambda number, parts: None) -> Iterator[list[str]]:
    """Collect the units that are trained within the block, as `trial_000/fold_1`, in order.

    Args:
        change: called before each training with its number and its components.
    """
    names: list[str] = []
    train_fold = worker.train_fold

    def counted(parts: Any, schedule: Any, checkpoint: Checkpoint, on_epoch: Any) -> Any:
        change(len(names), parts)
        names.append("/".join(checkpoint.path.parent.parts[-2:]))
        return train_fold(parts, schedule, checkpoint, on_epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "train_fold", counted)
        yield names


class Diverging(nn.Module):
    """A loss that becomes NaN after the given number of iterations."""

    def __init__(self, loss: nn.Module, after: int) -> None:
        super().__init__()
        self.loss, self.left = loss, after

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.left -= 1
        loss: Tensor = self.loss(embeddings, labels)
        return loss if self.left >= 0 else loss * float("nan")
