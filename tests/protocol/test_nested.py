"""Intervals that cover the search: worked out by hand, and their coverage in simulation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmark.protocol.nested import difference_over_searches, over_searches, search_means
from benchmark.protocol.statistics import t_interval

STUDIES = Path(__file__).parents[2] / "results"
RECORDS = (3.6, 1.0, 2.1)  # searches, runs and classes of ProxyNCA on glyphs, in points of MAP@R


def scores(values: list[list[float]]) -> dict[tuple[int, int], float]:
    return {(s, r): value for s, runs in enumerate(values) for r, value in enumerate(runs)}


def test_the_interval_is_students_t_over_the_means_of_the_searches() -> None:
    found = over_searches(scores([[9.0, 11.0], [11.0, 13.0], [16.0, 18.0]]))
    # Means 10, 12, 17, their mean 13; deviations -3, -1, 4, squares 9 + 1 + 16 = 26, s = sqrt(13) = 3.605551;
    # s / sqrt(3) = 2.081666; Student's t with 2 degrees of freedom, 97.5 %: 4.302653; product 8.956686.
    assert (found.mean, found.n) == (13.0, 3)
    assert found.half_width == pytest.approx(8.956686, abs=1e-5)


def test_a_difference_is_paired_by_search_and_run() -> None:
    first = scores([[10.0, 12.0], [20.0, 22.0], [31.0, 31.0]])
    second = scores([[9.0, 11.0], [18.0, 20.0], [28.0, 28.0]])
    found = difference_over_searches(first, second)
    # Differences of the searches' means 1, 2, 3: mean 2, s = 1, s / sqrt(3) = 0.577350; times 4.302653 = 2.484138.
    assert (found.mean, found.n, found.paired) == (2.0, 3, True)
    assert found.half_width == pytest.approx(2.484138, abs=1e-5)
    # t = 2 / 0.577350 = 3.464102; for 2 degrees of freedom, p = 1 - t / sqrt(2 + t^2) = 1 - 3.464102 / 3.741657.
    assert found.p == pytest.approx(0.0741799, abs=1e-6)


def test_one_search_has_no_interval() -> None:
    assert over_searches(scores([[1.0, 3.0]])).half_width is None


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="different runs"):
        search_means({(0, 0): 1.0, (0, 1): 1.0, (1, 0): 2.0})
    with pytest.raises(ValueError, match="cannot be paired"):
        difference_over_searches(scores([[1.0], [2.0]]), scores([[1.0]]))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 4.0, "records", "best of 10"])
def test_95_percent_of_the_intervals_over_three_searches_hold_the_expected_score(ratio: float | str) -> None:
    draws, many, num_runs = np.random.default_rng(0), 800, 10
    between, within, of_classes = RECORDS if isinstance(ratio, str) else (ratio, 1.0, 0.0)
    effects = draws.standard_normal((many, 3, 1))
    if ratio == "best of 10":  # the mean and the standard deviation of the highest of ten normal numbers
        effects = (draws.standard_normal((many, 3, 10)).max(axis=2, keepdims=True) - 1.538753) / 0.586787
    expected = 30 + of_classes * draws.standard_normal((many, 1, 1))  # on the test classes that there are
    values = expected + between * effects + within * draws.standard_normal((many, 3, num_runs))
    covered, as_one_sample = 0, 0
    for study, target in zip(values, expected[:, 0, 0], strict=True):
        found = over_searches(scores(study.tolist()))
        covered += abs(found.mean - target) <= (found.half_width or 0)
        if ratio == "records":
            found = t_interval(study.ravel().tolist())
            as_one_sample += abs(found.mean - target) <= (found.half_width or 0)
    assert 0.93 < covered / many < 0.97
    if ratio == "records":
        assert as_one_sample / many < 0.45, "runs of one search are not searches"


def test_searches_drawn_from_committed_trials_are_covered_in_75_percent_and_misses_lie_too_high() -> None:
    ours = "studies/glyphs-small_conv-hpl/proxy_nca/bo/trial_*.json"
    found = [path for name in ("one_of_each", "reference") for path in sorted((STUDIES / name).glob(ours))]
    trials = np.array([100 * json.loads(path.read_text())["result"]["map_at_r"] for path in found])
    draws, many = np.random.default_rng(0), 1500
    order = draws.random((many, 3, len(trials))).argsort(axis=2)[..., :10]
    best = trials[order].max(axis=2)  # (many, 3)
    # The trial of rank r (from 0) is the best of 10 if it is drawn, with 9 of the r lower ones.
    chances = np.array([math.comb(rank, 9) / math.comb(16, 10) for rank in range(16)])
    assert len(trials) == 16 and chances.sum() == pytest.approx(1)
    expected = float(chances @ np.sort(trials))
    values = best[..., None] + draws.standard_normal((many, 3, 10))
    intervals = [over_searches(scores(study.tolist())) for study in values]
    above = sum(found.mean - (found.half_width or 0) > expected for found in intervals)
    below = sum(found.mean + (found.half_width or 0) < expected for found in intervals)
    assert 0.71 < 1 - (above + below) / many < 0.79
    assert above > 9 * below
    assert np.mean((best == best[:, :1]).all(axis=1)) == pytest.approx(0.26, abs=0.03), "all three found one trial"
