"""Real processes, really hurt: after each fault no finished fold is repeated, none lost, and records are the same."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.bo import bo
from benchmark.core import records
from benchmark.jobs.heartbeat import last_heartbeat
from benchmark.status import status
from tests.command_line import on_tiny, results_of, run, study_dir, tiny
from tests.processes import children, is_alive, wait_for

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
# Some seconds of training, so that there is a middle to be hurt in.
LONG = ("trials=1", "dataset.iterations_per_epoch=300", "dataset.max_epochs=5", "dataset.patience=9",
        "protocol.batch_size=64")  # fmt: skip
LOCAL = ("executor=local", "executor.workers=2")
UNIT = Path("bo", "trial_000", "fold_1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert tiny(bo, folder, *LONG).status == 0
    return results_of(study_dir(folder) / "bo")


@pytest.fixture
def search(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the same search in a process of its own."""
    processes = []

    def begin(*overrides: str, results: Path = tmp_path, **environment: str) -> subprocess.Popen[str]:
        command = on_tiny(*LONG, *LOCAL, f"results_dir={results}", *overrides)
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmark.bo", *command],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        )  # fmt: skip
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def worker_in_mid_fold(unit: Path, after: int = 0) -> int:
    """Wait until a unit has scored a trained epoch in an attempt after so many, and return its worker's process."""

    def beat() -> int | None:
        try:
            attempt = (unit / "log").read_text().split("start: ")[after + 1 :]
            if attempt and re.search(r"epoch [1-9]", attempt[-1]):
                return int(json.loads((unit / "alive.json").read_bytes())["pid"])
        except (FileNotFoundError, json.JSONDecodeError):
            pass
        return None

    return int(wait_for(beat))


def assert_nothing_repeated_or_lost(results: Path, undisturbed: dict[str, Any]) -> None:
    folder = study_dir(results)
    assert results_of(folder / "bo") == undisturbed
    for log in folder.glob("bo/trial_*/fold_*/log"):
        assert "start: " not in log.read_text().partition(" end\n")[2], f"{log}: trained again after its end"
    assert not list(folder.rglob("alive.json")) and not list(folder.rglob("checkpoint.pt"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (signal.SIGKILL, "killed by signal 9"),
        (signal.SIGTERM, "killed by signal 15"),
        (signal.SIGSTOP, "no batch in 0.25 min"),
    ],
)
def test_a_worker_that_is_killed_terminated_or_hangs_costs_its_unit_a_retry(
    fault: signal.Signals, said: str, tmp_path: Path, search: Any, undisturbed: dict[str, Any]
) -> None:
    driver, unit = search("executor.timeout_minutes=0.25"), study_dir(tmp_path) / UNIT
    victim = worker_in_mid_fold(unit)
    os.kill(victim, fault)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    assert f"trial_000/fold_1: {'A worker' if 'killed' in said else said}" in out and said in out
    assert "tried again (1 of 2)" in out and not is_alive(victim)
    assert (unit / "log").read_text().count("resume: ") == 1
    assert_nothing_repeated_or_lost(tmp_path, undisturbed)


@contextlib.contextmanager
def little_memory(pid: int) -> Iterator[None]:
    """Let a process have 1 MB more than it has; the kernel kills it when it asks for more."""
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    parent, limit = (old, "memory.limit_in_bytes") if old.is_dir() else (new, "memory.max")
    group = parent / f"test-{pid}"
    try:
        group.mkdir()
        (group / limit).write_text(str(1 << 20))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"limiting a process's memory needs root and a writable cgroup: {error}")
    (group / "cgroup.procs").write_text(str(pid))
    yield
    wait_for(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_a_worker_that_the_kernel_kills_for_its_memory_costs_its_unit_a_retry(
    tmp_path: Path, search: Any, undisturbed: dict[str, Any]
) -> None:
    """At the start of a unit: later a worker makes do with what it has."""
    driver, unit = search(), study_dir(tmp_path) / UNIT
    with little_memory(int(wait_for(lambda: last_heartbeat(unit))["pid"])):
        out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    assert "trial_000/fold_1: A worker ended" in out and "killed by signal 9" in out and "tried again (1 of 2)" in out
    assert (unit / "log").read_text().count("start: ") == 2
    assert_nothing_repeated_or_lost(tmp_path, undisturbed)


CLOCK = """
import os, time
true_time = time.time
def time_as_told():
    with open(os.environ["CLOCK"]) as file:
        return true_time() + float(file.read())
time.time = time_as_told
"""


@pytest.mark.parametrize("jump", [-90_000, 90_000])
def test_a_wall_clock_that_jumps_by_a_day_neither_ends_nor_changes_anything(
    jump: int, tmp_path: Path, search: Any, undisturbed: dict[str, Any]
) -> None:
    """In every process of ours: Python runs `sitecustomize` when it starts."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    (clock := tmp_path / "clock").write_text("0")
    results = tmp_path / "results"
    driver = search("executor.timeout_minutes=0.25", results=results, PYTHONPATH=str(tmp_path), CLOCK=str(clock))
    unit = study_dir(results) / UNIT
    worker_in_mid_fold(unit)
    before = json.loads((unit / "alive.json").read_bytes())["at"]
    records.write_whole(clock, str(jump).encode())
    after = wait_for(
        lambda: (beat := last_heartbeat(unit)) is None or (abs(beat["at"] - before) > 80_000 and beat["at"])
    )
    assert after is True or (after > before) == (jump > 0), "the unit has seen the jump, or is done"
    told = run(status, f"results_dir={results}")
    assert told.status == 0 and not re.search(r"-\d", told.out)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    assert "tried again" not in out and not (study_dir(results) / "trouble.jsonl").exists()
    assert_nothing_repeated_or_lost(results, undisturbed)


@pytest.mark.parametrize("jobs_survive", [True, False])
def test_a_search_whose_executor_is_lost_goes_on_with_another(
    jobs_survive: bool, tmp_path: Path, search: Any, undisturbed: dict[str, Any]
) -> None:
    """First jobs behind a launcher, which outlive their driver as a cluster's do; then workers of this machine."""
    first, unit = search("executor=slurm", "executor.prefix=[env]"), study_dir(tmp_path) / UNIT
    job = worker_in_mid_fold(unit)
    jobs = children(first.pid)
    assert job in jobs and len(jobs) == 2
    first.kill()
    for pid in () if jobs_survive else jobs:
        os.kill(pid, signal.SIGKILL)
    again = search()
    assert again.wait(timeout=120) == 0, again.communicate()
    wait_for(lambda: not any(map(is_alive, jobs)))
    log = (unit / "log").read_text()
    assert log.count("resume: ") == (not jobs_survive) and log.count("start: ") == 2 - jobs_survive
    assert_nothing_repeated_or_lost(tmp_path, undisturbed)


def test_a_search_whose_ray_cluster_is_lost_ends_and_goes_on_with_workers_of_this_machine(
    tmp_path: Path, search: Any, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray>=2.40'")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100 * 2**20})
    at = ("executor=ray", "executor.workers=2", f"executor.address={cluster.address}")
    driver, unit = search(*at, RAY_gcs_rpc_server_reconnect_timeout_s="5"), study_dir(tmp_path) / UNIT
    worker = worker_in_mid_fold(unit)
    cluster.shutdown()
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 1 and "Failed to connect to GCS" in out + err
    wait_for(lambda: not is_alive(worker), 10)
    again = search()
    assert again.wait(timeout=120) == 0, again.communicate()
    assert (unit / "log").read_text().count("resume: ") == 1
    assert_nothing_repeated_or_lost(tmp_path, undisturbed)


@pytest.mark.parametrize(("fault", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_driver_that_is_killed_or_terminated_takes_its_workers_along_and_goes_on(
    fault: signal.Signals, code: int, tmp_path: Path, search: Any, undisturbed: dict[str, Any]
) -> None:
    driver, unit = search(), study_dir(tmp_path) / UNIT
    worker_in_mid_fold(unit)
    workers = children(driver.pid)
    assert len(workers) == 2
    driver.send_signal(fault)
    assert driver.wait(timeout=30) == code
    wait_for(lambda: not any(map(is_alive, workers)), 10)
    again = search()
    assert again.wait(timeout=120) == 0, again.communicate()
    assert (unit / "log").read_text().count("resume: ") == 1
    assert_nothing_repeated_or_lost(tmp_path, undisturbed)


def test_a_second_driver_is_refused_and_the_first_does_not_notice(
    tmp_path: Path, search: Any, undisturbed: dict[str, Any]
) -> None:
    first = search()
    worker_in_mid_fold(study_dir(tmp_path) / UNIT)
    told = run(status, f"results_dir={tmp_path}")
    first.send_signal(signal.SIGSTOP)  # so that it is still there when the second has started
    second = search()
    _, err = second.communicate(timeout=60)
    first.send_signal(signal.SIGCONT)
    assert "trial_000/fold_1 runs: worker_" in told.out
    assert second.returncode == 2 and f"already being worked on by process {first.pid}" in err
    assert first.wait(timeout=120) == 0
    assert_nothing_repeated_or_lost(tmp_path, undisturbed)


def test_a_unit_whose_worker_dies_each_time_is_lost_and_mended_by_the_same_command(
    tmp_path: Path, search: Any, undisturbed: dict[str, Any]
) -> None:
    driver, unit = search("executor.retries=1"), study_dir(tmp_path) / UNIT
    for number in range(2):
        os.kill(worker_in_mid_fold(unit, after=number), signal.SIGKILL)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 1 and "given up after 2 tries" in out
    assert f"log: {unit / 'log'}" in err and "make bo" in err and "Traceback" not in err
    assert (unit.parent / "lost.json").exists() and not unit.parent.with_suffix(".json").exists()
    told = run(status, f"results_dir={tmp_path}").out
    row = dict(zip(*(line.split("\t") for line in told.splitlines()[:2]), strict=True))
    assert (row["units"], row["lost"]) == ("1 of 2", "1") and "killed by signal 9" in told
    again = search()
    assert again.wait(timeout=120) == 0
    assert_nothing_repeated_or_lost(tmp_path, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_and_a_read_only_one_stop_at_once_and_cost_nothing(
    small_disk: Path, search: Any, undisturbed: dict[str, Any]
) -> None:
    ballast = small_disk / "ballast"
    driver = search(results=small_disk)
    worker_in_mid_fold(study_dir(small_disk) / UNIT)
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(1 << 12))
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 2 and "the disk is full" in err and "Traceback" not in err
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = search(results=small_disk)
    _, err = refused.communicate(timeout=60)
    assert refused.returncode == 2 and "cannot be written" in err and "results_dir=FOLDER" in err
    told = run(status, f"results_dir={small_disk}")
    assert told.status == 0 and "0 of 1 trials" in told.out
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    again = search(results=small_disk)
    assert again.wait(timeout=120) == 0
    assert_nothing_repeated_or_lost(small_disk, undisturbed)
