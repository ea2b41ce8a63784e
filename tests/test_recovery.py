"""Killed at any moment, the same command leaves the records of an undisturbed run and repeats no finished fold."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from benchmark.core import records
from tests.processes import children, is_alive, wait_for

TINY = [
    "dataset=glyphs_small", "loss=hpl_nca", "trunk.width=8", "dataset.iterations_per_epoch=3", "dataset.max_epochs=3",
    "dataset.hpl.warmup_iterations=2", "protocol.batch_size=32", "protocol.num_runs=2", "searcher=sobol", "trials=3",
    "display=quiet",
]  # fmt: skip

# Runs bo (then final_eval) again and again in forked children. Each child is killed right before or right after its
# k-th rename, the moments at which a file is half there or a record is written and nobody was told. Prints a summary.
KILLER = """
    import json, os, random, signal, sys
    import faiss, record_keeper, rich.console, sklearn.cluster, torch, torch._dynamo  # paid once, before the forks
    torch.set_num_threads(1)
    from pathlib import Path
    from hydra import compose, initialize_config_dir
    from benchmark import bo
    from benchmark import final_eval
    from benchmark.core import records
    from benchmark.study import study as studies
    from benchmark.training import loop as train
    from benchmark.jobs import train_unit as worker

    overrides, log, seed = json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    with initialize_config_dir(str(studies.conf_dir()), version_base="1.3"):
        study = studies.Study.of(compose("config", overrides=overrides))
    trained = worker.train_fold

    def train_fold(parts, schedule, checkpoint, on_epoch):
        unit = checkpoint.parent
        with open(log, "a") as file:
            file.write(json.dumps({
                "unit": str(unit), "was_finished": (unit / "record.json").exists(),
                "had_checkpoint": checkpoint.exists(),
                "start": train._resume(parts, checkpoint)[0].epoch,
            }) + "\\n")
        return trained(parts, schedule, checkpoint, on_epoch)

    worker.train_fold = train_fold
    replace = os.replace

    def deadly(story, kill_at, before):
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
        story(study)

    dice, kills = random.Random(seed), 0
    for story in (lambda s: bo.bo(s, []), final_eval.evaluate):
        while True:
            pid = os.fork()
            if pid == 0:
                deadly(story, dice.randint(1, 5), dice.random() < 0.5)
                os._exit(0)
            status = os.waitpid(pid, 0)[1]
            if status == 0:
                break
            assert os.WTERMSIG(status) == signal.SIGKILL, status
            kills += 1
    print(json.dumps({"kills": kills}))
"""


def run_story(module: str, results: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"benchmark.{module}", *TINY, f"results_dir={results}", *more]
    return subprocess.Popen(command, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **options)  # type: ignore[call-overload, no-any-return]


def results_of(folder: Path) -> dict[str, object]:
    """Every record's result by its path below the results folder."""
    paths = sorted(p for p in folder.rglob("*.json") if "curves" not in p.parts)
    return {str(p.relative_to(folder)): records.read_record(p).result for p in paths}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    for module in ("bo", "final_eval"):
        assert run_story(module, folder, "executor=inline").wait() == 0
    return folder


@pytest.mark.slow
def test_kills_between_write_and_rename_and_between_record_and_tell_change_nothing(
    tmp_path: Path, undisturbed: Path
) -> None:
    overrides = json.dumps([*TINY, "executor=inline", f"results_dir={tmp_path}"])
    log = tmp_path / "trainings.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), overrides, str(log), "5"],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "."},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    kills = json.loads(done.stdout.splitlines()[-1])["kills"]
    trainings = [json.loads(line) for line in log.read_text().splitlines()]
    assert kills >= 20, "the test must kill often enough to mean something"
    assert not any(t["was_finished"] for t in trainings), "a finished fold was trained again"
    assert all(t["start"] >= 0 for t in trainings if t["had_checkpoint"]), "a checkpoint was not used"
    assert any(t["start"] > 0 for t in trainings), "no kill fell into the middle of a fold"
    assert results_of(tmp_path) == results_of(undisturbed)
    print(f"{kills} kills, {len(trainings)} (re)starts of 20 folds, 0 finished folds repeated")


@pytest.mark.slow
def test_random_kills_of_driver_and_workers_change_nothing_and_leave_no_orphans(
    tmp_path: Path, undisturbed: Path
) -> None:
    dice, kills, code = random.Random(3), 0, -1
    while code != 0:
        driver = run_story("bo", tmp_path, "executor=local", "executor.workers=2", "executor.retries=5",
                           start_new_session=True)  # fmt: skip
        deadline = time.monotonic() + dice.uniform(4.0, 9.0) if kills < 6 else float("inf")
        while driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = children(driver.pid)
        if driver.poll() is None:
            victim = driver.pid if kills % 2 == 0 or not workers else dice.choice(workers)
            os.kill(victim, signal.SIGKILL)
            kills += 1
            if victim != driver.pid:
                driver.wait()
        code = driver.wait()
        wait_for(lambda pids=workers: not any(map(is_alive, pids)), 10, "for the workers to end with their driver")
    assert kills >= 2
    expected = {path: r for path, r in results_of(undisturbed).items() if "/bo/" in path}
    assert results_of(tmp_path) == expected
