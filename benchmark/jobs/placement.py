"""Where a configuration's jobs run, and how many at a time: `executor` -> an object with `submit` and `close`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.study.config import Config

Unit = dict[str, Any]


def num_workers(config: Config) -> int:
    """Jobs at a time: as configured, else as many as there is room for.

    Here that is `workers_per_gpu` on each GPU, else one on each core that this process may use; on a cluster, what
    jobs of their size fit into it.

    Raises:
        ValueError: the cluster is not there or has no room.
    """
    place = config.executor
    if place.workers != "auto":
        return int(place.workers)
    gpus = _ray_gpus(config) if place.name == "ray" else 1 / place.workers_per_gpu
    if place.name == "ray" and place.address:
        from benchmark.jobs.executors.ray import room

        if found := room(place.address, place.cpus_per_worker, gpus):
            return found
        raise ValueError(
            f"executor.address={place.address}: no machine of this cluster has {place.cpus_per_worker:g} CPUs and "
            f"{gpus:g} GPUs. Ask for less, or say executor.workers=N to wait for machines that are still to come."
        )
    if config.device not in ("auto", "cuda", "cpu"):
        return place.workers_per_gpu  # one device, by its name
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return int(len(gpus_here(config)) / gpus) if gpus and gpus_here(config) else usable


def gpus_here(config: Config) -> list[str]:
    """The names by which this process's GPUs are made visible to a worker; none if the study does not use them."""
    import torch

    if config.device not in ("auto", "cuda"):
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in given.split(",")] if given else [str(i) for i in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def slots(config: Config, workers: int) -> list[dict[str, str]]:
    """The environment of each worker on this machine: one GPU each, in turn, where there are any."""
    gpus = gpus_here(config)
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(workers)]


def make_executor(
    config: Config,
    workers: int,
    run: Callable[[Unit, Callable[[Unit], None]], Unit],
    module: list[str],
    log_dir: Path,
    on_progress: Callable[[Unit], None],
) -> Any:
    """What runs units.

    Args:
        config: says where.
        workers: at a time.
        run: does one unit in this process (`executor=inline`).
        module: serves units as `python -m module` (all others).
        log_dir: gets what workers print.
        on_progress: called, from any thread, with what units report.
    """
    place, arguments = config.executor, ["-m", *module]
    if place.name == "inline":
        from benchmark.jobs.executors.inline import Inline

        return Inline(run, on_progress)
    if place.name == "ray":
        from benchmark.jobs.executors.ray import Ray

        gpus = _ray_gpus(config)
        return Ray(arguments, workers, log_dir, on_progress, place.address, place.cpus_per_worker, gpus)
    if place.name == "slurm":
        from benchmark.jobs.executors.slurm import Slurm

        return Slurm(place.prefix, [sys.executable, *arguments], workers, log_dir, on_progress)
    from benchmark.jobs.executors.local import Local

    return Local([sys.executable, *arguments], workers, log_dir, on_progress, slots(config, workers))


def _ray_gpus(config: Config) -> float:
    """A Ray worker's share of a GPU; auto: a whole one, where the study uses GPUs and the cluster has any."""
    place = config.executor
    if place.gpus_per_worker != "auto":
        return float(place.gpus_per_worker)
    if place.address and config.device != "cpu":
        from benchmark.jobs.executors.ray import has_gpus

        return float(has_gpus(place.address))
    return float(bool(gpus_here(config)))
