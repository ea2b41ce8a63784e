"""What a section reports, and the clock that it uses."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from benchmark.core.records import JsonObject


@dataclass(frozen=True)
class Fact:
    """One measurement, or one statement.

    Attributes:
        what: what was measured, and under which conditions.
        value: the number; None for a statement.
        unit: its unit; empty for a count.
        note: a remark, or the statement.
    """

    what: str
    value: float | None = None
    unit: str = ""
    note: str = ""

    def to_json(self) -> JsonObject:
        """The fields by name."""
        return asdict(self)

    def line(self) -> str:
        """The fact as a line of text.

        >>> Fact("proxy_anchor", 0.25, "x", "of one fold").line()
        'proxy_anchor: 0.25 x (of one fold)'
        """
        number = "" if self.value is None else f" {self.value:,.4g} {self.unit}".rstrip()
        note = f" ({self.note})" if self.note and number else f" {self.note}" if self.note else ""
        return f"{self.what}:{number}{note}"


@dataclass(frozen=True)
class Target:
    """What is measured.

    Attributes:
        device: the device.
        small: tiny networks and short rounds, with which the numbers mean nothing.
    """

    device: torch.device
    small: bool

    @property
    def is_gpu(self) -> bool:
        """Whether it is a CUDA device."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Wait until the device has done everything that was started on it."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], spend: float = 1.0) -> float:
        """Median seconds of a call, over five groups of calls that end with a wait for the device.

        Args:
            work: what is timed; the first two calls are not counted.
            spend: seconds to spend on all groups.
        """
        work()
        self.wait()
        started = time.perf_counter()
        work()
        self.wait()
        spend = 0.01 if self.small else spend
        calls = max(1, int(spend / 5 / max(time.perf_counter() - started, 1e-6)))
        spent = []
        for _ in range(1 if self.small else 5):
            started = time.perf_counter()
            for _ in range(calls):
                work()
            self.wait()
            spent.append((time.perf_counter() - started) / calls)
        return statistics.median(spent)

    def peak_gigabytes(self, work: Callable[[], object]) -> float:
        """Most memory of the device that PyTorch held during a call, in GB of 10^9 bytes; 0 on the CPU."""
        if not self.is_gpu:
            work()
            return 0.0
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) / 1e9
