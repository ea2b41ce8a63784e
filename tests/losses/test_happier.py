"""HAPPIER of its YAML file, compared with its formulas in loops and by hand."""

import math

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.happier import HAPPIER, sup_h_ap
from tests.losses.every_loss import build
from tests.losses.pair_loops import cosines

SETTING = {"temperature": 0.01, "slope": 100.0, "delta": 0.05, "offset": 1.44}
WIDE = {"temperature": 0.3, "slope": 2.0, "delta": 0.4, "offset": None, "start": 0.25, "alpha": 2.0}


def by_loops(embeddings, labels, groups, *, temperature, slope, delta, offset, start=0.5, alpha=1.0, smooth=False):
    """Return the mean of 1 - H-AP over the queries, each of which is one of its own references."""
    score, y, g, everyone = cosines(embeddings), labels.tolist(), groups.tolist(), range(len(labels))

    def sigmoid(t):
        return 1 / (1 + math.exp(-t / temperature))

    def bound(t):
        if t > delta:
            return slope * (t - delta) + (sigmoid(delta) + start if offset is None else offset)
        return sigmoid(t) + (start if t > 0 else 0)

    total = 0.0
    for q in everyone:
        level = [2 if y[j] == y[q] else 1 if g[j] == g[q] else 0 for j in everyone]
        rel = [(level[j] / 2) ** alpha / level.count(level[j]) if level[j] else 0.0 for j in everyone]
        h_ap = 0.0
        for k in everyone:
            rank, h_rank = 1.0, rel[k]
            for j in everyone:
                if j == k:
                    continue
                t = score[q][j] - score[q][k]
                step = 1.0 if t >= 0 else 0.0
                rank += bound(t) if level[j] < level[k] else step
                if smooth and level[j] > level[k]:
                    step = min(25 * t + 0.5, 1.0) if t > 0 else 10 * t
                h_rank += min(rel[j], rel[k]) * step
            h_ap += h_rank / rank
        total += 1 - h_ap / sum(rel)
    return total / len(y)


@pytest.fixture
def labelled():
    """Float64 embeddings (12, 4) of any norm, labels with a singleton, and super classes, one with a single class."""
    generator = torch.Generator().manual_seed(8)
    embeddings = torch.randn(12, 4, generator=generator, dtype=torch.float64) * torch.arange(1, 13)[:, None]
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 4, 5])
    return embeddings, labels, torch.tensor([4, 4, 4, 9, 9, 2])[labels]


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("setting", [SETTING, WIDE], ids=["authors", "wide"])
def test_agrees_with_the_formula_in_loops(labelled, setting, smooth):
    found = sup_h_ap(*labelled, **setting, smooth_h_rank=smooth).item()
    assert found == pytest.approx(by_loops(*labelled, **setting, smooth=smooth), rel=1e-9)


def test_a_confused_batch_by_hand():
    # Directions 0, 90 and 180 degrees, of classes a, b, a and super classes A, B, A. tau = 1, slope 2, delta 0.5,
    # offset 3. The query at 0 has cosines 1, 0, -1: itself is first, with rank 1 + G(-1); its sister is behind b, with
    # rank 1 + [itself] + 2 (1 - 0.5) + 3 = 6. Both have rel 1/2, so H-rank is 1/2 and 1. The query at 180 mirrors it.
    # b has cosines 0, 1, 0: it is first with rank 1 + 2 G(-1) and H-rank 1.
    g = 1 / (1 + math.e)
    confused = 1 - (0.5 / (1 + g) + 1 / 6)
    embeddings = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0])
    found = sup_h_ap(embeddings, labels, labels, temperature=1.0, slope=2.0, delta=0.5, offset=3.0)
    assert found.item() == pytest.approx((2 * confused + 1 - 1 / (1 + 2 * g)) / 3)


def test_the_yaml_file_adds_the_classification_with_its_weight(labelled):
    module, _ = build("happier", cluster_weight=0.3, cluster_temperature=0.2)
    module.double()
    generator = torch.Generator().manual_seed(9)
    x, labels = torch.randn(12, 6, generator=generator, dtype=torch.float64), labelled[1]
    ranking = by_loops(x, labels, torch.tensor([4, 4, 2, 2, 9, 9, 9, 4])[labels], **SETTING)
    rows = cosines(torch.cat([x, module.proxies.detach()]))
    logits = [[c / 0.2 for c in row[12:]] for row in rows[:12]]
    entropy = [math.log(sum(map(math.exp, row))) - row[y] for row, y in zip(logits, labels.tolist(), strict=True)]
    assert module(x, labels).item() == pytest.approx(0.7 * ranking + 0.3 * sum(entropy) / 12, rel=1e-9)


@pytest.mark.parametrize("smooth", [False, True])
def test_gradients_agree_with_finite_differences(labelled, smooth):
    x, labels, groups = (part[3:10] for part in labelled)
    setting = {"temperature": 0.2, "slope": 3.0, "delta": 0.3, "offset": None, "start": 0.0}

    def loss(embeddings):
        return sup_h_ap(embeddings, labels, groups, **setting, smooth_h_rank=smooth)

    assert torch.autograd.gradcheck(loss, torch.nn.functional.normalize(x).requires_grad_(), atol=1e-6)


def test_equal_images_are_tied_whatever_their_rounding():
    x = (
        torch.randn(6, 40, generator=torch.Generator().manual_seed(10))[[0, 1, 2, 0, 1, 2]]
        * torch.arange(1, 7)[:, None]
    )
    labels, groups = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 0, 1, 0, 0, 1])
    exact = by_loops(x[[0, 1, 2, 0, 1, 2]].double(), labels, groups, **SETTING)
    assert sup_h_ap(x, labels, groups, **SETTING).item() == pytest.approx(exact, rel=1e-4)


def test_a_batch_ranked_by_level_has_almost_no_loss():
    angles = torch.tensor([0.0, 0.0, 0.8, 0.8, 3.0, 3.0], dtype=torch.float64)
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels, groups = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 0, 1, 1])
    assert 0 <= sup_h_ap(x, labels, groups, **SETTING).item() < 1e-10


def test_bad_settings_and_data_without_a_hierarchy_are_refused():
    arguments = {**SETTING, "cluster_weight": 0.1, "cluster_temperature": 0.05}
    with pytest.raises(UserError, match="needs super classes"):
        HAPPIER(4, 3, np.array([7, 7, 7, 7]), 0, **arguments)
    for key, value in {"cluster_weight": 1.1, "temperature": 0.0, "slope": math.nan, "delta": -0.1}.items():
        with pytest.raises(UserError, match=key):
            HAPPIER(4, 3, np.array([7, 7, 8, 8]), 0, **arguments | {key: value})
