"""Training of a fold: when it stops, which epoch gives the score, and divergence."""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.core import records
from benchmark.training import loop
from benchmark.training.loop import train_fold
from tests.training.small_fold import ProxyLoss, a_checkpoint, a_fold, a_schedule, nothing

RULES = {  # epochs between evaluations and patience, as in the Reality Check
    "CUB": {"evaluate_every": 2, "patience": 9},
    "Cars": {"evaluate_every": 5, "patience": 14},
    "SOP": {"evaluate_every": 20, "patience": 39},
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Make successive evaluations return the given MAP@R; return the list of their arguments."""

    def prescribe(*scores: float) -> list[dict[str, Any]]:
        remaining, calls = iter(scores), []

        def metrics(embeddings: torch.Tensor, labels: torch.Tensor, is_query: None, **options: Any) -> dict[str, float]:
            calls.append({"shape": tuple(embeddings.shape), "labels": labels.tolist(), "metric": options["metric"]})
            score = next(remaining)
            return {"map_at_r": score, "r_precision": score / 2, "precision_at_1": score / 4, "num_queries": 15}

        monkeypatch.setattr(loop, "metrics_of", metrics)
        return calls

    return prescribe


TABLE = [
    # rule, MAP@R of epoch 0 and of each evaluation after it, last epoch, best trained epoch
    # CUB evaluates at 2, 4, 6, ... and stops at the first evaluation more than 9 epochs after the incumbent.
    ("CUB", [0.5, 0.3, 0.4, 0.3, 0.3, 0.3], 10, 4),  # never above the untrained model: 10 - 0 > 9
    ("CUB", [0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 10, 2),  # a tie is not an improvement: the earlier epoch remains the best
    ("CUB", [0.5, 0.1, 0.2, 0.3, 0.4, 0.49], 10, 10),  # rising, but still below epoch 0: the score is the last
    ("CUB", [0.1, 0.2, 0.3, 0.2, 0.3, 0.3, 0.2, 0.1], 14, 4),  # 14 - 4 > 9, and 12 - 4 is not
    (
        "CUB",
        [0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3],
        22,
        12,
    ),  # just in time
    ("CUB", [0.2, 0.2 + 1e-15, 0.1, 0.1, 0.1, 0.1, 0.1], 12, 2),  # any improvement counts
    ("CUB", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 10, 2),  # a score of zero is a score
    # Cars evaluates at 5, 10, 15, ...; more than 14.
    ("Cars", [0.5, 0.3, 0.4, 0.3], 15, 10),
    ("Cars", [0.1, 0.2, 0.3, 0.3, 0.2, 0.1], 25, 10),
    ("Cars", [0.1, 0.2, 0.1, 0.3, 0.1, 0.1, 0.1], 30, 15),
    # SOP evaluates at 20, 40, 60, ...; more than 39.
    ("SOP", [0.5, 0.3, 0.4], 40, 40),
    ("SOP", [0.1, 0.2, 0.1, 0.1], 60, 20),
    ("SOP", [0.1, 0.2, 0.1, 0.3, 0.3, 0.3], 100, 60),
]


@pytest.mark.parametrize(
    ("rule", "scores", "last", "best"),
    [pytest.param(*row, marks=[pytest.mark.slow] * (row[0] != "CUB" or len(row[1]) > 6)) for row in TABLE],
)
def test_training_stops_and_scores_as_the_reality_check_does(
    script: Any, tmp_path: Path, rule: str, scores: list[float], last: int, best: int
) -> None:
    calls = script(*scores)
    outcome = train_fold(a_fold(), a_schedule(**RULES[rule]), a_checkpoint(tmp_path / "checkpoint.pt"), nothing)
    result, step = outcome.result, RULES[rule]["evaluate_every"]
    assert (result["stopped"], result["reason"], result["last_epoch"], result["best_epoch"]) == (
        "patience",
        None,
        last,
        best,
    )
    score = scores[best // step]
    assert (result["map_at_r"], result["r_precision"], result["precision_at_1"]) == (score, score / 2, score / 4)
    assert [row["epoch"] for row in result["history"]] == list(range(0, last + 1, step)) and len(calls) == len(scores)
    assert [row["map_at_r"] for row in result["history"]] == scores


def test_training_ends_with_an_evaluation_at_max_epochs(script: Any, tmp_path: Path) -> None:
    script(0.1, 0.2, 0.3, 0.4)
    outcome = train_fold(
        a_fold(), a_schedule(evaluate_every=2, max_epochs=5), a_checkpoint(tmp_path / "checkpoint.pt"), nothing
    )
    assert (outcome.result["stopped"], outcome.result["last_epoch"], outcome.result["best_epoch"]) == (
        "max_epochs",
        5,
        5,
    )
    assert [row["epoch"] for row in outcome.result["history"]] == [0, 2, 4, 5]


def test_only_the_validation_classes_are_scored_and_with_the_schedule_s_metric(script: Any, tmp_path: Path) -> None:
    calls = script(0.1, 0.2)
    train_fold(a_fold(), a_schedule(max_epochs=1, retrieval="l2"), a_checkpoint(tmp_path / "checkpoint.pt"), nothing)
    assert calls == [{"shape": (15, 6), "labels": [11] * 5 + [12] * 5 + [13] * 5, "metric": "l2"}] * 2


def test_the_weights_are_those_of_the_best_trained_epoch(script: Any, tmp_path: Path) -> None:
    script(0.5, 0.1, 0.3, 0.2)
    fold, seen = a_fold(), {}

    def remember(history: list[dict[str, Any]]) -> None:
        parts = {"trunk": fold.trunk, "head": fold.head, "loss": fold.loss}
        seen[len(history) - 1] = {n: {k: v.clone() for k, v in p.state_dict().items()} for n, p in parts.items()}

    outcome = train_fold(fold, a_schedule(max_epochs=3), a_checkpoint(tmp_path / "checkpoint.pt"), remember)
    assert outcome.weights is not None and set(outcome.weights) == {"trunk", "head", "loss"}
    kept = [(part, key, value) for part, state in outcome.weights.items() for key, value in state.items()]
    assert all(torch.equal(value, seen[2][part][key]) for part, key, value in kept)
    assert not torch.equal(outcome.weights["head"]["linear.weight"], seen[3]["head"]["linear.weight"])
    assert "num_batches_tracked" in str(outcome.weights["trunk"].keys())
    assert list(outcome.weights["loss"]) == ["proxies", "steps"]  # buffers too: a learned hierarchy is among them
    assert int(outcome.weights["loss"]["steps"]) == 2 and outcome.iterations == 3


def test_the_weights_of_the_epoch_that_is_best_on_the_monitored_images_survive_an_interruption(
    script: Any, tmp_path: Path
) -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []

    def fold(keeps: bool = True) -> Any:
        parts = a_fold()
        parts.monitored, parts.validation = parts.validation, None
        parts.keep_monitored = keeps
        parts.on_monitored = lambda epoch, embeddings: seen.append((epoch, tuple(embeddings.shape)))
        return parts

    def stop_after_two(history: list[dict[str, Any]]) -> None:
        if len(history) == 3:
            raise KeyboardInterrupt

    script(0.9, 0.1, 0.3, 0.3)
    whole = train_fold(fold(), a_schedule(max_epochs=3), a_checkpoint(tmp_path / "whole.pt"), nothing)
    assert whole.monitored_weights is not None and whole.weights is None
    assert int(whole.monitored_weights["loss"]["steps"]) == 2  # not epoch 0, and the first of equal ones
    assert seen == [(epoch, (15, 6)) for epoch in range(4)]
    script(0.9, 0.1, 0.3, 0.3)
    checkpoint = a_checkpoint(tmp_path / "checkpoint.pt")
    with pytest.raises(KeyboardInterrupt):
        train_fold(fold(), a_schedule(max_epochs=3), checkpoint, stop_after_two)  # type: ignore[arg-type]
    resumed = train_fold(fold(), a_schedule(max_epochs=3), checkpoint, nothing)
    assert resumed.result == whole.result and resumed.monitored_weights is not None
    for part, state in whole.monitored_weights.items():
        assert all(torch.equal(resumed.monitored_weights[part][key], value) for key, value in state.items())
    assert train_fold(fold(keeps=False), a_schedule(max_epochs=3), checkpoint, nothing).monitored_weights is None


def test_a_row_holds_the_mean_loss_since_the_last_evaluation_and_the_loss_s_diagnostics(
    script: Any, tmp_path: Path
) -> None:
    script(0.1, 0.2, 0.3)
    fold = a_fold(loss=ProxyLoss(values=map(float, itertools.count())))
    schedule = a_schedule(iterations_per_epoch=3, evaluate_every=2, max_epochs=4)
    rows = train_fold(fold, schedule, a_checkpoint(tmp_path / "checkpoint.pt"), nothing).result["history"]
    # Two epochs of three iterations each: (0 + 1 + ... + 5) / 6 = 2.5, then (6 + ... + 11) / 6 = 8.5.
    assert [(row["epoch"], row["loss"], row["diagnostics"]["steps"]) for row in rows] == [
        (0, None, 0.0), (2, 2.5, 6.0), (4, 8.5, 12.0),
    ]  # fmt: skip


def test_each_iteration_is_trained_once_and_in_order(script: Any, tmp_path: Path) -> None:
    script(0.1, 0.2, 0.3)
    fold, drawn = a_fold(), []
    draw = fold.sampler.batch
    fold.sampler.batch = lambda iteration: drawn.append(iteration) or draw(iteration)
    train_fold(
        fold,
        a_schedule(iterations_per_epoch=3, evaluate_every=2, max_epochs=4),
        a_checkpoint(tmp_path / "checkpoint.pt"),
        nothing,
    )
    assert drawn == list(range(12))


def nan_from(iteration: int, value: float = math.nan) -> Iterator[float]:
    return itertools.chain([1.0] * iteration, itertools.repeat(value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_fold_that_diverges_before_a_trained_evaluation_has_no_score_and_says_why(
    script: Any, tmp_path: Path, value: float
) -> None:
    script(0.5)
    fold = a_fold(loss=ProxyLoss(values=nan_from(0, value)))
    outcome = train_fold(fold, a_schedule(evaluate_every=2), a_checkpoint(tmp_path / "checkpoint.pt"), nothing)
    result = outcome.result
    assert [result[key] for key in ("map_at_r", "precision_at_1", "r_precision", "best_epoch")] == [None] * 4
    assert (result["stopped"], result["reason"]) == ("diverged", f"the training loss is {value} in epoch 1")
    assert outcome.weights is None and [row["epoch"] for row in result["history"]] == [0]
    records.digest(result)  # rejects numbers that are not finite


def test_a_fold_that_diverges_after_a_trained_evaluation_keeps_its_score_and_is_marked(
    script: Any, tmp_path: Path
) -> None:
    script(0.5, 0.3, 0.2)
    fold = a_fold(loss=ProxyLoss(values=nan_from(5)))
    outcome = train_fold(fold, a_schedule(evaluate_every=2), a_checkpoint(tmp_path / "checkpoint.pt"), nothing)
    result = outcome.result
    assert (result["map_at_r"], result["best_epoch"], result["last_epoch"]) == (0.3, 2, 4)
    assert (result["stopped"], result["reason"]) == ("diverged", "the training loss is nan in epoch 6")
    assert outcome.weights is not None and [row["epoch"] for row in result["history"]] == [0, 2, 4]
    records.digest(result)


@pytest.mark.parametrize(("step", "score", "epoch"), [(1, None, 2), (3, 0.3, 4)])
def test_embeddings_that_are_not_finite_are_never_scored(
    script: Any, tmp_path: Path, step: int, score: float | None, epoch: int
) -> None:
    script(0.5, 0.3)
    fold = a_fold()

    def fault(steps: int) -> None:
        if steps == step + 1:  # after the last step before an evaluation: the training loss stays finite
            fold.head.linear.bias.data.fill_(math.inf)

    fold.loss.fault = fault
    result = train_fold(fold, a_schedule(evaluate_every=2), a_checkpoint(tmp_path / "checkpoint.pt"), nothing).result
    assert (result["map_at_r"], result["stopped"]) == (score, "diverged")
    assert result["reason"] == f"the embeddings are not finite after epoch {epoch}"
    assert [row["epoch"] for row in result["history"]] == list(range(0, epoch, 2))
    records.digest(result)


def test_an_untrained_model_that_is_not_finite_has_no_score_and_no_history(script: Any, tmp_path: Path) -> None:
    script()
    fold = a_fold()
    fold.head.linear.bias.data.fill_(math.nan)
    result = train_fold(fold, a_schedule(), a_checkpoint(tmp_path / "checkpoint.pt"), nothing).result
    assert (result["map_at_r"], result["history"]) == (None, [])
    assert result["reason"] == "the embeddings are not finite after epoch 0"


def test_a_loss_can_report_that_it_diverged(script: Any, tmp_path: Path) -> None:
    script(0.5, 0.3)

    def fault(steps: int) -> None:
        if steps == 3:
            raise FloatingPointError("the proxies are not finite")

    fold = a_fold(loss=ProxyLoss(fault=fault))
    result = train_fold(fold, a_schedule(evaluate_every=2), a_checkpoint(tmp_path / "checkpoint.pt"), nothing).result
    assert (result["map_at_r"], result["reason"]) == (0.3, "the proxies are not finite at iteration 3")


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_affine_part(tmp_path: Path, freeze: bool) -> None:
    fold = a_fold()
    fold.head.norm = nn.BatchNorm1d(6)  # only the trunk's batch norm is frozen
    before = {
        name: value.clone() for name, value in (*fold.trunk.state_dict().items(), *fold.head.state_dict().items())
    }
    train_fold(
        fold, a_schedule(max_epochs=3, freeze_batchnorm=freeze), a_checkpoint(tmp_path / "checkpoint.pt"), nothing
    )
    after = {**fold.trunk.state_dict(), **fold.head.state_dict()}
    kept = {name for name in after if torch.equal(after[name], before[name])}
    statistics = {
        f"stages.{n}.1.{kind}" for n in (0, 1) for kind in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert kept - {"norm.weight", "norm.bias"} == (statistics if freeze else set())
