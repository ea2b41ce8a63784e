"""Workers on a Ray cluster (Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications", OSDI 2018).

Each worker is an actor, which Ray places where its CPUs and its share of a GPU are free. The actor runs one worker
process of `local.py`, in a folder with the path of the driver's. So units are served by the same code as on one
machine, imports take time only once per worker, and Ray itself carries nothing but JSON text: a unit to the actor, and
its progress and answer back as the items of a generator. An actor that dies, with its machine or without, fails its own
unit only. It is replaced wherever there is room; until there is, the other workers do the work.

Ray is an extra of this package (`pip install .[ray]`) and is imported only where it is used.
"""

import contextlib
import json
import logging
import math
import os
import queue
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core.errors import UserError, WorkerDiedError
from benchmark.core.invocation import install
from benchmark.core.paths import CHECKOUT_DIR, module_arguments
from benchmark.core.records import JsonObject
from benchmark.core.threads import WORKERS_HERE, usable_cores
from benchmark.core.wording import counted
from benchmark.jobs.executors import Job, Report, is_number
from benchmark.jobs.executors.local import Local, gpus_here
from benchmark.jobs.executors.messages import WorkerStartError, error_to_json, result_of
from benchmark.jobs.executors.pool import Pool

if TYPE_CHECKING:
    from ray.actor import ActorClass, ActorHandle

Arguments = tuple[list[str], str, str, dict[str, str], int, float, float]  # of `_Served`
_ADDRESS = re.compile(r"(?P<host>[^:\s]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")
_STORE_BYTES = 100 * 2**20  # for Ray's objects, of which we have none; its default is 30 % of the memory


@dataclass(frozen=True)
class Options:
    """Keys of `conf/executor/ray.yaml`.

    Attributes:
        workers: number of workers; None: as many as the cluster has room for.
        address: `HOST:PORT` of a cluster's head, or `auto` for the cluster this machine belongs to; None: start Ray on
            this machine.
        cpus_per_worker: CPUs that a worker takes.
        gpus_per_worker: GPUs that a worker takes, possibly a fraction; `auto`: 1 if there are any, else 0.

    Raises:
        UserError: a value cannot work.
    """

    workers: int | None = None
    address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | str = "auto"

    def __post_init__(self) -> None:
        gpus, cpus = self.gpus_per_worker, self.cpus_per_worker
        if gpus != "auto" and (isinstance(gpus, str) or not is_number(gpus) or gpus < 0):
            raise UserError(f"executor.gpus_per_worker={gpus!r}: give a number such as 0.5, or auto.")
        if not is_number(cpus) or cpus <= 0:
            raise UserError(f"executor.cpus_per_worker={cpus!r}: give a number above 0.")
        if str(self.address).startswith("ray://"):
            raise UserError(
                f"executor.address={self.address}: Ray's client cannot stream results. Run this on a machine of the "
                "cluster with executor.address=auto, as ray job submit does."
            )
        if self.address not in (None, "auto") and not _ADDRESS.fullmatch(str(self.address)):
            raise UserError(f"executor.address={self.address!r}: give HOST:PORT, auto, or null.")

    def num_workers(self, device: str) -> int:
        """How many workers the cluster, or this machine, has room for, unless their number is configured.

        Raises:
            UserError: there is no room for any, or the device is one GPU by its number.
        """
        if device.startswith("cuda:"):
            raise UserError(
                f"device={device}: Ray chooses the GPU of a worker, which sees no other. Give device=cuda; the "
                f"environment variable CUDA_VISIBLE_DEVICES={device.removeprefix('cuda:')} keeps a Ray that is started "
                "on this machine to that GPU."
            )
        if self.workers is not None and self.address:
            return self.workers
        gpus = self._gpus(device)
        if not self.address:
            return self.workers or (int(len(gpus_here(device)) / gpus) if gpus else usable_cores())
        if found := room(self.address, self.cpus_per_worker, gpus):
            return found
        raise UserError(
            f"executor.address={self.address}: no machine of this cluster has {self.cpus_per_worker:g} CPUs and "
            f"{gpus:g} GPUs. Ask for less, or set executor.workers=N to wait for machines that join later."
        )

    def fewer_per_gpu(self) -> str:
        """Twice the share of a GPU, if a worker takes less than one."""
        share = 1.0 if self.gpus_per_worker == "auto" else float(self.gpus_per_worker)
        return f"executor.gpus_per_worker={min(1.0, 2 * share):g}" if 0 < share < 1 else ""

    def on_this_machine(self) -> bool:
        """Whether a local Ray is started on this machine, instead of joining a cluster."""
        return self.address is None

    def make(self, job: Job) -> "Ray":
        """Join the cluster and ask for the workers."""
        arguments = module_arguments(job.module)
        gpus = self._gpus(job.device)
        return Ray(arguments, job.workers, job.log_dir, job.on_progress, self.address, self.cpus_per_worker, gpus)

    def _gpus(self, device: str) -> float:
        """GPUs that a worker takes; for `auto` one, if the study uses GPUs and the cluster has any.

        Raises:
            UserError: this machine, on which Ray is started, has fewer, so that workers would wait for ever.
        """
        if self.gpus_per_worker == "auto":
            if self.address and device != "cpu":
                return float(has_gpus(self.address))
            return float(len(gpus_here(device)) > 0)
        gpus = float(self.gpus_per_worker)
        if not self.address and gpus > (here := len(gpus_here(device))):
            raise UserError(
                f"executor.gpus_per_worker={gpus:g}: this machine has {counted(here, 'GPU')} for device={device}, so "
                "no worker could start. Ask for less, or name a cluster, such as executor.address=auto."
            )
        return gpus


class Ray(Pool):
    """A number of workers on a cluster; units start in the order of submission.

    Args:
        arguments: arguments for each machine's Python that start a worker, which calls `serve`.
        workers: number of workers, 1 or more; those for which there is no room wait for it.
        log_dir: folder for `ray_<i>/worker_0.log` with what worker i prints, on the machine where it runs.
        on_progress: receives what units report, from several threads; must not raise.
        address: an existing cluster, see `Options`; None to start Ray on this machine, which ends with this process.
        cpus: CPUs that a worker takes.
        gpus: GPUs that a worker takes; with a fraction, several workers share a GPU.

    Raises:
        ValueError: there is no worker.
        UserError: there is no cluster at the address, or Ray is not installed.
    """

    def __init__(
        self, arguments: list[str], workers: int, log_dir: Path, on_progress: Report | None = None,
        address: str | None = None, cpus: float = 1, gpus: float = 0,
    ) -> None:  # fmt: skip
        connect(address, max(workers * cpus, os.cpu_count() or 1))
        import ray

        make = ray.remote(_Served).options(num_cpus=cpus, num_gpus=gpus)
        report = on_progress or (lambda message: None)
        logs, variables = log_dir.resolve(), own_variables()
        super().__init__([
            _Worker(make, (arguments, str(logs / f"ray_{i}"), os.getcwd(), variables, workers, cpus, gpus), report)
            for i in range(workers)
        ])  # fmt: skip

    def close(self) -> None:
        """Kill all workers, wait for them, and leave the cluster; futures that are not done raise `CancelledError`."""
        import ray

        super().close()
        ray.shutdown()


def own_variables() -> dict[str, str]:
    """This project's environment variables, such as `BENCHMARK_CACHE`, without those that each worker gets its own of.

    A machine of a cluster has the environment in which Ray was started there.
    """
    each = ("BENCHMARK_WORKER", WORKERS_HERE)
    return {key: value for key, value in os.environ.items() if key.startswith("BENCHMARK_") and key not in each}


def connect(address: str | None, cpus: float = 1) -> None:
    """Join a cluster, or start one on this machine, unless this process has done so already.

    Args:
        address: `HOST:PORT` of its head, or `auto` for the cluster this machine belongs to; None to start one.
        cpus: number of CPUs that a cluster started here offers, rounded up, whatever the machine has.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry unless the user wants it
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError(f"executor=ray needs Ray: {install('ray>=2.40')}") from error
    if ray.is_initialized():
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    own = {"address": "local", "num_cpus": math.ceil(cpus), "include_dashboard": False,
           "object_store_memory": _STORE_BYTES, "_node_ip_address": "127.0.0.1"}  # fmt: skip
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _check_listening(address)
        with contextlib.chdir(CHECKOUT_DIR):  # Ray puts this folder on its workers' module path, ahead of all others
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **({"address": address} if address else own))
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        raise UserError(
            f"executor.address={address}: no Ray cluster answers there ({error}). Start one on this machine with "
            "ray start --head, add others with ray start --address=HOST:6379, and run this on one of them."
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has installed its own


def _check_listening(address: str | None) -> None:
    """Raise a `ConnectionError` if nothing listens at `HOST:PORT`, where Ray would try for minutes."""
    if found := _ADDRESS.fullmatch(address or ""):
        try:
            socket.create_connection((found["host"].strip("[]"), int(found["port"])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise ConnectionError(str(error)) from error


def room(address: str, cpus: float, gpus: float) -> int:
    """How many workers a cluster has room for when nothing else runs on it.

    Args:
        address: the cluster, see `connect`.
        cpus: CPUs that a worker takes.
        gpus: GPUs that a worker takes.

    Raises:
        UserError: there is no such cluster.
    """
    connect(address)
    import ray

    return sum(room_on(node["Resources"], cpus, gpus) for node in ray.nodes() if node["Alive"])


def room_on(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many workers a machine of a cluster has room for when nothing else runs on it.

    >>> room_on({"CPU": 32, "GPU": 8}, cpus=1, gpus=0.5)
    16

    Args:
        resources: what the machine offers to Ray.
        cpus: CPUs that a worker takes.
        gpus: GPUs that a worker takes.
    """
    return int(min(resources.get("CPU", 0) / cpus if cpus else 1e6, resources.get("GPU", 0) / gpus if gpus else 1e6))


def has_gpus(address: str) -> bool:
    """Whether a cluster has any GPU.

    Raises:
        UserError: there is no such cluster.
    """
    connect(address)
    import ray

    return bool(ray.cluster_resources().get("GPU"))


class _Worker:
    """One actor at a time, and the messages to and from it. A single thread uses it, except for `end` and `close`.

    Args:
        make: creates an actor.
        arguments: arguments of `_Served`.
        on_progress: receives what units report.
    """

    def __init__(self, make: "ActorClass[_Served]", arguments: "Arguments", on_progress: Report) -> None:
        self._make, self._arguments, self._on_progress = make, arguments, on_progress
        self._actor: ActorHandle[_Served] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Wait until there is an actor, for as long as the cluster has no room for it."""
        import ray

        if self._actor is not None:
            return
        with self._lock:
            if self._closed:
                raise CancelledError
            self._actor = self._make.remote(*self._arguments)
        try:
            ray.get(self._actor.ready.remote())
        except ray.exceptions.RayError as error:
            self._discard()
            raise WorkerStartError(f"No worker could be started on the cluster: {error}") from error

    def do(self, text: str) -> JsonObject:
        """Send one unit to the actor and wait for its answer."""
        import ray

        self.prepare()
        assert self._actor is not None
        try:
            for item in self._actor.do.options(num_returns="streaming").remote(text):
                message = json.loads(ray.get(item))
                if "progress" not in message:
                    return result_of(message)
                self._on_progress(message["progress"])
        except ray.exceptions.RayError as error:
            self._discard()
            raise WorkerDiedError(f"A worker on the cluster was lost in the middle of a unit: {error}") from error
        raise AssertionError("the actor ended without an answer")

    def end(self) -> None:
        """Kill the actor from another thread; its worker process ends with it."""
        import ray

        with self._lock:
            if self._actor is not None:
                ray.kill(self._actor)

    def close(self) -> None:
        """Kill the actor and start no other."""
        import ray

        with self._lock:
            self._closed = True
            if self._actor is not None:
                ray.kill(self._actor)

    def _discard(self) -> None:
        """Make sure that a lost actor is dead, and forget it."""
        import ray

        with self._lock:
            ray.kill(self._actor)
            self._actor = None
            if self._closed:
                raise CancelledError


class _Served:
    """The actor: runs one worker process of `local.py` and passes on its messages.

    Args:
        arguments: arguments for this machine's Python.
        log_dir: folder for the process's log.
        cwd: where the process starts: the driver's folder, so that relative paths are valid there, too.
        variables: the driver's environment variables that the process needs.
        workers: number of workers on the cluster.
        cpus: CPUs that each of them takes.
        gpus: GPUs that each of them takes.
    """

    def __init__(
        self, arguments: list[str], log_dir: str, cwd: str, variables: dict[str, str], workers: int, cpus: float,
        gpus: float,
    ) -> None:  # fmt: skip
        import ray

        self._progress: queue.SimpleQueue[JsonObject | None] = queue.SimpleQueue()
        number = ray.get_runtime_context().get_node_id()
        (machine,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == number)
        here = variables | {WORKERS_HERE: str(max(1, min(workers, room_on(machine, cpus, gpus))))}
        self._local = Local([sys.executable, *arguments], 1, Path(log_dir), self._progress.put, [here], cwd)

    def ready(self) -> None:
        """Return once this actor runs."""

    def do(self, text: str) -> Iterator[str]:
        """Yield what a unit reports, and then its answer, each as JSON text."""
        future = self._local.submit(json.loads(text))
        future.add_done_callback(lambda _: self._progress.put(None))
        while (progress := self._progress.get()) is not None:
            yield json.dumps({"progress": progress})
        try:
            yield json.dumps({"result": future.result()})
        except Exception as error:  # the driver decides what it means
            yield json.dumps({"error": error_to_json(error)})
