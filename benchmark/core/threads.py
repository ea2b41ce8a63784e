"""The number of threads of a job that compute, and of those that read images.

The first is part of the study, because the last digits of a sum depend on it. torch has its own setting; numpy's BLAS,
scikit-learn and faiss have others, which default to the environment or the number of cores. Measured: numpy's float32
product of 256 x 128 vectors differs between one thread and two. The second changes no number; it is the job's share of
the cores.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

WORKERS_HERE = "BENCHMARK_WORKERS_HERE"  # environment variable: how many workers share this machine
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # read by a library when it is loaded


def environment(count: int) -> dict[str, str]:
    """The environment variables that give a process's libraries `count` threads."""
    return dict.fromkeys(VARIABLES, str(count))


def use_threads(count: int) -> None:
    """Limit this process to `count` threads, in the libraries that are loaded and in those loaded later.

    Args:
        count: 1 or more.
    """
    import torch
    from threadpoolctl import threadpool_limits

    os.environ.update(environment(count))
    threadpool_limits(count)
    torch.set_num_threads(count)


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def share_of_cores() -> int:
    """This worker's share of the cores that its process may use: one of as many parts as workers are on the machine."""
    return max(1, usable_cores() // int(os.environ.get(WORKERS_HERE, "1")))


@functools.cache
def shared_pool(count: int) -> ThreadPoolExecutor:
    """The pool of `count` threads that all images of this process share; work in it must not wait for other work in it.

    Args:
        count: 1 or more.
    """
    return ThreadPoolExecutor(count, "images")
