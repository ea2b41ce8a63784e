"""make doctor: each fault of a machine, played by fakes, gets a line with its fix."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark import doctor as module
from benchmark.doctor import Finding, doctor, folders, gpu, packages
from tests.command_line import run


def torch(built: str | None, gpus: int = 0, codes: Iterable[str] = ("sm_90",), apple: bool = False) -> Any:
    cuda = SimpleNamespace(
        is_available=lambda: gpus > 0, device_count=lambda: gpus, mem_get_info=lambda _: (70e9, 140e9),
        get_device_name=lambda _: "H200", get_device_capability=lambda _: (9, 0), get_arch_list=lambda: [*codes],
    )  # fmt: skip
    mps = SimpleNamespace(is_available=lambda: apple)
    return SimpleNamespace(version=SimpleNamespace(cuda=built), cuda=cuda, backends=SimpleNamespace(mps=mps))


@pytest.mark.parametrize(
    ("torch", "driver", "device", "state", "phrases"),
    [
        (torch("12.8", 1), ("570.1", "12.8"), "auto", "ok", ["GPU 0: H200, 70.0 GB of 140.0 GB free", "driver 570.1"]),
        (torch("12.8", 1, ["sm_70"]), ("570.1", "12.8"), "auto", "BROKEN", ["no code for sm_90"]),
        (torch(None), None, "auto", "ok", ["no NVIDIA driver"]),
        (torch("12.8"), None, "cuda", "BROKEN", ["no NVIDIA driver", "device=cpu"]),
        (torch(None, apple=True), None, "auto", "ok", ["Apple's", "not used", "on the CPU"]),
        (torch(None, apple=True), None, "cuda", "BROKEN", ["Apple's", "device=cpu"]),
        (torch(None), ("570.1", "12.8"), "auto", "note", ["for CPUs only", "without TORCH=cpu"]),
        (torch("13.0"), ("470.1", "11.4"), "auto", "BROKEN", ["built for CUDA 13.0", "update the driver"]),
        (torch("12.8"), ("570.1", "12.8"), "auto", "BROKEN", ["sees no GPU", "--gpus=all"]),
    ],
)  # fmt: skip
def test_a_gpu_is_seen_or_the_reason_is_said(
    torch: Any, driver: Any, device: str, state: str, phrases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (found,) = gpu(torch, driver, device)
    assert found.state == state and all(phrase in f"{found.text} {found.fix}" for phrase in phrases), found


def test_a_gpu_by_its_number_must_be_there() -> None:
    found = {number: [*gpu(torch("12.8", 2), ("570.1", "12.8"), f"cuda:{number}")] for number in (1, 2)}
    assert [finding.state for finding in found[1]] == ["ok", "ok"]
    assert [finding.state for finding in found[2]] == ["ok", "ok", "BROKEN"]
    assert "device=cuda:2" in found[2][-1].text and found[2][-1].fix == "give device=cuda"


def test_hidden_gpus_are_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = gpu(torch("12.8"), ("570.1", "12.8"), "auto")
    assert found.state == "note" and found.fix == "unset CUDA_VISIBLE_DEVICES"


def test_nvidia_smi_says_which_cuda_the_driver_supports(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "| NVIDIA-SMI 570.1   Driver Version: 570.1   CUDA Version: 12.8 |"
    monkeypatch.setattr(module, "_answer", lambda *_: said)
    assert module.driver() == ("570.1", "12.8")


@pytest.mark.parametrize(
    ("changed", "state", "phrase"),
    [
        ({"torch": "1.0.0"}, "BROKEN", "torch 1.0.0, torchvision"),
        ({"faiss-gpu": "1.15", "faiss-cpu": "1.15"}, "BROKEN", "each overwrites the files of the other"),
        ({"faiss-gpu": None, "faiss-cpu": None}, "BROKEN", "not installed: faiss"),
        ({"pandas": None}, "BROKEN", "not installed: pandas"),
        ({"timm": None}, "note", "timm is not installed"),
    ],
)
def test_libraries_that_lack_or_do_not_fit_are_named(
    changed: dict[str, str | None], state: str, phrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = module._version
    monkeypatch.setattr(module, "_version", lambda name: changed[name] if name in changed else version(name))
    found = [each for each in packages() if phrase in each.text]
    assert [each.state for each in found] == [state] and found[0].fix


def test_the_libraries_that_are_installed_here_fit() -> None:
    assert {each.state for each in packages()} == {"ok"}


def test_a_folder_that_cannot_be_written_or_a_full_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", "/proc/none/cache")
    (tmp_path / "file").touch()
    cache, results, temporary = folders(tmp_path / "file" / "below")
    assert results.state == "BROKEN" and "results_dir" in results.fix and temporary.state == "ok"
    assert cache.state == "BROKEN" and "BENCHMARK_CACHE" in cache.fix
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e8))
    assert [each.state for each in folders(tmp_path / "new" / "results")][1] == "note"


def test_what_the_options_name_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "libraries", lambda device: iter([Finding("ok", f"libraries for {device}")]))
    monkeypatch.setattr(module, "_answer", lambda *_: None)
    missing = run(doctor, "dataset=cub", f"dataset.module.root={tmp_path}/none")
    assert missing.status == 1 and "BROKEN data set cub is not here" in missing.out and "make data" in missing.out
    assert "1 thing is broken" in missing.err
    fine = run(doctor, "dataset=glyphs_small")
    assert fine.status == 0 and "BROKEN" not in fine.out and "note   not here: cars196" in fine.out, fine
    absent = run(doctor, "dataset=glyphs_small", "device=cuda:77")
    assert "libraries for cuda:77" in absent.out, "a device that is not here is a finding, not a mistake"
    cluster = run(doctor, "executor=slurm", "executor.prefix=[env]")
    assert cluster.status == 1 and "BROKEN SLURM" in cluster.out, cluster
