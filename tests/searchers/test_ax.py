"""Ax behind `ask(history)`: pure, failures stay failures, MLRC's design comes first, better than the Sobol baseline."""

import json
import math
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.protocol.seeds import stable_seed
from benchmark.searchers import Parameter, Trial
from benchmark.searchers.ax import Ax
from benchmark.searchers.sobol import Sobol

ROOT = Path(__file__).resolve().parents[2]
SPACE = {
    "lr": Parameter((1e-6, 1e-2), "log"),
    "margin": Parameter((0.0, 1.0)),
    "num_coarse": Parameter((2, 50), "log", "int"),
}


def score(setting):
    """A score that is best at lr 1e-4, margin 0.3, num_coarse 10."""
    far = (math.log10(setting["lr"]) + 4) ** 2 / 16 + (setting["margin"] - 0.3) ** 2
    return 0.5 - 0.2 * far - 0.1 * math.log(setting["num_coarse"] / 10) ** 2


def search(searcher, num_trials, score=score, failed=()):
    history = []
    for index in range(num_trials):
        setting = searcher.ask(history)
        history.append(Trial(index, setting, None if index in failed else score(setting), 0.02))
    return history


@pytest.fixture(scope="module")
def history():
    """Return seven trials, of which number 2 (a point of the design) and number 5 (the model's first) failed."""
    return search(Ax(SPACE, 0), 7, failed=(2, 5))


@pytest.fixture
def told(monkeypatch):
    """What Ax knows of each trial when it is asked: its parameters, its status, and its score with standard error."""
    import ax.api.client

    trials = []
    propose = ax.api.client.Client.get_next_trials

    def noted(client, max_trials):
        experiment = client._experiment
        scores = {row.trial_index: (row.mean, row.se) for row in experiment.data._data_rows}
        trials[:] = [(t.arm.parameters, t.status.name, scores.get(i)) for i, t in experiment.trials.items()]
        return propose(client, max_trials)

    monkeypatch.setattr(ax.api.client.Client, "get_next_trials", noted)
    return trials


class OneByOne(Ax):
    """Tells Ax each trial by the methods of its client."""

    def _client_with(self, history, pending=()):
        client = self._client(0, stable_seed("ax proposal", self._seed, len(history) + len(pending)))
        for trial in history:
            index = client.attach_trial(self._cast(trial.parameters))
            score = self._observation(trial, history)
            if score is None:
                client.mark_trial_abandoned(index)
            else:
                client.complete_trial(index, {"score": score})
        return client


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["inferred", "fold_sem"])
def test_scores_told_at_once_give_the_proposal_of_scores_told_one_by_one(history, noise):
    assert Ax(SPACE, 0, noise=noise).ask(history) == OneByOne(SPACE, 0, noise=noise).ask(history)


@pytest.mark.slow
def test_telling_takes_time_in_proportion_to_the_number_of_trials():
    """Tables that Ax builds while it is told: one for all trials, not one for each."""
    import ax.core.data

    settings = search(Sobol(SPACE, 0), 12)
    built = []
    with pytest.MonkeyPatch.context() as patch:
        table = ax.core.data.Data.full_df.func
        patch.setattr(ax.core.data.Data, "full_df", property(lambda data: built.append(1) or table(data)))
        for length in (6, 12):
            Ax(SPACE, 0)._client_with(settings[:length])
    assert len(built) <= 2


@pytest.mark.slow
def test_the_same_history_gives_the_same_bits(history):
    for length in (0, 3, 7):
        settings = [Ax(SPACE, 0).ask(history[:length]) for _ in range(2)]
        assert settings[0] == settings[1]
    assert Ax(SPACE, 0).ask(history) != Ax(SPACE, 1).ask(history)
    assert Ax(SPACE, 0).ask([]) != Ax(SPACE, 1).ask([])


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_fresh_process_gives_the_same_bits(history, threads):
    code = (
        "import json, sys\nfrom benchmark.searchers import Trial\nfrom benchmark.searchers.ax import Ax\n"
        f"from benchmark.searchers import Parameter\nSPACE = {SPACE!r}\n"
        "print(json.dumps(Ax(SPACE, 0).ask([Trial(*t) for t in json.loads(sys.argv[1])])))"
    )
    as_json = json.dumps([(t.index, t.parameters, t.mean, t.sem) for t in history])
    found = subprocess.run(
        [sys.executable, "-c", code, as_json],
        capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert json.loads(found.stdout) == Ax(SPACE, 0).ask(history)
    assert found.stderr == ""


@pytest.mark.slow
def test_nothing_global_changes(history):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_num_threads()
    Ax(SPACE, 0).ask(history)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert (random.getstate(), torch.get_num_threads()) == before[2:]


@pytest.mark.slow
def test_ax_is_silent(history, capfd):
    Ax(SPACE, 0, select="model").best(history)
    Ax(SPACE, 0).ask(history)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(("num_extra", "num_sobol"), [(0, 5), (4, 7)])
def test_the_design_is_max_5_p_points_that_no_score_can_change(num_extra, num_sobol):
    space = SPACE | {f"extra_{i}": Parameter((0.0, 1.0)) for i in range(num_extra)}
    searcher = Ax(space, 0)
    history = search(searcher, num_sobol, score=lambda setting: 0.5)
    rising = [Trial(t.index, t.parameters, 0.1 * t.index) for t in history]
    falling = [Trial(t.index, t.parameters, 0.9 - 0.1 * t.index) for t in history]
    assert searcher.ask(rising[:-1]) == searcher.ask(falling[:-1]) == history[-1].parameters
    assert searcher.ask(rising) != searcher.ask(falling)


def test_the_design_is_one_of_axs_sobol_designs_without_a_centre_point():
    points = np.array([[math.log10(p["lr"]) / 4 + 1.5, p["margin"]] for p in (
        t.parameters for t in search(Ax(SPACE, 4, num_sobol=8), 8))])  # fmt: skip
    assert not (np.abs(points - 0.5) < 1e-6).any()
    for column in points.T:  # eight points of a Sobol sequence, one in each eighth of every coordinate
        assert sorted((8 * column).astype(int)) == list(range(8))


@pytest.mark.slow
def test_a_failed_trial_uses_up_its_point_of_the_design(history):
    without_failures = search(Ax(SPACE, 0), 5)
    assert [t.parameters for t in history[:5]] == [t.parameters for t in without_failures]


def test_a_failed_trial_is_abandoned_and_gets_no_score(history, told):
    Ax(SPACE, 0).ask(history)
    assert [parameters for parameters, _, _ in told] == [t.parameters for t in history]
    assert [i for i, (_, status, _) in enumerate(told) if status == "ABANDONED"] == [2, 5]
    assert [i for i, (_, status, _) in enumerate(told) if status == "COMPLETED"] == [0, 1, 3, 4, 6]
    assert [score and score[0] for _, _, score in told] == [t.mean for t in history]


@pytest.mark.parametrize("noise", ["inferred", pytest.param("fold_sem", marks=pytest.mark.slow)])
@pytest.mark.parametrize("failed", ["worst", pytest.param("zero", marks=pytest.mark.slow)])
def test_the_model_sees_the_worst_score_or_zero_for_a_failed_trial_and_nothing_for_a_lost_one(
    history, told, failed, noise
):
    worst = min((t for t in history if t.mean is not None), key=lambda t: t.mean)
    lost = [*history[:5], Trial(5, history[5].parameters, None, is_lost=True), history[6]]
    Ax(SPACE, 0, failed=failed, noise=noise).ask(lost)
    expected = (worst.mean, worst.sem) if failed == "worst" else (0.0, 0.0)
    mean, sem = told[2][2]
    assert mean == expected[0] and (sem == expected[1] if noise == "fold_sem" else math.isnan(sem))
    assert [i for i, (_, status, _) in enumerate(told) if status == "ABANDONED"] == [5] and told[5][2] is None
    assert [t.mean for t in history if t.mean is None] == [None, None], "the history keeps none"


@pytest.mark.slow
def test_a_search_leaves_the_region_of_failures_if_the_model_sees_them():
    space = {"lr": Parameter((1e-6, 1.0), "log"), "margin": Parameter((0.0, 1.0))}

    def rising(setting):
        return None if setting["lr"] > 0.1 else 0.3 + 0.02 * math.log10(setting["lr"])

    def failures(failed):
        return sum(trial.mean is None for trial in search(Ax(space, 0, failed=failed), 12, rising)[5:])

    assert failures("worst") <= 3 and failures("zero") <= 3 < 5 <= failures(None)


@pytest.mark.slow
def test_the_standard_error_reaches_ax_only_with_fold_sem(history, told):
    Ax(SPACE, 0, noise="fold_sem").ask(history)
    assert [score for _, _, score in told if score] == [(t.mean, t.sem) for t in history if t.mean is not None]
    assert Ax(SPACE, 0, noise="fold_sem").ask(history) != Ax(SPACE, 0).ask(history)
    without = [Trial(t.index, t.parameters, t.mean) for t in history]
    assert Ax(SPACE, 0).ask(without) == Ax(SPACE, 0).ask(history)
    with pytest.raises(UserError, match="Trial 0 has no standard error"):
        Ax(SPACE, 0, noise="fold_sem").ask(without)


@pytest.mark.slow
def test_settings_are_plain_numbers_within_the_bounds(history):
    for trial in [*history, Trial(7, Ax(SPACE, 0).ask(history), None)]:
        assert list(trial.parameters) == list(SPACE)
        for name, value in trial.parameters.items():
            assert type(value) is (int if SPACE[name].type == "int" else float)
            assert SPACE[name].contains(value)


@pytest.mark.slow
def test_whole_floats_that_json_made_integers_reach_ax_as_floats(told):
    history = [Trial(i, {"lr": 10.0 ** -(2 + i % 5), "margin": i % 2, "num_coarse": 2.0 + i}, i / 9) for i in range(6)]
    Ax(SPACE, 0).ask(history)
    types = [[type(value) for value in parameters.values()] for parameters, _, _ in told]
    assert types == [[float, float, int]] * 6


@pytest.mark.slow
def test_the_design_continues_while_too_few_trials_have_a_score():
    searcher = Ax({"lr": SPACE["lr"]}, 0)
    history = search(searcher, 8, failed=range(8))
    eighths = sorted(int(8 * (math.log10(t.parameters["lr"]) + 6) / 4) for t in history)
    assert eighths == list(range(8))  # still one Sobol sequence
    with pytest.raises(UserError, match="None of the 8 trials has a score"):
        searcher.best(history)
    one = [Trial(t.index, t.parameters, 0.5 if t.index == 7 else None) for t in history]
    assert searcher.ask(one) == searcher.ask([*history[:7], Trial(7, one[7].parameters, 0.9)])
    two = [*one[:6], Trial(6, one[6].parameters, 0.4), one[7]]
    assert searcher.ask(two) != searcher.ask(one)


@pytest.mark.slow
def test_equal_scores_do_not_stop_the_search():
    constant = search(Ax(SPACE, 0), 7, score=lambda setting: 0.5)
    assert len({tuple(t.parameters.items()) for t in constant}) == 7


@pytest.mark.slow
def test_the_published_setting_can_come_first_and_counts_as_a_point_of_the_design():
    defaults = {"lr": 1e-4, "margin": 0, "num_coarse": 10, "fixed": 32.0}
    searcher = Ax(SPACE, 0, defaults_first=True, defaults=defaults)
    found = search(searcher, 6)
    assert found[0].parameters == {"lr": 1e-4, "margin": 0.0, "num_coarse": 10}
    design = search(Ax(SPACE, 0), 4)
    assert [t.parameters for t in found[1:5]] == [t.parameters for t in design]
    changed = [*found[:5][:-1], Trial(4, found[4].parameters, 0.9)]
    assert searcher.ask(changed) != found[5].parameters, "the sixth proposal is the model's"


@pytest.mark.slow
def test_an_exhausted_search_space_is_an_error():
    space = {"n": Parameter((1, 3), type="int")}
    with pytest.raises(UserError, match="All 3 settings of the search space have been tried"):
        search(Ax(space, 0), 4, score=lambda setting: 0.1 * setting["n"])
    with pytest.raises(UserError, match="All 3 settings of the search space have been tried"):
        search(Ax(space, 0, num_sobol=2), 4, score=lambda setting: 0.1 * setting["n"])
    bins = search(Ax({"num_bins": Parameter((2, 12), type="int")}, 0), 11, lambda s: s["num_bins"] / 40, failed=[1, 7])
    assert sorted(t.parameters["num_bins"] for t in bins) == list(range(2, 13)), "each once, up to the last"


def test_the_best_by_mean_is_the_first_in_a_tie():
    points = [Ax(SPACE, 0).ask([])] * 4
    history = [Trial(i, p, m) for i, (p, m) in enumerate(zip(points, [0.1, 0.7, None, 0.7], strict=True))]
    assert Ax(SPACE, 0).best(history) == 1


@pytest.mark.slow
def test_the_best_by_the_model_is_not_an_outlier():
    """Eleven settings along a line with falling scores, and an outlier in the middle."""
    space = {"x": Parameter((0.0, 1.0))}
    means = [0.5 - 0.02 * i for i in range(11)]
    means[7] = 0.51
    history = [Trial(i, {"x": i / 10}, mean, 0.1) for i, mean in enumerate(means)]
    assert Ax(space, 0).best(history) == 7
    index, reason = Ax(space, 0, noise="fold_sem", select="model").choose(history)
    assert index in (0, 1) and reason is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Ax(space, 0, noise="fold_sem", select="model").best(history) == index


@pytest.mark.slow
def test_a_choice_that_falls_back_on_the_highest_mean_gives_the_reason(history, monkeypatch):
    searcher = Ax(SPACE, 0, select="model")
    few = [Trial(0, history[0].parameters, 0.3), Trial(1, history[1].parameters, None)]
    assert searcher.choose(few) == (0, "1 scored trials, and the model needs 2")
    with pytest.warns(RuntimeWarning, match="fell back to the highest mean: 1 scored trials"):
        assert searcher.best(few) == 0

    import ax.api.client
    from ax.exceptions.core import UnsupportedError

    def predict(self, points):
        raise UnsupportedError("no surrogate")

    monkeypatch.setattr(ax.api.client.Client, "predict", predict)
    by_mean = Ax(SPACE, 0).best(history)
    assert searcher.choose(history) == (by_mean, "UnsupportedError: no surrogate")
    nans = [{"score": (math.nan, 0.0)}]
    monkeypatch.setattr(ax.api.client.Client, "predict", lambda self, points: nans * len(points))
    assert searcher.choose(history) == (by_mean, "the model's predictions are not finite")


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({}, {}, "The search space is empty"),
        (SPACE, {"num_sobol": 0}, "num_sobol is 0"),
        (SPACE, {"num_sobol": "ax"}, "num_sobol is 'ax'"),
        (SPACE, {"noise": "sem"}, "noise='sem'"),
        (SPACE, {"select": "best"}, "select='best'"),
        (SPACE, {"defaults_first": True}, r"\['lr', 'margin', 'num_coarse'\] have none"),
        (SPACE, {"defaults_first": True, "defaults": {"lr": 1, "margin": 0.1, "num_coarse": 5}}, r"\['lr'\] have none"),
    ],
)
def test_invalid_options_are_refused(space, options, message):
    with pytest.raises(UserError, match=message):
        Ax(space, 0, **options)


def test_a_history_of_another_space_is_refused(history):
    with pytest.raises(ValueError, match="comes after trial"):
        Ax(SPACE, 0).ask(history[::-1])
    with pytest.raises(UserError, match="the search space is"):
        Ax({"lr": SPACE["lr"]}, 0).ask(history)


@pytest.mark.slow
def test_a_search_over_five_parameters_beats_its_control():
    space = SPACE | {"scale": Parameter((1.0, 100.0), "log"), "momentum": Parameter((0.0, 1.0))}

    def objective(setting):
        return score(setting) - 0.02 * math.log10(setting["scale"] / 30) ** 2 - 0.1 * (setting["momentum"] - 0.9) ** 2

    best = {
        make: [max(t.mean for t in search(make(space, seed), 14, score=objective)) for seed in range(3)]
        for make in (Ax, Sobol)
    }
    assert np.mean(best[Ax]) > np.mean(best[Sobol]) + 0.02
    assert all(a > s for a, s in zip(best[Ax], best[Sobol], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_default_that_comes_first_is_no_point_of_the_design_again(seed):
    searcher = Ax({"n": Parameter((8, 13), type="int")}, seed, defaults_first=True, defaults={"n": 10})
    found = [trial.parameters["n"] for trial in search(searcher, 6, score=lambda setting: 0.1)]
    assert found[0] == 10 and sorted(found) == list(range(8, 14))


@pytest.mark.slow
def test_the_model_chooses_also_where_every_setting_has_been_tried():
    history = [
        Trial(i, {"n": n}, 0.30 - 0.01 * abs(n - 9) + 0.05 * (n == 14), 0.02) for i, n in enumerate(range(4, 16))
    ]
    searcher = Ax({"n": Parameter((4, 15), type="int")}, 0, noise="fold_sem", select="model")
    index, reason = searcher.choose(history)
    assert reason is None and history[index].parameters["n"] != 14, "which is an outlier"
