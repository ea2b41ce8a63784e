"""Properties of the Sobol design: independent of scores, within the bounds, evenly spread."""

import math

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.searchers import Parameter, Trial
from benchmark.searchers.sobol import Sobol, value_at

SPACE = {
    "lr": Parameter((1e-6, 1e-2), "log"),
    "margin": Parameter((-1.0, 1.0)),
    "n": Parameter((1, 4), type="int"),
    "m": Parameter((2, 64), "log", "int"),
}


def run(searcher, num_trials, score=lambda setting: 0.5):
    history = []
    for index in range(num_trials):
        setting = searcher.ask(history)
        history.append(Trial(index, setting, score(setting)))
    return history


def test_proposals_depend_on_the_seed_and_not_on_scores():
    scored = run(Sobol(SPACE, 0), 16, score=lambda setting: setting["lr"])
    failed = run(Sobol(SPACE, 0), 16, score=lambda setting: None)
    other = run(Sobol(SPACE, 1), 16)
    assert [t.parameters for t in scored] == [t.parameters for t in failed]
    assert all(a.parameters["lr"] != b.parameters["lr"] for a, b in zip(scored, other, strict=True))


def test_settings_are_plain_numbers_within_the_bounds_and_fill_them_evenly():
    history = run(Sobol(SPACE, 3), 64)
    for trial in history:
        assert list(trial.parameters) == list(SPACE)
        for name, value in trial.parameters.items():
            assert type(value) is (int if SPACE[name].type == "int" else float)
            assert SPACE[name].contains(value)
    # 64 points of a Sobol sequence put exactly 16 into each quarter of every coordinate.
    quarters = [int(4 * (math.log10(t.parameters["lr"]) + 6) / 4) for t in history]
    assert np.bincount(quarters).tolist() == [16] * 4
    assert np.bincount([t.parameters["n"] for t in history]).tolist() == [0, 16, 16, 16, 16]


def test_values_follow_the_scale():
    assert value_at(Parameter((1e-6, 1e-2), "log"), 0.25) == pytest.approx(1e-5)
    assert value_at(Parameter((-1.0, 3.0)), 0.25) == 0.0
    assert [value_at(SPACE["lr"], u) for u in (0.0, 1.0)] == pytest.approx([1e-6, 1e-2])
    assert [value_at(SPACE["m"], u) for u in (0.0, 1.0)] == [2, 64]
    assert all(SPACE[name].contains(value_at(SPACE[name], u)) for name in SPACE for u in (0.0, 1e-16, 1.0))


def test_a_finite_space_is_tried_without_repetition_and_to_its_end():
    space = {"n": Parameter((2, 12), type="int"), "m": Parameter((0, 2), type="int")}
    history = run(Sobol(space, 0), 33)
    assert len({(t.parameters["n"], t.parameters["m"]) for t in history}) == 33
    with pytest.raises(UserError, match="All 33 settings of the search space have been tried"):
        Sobol(space, 0).ask(history)


def test_the_best_is_the_highest_mean():
    history = [Trial(0, {}, 0.5), Trial(1, {}, None), Trial(2, {}, 0.75), Trial(3, {}, 0.75)]
    assert Sobol(SPACE, 0).best(history) == 2


def test_an_empty_space_and_a_history_of_another_are_refused():
    with pytest.raises(UserError, match="The search space is empty"):
        Sobol({}, 0)
    with pytest.raises(UserError, match="the search space is"):
        Sobol(SPACE, 0).ask([Trial(0, {"lr": 1e-3}, 0.5)])
