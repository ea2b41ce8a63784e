"""Divergence costs only the fold concerned: scores so far are kept, and a failure never becomes a number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.bo import bo
from benchmark.core import records
from benchmark.final_eval import final_eval
from benchmark.searchers import Trial
from benchmark.searchers.sobol import Sobol
from tests.command_line import Diverging, assert_refused, study_dir, tiny, trainings


def diverge(trainings_hit: range, after: int) -> Callable[[int, Any], None]:
    """Make the loss of some folds NaN after the given number of iterations; an epoch has 2."""

    def change(number: int, parts: Any) -> None:
        if number in trainings_hit:
            parts.loss = Diverging(parts.loss, after)

    return change


@pytest.mark.slow
def test_a_fold_that_diverges_after_a_trained_evaluation_keeps_its_score_and_is_marked(tmp_path: Path) -> None:
    with trainings(diverge(range(1, 2), after=2)):
        ended = tiny(bo, tmp_path, "trials=1", "dataset.max_epochs=3")
    result = records.read_record(study_dir(tmp_path) / "bo" / "trial_000.json").result
    fold = result["folds"][1]
    assert ended.status == 0
    assert (fold["stopped"], fold["best_epoch"], fold["reason"]) == (
        "diverged",
        1,
        "the training loss is nan in epoch 2",
    )
    assert result["status"] == "completed"
    assert result["map_at_r"] == (result["folds"][0]["map_at_r"] + fold["map_at_r"]) / 2
    assert "diverged: fold 1 (score of epoch 1; the training loss is nan in epoch 2)" in ended.out


@pytest.mark.slow
def test_a_trial_without_a_score_is_abandoned_with_its_reason_and_the_search_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories: list[list[Trial]] = []
    ask = Sobol.ask
    monkeypatch.setattr(Sobol, "ask", lambda self, history: (histories.append(history), ask(self, history))[1])
    with trainings(diverge(range(1), after=0)) as trained:
        ended = tiny(bo, tmp_path)
    folder = study_dir(tmp_path) / "bo"
    failed = records.read_record(folder / "trial_000.json").result
    assert ended.status == 0 and len(trained) == 4
    assert (failed["status"], failed["map_at_r"], failed["standard_error"]) == ("failed", None, None)
    assert failed["reason"] == "fold 0: the training loss is nan in epoch 1"
    assert failed["folds"][1]["map_at_r"] is not None, "the other fold is kept as it is"
    assert histories == [[], [Trial(0, failed["setting"], None, None)]]
    assert yaml.safe_load((folder / "best.yaml").read_text())["trial"] == 1
    assert "no score (fold 0: the training loss is nan in epoch 1)" in ended.out and "1 without a score" in ended.out


@pytest.mark.slow
def test_a_search_in_which_every_trial_diverges_ends_with_advice_and_no_choice(tmp_path: Path) -> None:
    ended = tiny(bo, tmp_path, "training.optimizers.trunk.lr=1e30")
    assert_refused(
        ended,
        "None of the 2 trials of proxy_nca on glyphs_small",
        "the training loss is nan",
        "training.optimizers.trunk.lr",
        "variant=NAME",
    )
    assert not (study_dir(tmp_path) / "bo" / "best.yaml").exists()
    with trainings() as trained:
        again = tiny(bo, tmp_path, "training.optimizers.trunk.lr=1e30")
    assert again.err == ended.err and not trained
    assert_refused(tiny(final_eval, tmp_path, "training.optimizers.trunk.lr=1e30"), "2 of 2 trials", "make bo")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hit", "expected"),
    [
        (range(1), ("test classes: mean over n = 1 run, %", "1 of 2 runs has no score and will have none: 0;")),
        (range(4), ("test classes: mean over n = 0 runs, %\n  2 of 2 runs have no score and will have none: 0, 1;",)),
    ],
)
def test_the_summary_of_final_runs_is_over_those_with_a_score(
    hit: range, expected: tuple[str, ...], tmp_path: Path
) -> None:
    assert tiny(bo, tmp_path, "trials=1").status == 0
    with trainings(diverge(hit, after=0)):
        ended = tiny(final_eval, tmp_path, "trials=1")
    assert ended.status == 0 and not [text for text in expected if text not in ended.out], ended.out
