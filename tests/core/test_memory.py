"""The peak memory of a training."""

import numpy as np
import pytest
import torch

from benchmark.core.memory import REFERENCES, peak_allocated, peak_bytes, reset_peak

CPU = torch.device("cpu")
SIZE = 200_000_000
NEAR = 5_000_000  # the kernel counts the pages of each thread in batches


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
