"""Every command after which there is something to do ends with the command that does it."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark import check_loss as checking
from benchmark import doctor as machine
from benchmark.__main__ import VERBS
from benchmark.core import invocation
from benchmark.final_eval import final_eval
from benchmark.models import gallery
from benchmark.study.study import Study
from tests.cases import slow_except
from tests.command_line import OF_SEARCHES, Ended, on_tiny, run, study_dir, tiny
from tests.datasets import published_layouts
from tests.models.conftest import OPTIONS, write_model
from tests.test_overlap import CROPS, photo

# What these print is what was asked for, and what to do with it is the reader's choice.
ENDS = ("export", "score", "reproduce", "experiment", "report", "status", "logs", "compare", "trace",
        "bench", "bench-front", "bench-gpu", "bench-search")  # fmt: skip
GO_ON = [verb for verb in VERBS if verb not in ENDS]
FAST = ("bo", "final-eval", "tables", "data", "embed", "check-loss", "doctor")  # what most users need first


@pytest.fixture(scope="module")
def evaluated(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a tiny search and its final runs."""
    folder = Path(shutil.copytree(searched, tmp_path_factory.mktemp("evaluated") / "results"))
    assert tiny(final_eval, folder, "keep=best").status == 0
    return folder


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs in two halves."""
    folder = tmp_path_factory.mktemp("mine")
    for seed in range(16):
        photo(folder / ("train", "test")[seed // 8] / "abcd"[seed // 4] / f"{seed}.png", seed)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, compose_study_in: Callable[..., Study]) -> Path:
    """The folder of a model."""
    folder = tmp_path_factory.mktemp("model")
    return write_model(folder / "model", compose_study_in(folder, *OPTIONS))


@pytest.fixture
def options(
    evaluated: Path, mine: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[str]]:
    """The options of a command in a finished folder, with its photographs, a data set and a model."""
    monkeypatch.setattr(gallery, "user_cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(checking, "demands", lambda study, small: iter(()))
    for check in ("packages", "libraries", "data_sets", "weights", "clusters"):
        monkeypatch.setattr(machine, check, lambda *given: iter(()))
    results = f"results_dir={shutil.copytree(evaluated, tmp_path / 'results')}"
    study, images, of_model = f"study={study_dir(tmp_path / 'results')}", f"images={mine}", f"model={model}"
    folder = ["dataset=folder", f"dataset.module.root={mine}", "trunk=efficientnet_lite0", *CROPS]
    again = [word for word in on_tiny() if word.split("=")[0] not in (*OF_SEARCHES, "dataset.iterations_per_epoch")]
    found = {
        "bo": on_tiny(), "final-eval": [study], "traditional": [*again, "training.epochs=1"],
        "robustness": [study, "corruptions=[gaussian_noise]"], "figures": [study], "searches": [], "tables": [],
        "experiments": [], "plan": ["experiment=glyphs_classes", "dataset=glyphs_small", "measure=false"],
        "data": ["dataset=glyphs_small"], "splits": ["protocol.num_folds=2"], "overlap": folder,
        "embed": [of_model, images], "search": [of_model, images, f"query={mine / 'train/a/1.png'}"],
        "check-loss": ["loss=contrastive"], "doctor": [],
    }  # fmt: skip

    def of(verb: str) -> list[str]:
        if verb == "splits":
            found[verb] += published_layouts.write_small("cub", tmp_path / "cub", num_classes=12, per_class=4)
        return found[verb] if verb in ("plan", "check-loss") else [*found[verb], results]

    return of


def ended(verb: str, *words: str) -> Ended:
    def command(study: Study, given: list[str]) -> None:
        VERBS[verb](study, given)

    command.__name__ = verb
    return run(command, *words, protocol=VERBS[verb].protocol)


def test_the_commands_that_end_without_a_next_step_exist() -> None:
    assert {*ENDS} < {*VERBS}


@pytest.mark.slow
@pytest.mark.parametrize("verb", slow_except(FAST, GO_ON))
def test_a_command_ends_with_the_one_that_goes_on(verb: str, options: Callable[[str], list[str]]) -> None:
    done = ended(verb, *options(verb))
    target, suggested = following(done)
    assert (target in VERBS and target != verb) or verb == "splits"
    assert ended(target, *suggested, "--cfg", "job").status == 0


def following(done: Ended) -> tuple[str, list[str]]:
    """The command that another one ended with, and its overrides."""
    assert done.status == 0, done
    last = done.out.splitlines()[-1]
    found = re.search(r"Next: (make .+)", last)
    assert found, f"The last line is {last}"
    _, target, *words = shlex.split(found[1])
    given = {f"{invocation.FROM_MAKE}{name}": value for name, _, value in (word.partition("=") for word in words)}
    assert {*given} <= {f"{invocation.FROM_MAKE}{name}" for name in (*invocation.variables(target), invocation.ARGS)}
    return target, invocation.from_make(given, target)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("cub", "cars196", "sop", "inshop", "inaturalist2019", "grocery"))
def test_the_next_steps_find_a_data_set_that_lies_elsewhere(name: str, tmp_path: Path) -> None:
    here = published_layouts.write_small(name, tmp_path / "elsewhere")
    first = ended("data", *here)
    listed = ended("splits", *here, f"results_dir={tmp_path}")
    described = ended(*_of_data_set(listed))
    for one in (first, described):
        target, suggested = following(one)
        assert target == "bo" and ended(*_of_data_set(one)).out == one.out
        too_early = ended("final-eval", *suggested, f"results_dir={tmp_path}").err
        assert f"make bo DATASET={'csv' if one is described else name}" in too_early
        assert f"ROOT={tmp_path / 'elsewhere'}" in too_early


def _of_data_set(done: Ended) -> list[str]:
    """`make data` with the options that another command printed about its data set."""
    return ["data", *(word for word in following(done)[1] if invocation.key_of(word).startswith("dataset"))]
