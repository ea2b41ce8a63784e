"""Multi-Similarity, compared with its formula and mining rule in loops and by hand; empty rows and duplicates."""

import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.multi_similarity import MultiSimilarity
from tests.losses.library import only_in_version_2
from tests.losses.pair_loops import cosines

SETTINGS = [(2.0, 50.0, 0.5), (0.01, 50.6, 0.56), (14.36, 75.8, 0.66), (0.5, 0.01, 1.0)]


def make(alpha=2.0, beta=50.0, base=0.5, **options):
    return MultiSimilarity(alpha=alpha, beta=beta, base=base, **options)


def by_loops(embeddings, labels, alpha, beta, base, epsilon=None):
    cosine, y, total = cosines(embeddings), labels.tolist(), 0.0
    for i, row in enumerate(cosine):
        positives = [s for j, s in enumerate(row) if j != i and y[j] == y[i]]
        negatives = [s for j, s in enumerate(row) if y[j] != y[i]]
        if epsilon is not None:
            hard = [s for s in positives if negatives and s - epsilon < max(negatives)]
            negatives = [s for s in negatives if positives and s + epsilon > min(positives)]
            positives = hard
        total += math.log(1 + sum(math.exp(-alpha * (s - base)) for s in positives)) / alpha
        total += math.log(1 + sum(math.exp(beta * (s - base)) for s in negatives)) / beta
    return total / len(y)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("epsilon", [None, 0.0, 0.1, 0.7])
def test_agrees_with_the_formula_in_loops(batch, setting, epsilon):
    embeddings, labels, _ = batch
    expected = by_loops(embeddings, labels, *setting, epsilon)
    value = make(*setting, miner_epsilon=epsilon)(embeddings, labels)
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_mining_drops_easy_pairs_and_averages_over_all_anchors_by_hand():
    # Classes {0, 40}, {60} and {180} degrees, epsilon 0.1. Anchor 0: positive at .766, negatives at .5 and -1, and
    # .766 - .1 is above .5, so nothing is hard. Anchor 40: positive at .766, negatives at .940 and -.766; the positive
    # and the first negative are kept. 60 and 180 have no positive, so nothing is hard next to one. Four in the mean.
    angle = torch.tensor([0.0, 40.0, 60.0, 180.0], dtype=torch.float64).deg2rad()
    embeddings = torch.stack([angle.cos(), angle.sin()], dim=1)
    cos20, cos40 = math.cos(math.radians(20)), math.cos(math.radians(40))
    expected = math.log(1 + math.exp(-2 * (cos40 - 0.5))) / 2 + math.log(1 + math.exp(50 * (cos20 - 0.5))) / 50
    value = make(miner_epsilon=0.1)(embeddings, torch.tensor([0, 0, 1, 2]))
    assert value.item() == pytest.approx(expected / 4, rel=1e-12)


@only_in_version_2
def test_one_mined_pair_of_each_kind_counts_where_the_library_returns_zero():
    from pytorch_metric_learning import losses, miners

    angle = torch.tensor([0.0, 40.0, 60.0, 180.0]).deg2rad()
    embeddings, labels = torch.stack([angle.cos(), angle.sin()], dim=1), torch.tensor([0, 0, 1, 2])
    mined = miners.MultiSimilarityMiner(epsilon=0.1)(embeddings, labels)
    assert [len(indices) for indices in mined] == [1, 1, 1, 1]
    assert losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)(embeddings, labels, mined) == 0
    assert make(miner_epsilon=0.1)(embeddings, labels) > 0.1


@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_gradients_agree_with_finite_differences(batch, epsilon):
    embeddings, labels, _ = batch
    module = make(miner_epsilon=epsilon)
    assert torch.autograd.gradcheck(lambda e: module(e, labels), embeddings.requires_grad_(), atol=1e-6)


def test_duplicates_are_positives_unless_dropped_as_the_authors_do(batch):
    embeddings, labels, _ = batch
    embeddings[4] = 3 * embeddings[3]  # labels 3, 3
    kept = make()(embeddings, labels).item()
    assert kept == pytest.approx(by_loops(embeddings, labels, 2.0, 50.0, 0.5), rel=1e-10)
    # Without each other, 3 and 4 keep only the positive 5: each of their sums lacks one term e^{-2 (1 - base)}.
    cosine = cosines(embeddings)[3][5]
    rest = math.exp(-2 * (cosine - 0.5))
    change = 2 * (math.log(1 + rest + math.exp(-1)) - math.log(1 + rest)) / 2 / 9
    assert make(drop_duplicates=True)(embeddings, labels).item() == pytest.approx(kept - change, rel=1e-10)


@pytest.mark.parametrize("options", [{"miner_epsilon": 0.1}, {"miner_epsilon": 0.1, "drop_duplicates": True}])
@pytest.mark.parametrize("labels", [[0], [1, 1], [2] * 9, list(range(9))])
def test_with_the_miner_a_batch_without_positives_or_negatives_has_no_loss_and_no_gradient(batch, labels, options):
    embeddings = batch[0][: len(labels)].requires_grad_()
    value = make(**options)(embeddings, torch.tensor(labels))
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


@pytest.mark.parametrize("labels", [[0], [1, 1], [2] * 9, list(range(9))])
def test_without_the_miner_an_empty_side_adds_nothing(batch, labels):
    embeddings, labels = batch[0][: len(labels)].requires_grad_(), torch.tensor(labels)
    value = make()(embeddings, labels)
    assert value.item() == pytest.approx(by_loops(embeddings, labels, 2.0, 50.0, 0.5), abs=1e-12)
    assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


def test_the_largest_scale_of_the_search_does_not_overflow_float32():
    # Opposite positives and equal negatives: alpha (base + 1) and beta (1 - base) are 200, and e^200 is beyond float32.
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0]]).requires_grad_()
    value = make(100.0, 200.0, 1.0)(embeddings, torch.tensor([0, 0, 1]))
    # Anchors 0 and 1 pull with 2 each; negatives 0-2 at base give log 2 / 200 twice; 1-2 at -1 adds nothing.
    assert value.item() == pytest.approx((4 + 2 * math.log(2) / 200) / 3, rel=1e-5)
    assert torch.autograd.grad(value, embeddings)[0].isfinite().all()


@pytest.mark.parametrize("options", [{}, {"miner_epsilon": 0.3}, {"drop_duplicates": True}])
def test_autocast_changes_no_bit_and_half_precision_embeddings_give_a_float32_loss(batch, options):
    embeddings, labels, _ = batch
    module = make(**options)
    with torch.autocast("cpu", torch.bfloat16):
        cast = module(embeddings.float(), labels)
        half = module(embeddings.bfloat16(), labels)
    assert torch.equal(cast, module(embeddings.float(), labels))
    assert torch.equal(half, module(embeddings.bfloat16().float(), labels))
    assert half.dtype == torch.float32


@pytest.mark.parametrize("name", ["alpha", "beta"])
@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_not_finite_and_above_zero_is_refused(name, scale):
    with pytest.raises(UserError, match=f"{name}={scale} of Multi-Similarity"):
        make(**{name: scale})
