"""Fixtures of several test files."""

import compileall
import copy
import dataclasses
import functools
import gc
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmark.core.paths import PACKAGE_DIR, conf_dir
from benchmark.datasets import image_check
from benchmark.study.study import Study

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script: Ctrl-C is tested too
    signal.signal(signal.SIGINT, signal.default_int_handler)
gc.disable()  # until the tests are collected, of which nothing can be freed


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once, for all commands that tests start, even where Python does not keep what it compiles."""
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist
        compileall.compile_dir(PACKAGE_DIR, quiet=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests first, so that no worker is left with one of them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none: `make` leaves it out, and a file that is named runs it."""
    if item.get_closest_marker("gpu"):
        import torch  # not before: a test without it starts seconds earlier

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def pytest_collection_finish() -> None:
    """Spare the garbage collector what lives as long as the process, thousands of tests and PyTorch among it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 30, 10)  # a configuration has hundreds of nodes, and a test several
    gc.enable()


def pytest_unconfigure() -> None:
    """Let the interpreter free it at its end; extension modules report what is left as leaked."""
    gc.unfreeze()


RESULTS = Path(__file__).parents[1] / "results"


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below a folder that is no folder, by path; empty if there is none."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            stat = os.lstat(path := os.path.join(place, name))
            found[path] = stat.st_size, stat.st_mtime_ns
    return found


def times(folders: list[str]) -> dict[str, int]:
    """When something was last added to each folder, removed from it or replaced in it; 0 for a folder that is gone."""
    return {folder: os.stat(folder).st_mtime_ns if os.path.isdir(folder) else 0 for folder in folders}


def assert_unchanged(before: Mapping[str, Any], after: Mapping[str, Any], whose: str) -> None:
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    assert not changed, f"{whose}, or another process meanwhile, changed {', '.join(changed[:5])}"


@pytest.fixture(scope="session")
def latest() -> Iterator[list[dict[str, int]]]:
    """The latest times of the folders in the checkout's results. At the end, every file must be what it was, too."""
    before = listing(RESULTS)
    yield [times([place for place, _, _ in os.walk(RESULTS)])]
    assert_unchanged(before, listing(RESULTS), "A test")


@pytest.fixture(scope="module", autouse=True)
def no_writes_into_the_results_of_the_checkout(
    request: pytest.FixtureRequest, latest: list[dict[str, int]]
) -> Iterator[None]:
    """Tests have results folders of their own: what is committed, and what a user has searched, stays as it is."""
    yield
    before, latest[0] = latest[0], times([*latest[0]])
    assert_unchanged(before, latest[0], request.node.name)


@pytest.fixture(scope="session")
def compose_study_in() -> Callable[..., Study]:
    """Make a study with its results in a given folder, `compose_study_in(folder, "loss=hpl_pa")`, composed once."""

    @functools.cache
    def composed(overrides: tuple[str, ...]) -> Study:
        from hydra import initialize_config_dir

        from tests.command_line import adapted, compose

        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return Study.of(adapted(compose("config", list(overrides)), overrides))

    @functools.lru_cache(maxsize=32)
    def study(results_dir: str, overrides: tuple[str, ...]) -> Study:
        made = composed(overrides)
        merged = copy.deepcopy(made.merged)
        assert merged is not None
        merged.results_dir = results_dir  # no other key refers to it
        config = dataclasses.replace(copy.deepcopy(made.config), results_dir=results_dir)
        return Study(json.loads(made.key) | {"results_dir": results_dir}, config, merged)

    return lambda results_dir, *overrides: study(str(results_dir), overrides)


@pytest.fixture
def compose_study(compose_study_in: Callable[..., Study], tmp_path: Path) -> Callable[..., Study]:
    """Compose a study with its results in a temporary folder: `compose_study("loss=hpl_pa", "trials=3")`."""
    return lambda *overrides: compose_study_in(tmp_path / "results", *overrides)


@pytest.fixture(scope="session", autouse=True)
def memo_of_checked_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the memo of checked images out of the user's cache, where the glyphs may stay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_check, "user_cache_dir", lambda: tmp_path_factory.getbasetemp() / "cache")
        yield


@pytest.fixture(scope="session", autouse=True)
def no_fsync() -> Iterator[None]:
    """Do not wait for the disk: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one finished tiny search, for tests to copy."""
    from benchmark.bo import bo
    from tests.command_line import tiny

    folder = tmp_path_factory.mktemp("searched")
    assert tiny(bo, folder).status == 0
    return folder


@pytest.fixture
def results(searched: Path, tmp_path: Path) -> Path:
    """A copy of the finished tiny search, for one test to change."""
    return Path(shutil.copytree(searched, tmp_path / "results"))


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears if the module `canary`, which can be imported, is imported or its function called."""
    mark = tmp_path / "mark"
    (tmp_path / "canary.py").write_text(f"open({str(mark)!r}, 'w').close()\ndef run(**_): open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return mark
