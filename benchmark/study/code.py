"""The code that can change a study's numbers: which modules of this project and of plug-ins its digest covers.

An edit of any other module (commands, executors, reports, messages) does not change the digest. Neither does an edit of
`core`, which computes no part of a result. Installed packages, such as PyTorch, are recorded by their versions instead,
see `core.provenance`.
"""

from collections.abc import Iterable, Iterator, Mapping

from benchmark.core.code import Code, code_of
from benchmark.study import plugins
from benchmark.study.study import Study

# The modules of this folder that are part of the digest; its test lists the others.
COMPUTES = ("assemble", "data", "frozen", "instantiate", "passes", "recipes", "schedules", "scoring", "study",
            "testset", "trial_score")  # fmt: skip
TRAINING = ("training", "losses", "datasets", "trunks", "heads", "samplers", "images", "protocol")
ALWAYS = (
    "benchmark.training.loop",
    "benchmark.protocol.statistics",  # the standard error of a trial
    "benchmark.samplers.m_per_class",  # for a loss that names no sampler
    "benchmark.samplers.random",  # for one with `m: null`, and its replacement under the traditional protocol
    *(f"benchmark.study.{name}" for name in COMPUTES),
)


def training_code(study: Study) -> Code:
    """The code that can change the outcome of a study's trainings, or their scores.

    Raises:
        UserError: a module of the configuration does not exist, or a module has a syntax error.
    """
    c = study.config
    nodes = (
        c.loss.module, c.loss.sampler, c.loss.head, c.loss.optimizer, c.trunk.module, c.head.module, c.dataset.module,
        c.training.optimizers,
    )  # fmt: skip
    return _code(study, nodes, TRAINING, ALWAYS)


def search_code(study: Study) -> Code:
    """The code that can change which settings a search proposes, and which trial it chooses, given the scores.

    Raises:
        UserError: the searcher's module does not exist, or a module has a syntax error.
    """
    races = ("benchmark.protocol.racing",) if study.config.searcher.stop_behind is not None else ()
    return _code(study, study.config.searcher.module, ("searchers", "protocol"), races)


def _code(study: Study, nodes: object, parts: Iterable[str], always: Iterable[str]) -> Code:
    named = study.raw.get("plugins", ())
    followed = (*(f"benchmark.{part}" for part in parts), *named, *plugins.neighbours(named))
    modules = {target.rpartition(".")[0] for target in _targets(nodes)}
    ours = {name for name in modules if f"{name}.".startswith(tuple(f"{package}." for package in followed))}
    return code_of(sorted({*ours, *always}), followed)


def _targets(value: object) -> Iterator[str]:
    """The `_target_` of every node inside a value."""
    if isinstance(value, Mapping):
        if isinstance(target := value.get("_target_"), str):
            yield target
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _targets(inner)
