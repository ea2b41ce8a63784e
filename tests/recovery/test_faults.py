"""A table of faults that a command must survive: repeating the command gives the records of an undisturbed run.

A fault is a function that starts the command, waits until a worker is held in the middle of a unit, injects the fault
and returns how the command ended. The test then repeats the command if it failed, and checks that no finished unit was
trained again, that the interrupted unit resumed from its checkpoint, and that no process is left.
"""

import contextlib
import functools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmark import bo, final_eval, traditional
from benchmark.core import records
from benchmark.jobs.heartbeat import WRITE_SECONDS
from benchmark.status import status
from tests.command_line import run
from tests.jobs.executors.slurm_here import missing, slurm
from tests.processes import children, is_alive, wait_for
from tests.recovery.case import COMMANDS, Case, assert_ended, assert_records_of

pytestmark = pytest.mark.slow
ALONE = "executor.workers=1"
LAUNCHED = ("executor=slurm", "executor.prefix=[env]")  # jobs of a launcher, without a cluster
HANGS = "executor.timeout_minutes=0.25"
STORIES = {"bo": bo.bo, "final-eval": final_eval.final_eval, "traditional": traditional.traditional}
Ended = tuple[int, str]  # exit status and output


# -- a worker ---------------------------------------------------------------------------------------------------------


def signal_to_the_worker(number: signal.Signals, *overrides: str) -> Callable[[Case], Ended]:
    def fault(case: Case) -> Ended:
        driver = case.start(*overrides)
        victim = case.worker_in_the_middle()
        os.kill(victim, number)
        ended = case.end(driver)
        assert not is_alive(victim)
        return ended

    return fault


def worker_out_of_memory(case: Case) -> Ended:
    """Limit memory at the start of a unit; later, a worker gets by with the memory that it has."""
    driver = case.start(ALONE)
    with little_memory(int(wait_for(case.heartbeat)["pid"])):
        return case.end(driver)


@contextlib.contextmanager
def little_memory(pid: int) -> Iterator[None]:
    """Limit a process to 1 MB; the kernel kills it when it requests more."""
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


def worker_killed_until_its_retries_are_exhausted(case: Case) -> Ended:
    driver = case.start("executor.retries=1", ALONE)
    for attempt in range(2):
        os.kill(case.worker_in_the_middle(attempt), signal.SIGKILL)
    ended = case.end(driver)
    unit = case.unit
    assert (unit.parent / "lost.json").exists() and not unit.parent.with_suffix(".json").exists()
    command = rf"\bbo (STUDY|study)={re.escape(str(unit.parents[2]))}"
    assert str(unit / "log") in ended[1] and re.search(command, ended[1]), ended[1]
    shown = run(status, f"results_dir={case.results}").out
    row = dict(zip(*(line.split("\t") for line in shown.splitlines()[:2]), strict=True))
    assert (row["units"], row["lost"]) == ("1 of 2", "1") and "killed by signal 9" in shown
    return ended


# -- the driver -------------------------------------------------------------------------------------------------------


def signal_to_the_driver(number: signal.Signals, *overrides: str) -> Callable[[Case], Ended]:
    def fault(case: Case) -> Ended:
        driver = case.start(*overrides)
        case.worker_in_the_middle()
        case.seen |= set(workers := children(driver.pid))
        assert len(workers) == (1 if ALONE in overrides else 2)
        driver.send_signal(number)
        return case.end(driver)

    return fault


def second_driver(case: Case) -> Ended:
    first = case.start(ALONE)
    case.worker_in_the_middle()
    shown = run(status, f"results_dir={case.results}").out
    assert "trial_000/fold_0 is running: worker_" in shown
    first.send_signal(signal.SIGSTOP)  # so that it is still running when the second has started
    code, said = case.end(case.start())
    first.send_signal(signal.SIGCONT)
    assert code == 2 and f"already being worked on by process {first.pid}" in said
    return case.end(first)


# -- the machine ------------------------------------------------------------------------------------------------------


def clock_jumps(*overrides: str) -> Callable[[Case], Ended]:
    """Set the clock of all processes a day back, and in the next epoch to a day ahead."""

    def fault(case: Case) -> Ended:
        if "executor=ray" in overrides:
            pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray>=2.40'")
        records.write_whole(clock := case.injected / "clock", b"0")
        minutes = 10  # less than the jump, and more than a batch takes on a busy machine
        driver = case.start(f"executor.timeout_minutes={minutes}", ALONE, *overrides)
        case.worker_in_the_middle()
        for epoch, seconds in ((2, -90_000), (3, 90_000)):
            waited = (epoch - 1) * WRITE_SECONDS  # after which the next beat writes the heartbeat
            records.write_whole(clock, str(seconds).encode())  # first, so that this beat has it
            records.write_whole(case.injected / "waited", str(waited).encode())
            case.hold(epoch)
            wait_for(lambda jump=seconds: abs(case.heartbeat().get("at", 0.0) - time.time() - jump) < 3600)
            shown = run(status, f"results_dir={case.results}")
            assert "trial_000/fold_0 is running" in shown.out
            assert shown.status == 0 and not re.search(r"-\d", shown.out), "a negative duration"
        ended = case.end(driver)
        assert "tried again" not in ended[1] and not list(case.results.rglob("trouble.jsonl"))
        return ended

    return fault


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[str], None]]:
    """Mount a disk of 2 MB in memory, and yield a function that mounts it again with other options."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield lambda option: subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disk_full_and_then_read_only(case: Case) -> Ended:
    case.results = case.results / "disk"
    case.results.parent.mkdir(exist_ok=True)
    remount = case.stack.enter_context(small_disk(case.results))
    driver = case.start(ALONE)
    case.worker_in_the_middle()
    with open(ballast := case.results / "ballast", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(1 << 12))
    full = case.end(driver)
    ballast.unlink()
    remount("ro")
    code, said = run_here("bo", case.results)
    assert code == 2 and "cannot be written" in said and "results_dir=FOLDER" in said
    shown = run(status, f"results_dir={case.results}")
    assert shown.status == 0 and "0 of 1 trials" in shown.out
    remount("rw")
    return full


# -- an executor ------------------------------------------------------------------------------------------------------


def driver_of_jobs_killed(case: Case) -> "tuple[subprocess.Popen[str], list[int]]":
    """Kill the driver of jobs that outlive it, like those of a cluster.

    Returns:
        The driver and its jobs, in the middle of their units.
    """
    driver = case.start(*LAUNCHED)
    for fold in ("fold_0", "fold_1"):
        case.worker_in_the_middle(unit=case.unit.parent / fold)
    jobs = children(driver.pid)
    assert len(jobs) == 2
    case.seen |= set(jobs)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    return driver, jobs


def jobs_die_with_their_driver(case: Case) -> Ended:
    driver, jobs = driver_of_jobs_killed(case)
    for pid in jobs:
        os.kill(pid, signal.SIGKILL)
    return case.end(driver)


def jobs_survive_their_driver(case: Case) -> Ended:
    """Run the next command on local workers, which wait for the units of the jobs."""
    driver_of_jobs_killed(case)
    next_driver = case.start()
    for fold in ("fold_0", "fold_1"):
        lock = case.unit.parent / fold / "lock"
        wait_for(lambda lock=lock: any(has_open(pid, lock) for pid in children(next_driver.pid)))
    return case.end(next_driver)


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    with contextlib.suppress(OSError):  # it, or one of its files, is closed meanwhile
        return any(os.readlink(link) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def ray_worker_killed(case: Case) -> Ended:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray>=2.40'")
    driver = case.start("executor=ray", ALONE)
    os.kill(case.worker_in_the_middle(), signal.SIGKILL)
    return case.end(driver)


def search_on_a_ray_cluster(case: Case, machines: int) -> "tuple[subprocess.Popen[str], Any]":
    """Start a search whose two folds run on single-core machines or, without such machines, on the cluster's head.

    Returns:
        The driver and the cluster.
    """
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray>=2.40'")
    from ray.cluster_utils import Cluster

    size = {"object_store_memory": 100 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in case.environment.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2 - machines, **size})
        case.stack.callback(cluster.shutdown)
        for _ in range(machines):
            cluster.add_node(num_cpus=1, **size)
    case.environment |= {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    driver = case.start("executor=ray", f"executor.address={cluster.address}")
    for fold in ("fold_0", "fold_1"):
        case.worker_in_the_middle(unit=case.unit.parent / fold)
    return driver, cluster


def ray_machine_lost(case: Case) -> Ended:
    driver, cluster = search_on_a_ray_cluster(case, machines=2)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    wait_for(lambda: not all(map(is_alive, case.seen)), 60, "for the worker to end with its machine")
    return case.end(driver)


def ray_cluster_lost(case: Case) -> Ended:
    driver, cluster = search_on_a_ray_cluster(case, machines=0)
    cluster.shutdown()
    return case.end(driver)


def slurm_job(prefix: str, hurt: Callable[[Case, int], None]) -> Callable[[Case], Ended]:
    def fault(case: Case) -> Ended:
        if missing():
            pytest.skip(missing())
        case.environment |= case.stack.enter_context(slurm(case.results.parent / "slurm"))
        driver = case.start("executor=slurm", f"executor.prefix={prefix}")
        for fold in ("fold_0", "fold_1"):
            worker = case.worker_in_the_middle(unit=case.unit.parent / fold)
        hurt(case, worker)
        return case.end(driver)

    return fault


def cancelled(case: Case, worker: int) -> None:
    variables = Path(f"/proc/{worker}/environ").read_text().split("\0")
    (job,) = (item.partition("=")[2] for item in variables if item.startswith("SLURM_JOB_ID="))
    subprocess.run(["scancel", job], check=True, env=os.environ | case.environment)


def preempted(case: Case, worker: int) -> None:
    """Preempt a job: SLURM sends SIGTERM, and would kill the job 60 s later."""
    started = time.monotonic()
    command = ["srun", "--partition=high", "--ntasks=1", "true"]
    subprocess.run(command, check=True, env=os.environ | case.environment)
    assert time.monotonic() - started < 55


def out_of_reach(case: Case, worker: int) -> None:
    """Kill a job's process, and let the next submission find no controller."""
    conf = Path(case.environment["SLURM_CONF"])
    right = conf.read_text()
    records.write_whole(conf, re.sub(r"(?m)^SlurmctldPort=.*", "SlurmctldPort=1", right).encode())
    os.kill(worker, signal.SIGKILL)
    case.wait_for(lambda: any("could take a unit" in path.read_text() for path in case.results.rglob("trouble.jsonl")))
    records.write_whole(conf, right.encode())


# -- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A fault and its expected consequences.

    Args:
        fault: starts the command, injects the fault and waits for the end.
        code: exit status of the command; unless it is 0, the command is repeated.
        says: phrases in its output.
        resumed: total number of attempts that started from a checkpoint; two if both units were interrupted.
        commands: commands for which the fault is tested.
    """

    fault: Callable[[Case], Ended]
    code: int = 0
    says: tuple[str, ...] = ()
    resumed: tuple[int, ...] = (1,)
    commands: tuple[str, ...] = ("bo",)


AGAIN = "tried again (1 of 2)"
STOPPED = "Stopped. Nothing finished is lost: the same command"
EVERY = tuple(COMMANDS)
FAULTS = {
    "worker SIGKILL": Row(signal_to_the_worker(signal.SIGKILL), 0, ("killed by signal 9", AGAIN)),
    "only worker SIGKILL": Row(signal_to_the_worker(signal.SIGKILL, ALONE), 0, ("killed by signal 9", AGAIN),
                               commands=("final-eval", "traditional")),
    "worker SIGTERM": Row(signal_to_the_worker(signal.SIGTERM, ALONE), 0, ("killed by signal 15", AGAIN)),
    "worker hangs": Row(signal_to_the_worker(signal.SIGSTOP, ALONE, HANGS), 0, ("no progress in 0.25 min", AGAIN)),
    "worker out of memory": Row(worker_out_of_memory, 0, ("killed by signal 9", AGAIN), (0,)),
    "retries exhausted": Row(worker_killed_until_its_retries_are_exhausted, 1, ("given up after 2 tries",), (2,)),
    "driver SIGKILL": Row(signal_to_the_driver(signal.SIGKILL), -9, (), (1, 2), commands=EVERY),
    "driver SIGTERM": Row(signal_to_the_driver(signal.SIGTERM, ALONE), 143, (STOPPED,)),
    "driver Ctrl-C": Row(signal_to_the_driver(signal.SIGINT, ALONE), 130, (STOPPED,)),
    "second driver": Row(second_driver, 0, (), (0,)),
    "clock jumps by days": Row(clock_jumps(), 0, (), (0,)),
    "clock jumps, SLURM": Row(clock_jumps(*LAUNCHED), 0, (), (0,)),
    "clock jumps, Ray": Row(clock_jumps("executor=ray"), 0, (), (0,)),
    "disk full, read-only": Row(disk_full_and_then_read_only, 2, ("the disk is full",)),
    "launcher's jobs survive": Row(jobs_survive_their_driver, 0, (), (0,)),
    "launcher's jobs die": Row(jobs_die_with_their_driver, -9, (), (2,)),
    "Ray worker SIGKILL": Row(ray_worker_killed, 0, ("killed by signal 9",)),
    "Ray machine lost": Row(ray_machine_lost, 0, ("tried again",)),
    "Ray cluster lost": Row(ray_cluster_lost, 1, ("Failed to connect to GCS",), (1, 2)),
    "SLURM srun cancelled": Row(slurm_job("[srun]", cancelled), 0, ("tried again",)),
    "SLURM sbatch cancelled": Row(slurm_job("[sbatch,-t10]", cancelled), 0, ("tried again",)),
    "SLURM preempted": Row(slurm_job("[srun]", preempted), 0, ("tried again",)),
    "SLURM out of reach": Row(slurm_job("[sbatch,-t10]", out_of_reach), 0, ("before it could take a unit",)),
}  # fmt: skip


def run_here(command: str, results: Path) -> Ended:
    """Run a command in this process, without workers."""
    protocol = "traditional" * (command == "traditional")
    ended = run(STORIES[command], *COMMANDS[command].overrides, f"results_dir={results}", protocol=protocol)
    return ended.status, ended.out + ended.err


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the results folder of an undisturbed command, run in this process."""

    @functools.cache
    def folder(command: str) -> Path:
        results = tmp_path_factory.mktemp("undisturbed")
        code, said = run_here(command, results)
        assert code == 0, said
        return results

    return folder


@pytest.mark.parametrize(("name", "command"), [(name, c) for name, row in FAULTS.items() for c in row.commands])
def test_after_a_fault_the_same_command_leaves_the_records_of_an_undisturbed_run(
    name: str, command: str, tmp_path: Path, undisturbed: Callable[[str], Path]
) -> None:
    row, case = FAULTS[name], Case(COMMANDS[command], tmp_path / "results")
    with case.stack:
        code, said = row.fault(case)
        assert code == row.code, said
        for phrase in row.says:
            assert phrase in said, said
        assert "Traceback" not in said or name == "Ray cluster lost", said
        if code != 0:
            assert_ended(case.seen)
            as_before = (name, command) == ("driver SIGKILL", "bo")
            again, said = case.end(case.start()) if as_before else run_here(command, case.results)
            assert again == 0, said
        assert_ended(case.seen)
        logs = [path.read_text() for path in case.results.rglob("log")]
        assert sum(log.count("resume: ") for log in logs) in row.resumed, logs
        assert_records_of(case.results, undisturbed(command))
        left = ("alive.json", "checkpoint.pt", "lost.json")
        assert not [path for name in left for path in case.results.rglob(name)]
