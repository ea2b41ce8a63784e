"""The test wall as a fact: a whole search runs without once opening the file of the test classes."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TINY = [
    "dataset=glyphs_small", "loss=proxy_nca", "trunk.width=8", "dataset.iterations_per_epoch=2", "dataset.max_epochs=1",
    "protocol.batch_size=16", "protocol.num_runs=1", "searcher=sobol", "trials=1", "display=quiet", "executor=inline",
]  # fmt: skip

WATCHED = """
    import sys
    opened = []
    sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
    from hydra import compose, initialize_config_dir
    from benchmark import bo, final_eval, study
    study_dir, story = sys.argv[1], sys.argv[2]
    with initialize_config_dir(str(study.conf_dir()), version_base="1.3"):
        it = study.Study.of(compose("config", sys.argv[3:]))
    bo.bo(it, []) if story == "bo" else final_eval.evaluate(it)
    print(sum(path.endswith("trainval.npz") for path in opened), sum(path.endswith("test.npz") for path in opened))
"""


def opened(story: str, results_dir: Path) -> tuple[int, int]:
    """How often a story opened the trainval file and the test file."""
    command = [sys.executable, "-c", textwrap.dedent(WATCHED), "-", story, *TINY, f"results_dir={results_dir}"]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root,
                          env=os.environ | {"PYTHONPATH": "."})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    trainval, test = done.stdout.split()[-2:]
    return int(trainval), int(test)


@pytest.mark.slow
def test_a_search_opens_the_training_classes_only_and_the_final_evaluation_writes_each_look_down(
    tmp_path: Path,
) -> None:
    subprocess.run([sys.executable, "-m", "benchmark.data", *TINY], check=True, capture_output=True)
    trainval, test = opened("bo", tmp_path)
    assert trainval > 0 and test == 0
    ledgers = list(tmp_path.rglob("test_ledger.jsonl"))
    assert ledgers == []
    trainval, test = opened("final_eval", tmp_path)
    assert test > 0
    (ledger,) = tmp_path.rglob("test_ledger.jsonl")
    assert len(ledger.read_text().splitlines()) == 1
