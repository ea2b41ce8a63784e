"""make bench-search: regrets on functions whose best value is known."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.perf import searchers
from benchmark.perf.searchers import POINTS, Problem, Random, bench_search, branin, hartmann6, recorded, wide
from benchmark.searchers import Parameter, Setting, Trial
from benchmark.searchers.sobol import Sobol
from tests.command_line import assert_refused, run

LINE = {"x": Parameter((0.0, 1.0))}


class Fixed:
    """Proposes given values of x in order."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def ask(self, history: Any, pending: Any = ()) -> Setting:
        return {"x": self.values[len(history)]}

    def best(self, history: Any) -> int:
        raise NotImplementedError


def test_branin_has_its_three_published_optima_and_hartmann_its_only_one() -> None:
    places = ((-math.pi, 12.275), (math.pi, 2.275), (9.42478, 2.475))
    assert [branin({"x1": x, "x2": y}) for x, y in places] == pytest.approx([-0.397887] * 3, abs=1e-6)
    assert branin({"x1": 0.0, "x2": 0.0}) == pytest.approx(-(36 + 10 * (1 - 1 / (8 * math.pi)) + 10))  # by hand
    best = dict(zip("abcdef", (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573), strict=True))
    assert hartmann6(best) == pytest.approx(3.32237, abs=1e-5)
    assert all(hartmann6(best | {name: best[name] + 0.01}) < hartmann6(best) for name in best)


def test_regrets_are_those_of_the_best_trial_and_of_the_one_with_the_highest_noisy_score() -> None:
    quiet = Problem("line", LINE, lambda setting: setting["x"], 1.0)
    values = (0.25, 0.75, 0.5, *[0.0] * 7, *[0.9] * 10)
    found = searchers.search(quiet, Fixed(*values), 0, 20)
    assert {after: (r.best, r.chosen) for after, r in found.items()} == {
        10: (0.25, 0.25), 20: (pytest.approx(0.1), pytest.approx(0.1))
    }  # fmt: skip
    noisy = Problem("line", LINE, lambda setting: setting["x"], 1.0, noise=5.0)
    misled = [searchers.search(noisy, Fixed(*values), seed, 10)[10] for seed in range(20)]
    assert {regret.best for regret in misled} == {0.25} and max(regret.chosen for regret in misled) > 0.25
    assert misled[0] == searchers.search(noisy, Fixed(*values), 0, 10)[10], "the noise belongs to the seed"


def test_random_points_are_inside_the_space_and_the_same_again() -> None:
    space = LINE | {"lr": Parameter((1e-4, 1.0), "log"), "n": Parameter((2, 9), type="int")}
    found = [Random(space, 3).ask([], [{}] * number) for number in range(50)]
    assert found == [Random(space, 3).ask([], [{}] * number) for number in range(50)]
    assert all(space[name].contains(value) for setting in found for name, value in setting.items())
    assert 10 < sum(setting["lr"] < 1e-2 for setting in found) < 40, "uniform on the scale"
    assert Random(space, 4).ask([]) != found[0] and Random(space, 3).best([Trial(0, {}, 0.1), Trial(1, {}, 0.2)]) == 1


def test_a_recorded_surface_follows_its_trials_and_its_optimum_is_a_little_above_them() -> None:
    problem = recorded("proxy_anchor")
    with POINTS.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file.readlines()[1:]) if row["loss"] == "proxy_anchor"]
    scores = [float(row["map_at_r"]) for row in rows]
    fitted = [problem.value(json.loads(row["setting"])) for row in rows]
    assert np.corrcoef(scores, fitted)[0, 1] > 0.95
    assert max(fitted) < problem.optimum < max(scores) + 5
    draws = (Random(problem.space, seed).ask([]) for seed in range(200))
    assert max(map(problem.value, draws)) <= problem.optimum
    assert problem.space["alpha"].scale == "log" and problem.default["proxy_lr"] == 0.02


def test_the_made_up_losses_are_the_same_on_both_axes_and_reach_their_optimum() -> None:
    log, linear = wide(3, True), wide(3, False)
    assert (log.space["scale"].scale, linear.space["scale"].scale) == ("log", "linear")
    settings = [Random(linear.space, seed).ask([]) for seed in range(20)]
    assert [log.value(one) for one in settings] == [linear.value(one) for one in settings]
    draws = (Random(log.space, seed).ask([]) for seed in range(3000))
    assert 43 < max(map(log.value, draws)) <= 45


def test_the_command_writes_median_and_quartiles_over_the_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Problem("line", LINE, lambda setting: setting["x"], 1.0, default={"x": 0.5})
    monkeypatch.setattr(searchers, "problems", lambda seed: [line])
    makes = {"sobol": lambda p, seed: Sobol(p.space, seed), "half": lambda p, seed: Fixed(*[0.5 + seed / 10] * 20)}
    monkeypatch.setattr(searchers, "searchers", lambda problem: makes)
    ended = run(bench_search, "budget=small", f"results_dir={tmp_path}")
    assert ended.status == 0 and "seed 3 of 3" in ended.out and "half" in ended.out
    text = (tmp_path / "bench" / "search.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in text if not line.startswith("#")))
    assert [(row["searcher"], row["trials"], row["seeds"]) for row in rows] == [
        ("sobol", "10", "3"), ("sobol", "20", "3"), ("half", "10", "3"), ("half", "20", "3")
    ]  # fmt: skip
    half = next(row for row in rows if row["searcher"] == "half" and row["trials"] == "20")
    assert (half["best"], half["best_quartiles"], half["chosen"]) == ("0.4", "0.35 to 0.45", "0.4")
    assert_refused(run(bench_search, "trials=5"), "trials=5", "10, 20, 50")
    assert_refused(run(bench_search, "budget=big"), "budget=big", "full, small")


def test_every_problem_has_the_published_searcher_first_and_its_controls() -> None:
    plain = Problem("line", LINE, lambda setting: setting["x"], 1.0)
    assert list(searchers.searchers(plain)) == ["ax", "ax, design twice as large", "sobol", "random"]
    assert "ax, default first" in searchers.searchers(recorded("proxy_nca"))
