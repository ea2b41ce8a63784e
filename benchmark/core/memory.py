"""Memory of trainings on the CPU that is freed and needed again, and the peak memory of a training on any device.

The peak is what PyTorch allocated on a CUDA device, else what the process occupied.
"""

import contextlib
import ctypes
import functools
import gc
import itertools
import os
import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET = "5"  # what the kernel understands as: forget the peak
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # glibc's numbers of M_TRIM_THRESHOLD and M_MMAP_MAX, from <malloc.h>
KEPT_BYTES = 2**31 - 1  # the most that mallopt takes


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep up to 2 GB of freed memory for its next tensors; do nothing without glibc, as on a Mac.

    By default, glibc returns large blocks to the kernel, which clears their pages anew for the next batch. Without
    that, EfficientNet-Lite0 embeds images on a CPU in two thirds of the time (`make bench`). No number changes.
    """
    if is_glibc():
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, KEPT_BYTES)


def return_freed_memory() -> None:
    """Return to the kernel what `keep_freed_memory` kept and nothing uses now."""
    if is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def is_glibc() -> bool:
    """Whether the C library is glibc, which has the two options."""
    return platform.libc_ver()[0] == "glibc"


def reset_peak(device: "torch.device") -> None:
    """Forget the peak so far, since a process trains one unit after another; where the kernel refuses, it stays.

    Freed memory is returned first, since it would count as occupied.
    """
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        return_freed_memory()
        with contextlib.suppress(OSError):
            REFERENCES.write_text(RESET, encoding="ascii")


def peak_bytes(device: "torch.device") -> int:
    """Peak bytes since `reset_peak`: allocated by PyTorch on a CUDA device, else resident in this process.

    `ru_maxrss` is not used on Linux, where a child inherits its parent's value.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        return int(STATUS.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_allocated(work: Callable[[], object]) -> int:
    """Peak bytes that torch allocated on the CPU during `work`, above what was allocated before.

    Tensors of before are kept until `work` ends. The profiler, which does not know their size, would otherwise print a
    warning when one is freed, such as the losses of the levels that HPL remembers from the last step.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # silences the profiler's messages at its start
    import torch

    objects = gc.get_objects()
    tensors = {kind for kind in set(map(type, objects)) if issubclass(kind, torch.Tensor)}  # far fewer than objects
    kept = [found for found in objects if type(found) in tensors]
    del objects
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    kept.clear()
    results = profiler.profiler.kineto_results
    changes = [(event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"]
    return int(max(itertools.accumulate((change for _, change in sorted(changes)), initial=0)))
