"""Group Loss, compared with the authors' rules in loops and by hand; who is an anchor; its classifier."""

import math

import pytest
import torch
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.losses.draws import places_in_class
from benchmark.losses.group import GroupLoss, correlations, group


def correlation(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    a, b = [x - mean_a for x in a], [x - mean_b for x in b]
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def by_loops(rows, labels, logits, anchors, temperature, num_iterations):
    beliefs = []
    for row, label, anchor in zip(logits, labels, anchors, strict=True):
        powers = [math.exp(value / temperature) for value in row]
        beliefs.append([float(c == label) if anchor else power / sum(powers) for c, power in enumerate(powers)])
    similar = [[max(correlation(a, b), 0.0) for b in rows] for a in rows]
    for _ in range(num_iterations):
        refined = []
        for i, belief in enumerate(beliefs):
            supported = [
                x * sum(similar[i][j] * other[c] for j, other in enumerate(beliefs)) for c, x in enumerate(belief)
            ]
            refined.append([value / sum(supported) for value in supported])
        beliefs = refined
    return sum(-math.log(belief[label] + 1e-12) for belief, label in zip(beliefs, labels, strict=True)) / len(rows)


@pytest.fixture
def classified(batch):
    return (*batch[:2], batch[0] @ batch[2].T / 4)


@pytest.mark.parametrize("temperature", [1.0, 24.0])
@pytest.mark.parametrize("num_iterations", [1, 2, 5])
def test_agrees_with_the_authors_rules_in_loops(classified, temperature, num_iterations):
    embeddings, labels, logits = classified
    anchors = torch.tensor([True, False, True, False, True, False, False, False, True])
    setting = {"temperature": temperature, "num_iterations": num_iterations}
    expected = by_loops(embeddings.tolist(), labels.tolist(), logits.tolist(), anchors.tolist(), **setting)
    assert group(embeddings, labels, logits, anchors, **setting).item() == pytest.approx(expected, rel=1e-10)


def test_a_sample_learns_its_class_from_a_similar_anchor_by_hand():
    # Sample 1 correlates with anchor 0 by 1/2 and with anchor 2 by -1, which counts as 0. From (1/2, 1/2), itself with
    # similarity 1, its support is (1/2 + 1/2, 1/2): probability 2/3. The anchors stay certain, and count in the mean.
    embeddings = torch.tensor([[0.0, 1.0, -1.0], [1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]], dtype=torch.float64)
    anchors, logits = torch.tensor([True, False, True]), torch.zeros(3, 2, dtype=torch.float64)
    value = group(embeddings, torch.tensor([0, 0, 1]), logits, anchors, temperature=1.0, num_iterations=1)
    assert value.item() == pytest.approx(-math.log(2 / 3) / 3)


def test_gradients_agree_with_finite_differences(classified):
    embeddings, labels, logits = classified
    anchors = torch.arange(9) % 2 == 0
    inputs = embeddings.requires_grad_(), logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda e, x: group(e, labels, x, anchors, temperature=3.0, num_iterations=2), inputs, atol=1e-6
    )


def test_a_sample_without_variance_is_similar_to_itself_alone():
    embeddings = torch.tensor([[2.0, 2.0, 2.0], [1.0, 0.0, -1.0]])
    assert torch.equal(correlations(embeddings), torch.eye(2))


def test_adds_the_cross_entropy_of_its_classifier_without_the_temperature(batch):
    embeddings, labels = batch[0] / 5, batch[1]
    with_it, without = (
        GroupLoss(7, 5, 3, temperature=24.0, num_anchors=1, classification_weight=weight) for weight in (0.5, 0.0)
    )
    bias, vectors = without.bias.double(), without.proxies.double()
    expected = functional.cross_entropy(embeddings @ vectors.T + bias, labels)
    added = with_it(embeddings, labels) - without(embeddings, labels)
    assert added.item() == pytest.approx(0.5 * expected.item(), rel=1e-6)


def test_the_classifier_starts_like_a_linear_layer():
    module, again = (GroupLoss(1000, 16, seed, temperature=24.0, num_anchors=1) for seed in (3, 3))
    for parameter, same in zip(module.parameters(), again.parameters(), strict=True):
        assert torch.equal(parameter, same)
        assert 0.24 < parameter.abs().max() <= 0.25  # 1 / sqrt(16)
    assert module.record_fields([], None) == {"num_proxies": 1000.0}


def test_anchors_change_with_the_step_and_the_seed_but_not_with_the_order_of_the_batch(batch):
    embeddings, labels, order = batch[0] / 5, batch[1], torch.arange(9).flip(0)
    setting = {"temperature": 24.0, "num_anchors": 1, "classification_weight": 0.0}
    module, values = GroupLoss(7, 5, 3, **setting), set()
    for _ in range(6):
        value = module(embeddings, labels)
        assert module(embeddings[order], labels[order]).item() == pytest.approx(value.item(), rel=1e-12)
        values.add(round(value.item(), 9))
        module.after_step()
    assert len(values) > 2


@pytest.mark.parametrize("num_anchors", [1, 2])
def test_so_many_samples_of_each_class_are_anchors(batch, num_anchors, monkeypatch):
    seen = []
    monkeypatch.setattr("benchmark.losses.group.group", lambda e, y, x, anchors, **_: seen.append((y, anchors)) or 0.0)
    GroupLoss(7, 5, 3, temperature=24.0, num_anchors=num_anchors)(*batch[:2])
    labels, anchors = seen[0]
    for label in labels.unique():
        of_class = labels == label
        assert anchors[of_class].sum() == min(num_anchors, of_class.sum())


def test_places_in_a_class_follow_the_ranks():
    labels, ranks = torch.tensor([5, 1, 5, 1, 5, 9]), torch.tensor([4, 1, 0, 3, 2, 5])
    assert places_in_class(labels, ranks).tolist() == [2, 0, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.0), ("num_anchors", 0), ("num_iterations", 1.5), ("classification_weight", -1.0)],
)
def test_a_setting_out_of_range_is_refused(name, value):
    with pytest.raises(UserError, match=f"{name}={value} of Group Loss"):
        GroupLoss(7, 5, 3, **{"temperature": 24.0, "num_anchors": 2} | {name: value})
