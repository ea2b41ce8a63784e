"""Memory that is freed and needed again, and the peak memory of a training."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core.memory import REFERENCES, is_glibc, peak_allocated, peak_bytes, reset_peak

CPU = torch.device("cpu")
SIZE = 200_000_000
NEAR = 5_000_000  # the kernel counts the pages of each thread in batches
ROOT = Path(__file__).resolve().parents[2]
COUNT_FAULTS = """
import resource, sys
import numpy as np
import torch
from benchmark.core.memory import keep_freed_memory, peak_bytes, reset_peak
from benchmark.images.batches import embed
from benchmark.images.in_memory import InMemoryImages

class Trunk(torch.nn.Flatten):
    mean, std = [0.5], [0.5]

def compute(batch):
    for size in (30_000_000, 10_000_000, 200_000):
        torch.ones(size)
    return batch.flatten(1)

def faults_of_five():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        compute(torch.zeros(1, 4))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = faults_of_five()
if sys.argv[1] == "embed":
    embed(compute, InMemoryImages(np.zeros((2, 8, 8), np.uint8)), Trunk(), torch.nn.Identity())
else:
    keep_freed_memory()
faults_of_five()
kept, cpu = faults_of_five(), torch.device("cpu")
reset_peak(cpu)
occupied = peak_bytes(cpu)
compute(torch.zeros(1, 4))
print(by_default, kept, peak_bytes(cpu) - occupied)
"""


@pytest.mark.skipif(not is_glibc() or not REFERENCES.exists(), reason="other systems keep memory in their own way")
@pytest.mark.parametrize("how", ["told to", "embed"])
def test_freed_memory_is_kept_for_the_next_batch_and_returned_before_a_peak_is_measured(how: str) -> None:
    command = [sys.executable, "-c", COUNT_FAULTS, how]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    by_default, kept, returned = map(int, said.split())
    assert kept * 4 < by_default and returned > 100_000_000, said


@pytest.mark.skipif(not REFERENCES.exists(), reason="only Linux can forget a peak")
def test_the_peak_is_that_since_the_last_reset() -> None:
    reset_peak(CPU)
    before = peak_bytes(CPU)
    block = np.ones(SIZE, np.uint8)
    during = peak_bytes(CPU)
    del block
    assert during > before + 0.9 * SIZE and peak_bytes(CPU) == pytest.approx(during, abs=NEAR)
    reset_peak(CPU)
    assert peak_bytes(CPU) < during - 0.9 * SIZE


def test_on_cuda_it_is_what_pytorch_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    device = torch.device("cuda", 0)
    reset_peak(device)
    assert asked == [device] and peak_bytes(device) == 7


def test_tensors_of_before_that_are_replaced_while_the_peak_is_measured_cause_no_warning(
    capfd: pytest.CaptureFixture[str],
) -> None:
    state = {"remembered": [torch.zeros(500)], "parts": {"last": torch.zeros(250)}}

    def work() -> None:
        state["remembered"] = [torch.ones(1_000_000)]
        state["parts"] = {"last": torch.ones(2)}

    assert peak_allocated(work) == pytest.approx(4e6, rel=0.01)
    state.clear()
    assert capfd.readouterr() == ("", "")
