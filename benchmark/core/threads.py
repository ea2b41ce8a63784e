"""The number of threads of a job; part of the study, because the last digits of a sum depend on it.

torch has its own setting; numpy's BLAS, scikit-learn and faiss have others, which default to the environment or the
number of cores. Measured: numpy's float32 product of 256 x 128 vectors differs between one thread and two.
"""

import os

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
