"""Comparing methods: scipy.stats, literal definitions, published tables and simulations are the oracles."""

import itertools
import statistics
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import benchmark
from benchmark.protocol.comparisons import (
    against_best,
    cannot_be_told_from_best,
    difference,
    holm,
    rank_stability,
    runs_needed,
    unpaired_difference,
)

NAME = "benchmark.protocol.comparisons"
FIRST = {0: 34.1, 1: 35.7, 2: 33.9, 3: 36.2, 4: 34.8}
SECOND = {0: 33.0, 1: 35.1, 2: 33.8, 3: 34.9, 4: 34.4}


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_paired_runs_are_compared_as_scipy_compares_them(confidence: float) -> None:
    found = difference(FIRST, SECOND, confidence)
    test = stats.ttest_rel(list(FIRST.values()), list(SECOND.values()))
    low, high = test.confidence_interval(confidence)
    assert found.paired and found.n == 5 and found.p == pytest.approx(test.pvalue, rel=1e-12)
    assert found.half_width is not None
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high), rel=1e-12)


def test_runs_are_paired_by_their_number_and_not_by_their_order() -> None:
    shuffled = {run: SECOND[run] for run in (3, 1, 4, 0, 2)}
    again = difference(FIRST, shuffled)
    assert again.p == pytest.approx(difference(FIRST, SECOND).p, rel=1e-12)


@pytest.mark.parametrize("unpaired", [True, False], ids=["asked", "other runs"])
def test_runs_without_shared_seeds_are_compared_by_welchs_test(unpaired: bool) -> None:
    other = {run + 100: value for run, value in list(SECOND.items())[:4]}
    found = unpaired_difference(list(FIRST.values()), list(other.values())) if unpaired else difference(FIRST, other)
    test = stats.ttest_ind(list(FIRST.values()), list(other.values()), equal_var=False)
    low, high = test.confidence_interval(0.95)
    assert not found.paired and found.n == 4 and found.p == pytest.approx(test.pvalue, rel=1e-12)
    assert found.half_width is not None
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high), rel=1e-12)


def test_one_run_has_a_difference_without_an_interval_and_a_test() -> None:
    for found in (difference({0: 3.0}, {0: 1.0}), difference({0: 3.0}, {1: 1.0})):
        assert (found.mean, found.half_width, found.p, found.n) == (2.0, None, None, 1)


def test_differences_without_spread_are_certain_or_none() -> None:
    same, higher = {0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}
    assert (difference(same, same).p, difference(higher, same).p) == (1.0, 0.0)
    assert (unpaired_difference([1, 1], [1, 1]).p, unpaired_difference([2, 2], [1, 1]).p) == (1.0, 0.0)


def literal_holm_rejects(p_values: list[float], alpha: float) -> set[int]:
    """Holm 1979, step by step: the smallest against alpha / m, the next against alpha / (m - 1), until one fails."""
    left = list(range(len(p_values)))
    rejected: set[int] = set()
    while left:
        smallest = min(left, key=lambda i: p_values[i])
        if p_values[smallest] > alpha / len(left):
            break
        rejected.add(smallest)
        left.remove(smallest)
    return rejected


def test_holm_rejects_what_the_stepwise_procedure_rejects() -> None:
    draws = np.random.default_rng(1)
    for size, alpha in itertools.product(range(7), (0.01, 0.05, 0.3)):
        p_values = list(draws.uniform(0, 0.2, size))
        adjusted = holm(p_values)
        assert {i for i, p in enumerate(adjusted) if p <= alpha} == literal_holm_rejects(p_values, alpha)
        assert all(new >= old for new, old in zip(adjusted, p_values, strict=True))


def test_the_group_of_the_best_holds_the_best_and_what_is_not_significantly_lower() -> None:
    runs = range(6)
    noise = [0.3, -0.2, 0.1, -0.4, 0.2, 0.0]
    methods = {
        "best": {run: 50 + noise[run] for run in runs},
        "near": {run: 50 + noise[(run + 1) % 6] - 0.05 for run in runs},
        "far": {run: 40 + noise[(run + 2) % 6] for run in runs},
    }
    assert cannot_be_told_from_best(methods) == {"best", "near"}
    p = {name: stats.ttest_rel([*methods["best"].values()], [*methods[name].values()]).pvalue for name in methods}
    found = against_best(methods)
    assert (
        found["best"] == 1 and found["near"] == pytest.approx(p["near"]) and found["far"] == pytest.approx(2 * p["far"])
    )


def test_a_method_that_is_ahead_over_searches_is_not_told_from_the_best_of_one_search() -> None:
    runs = {"a": {0: 34.3, 1: 34.1}, "b": {0: 34.1, 1: 34.0}}
    over_searches = {"a": dict(enumerate([34.2, 32.0, 32.1, 31.9, 32.0])),
                     "b": dict(enumerate([34.1, 34.0, 34.2, 33.9, 34.1]))}  # fmt: skip
    assert difference(over_searches["b"], over_searches["a"]).p < 0.05
    assert cannot_be_told_from_best(runs, pair=lambda *names: (over_searches[names[0]], over_searches[names[1]])) == {
        "a", "b",
    }  # fmt: skip


def test_a_row_alone_and_rows_of_one_run_have_no_best_group() -> None:
    assert cannot_be_told_from_best({}) == cannot_be_told_from_best({"a": FIRST}) == set()
    assert cannot_be_told_from_best({"a": {0: 1.0}, "b": {0: 9.0}}) == set()


def test_the_truly_best_method_is_in_the_group_in_95_of_100_simulations() -> None:
    draws, inside = np.random.default_rng(0), 0
    for _ in range(200):
        values = draws.normal(30, 1, (5, 10)) + draws.normal(0, 1, 10)
        values[0] += 0.3
        methods = {str(k): dict(enumerate(row)) for k, row in enumerate(values)}
        inside += "0" in cannot_be_told_from_best(methods)
    assert inside >= 186  # 95 % of 200 are 190, and the standard deviation is 3


@pytest.mark.parametrize(("effect", "runs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_the_number_of_runs_is_that_of_published_power_tables(effect: float, runs: int) -> None:
    """Sample sizes of a two-sided paired t-test, level 0.05, power 0.8, as G*Power 3.1 gives them."""
    assert runs_needed(effect * 3.0, 3.0) == runs_needed(-effect, 1.0) == runs


def test_the_number_of_runs_has_its_power_in_a_simulation() -> None:
    n = runs_needed(0.7, 1.0)
    assert n is not None
    for runs, enough in ((n, True), (n - 1, False)):
        samples = np.random.default_rng(2).normal(0.7, 1.0, (20_000, runs))
        share = np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05)
        assert share == pytest.approx(0.8, abs=0.03) and bool(share > 0.8) is enough


def test_differences_that_no_number_of_runs_or_two_of_them_find() -> None:
    assert runs_needed(0.0, 1.0) is None and runs_needed(0.01, 1.0) is None
    assert runs_needed(1.0, 0.0) == 2 and runs_needed(1000.0, 1.0) == 2


def test_ranks_over_resampled_runs_are_those_of_all_samples_of_two_runs() -> None:
    # Of two runs, the four equally likely samples are (0, 0), (0, 1), (1, 0), (1, 1). "a" wins in run 0 by 2 and loses
    # in run 1 by 1, so it is first unless run 1 is drawn twice: 3 in 4.
    found = rank_stability({"a": {0: 3.0, 1: 0.0}, "b": {0: 1.0, 1: 1.0}})
    assert found["a"].first == pytest.approx(0.75, abs=0.03) and found["a"].mean == pytest.approx(1.25, abs=0.03)
    assert found["a"].first + found["b"].first == pytest.approx(1)


def test_equal_methods_share_their_rank() -> None:
    found = rank_stability({"a": FIRST, "b": dict(FIRST), "c": {run: value - 9 for run, value in FIRST.items()}})
    assert [(rank.first, rank.mean) for rank in found.values()] == [(0.5, 1.5), (0.5, 1.5), (0.0, 3.0)]
    assert rank_stability({"a": FIRST}) == rank_stability({"a": {0: 1.0}, "b": {0: 2.0}}) == {}


def test_searches_are_drawn_before_their_runs() -> None:
    # "a" is better by 1 in every run of search 0 and worse by 1 in every run of search 1. Drawing runs alone would mix
    # them; drawing two searches gives both in half of the samples (a tie), and either one twice in a quarter each.
    a = {(s, run): (1.0 if s == 0 else -1.0) for s in range(2) for run in range(10)}
    b = dict.fromkeys(a, 0.0)
    found = rank_stability({"a": a, "b": b})["a"]
    assert found.first == pytest.approx(0.5, abs=0.04)
    means = [statistics.mean(pair) for pair in itertools.product((1.0, -1.0), repeat=2)]
    expected = [1 + (mean < 0) + (mean == 0) / 2 for mean in means]
    assert found.mean == pytest.approx(statistics.mean(expected), abs=0.04)


def test_nothing_that_computes_records_imports_this_module() -> None:
    package = Path(benchmark.__file__).parent
    users = {path.relative_to(package).parts[0] for path in package.rglob("*.py") if NAME in path.read_text("utf-8")}
    assert "report" in users and not users & {"study", "training", "losses", "searchers", "jobs", "bo.py"}
