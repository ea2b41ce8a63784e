"""Which devices may be named, and which are here, on pretended machines."""

import pytest
import torch

from benchmark.core.devices import check_device_name, device_here
from benchmark.core.errors import UserError


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_a_name_that_some_machine_has_is_allowed(name: str) -> None:
    check_device_name(name)


@pytest.mark.parametrize("name", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:0 ", "xpu"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"^device='{name}': allowed are auto, cpu, cuda, and cuda:N"):
        check_device_name(name)


def test_apples_gpu_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="Apple's GPU has no float64"):
        check_device_name("mps")


@pytest.mark.parametrize(
    ("name", "gpus", "found"),
    [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cpu", 2, "cpu"), ("cuda", 1, "cuda"), ("cuda:1", 2, "cuda:1")],
)
def test_a_device_that_is_here(name: str, gpus: int, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(gpus, monkeypatch)
    assert str(device_here(name)) == found


@pytest.mark.parametrize(
    ("name", "gpus", "allowed"),
    [("cuda", 0, "auto, cpu."), ("cuda:0", 0, "auto, cpu."), ("cuda:2", 2, "auto, cpu, cuda, cuda:0, cuda:1.")],
)
def test_one_that_is_not_is_refused(name: str, gpus: int, allowed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(gpus, monkeypatch)
    with pytest.raises(UserError, match=rf"^device='{name}': allowed on this machine \(.*\) are {allowed}$"):
        device_here(name)


def pretend(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
