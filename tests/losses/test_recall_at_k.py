"""The Recall@k surrogate, compared with its formula in loops and by hand; similarity mixup; its random numbers."""

import copy
import math

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.recall_at_k import RecallAtK, mixed, recall_at_k
from tests.losses.pair_loops import unit, with_duplicates

KS = [1, 2, 4, 8, 16]


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def by_loops(vectors, y, temperature, cuts, rank_query, ks=KS):
    """Return the loss of vectors, a list of rows; the similarity is their dot product."""
    s = [[sum(a * b for a, b in zip(v, w, strict=True)) for w in vectors] for v in vectors]
    losses = []
    for q in range(len(y)):
        positives = [i for i in range(len(y)) if i != q and y[i] == y[q]]
        if not positives:
            continue
        rivals = [j for j in range(len(y)) if j != q or rank_query]
        ranks = [1 + sum(sigmoid((s[q][j] - s[q][i]) / temperature) for j in rivals if j != i) for i in positives]
        for k, cut in zip(ks, cuts, strict=True):
            found = sum(sigmoid((k - rank) / cut) for rank in ranks)
            losses.append(1 - min(found, k) / min(k, len(positives)))
    return sum(losses) / len(losses)


def make(**options):
    return RecallAtK(5, **({"temperature": 0.01, "cut_temperature": 1.0} | options))


@pytest.mark.parametrize("temperature", [0.01, 0.3])
@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("rank_query", [True, False])
def test_agrees_with_the_formula_in_loops(batch, temperature, grows, rank_query):
    embeddings, labels, _ = batch
    ks = [min(k, 9) for k in KS]  # of 9 samples
    cuts = [0.5 * k if grows else 0.5 for k in KS]
    expected = by_loops([unit(row) for row in embeddings.tolist()], labels.tolist(), temperature, cuts, rank_query, ks)
    module = make(temperature=temperature, cut_temperature=0.5, temperature_grows=grows, rank_query=rank_query)
    assert expected > 0.05 and module(embeddings, labels).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("rank_query", "first"), [(False, 2), (True, 3)])
def test_the_rank_of_a_positive_behind_a_negative_by_hand(rank_query, first):
    # Angles 0, 40 | 10 degrees: the only positive of queries 0 and 40 has rank 2, or 3 behind the query itself.
    angle = torch.tensor([0.0, 40.0, 10.0], dtype=torch.float64).deg2rad()
    embeddings = torch.stack([angle.cos(), angle.sin()], dim=1)
    value = make(temperature=1e-4, ks=[1, 3], rank_query=rank_query)(embeddings, torch.tensor([0, 0, 1]))
    assert value.item() == pytest.approx(1 - (sigmoid(1 - first) + sigmoid(3 - first)) / 2, rel=1e-9)


def test_recall_is_at_most_one():
    # Seven positives within the first k = 1, each of them half: the sum is cut at k, and cut terms have no gradient.
    embeddings = torch.ones(8, 3, dtype=torch.float64).requires_grad_()
    value = make(ks=[1], cut_temperature=100.0)(embeddings, torch.zeros(8, dtype=torch.long))
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


@pytest.mark.parametrize("options", [{}, {"rank_query": False}, {"temperature_grows": True}])
def test_gradients_agree_with_finite_differences(batch, options):
    embeddings, labels, _ = batch
    module = make(temperature=0.3, **options)
    assert torch.autograd.gradcheck(lambda e: module(e, labels), embeddings.requires_grad_(), fast_mode=True)


# -- similarity mixup -------------------------------------------------------------------------------------------------


def mixed_by_loops(vectors, y, weights):
    """Return the batch, class by class, and all mixtures of pairs; a pair's weight is that of its first sample."""
    order = sorted(range(len(y)), key=lambda i: y[i])  # stable, like the function's
    rows, labels = [vectors[i] for i in order], [y[i] for i in order]
    for place, i in enumerate(order):
        for later in range(place + 1, len(order)):
            j, distance = order[later], later - place
            if y[i] == y[j] and distance <= len(weights):
                a = weights[distance - 1][place]
                rows.append([a * p + (1 - a) * r for p, r in zip(vectors[i], vectors[j], strict=True)])
                labels.append(y[i])
    return rows, labels


@pytest.mark.parametrize("per_class", [2, 3, 4])
def test_mixed_samples_rank_and_are_ranked_as_in_loops(batch, per_class):
    embeddings, labels, _ = batch  # classes of 2, 1, 3, 1 and 2 samples
    weights = torch.rand(per_class - 1, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    vectors = [unit(row) for row in embeddings.tolist()]
    rows, y = mixed_by_loops(vectors, labels.tolist(), weights.tolist())
    assert len(rows) == 9 + {2: 4, 3: 5, 4: 5}[per_class]
    expected = by_loops(rows, y, 0.1, [1.0] * 5, True)
    found, own, exists = mixed(torch.tensor(vectors, dtype=torch.float64), labels, weights)
    assert exists.sum().item() == len(rows)
    value = recall_at_k(found, own, exists, ks=KS, temperature=0.1, cut_temperatures=[1.0] * 5)
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_each_batch_is_mixed_anew_and_a_resumed_training_draws_the_same_weights(batch):
    embeddings, labels, _ = batch
    module, twin = make(temperature=0.1, mix_per_class=3), make(temperature=0.1, mix_per_class=3)
    first, second = module(embeddings, labels), module(embeddings, labels)
    assert first != second
    twin.load_state_dict(copy.deepcopy(module.state_dict()))
    assert twin(embeddings, labels) == module(embeddings, labels)
    assert RecallAtK(6, temperature=0.1, cut_temperature=1.0, mix_per_class=3)(embeddings, labels) != first


def test_mixup_draws_nothing_from_the_global_generators(batch):
    before = torch.get_rng_state()
    make(mix_per_class=4)(batch[0], batch[1])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("per_class", [0, 4])
def test_duplicates_have_a_finite_loss_and_finite_gradients(per_class):
    embeddings, labels = with_duplicates()
    value = make(mix_per_class=per_class)(embeddings.requires_grad_(), labels)
    assert value.isfinite() and torch.autograd.grad(value, embeddings)[0].isfinite().all()


@pytest.mark.parametrize("per_class", [0, 4])
@pytest.mark.parametrize("labels", [[0], list(range(9))])
def test_without_a_positive_there_is_no_loss_and_no_gradient(batch, labels, per_class):
    embeddings = batch[0][: len(labels)].requires_grad_()
    value = make(mix_per_class=per_class)(embeddings, torch.tensor(labels))
    assert value.item() == 0
    assert torch.autograd.grad(value, embeddings)[0].abs().max() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0 of Recall@k"),
        ({"cut_temperature": math.nan}, "cut_temperature=nan of Recall@k"),
        ({"ks": [0, 2]}, "ks=0 of Recall@k"),
        ({"ks": []}, r"ks=\[\] of Recall@k"),
        ({"mix_per_class": -1}, "mix_per_class=-1 of Recall@k"),
    ],
)
def test_a_setting_out_of_range_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        make(**change)
