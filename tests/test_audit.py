"""What `make audit` finds in a small database, and what the lock files pin."""

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import audit
from tests.audit import LOCKS, ROOT, Pinned, pinned, vulnerabilities

PACKAGES = [Pinned("pillow", "10.2.0", ()), Pinned("torch", "2.15.0", ()), Pinned("ray", "2.40.0", ())]


def advisory(name: str, *events: dict[str, str], versions: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}] if events else []
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": ranges, "versions": list(versions)}
    return {"id": "GHSA-1", "aliases": ["CVE-1"], "summary": "bad", "affected": [affected]} | more


def export(folder: Path, *advisories: dict[str, Any]) -> Path:
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as whole:
        for number, entry in enumerate(advisories):
            whole.writestr(f"{number}.json", json.dumps(entry))
    return path


@pytest.mark.parametrize(
    ("entry", "is_found"),
    [
        (advisory("Pillow", {"introduced": "0"}, {"fixed": "10.3.0"}), True),
        (advisory("pillow", {"introduced": "0"}, {"fixed": "10.2.0"}), False),
        (advisory("pillow", {"introduced": "10.2.0"}), True),
        (advisory("pillow", {"introduced": "10.2.1"}), False),
        (advisory("pillow", {"introduced": "0"}, {"last_affected": "10.2.0"}), True),
        (advisory("pillow", {"introduced": "0"}, {"last_affected": "10.1.0"}), False),
        (advisory("pillow", {"introduced": "0"}, {"fixed": "9.0"}, {"introduced": "10.0"}, {"fixed": "10.3"}), True),
        (advisory("pillow", {"introduced": "0"}, {"fixed": "9.0"}, {"introduced": "10.3"}), False),
        (advisory("pillow", versions=("10.2.0",)), True),
        (advisory("pillow", versions=("10.2.1",)), False),
        (advisory("pillow", {"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z"), False),
        (advisory("pillow-simd", {"introduced": "0"}), False),
    ],
)
def test_a_version_is_vulnerable_within_a_range_or_a_list(
    entry: dict[str, Any], is_found: bool, tmp_path: Path
) -> None:
    found = vulnerabilities(PACKAGES, export(tmp_path, entry))
    assert found == ([("pillow", "10.2.0", "GHSA-1 CVE-1", "bad")] if is_found else [])


@pytest.mark.slow
def test_the_status_tells_found_from_clean_and_from_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "SBOM", tmp_path / "sbom.json")
    for events, status in ([{"introduced": "0"}], 1), ([{"introduced": "0"}, {"fixed": "1.0"}], 0):
        monkeypatch.setenv("ADVISORIES", str(export(tmp_path, advisory("torch", *events))))
        assert audit.audit() == status
    monkeypatch.setenv("ADVISORIES", str(tmp_path / "missing.zip"))
    assert audit.audit() == 2 and "NOT checked" in capsys.readouterr().err
    components = json.loads((tmp_path / "sbom.json").read_text())["components"]
    torch = next(component for component in components if component["name"] == "torch")
    assert torch["purl"].startswith("pkg:pypi/torch@") and torch["hashes"]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_with_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    packages = pinned(text)
    assert packages and all(package.hashes for package in packages)
    assert "://" not in text and "--index-url" not in text and "--find-links" not in text
    assert len(packages) == sum(not line.startswith(" ") for line in text.splitlines()), "no line is anything else"


def test_without_a_driver_faiss_comes_for_the_cpu_and_without_its_cuda() -> None:
    rule = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("FAISS_CPU :="))
    command = rule.partition(":= ")[2].replace("$$", "$") + " requirements.lock"
    kept = pinned(subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    gone = {package.name for package in pinned((ROOT / "requirements.lock").read_text())} - {p.name for p in kept}
    assert gone == {"faiss-gpu", "nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12", "nvidia-cuda-nvrtc-cu12",
                    "nvidia-curand-cu12"}  # fmt: skip
