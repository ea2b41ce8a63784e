"""A whole search runs without once opening a file of the test classes."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.command_line import on_tiny
from tests.datasets.synthetic_images import write_small_images

OPENED = """
    import sys
    opened = []
    sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
    from benchmark import bo
    from benchmark import final_eval
    from benchmark.study import cli, study
    command = sys.argv[2]
    it = study.Study.of(cli._compose(sys.argv[3:], []))
    bo.bo(it, []) if command == "bo" else final_eval.evaluate(it)
    print("\\n".join(["OPENED", *opened]))
"""


def opened(command: str, *overrides: str) -> list[str]:
    """The names of all files that a command opened."""
    program = [sys.executable, "-c", textwrap.dedent(OPENED), "-", command, *overrides]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=root,
                          env=os.environ | {"PYTHONPATH": "."})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.partition("OPENED\n")[2].splitlines()


def counted(names: list[str], trainval: str, test: str) -> tuple[int, int]:
    """How many of the names match a pattern for files of the training classes, and one for the test classes."""
    return sum(bool(re.search(trainval, name)) for name in names), sum(bool(re.search(test, name)) for name in names)


@pytest.mark.slow
def test_a_search_opens_the_training_classes_only_and_the_final_evaluation_logs_each_access(tmp_path: Path) -> None:
    choices = on_tiny("trials=1", "protocol.num_runs=1", f"results_dir={tmp_path}")
    subprocess.run([sys.executable, "-m", "benchmark.data", *choices], check=True, capture_output=True)
    halves = (r"trainval\.npz$", r"test\.npz$")
    trainval, test = counted(opened("bo", *choices), *halves)
    assert trainval > 0 and test == 0
    ledgers = list(tmp_path.rglob("test_ledger.jsonl"))
    assert ledgers == []
    _, test = counted(opened("final_eval", *choices), *halves)
    assert test > 0
    (ledger,) = tmp_path.rglob("test_ledger.jsonl")
    assert len(ledger.read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_search_on_image_files_opens_no_test_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))
    path = write_small_images(tmp_path / "pictures", num_classes=8, per_class=6)
    labels = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
    of_test_classes = {str(path.parent / name) for name in labels[24:]}  # the second half of the classes
    own = ["dataset=csv", f"dataset.module.path={path}", "trunk=small_conv", "protocol.images.short_side=36",
           "protocol.images.crop=32", "training.shift=0", "dataset.evaluate_every=1", "trials=1", "protocol.num_runs=1",
           f"results_dir={tmp_path / 'results'}"]  # fmt: skip
    own = on_tiny(*own)
    subprocess.run([sys.executable, "-m", "benchmark.data", *own], check=True, capture_output=True)
    halves = (r"/trainval-36/.*bin$", r"/test-36/")
    names = opened("bo", *own)
    trainval, test = counted(names, *halves)
    assert trainval > 0 and test == 0 and not of_test_classes & set(names)
    assert list(tmp_path.rglob("test_ledger.jsonl")) == []
    trainval, test = counted(opened("final_eval", *own), *halves)
    assert test > 0 and len(list(tmp_path.rglob("test_ledger.jsonl"))) == 1
