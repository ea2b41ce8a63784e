"""ROADMAP, compared with its formulas in loops and by hand; the bound is above the step; ties; thresholds."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.roadmap import Roadmap, bound, calibration, sup_ap
from tests.losses.pair_loops import cosines, mean_above_zero, pairs, with_duplicates

SETTING = {"temperature": 0.01, "slope": 100.0, "delta": 0.05}
GENTLE = {"temperature": 0.1, "slope": 3.0, "delta": 0.3}
SETTINGS = [
    SETTING,
    GENTLE,
    {"temperature": 0.05, "slope": 10.0, "delta": 0.0},
]


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def step(t, temperature, slope, delta, beyond):
    if t <= 0:
        return sigmoid(t / temperature)
    if t <= delta:
        return sigmoid(t / temperature) + 0.5
    if beyond == "code":
        return slope * t + 1.44
    return slope * (t - delta) + sigmoid(delta / temperature) + 0.5


def by_loops(embeddings, labels, beyond="paper", **setting):
    cosine, y, losses = cosines(embeddings), labels.tolist(), []
    for q in range(len(y)):
        if y.count(y[q]) == 1:
            continue
        positives, precisions = [i for i in range(len(y)) if y[i] == y[q]], []
        negatives = [j for j in range(len(y)) if y[j] != y[q]]
        for i in positives:
            own = sum(1 for j in positives if j != i and cosine[q][j] >= cosine[q][i])
            rest = sum(step(cosine[q][j] - cosine[q][i], beyond=beyond, **setting) for j in negatives)
            precisions.append((1 + own) / (1 + own + rest))
        losses.append(1 - sum(precisions) / len(precisions))
    return sum(losses) / len(losses)


def calibration_by_loops(embeddings, labels, alpha, beta):
    cosine, (positive, negative) = cosines(embeddings), pairs(labels)
    pull = mean_above_zero([alpha - cosine[i][j] for i, j in positive])
    return pull + mean_above_zero([cosine[i][j] - beta for i, j in negative])


@pytest.mark.parametrize("beyond", ["paper", "code"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_both_terms_agree_with_their_formulas_in_loops(batch, setting, beyond):
    embeddings, labels, _ = batch
    expected = by_loops(embeddings, labels, beyond, **setting)
    assert sup_ap(embeddings, labels, beyond=beyond, **setting).item() == pytest.approx(expected, rel=1e-10)
    pull = calibration_by_loops(embeddings, labels, 0.9, 0.2)
    assert calibration(embeddings, labels, alpha=0.9, beta=0.2).item() == pytest.approx(pull, rel=1e-10)
    module = Roadmap(alpha=0.9, beta=0.2, calibration_weight=0.3, beyond=beyond, **setting)
    assert module(embeddings, labels).item() == pytest.approx(expected + 0.3 * pull, rel=1e-10)


def test_the_bound_is_never_below_the_step_and_continuous_at_delta_in_the_paper_only():
    lead = torch.linspace(-1, 2, 3001, dtype=torch.float64)
    assert (bound(lead, **SETTING) >= (lead >= 0)).all()
    near = torch.tensor([0.05 - 1e-9, 0.05 + 1e-9], dtype=torch.float64)
    assert bound(near, **SETTING).diff().item() == pytest.approx(0, abs=1e-6)
    # The paper's: sigmoid(5) + 1/2 = 1.49331. The code's, right of delta: 100 * 0.05 + 1.44.
    assert bound(near, beyond="code", **SETTING).tolist() == pytest.approx([1.4933071, 6.44], rel=1e-6)


def test_a_negative_keeps_its_gradient_however_far_ahead_it_is():
    # Two positives at a right angle, and a negative between them: a lead of sqrt(1/2), where the sigmoid is flat. The
    # query is first, and its positive third: AP = (1 + 2 / (2 + 100 (sqrt(1/2) - 0.05) + 1.4933071)) / 2.
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64).requires_grad_()
    value = sup_ap(embeddings, torch.tensor([0, 0, 1]), **SETTING)
    precision = 2 / (2 + 100 * (math.sqrt(0.5) - 0.05) + 1.4933071)
    assert value.item() == pytest.approx(1 - (1 + precision) / 2, rel=1e-7)
    assert torch.autograd.grad(value, embeddings)[0][0].abs().max() > 1e-3


@pytest.mark.parametrize("beyond", ["paper", "code"])
def test_gradients_agree_with_finite_differences(batch, beyond):
    embeddings, labels, _ = batch
    module = Roadmap(alpha=0.9, beta=0.2, beyond=beyond, **GENTLE)
    assert torch.autograd.gradcheck(lambda e: module(e, labels), embeddings.requires_grad_(), fast_mode=True)


def test_positives_that_differ_by_rounding_are_tied():
    # Two samples whose cosine to the third differs by 1e-8 are equally far from it, whichever is ahead.
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 1e-8], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1])
    exact = embeddings.clone()
    exact[1] = exact[0]
    found = [sup_ap(vectors, labels, **SETTING).item() for vectors in (embeddings, exact)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[1] == pytest.approx(by_loops(exact, labels, **SETTING), rel=1e-10)


def test_duplicates_have_a_finite_loss_and_finite_gradients():
    embeddings, labels = with_duplicates()
    value = Roadmap(alpha=0.9, beta=0.6, **SETTING)(embeddings.requires_grad_(), labels)
    assert value.isfinite() and torch.autograd.grad(value, embeddings)[0].isfinite().all()


@pytest.mark.parametrize("labels", [[0], list(range(9))])
def test_without_a_positive_there_is_no_ranking(batch, labels):
    embeddings = batch[0][: len(labels)].requires_grad_()
    value = sup_ap(embeddings, torch.tensor(labels), **SETTING)
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0 of ROADMAP"),
        ({"slope": math.inf}, "slope=inf of ROADMAP"),
        ({"delta": -0.1}, "delta=-0.1 of ROADMAP"),
        ({"calibration_weight": math.nan}, "calibration_weight=nan of ROADMAP"),
        ({"beyond": "both"}, "beyond='both' of ROADMAP must be one of paper, code"),
    ],
)
def test_a_setting_out_of_range_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        Roadmap(**(SETTING | {"alpha": 0.9, "beta": 0.6} | change))
