"""make check-loss: README's own loss passes letter by letter, and a broken one in a package of its own hears why."""

import re
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark import check_loss as command
from benchmark.check_loss import check_loss
from tests.command_line import assert_refused, run

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str, holding: str) -> list[str]:
    """The blocks of code in README and docs that hold a text, without their indentation."""
    found = []
    for path in TEXTS:
        for indent, body in re.findall(rf"^( *)```{language}\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE):
            found += [textwrap.dedent(indent + body.removeprefix(indent))] if holding in body else []
    return found


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder `lab_of_checks` with `conf/loss/`, which Python can import."""
    path = [*sys.path]
    (tmp_path / "lab_of_checks/conf/loss").mkdir(parents=True)
    (tmp_path / "lab_of_checks/__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "lab_of_checks"
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab_of_checks"]:
        del sys.modules[name]


@pytest.fixture
def few_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "NUM_CLASSES", 300)
    monkeypatch.setattr(command, "NUM_IMAGES", 1500)


@pytest.mark.slow
@pytest.mark.usefixtures("few_classes")
def test_the_example_of_the_readme_keeps_the_contract(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, yaml = blocks("python", "def my_loss("), blocks("yaml", "name: my_loss\n")
    assert len(code) == len(yaml) == 1
    module = types.ModuleType("benchmark.losses.my_loss")
    exec(compile(code[0], "my_loss.py", "exec"), module.__dict__)  # as if it were the file that the text names
    monkeypatch.setitem(sys.modules, "benchmark.losses.my_loss", module)
    (package / "conf/loss/my_loss.yaml").write_text(yaml[0])
    monkeypatch.setattr(command, "EPOCH", (*command.EPOCH, "dataset.iterations_per_epoch=2"))
    ended = run(check_loss, "loss=my_loss", "plugins=[lab_of_checks]")
    assert ended.status == 0 and "BROKEN" not in ended.out, ended
    assert "my_loss keeps its contract" in ended.out and "'ARGS=plugins=[lab_of_checks]'" in ended.out


BROKEN = """
import torch
from torch import nn


class Broken(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, embeddings, labels):
        same = labels[:, None] == labels
        distances = torch.cdist(embeddings, embeddings)
        return self.scale * distances[same].mean() - distances[~same].mean()
"""
OF_BROKEN = """
name: broken
label: Broken
description: Distances, wrongly.
source: This test.
module: {_target_: lab_of_checks.losses.Broken, scale: "${loss.setting.scale}"}
sampler: {m: 4}
setting: {scale: 1.0}
space: {scale: {bounds: [2.0, 3.0], scale: linear, type: float}}
"""


def test_a_broken_loss_of_a_package_is_told_each_mistake_with_its_line(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "losses.py").write_text(BROKEN)
    (package / "conf/loss/broken.yaml").write_text(OF_BROKEN)
    for part in ("prepare", "check_parts", "cost"):  # which take time, and which the example of the README passes
        monkeypatch.setattr(command, part, lambda *_: "")
    monkeypatch.setattr(command, "epoch", lambda small: 1 / 0)
    ended = run(check_loss, "loss=broken", "plugins=[lab_of_checks]")
    assert ended.status == 1
    assert re.search(r"broken breaks \d+ demands .*make check-loss LOSS=broken 'ARGS=plugins=", ended.err), ended
    for phrase in (
        "loss.setting.scale=1 lies outside its space [2, 3]", "It is nan for a batch of one class",
        "On a GPU, lab_of_checks/losses.py:14 index by a mask makes the CPU wait", "ZeroDivisionError: division by",
    ):  # fmt: skip
        assert phrase in ended.out, ended.out


def test_options_that_it_does_not_read_are_refused() -> None:
    assert_refused(run(check_loss, "loss=ms", "trials=3"), "check-loss reads no trials")
    assert_refused(run(check_loss, "loss=none"), "loss=none trains nothing")
