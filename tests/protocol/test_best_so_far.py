"""The best score against the number of trials: against all subsets, one by one."""

import itertools
import json
import math
from pathlib import Path

import pytest

from benchmark.protocol.best_so_far import best_in_order, best_of_subsets

RESULTS = Path(__file__).resolve().parents[2] / "results"


def committed(loss: str) -> list[float]:
    """Validation MAP@R in percent of a loss's trials in both committed searches of the former network on glyphs."""
    folders = [
        RESULTS / name / "studies" / "glyphs-small_conv-hpl" / loss / "bo" for name in ("one_of_each", "reference")
    ]
    paths = [path for folder in folders for path in sorted(folder.glob("trial_*.json"))]
    return [100 * json.loads(path.read_text())["result"]["map_at_r"] for path in paths]


def test_any_10_of_the_16_pooled_trials_of_proxy_nca_give_a_best_score_with_a_deviation_of_two_and_a_half() -> None:
    scores = committed("proxy_nca")
    assert len(scores) == 16
    every = [max(subset) for subset in itertools.combinations(scores, 10)]  # 8,008
    mean = sum(every) / len(every)
    deviation = math.sqrt(sum((best - mean) ** 2 for best in every) / len(every))
    assert (round(mean, 2), round(deviation, 2)) == (31.99, 2.49)
    found = best_of_subsets(scores)[9]
    assert (found.k, found.mean, found.deviation) == (10, pytest.approx(mean), pytest.approx(deviation))
    assert (round(found.low, 2), round(found.high, 2)) == (25.34, 33.55)
    assert sorted(every)[math.ceil(0.025 * 8008) - 1] == found.low


@pytest.mark.parametrize("scores", [[3.0, 1.0, 2.0, 2.0], [None, 5.0, None, 4.0, 1.0], [7.0]])
def test_it_is_the_mean_and_the_band_over_all_subsets(scores: list[float | None]) -> None:
    found = best_of_subsets(scores, confidence=0.6)
    assert [best.k for best in found] == list(range(1, len(scores) + 1))
    for best in found:
        every = sorted(max(x for x in subset if x is not None) for subset in itertools.combinations(scores, best.k)
                       if any(x is not None for x in subset))  # fmt: skip
        assert best.mean == pytest.approx(sum(every) / len(every))
        assert best.deviation == pytest.approx(math.sqrt(sum((x - best.mean) ** 2 for x in every) / len(every)))
        assert best.low == every[math.ceil(0.2 * len(every) - 1e-9) - 1]
        assert best.high == every[math.ceil(0.8 * len(every) - 1e-9) - 1]


def test_the_curve_ends_without_a_band_in_the_best_trial() -> None:
    last = best_of_subsets(committed("proxy_anchor"))[-1]
    assert last.low == last.high == pytest.approx(last.mean) and last.deviation == pytest.approx(0, abs=1e-9)
    assert round(last.mean, 2) == 45.57


def test_without_any_score_there_is_no_curve() -> None:
    assert best_of_subsets([None, None]) == [] and best_in_order([None, None]) == [None, None]


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        best_of_subsets([1.0, math.nan])
    with pytest.raises(ValueError, match="confidence is 95"):
        best_of_subsets([1.0], confidence=95)
