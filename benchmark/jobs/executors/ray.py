"""Workers on a cluster of Ray (Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications", OSDI 2018).

Each worker is an actor, which Ray places where its CPUs and share of a GPU are free; in it runs one worker process of
`local.py`, in the driver's folder on that machine. So units are served by the same code as on one machine, imports are
paid once a worker, and Ray itself carries nothing but JSON text: a unit there, its progress and its answer back, as
the items of a generator. An actor that dies, with its machine or without, fails its own unit only; another one takes
its place wherever there is room, and until there is, the others do the work.

Ray is an extra of this package (`pip install .[ray]`) and is imported nowhere else.
"""

import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from benchmark.jobs.executors.local import Local
from benchmark.jobs.executors.messages import Report, Unit, WorkerCannotStart, WorkerDied, described, result_of
from benchmark.jobs.executors.pool import Pool

_STORE_BYTES = 100 * 2**20  # for objects, of which we have none; Ray's default is 30 % of the memory


class Ray(Pool):
    """A number of workers on a cluster; units start in the order of submission.

    Args:
        arguments: of each machine's Python, to start a worker, which calls `serve`.
        workers: as many as are wanted; those for which there is no room wait for it.
        log_dir: gets `ray_<i>/worker_0.log` with what worker i prints, on the machine where it runs.
        on_progress: called, from threads, with what units report; must not raise.
        address: of an existing cluster; None to start a Ray of our own on this machine, which ends with this process.
        cpus, gpus: what a worker takes; a fraction of a GPU lets several share it.

    Raises:
        ValueError: for no workers; or there is no cluster at the address.
    """

    def __init__(
        self, arguments: list[str], workers: int, log_dir: Path, on_progress: Report | None = None,
        address: str | None = None, cpus: float = 1, gpus: float = 0,
    ) -> None:  # fmt: skip
        connect(address, max(workers * cpus, os.cpu_count() or 1))
        import ray

        make = ray.remote(_Served).options(num_cpus=cpus, num_gpus=gpus)
        heard = on_progress or (lambda message: None)
        logs = log_dir.resolve()
        super().__init__([
            _Worker(make, (arguments, str(logs / f"ray_{i}"), os.getcwd()), heard) for i in range(workers)
        ])  # fmt: skip

    def close(self) -> None:
        """Kill all workers, wait for them, and leave the cluster; futures that are not done raise `CancelledError`."""
        import ray

        super().close()
        ray.shutdown()


def connect(address: str | None, cpus: float = 1) -> None:
    """Become part of a cluster, or start one of our own on this machine, unless that is done.

    Args:
        address: `HOST:PORT` of its head, or `auto` for the one that this machine belongs to; None for our own.
        cpus: how many our own has, whatever the machine has.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # its makers are told nothing unless the user wants it
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ValueError("executor=ray needs Ray: pip install 'ray>=2.40', or this package's extra [ray].") from error
    if ray.is_initialized():
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    own = {"address": "local", "num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES,
           "_node_ip_address": "127.0.0.1"}  # fmt: skip
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **({"address": address} if address else own))
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        raise ValueError(
            f"executor.address={address}: no Ray cluster answers there ({error}). Start one on this machine with "
            "ray start --head, add others with ray start --address=HOST:6379, and run this on one of them."
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own in its place


def room(address: str, cpus: float, gpus: float) -> int:
    """How many workers a cluster has room for when nothing else runs on it."""
    connect(address)
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        int(min(node.get("CPU", 0) / cpus if cpus else 1e6, node.get("GPU", 0) / gpus if gpus else 1e6))
        for node in alive
    )


def has_gpus(address: str) -> bool:
    """Whether a cluster has any GPU."""
    connect(address)
    import ray

    return bool(ray.cluster_resources().get("GPU"))


class _Worker:
    """One actor at a time, and the conversation with it. Used by one thread, but for `end` and `close`."""

    def __init__(self, make: Any, arguments: tuple[Any, ...], on_progress: Report) -> None:
        self._make, self._arguments, self._on_progress = make, arguments, on_progress
        self._actor: Any = None
        self._closed = False
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Wait until there is an actor, which takes as long as the cluster has no room for it."""
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
            raise WorkerCannotStart(f"No worker could be started on the cluster: {error}") from error

    def do(self, text: str) -> Unit:
        """Hand one unit to the actor and listen until it is done."""
        import ray

        self.prepare()
        try:
            for item in self._actor.do.options(num_returns="streaming").remote(text):
                message = json.loads(ray.get(item))
                if "progress" not in message:
                    return result_of(message)
                self._on_progress(message["progress"])
        except ray.exceptions.RayError as error:
            self._discard()
            raise WorkerDied(f"A worker on the cluster was lost in the middle of a unit: {error}") from error
        raise AssertionError("the conversation ended without an answer")

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
    """On the cluster: one worker process of `local.py`, and what it says.

    Args:
        arguments: of this machine's Python.
        log_dir: of the process.
        cwd: where it starts: the driver's folder, so that relative paths and a checkout mean the same.
    """

    def __init__(self, arguments: list[str], log_dir: str, cwd: str) -> None:
        self._said: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._local = Local([sys.executable, *arguments], 1, Path(log_dir), self._said.put, cwd=cwd)

    def ready(self) -> None:
        """Answered once this actor runs."""

    def do(self, text: str) -> Iterator[str]:
        """What a unit reports, and then its answer, each as JSON."""
        future = self._local.submit(json.loads(text))
        future.add_done_callback(lambda _: self._said.put(None))
        while (progress := self._said.get()) is not None:
            yield json.dumps({"progress": progress})
        try:
            yield json.dumps({"result": future.result()})
        except Exception as error:  # the driver decides what it means
            yield json.dumps({"error": described(error)})
