"""The customary protocol as processes: killed at any moment, with workers, and learning something."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from benchmark.core import records
from benchmark.tables import tables
from benchmark.traditional import traditional
from tests.command_line import run, trainings
from tests.datasets import published_layouts

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
TINY = [
    "dataset=glyphs_small", "loss=hpl_nca", "trunk.width=8", "protocol.num_runs=2", "protocol.held_out=0.2",
    "training.batch_size=128", "training.epochs=4", "display=quiet",
]  # fmt: skip

# Runs the story again and again in forked children, each killed right before or right after its k-th rename.
KILLER = """
    import json, os, random, signal, sys
    import record_keeper, rich.console, sklearn.cluster, torch, torch._dynamo  # paid once, before the forks
    torch.set_num_threads(1)
    from hydra import compose, initialize_config_dir
    from benchmark.study import study as studies
    from benchmark import traditional
    from benchmark.jobs import train_unit as worker

    with initialize_config_dir(str(studies.conf_dir()), version_base="1.3"):
        study = studies.Study.of(compose("config", overrides=json.loads(sys.argv[1])))
    replace = os.replace

    def deadly(kill_at, before):
        calls = 0
        def dying(source, target):
            nonlocal calls
            calls += 1
            if calls == kill_at and before:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        os.replace = dying
        traditional.traditional(study, [])

    dice, kills = random.Random(7), 0
    while True:
        pid = os.fork()
        if pid == 0:
            deadly(dice.randint(1, 3), dice.random() < 0.5)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        kills += 1
    print(kills)
"""


def command(results_dir: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "benchmark.traditional", *TINY, f"results_dir={results_dir}", *more]


def results_of(folder: Path) -> dict[str, Any]:
    return {str(p.relative_to(folder)): records.read_record(p).result for p in sorted(folder.rglob("run_*.json"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(command(folder, "executor=inline"), check=True, env=ENVIRONMENT, cwd=ROOT)
    return folder


def test_kills_between_write_and_rename_change_nothing(tmp_path: Path, undisturbed: Path) -> None:
    choices = json.dumps([*TINY, "protocol=traditional", "executor=inline", f"results_dir={tmp_path}"])
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLER), choices], capture_output=True, text=True,
                          check=False, env=ENVIRONMENT, cwd=ROOT)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= 5, "the test must kill often enough to mean something"
    assert results_of(tmp_path) == results_of(undisturbed)
    assert len(results_of(tmp_path)) == 2


def test_workers_give_the_same_records_and_a_killed_driver_goes_on(tmp_path: Path, undisturbed: Path) -> None:
    dice, kills, code = random.Random(3), 0, -1
    while code != 0:
        driver = subprocess.Popen(command(tmp_path, "executor.workers=2"), env=ENVIRONMENT, cwd=ROOT)
        try:
            code = driver.wait(timeout=dice.uniform(6.0, 12.0) if kills < 2 else None)
        except subprocess.TimeoutExpired:
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
            kills += 1
    assert results_of(tmp_path) == results_of(undisturbed)


@pytest.mark.parametrize("loss", ["hpl_pa", "hist", "proxygml"])
def test_every_papers_recipe_learns_on_glyphs(tmp_path: Path, loss: str) -> None:
    choices = ["dataset=glyphs_small", f"loss={loss}", "training.epochs=8", "display=quiet", f"results_dir={tmp_path}"]
    subprocess.run([sys.executable, "-m", "benchmark.traditional", *choices], check=True, env=ENVIRONMENT, cwd=ROOT)
    (found,) = results_of(tmp_path).values()
    untrained, last = found["history"][0]["watched"], found["selected"]["last_epoch"]
    assert last["recall_at_1"] > 2 * untrained["recall_at_1"] and last["map_at_r"] > 2 * untrained["map_at_r"]
    assert found["selected"]["best_on_test"]["recall_at_1"] >= last["recall_at_1"]


PICTURES = (
    "loss=hpl_pa", "trunk=small_conv", "trunk.width=8", "protocol.images.short_side=36", "protocol.images.crop=32",
    "training.batch_size=16", "training.epochs=2", "executor=inline", "display=plain", "loss.setting.num_coarse=3",
)  # fmt: skip


@pytest.mark.parametrize("name", ["cub", "cars196", "sop", "inshop", "inaturalist2019"])
def test_every_published_layout_goes_through_with_its_own_recalls(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))
    dataset = published_layouts.write_small(name, tmp_path / "a", num_classes=16, per_class=6)
    seen: list[Any] = []
    with trainings(lambda number, parts: seen.append(parts.monitored)):
        ended = run(traditional, *dataset, *PICTURES, f"results_dir={tmp_path}", protocol="traditional")
    assert ended.status == 0, ended.err
    (record,) = (records.read_record(path) for path in tmp_path.rglob("run_00.json"))
    recalls = {"sop": (1, 10, 100, 1000), "inshop": (1, 10, 20, 30, 40, 50)}.get(name, (1, 2, 4, 8, 16, 32))
    best = record.result["selected"]["best_on_test"]
    assert {f"recall_at_{k}" for k in recalls} <= best.keys() and 0 < best["map_at_r"] <= 1
    assert (seen[0].is_query is None) == (name != "inshop")
    assert len(record.provenance["test_contents"]) == 64
    assert run(tables, f"results_dir={tmp_path}").status == 0
