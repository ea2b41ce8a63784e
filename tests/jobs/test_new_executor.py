"""Adding an executor takes one module and one YAML file."""

import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.bo import bo
from benchmark.core import paths
from benchmark.jobs import executors, placement
from tests.command_line import assert_refused, results_of, study_dir, tiny

MODULE = '''
    """Units in a thread of this process."""

    from concurrent.futures import ThreadPoolExecutor
    from dataclasses import dataclass

    from benchmark.core.errors import UserError


    @dataclass(frozen=True)
    class Options:
        workers: int | None
        greeting: str = ""

        def __post_init__(self):
            if self.greeting == "rude":
                raise UserError(f"executor.greeting={self.greeting!r}: be polite.")

        def num_workers(self, device):
            return self.workers or 1

        def on_this_machine(self):
            return True

        def make(self, job):
            return Thread(self, job)


    class Thread:
        queues = False

        def __init__(self, options, job):
            self.options, self.job, self.pool = options, job, ThreadPoolExecutor(1)

        def submit(self, spec):
            return self.pool.submit(self.job.run, spec, self.job.on_progress)

        def close(self):
            print(f"{self.options.greeting} from {self.job.workers} workers", flush=True)
            self.pool.shutdown()
'''
YAML = "name: thread\nworkers: auto\nretries: 0\ntimeout_minutes: 30\ngreeting: hello\n"


@pytest.fixture(autouse=True)
def thread_executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A checkout with `conf/executor/thread.yaml` and `benchmark/jobs/executors/thread.py`."""
    shutil.copytree(paths.conf_dir(), tmp_path / "conf")
    (tmp_path / "conf" / "executor" / "thread.yaml").write_text(YAML)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "thread.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.setattr(paths, "CHECKOUT_DIR", tmp_path)
    monkeypatch.setattr(executors, "__path__", [*executors.__path__, str(tmp_path / "modules")])
    yield
    sys.modules.pop("benchmark.jobs.executors.thread", None)


@pytest.mark.slow
def test_a_search_runs_on_it_and_leaves_the_records_of_any_other(tmp_path: Path, searched: Path) -> None:
    ended = tiny(bo, tmp_path / "results", "executor=thread", "executor.greeting=bye")
    assert ended.status == 0 and "bye from 1 workers" in ended.out
    assert results_of(study_dir(tmp_path / "results")) == results_of(study_dir(searched))


@pytest.mark.slow
def test_its_options_are_its_own_to_check(tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert_refused(
        tiny(bo, results, "executor=thread", "executor.greeting=rude"), "executor.greeting='rude': be polite"
    )
    ended = tiny(bo, results, "executor=thread", "executor.greting=hi")
    assert_refused(ended, "no key 'executor.greting'", "Did you mean 'executor.greeting'?")
    assert_refused(tiny(bo, results, "+executor.greeting=hi"), "executor.greeting: executor=inline has no such key")
    ended = tiny(bo, results, "executor.name=tread")
    assert_refused(ended, "executor.name='tread': allowed are inline, local, ray, slurm, thread.")
    assert not results.exists(), "refused before anything is written"


def test_every_executor_in_the_configuration_has_a_module() -> None:
    yamls = {path.stem for path in (paths.conf_dir() / "executor").glob("*.yaml")}
    assert set(placement.executor_names()) == yamls == {"inline", "local", "ray", "slurm", "thread"}
