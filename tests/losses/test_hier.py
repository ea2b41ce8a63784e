"""HIER as a whole, compared with loops over floats; random draws, order of the batch, unusual batches."""

import copy
import math
import re

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses import hier
from benchmark.losses.hier import HIER
from benchmark.losses.proxy_anchor import proxy_anchor
from benchmark.protocol.hyperbolic import to_ball
from tests.losses.test_hier_triplets import float_related, float_triplet

DRAW, GUMBEL = hier.draw_triplets, hier.gumbel
SMALL = {"num_hierarchy_proxies": 12, "topk": 6, "triplets_per_anchor": 3, "seed": 0}
BALL = {"curvature": 0.1, "clip_radius": 2.3}


def batch(num=16, dim=5, num_classes=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(num, dim, generator=generator, dtype=dtype)
    return to_ball(vectors, **BALL).requires_grad_(), torch.arange(num) % num_classes


def arcosh_distance(x, y):
    """Return the distance on a ball of curvature 0.1, without the method's 1e-5: it is 2e-5 larger, relatively."""
    squared = [sum(a * a for a in v) for v in (x, y, [a - b for a, b in zip(x, y, strict=True)])]
    return math.acosh(1 + 0.2 * squared[2] / ((1 - 0.1 * squared[0]) * (1 - 0.1 * squared[1]))) / math.sqrt(0.1)


@pytest.mark.parametrize("noise", ["none", "gumbel"])
def test_the_whole_loss_agrees_with_the_loop(monkeypatch, anchor_by_loops, noise):
    module = HIER(4, 5, **SMALL, base_alpha=8.0, base_margin=0.2, regularizer_weight=0.7, noise=noise)
    points, labels = batch()
    seen, shifts = [], []
    monkeypatch.setattr(hier, "draw_triplets", lambda *a: seen.append((a[0], DRAW(*a))) or seen[-1][1])
    monkeypatch.setattr(hier, "gumbel", lambda *a: shifts.append(GUMBEL(*a)) or shifts[-1])
    found = module(points, labels).item()

    order = sorted(range(16), key=lambda b: (points[b, 0].item(), labels[b].item()))
    rows, names = [points[b].tolist() for b in order], [labels[b].item() for b in order]
    nodes = []
    for u in module.lcas.double().tolist():
        norm = math.sqrt(sum(a * a for a in u))
        clipped = norm * min(1, 2.3 / (norm + 1e-5))
        nodes.append([math.tanh(math.sqrt(0.1) * clipped) / math.sqrt(0.1) * a / norm for a in u])
    expected = anchor_by_loops(points, labels, module.proxies.double(), alpha=8.0, margin=0.2)
    for number, members in enumerate((rows, nodes)):
        apart = [[arcosh_distance(a, b) for b in nodes] for a in members]
        alike = [[math.exp(-arcosh_distance(a, b)) for b in members] for a in members]
        if members is rows:
            alike = [[s + (names[a] == names[b]) for b, s in enumerate(row)] for a, row in enumerate(alike)]
        related, (triplets, _) = seen[number]
        assert related.tolist() == float_related(alike, 6)
        drawn = shifts[number].transpose(0, 1).tolist() if shifts else [None] * triplets.shape[1]
        losses = [float_triplet(apart, t, s) for t, s in zip(triplets.T.tolist(), drawn, strict=True)]
        assert len(losses) >= 9
        expected += 0.7 * sum(losses) / len(losses)
    assert found == pytest.approx(expected, rel=1e-4)


def gradients(module, points, labels):
    loss = module(points, labels)
    return [loss.detach(), *torch.autograd.grad(loss, [points, *module.parameters()])]


@pytest.mark.parametrize("noise", ["none", "gumbel"])
def test_draws_repeat_within_a_step_and_differ_in_the_next(noise):
    module, twin = HIER(4, 5, **SMALL, noise=noise), HIER(4, 5, **SMALL, noise=noise)
    points, labels = batch()
    before = torch.get_rng_state()
    first = gradients(module, points, labels)
    assert all(torch.equal(a, b) for a, b in zip(first, gradients(module, points, labels), strict=True))
    module.after_step()
    second = gradients(module, points, labels)
    assert first[0] != second[0]
    twin.load_state_dict(module.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(second, gradients(twin, points, labels), strict=True))
    assert torch.equal(before, torch.get_rng_state())
    other = HIER(4, 5, **(SMALL | {"seed": 1, "noise": noise}))
    other.load_state_dict(module.state_dict())
    assert gradients(other, points, labels)[0] != second[0]


def test_the_order_of_the_batch_changes_neither_loss_nor_gradients_though_samples_repeat():
    module = HIER(4, 5, **SMALL)
    points, labels = batch()
    points = points.detach()[torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0, 1, 2])]
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 0, 1, 3])  # the last repeats one of another
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    found = gradients(module, points.clone().requires_grad_(), labels)
    again = gradients(module, points[order].clone().requires_grad_(), labels[order])
    assert again[0].item() == pytest.approx(found[0].item(), rel=1e-12)
    torch.testing.assert_close(again[1], found[1][order], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(again[3], found[3], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "labels", [[0], [1, 1], [0, 1, 2], [3] * 12, list(range(8)), [0, 1] * 8], ids=lambda labels: str(labels)[:9]
)
@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("topk", [1, 6, 30])
def test_unusual_batches_have_finite_losses_and_gradients(labels, equal, topk):
    module = HIER(8, 5, **(SMALL | {"topk": topk}))
    points = batch(len(labels), dtype=torch.float32)[0].detach()
    points = (points[:1].expand(len(labels), -1) if equal else points).clone().requires_grad_()
    for value in gradients(module, points, torch.tensor(labels)):
        assert value.isfinite().all()
    if len(labels) <= 3 or topk == 1:  # no point has two neighbours
        assert module.diagnostics()["triplets_samples"] == module.diagnostics()["loss_samples"] == 0


def test_without_any_pair_the_base_loss_remains_and_the_hierarchy_has_gradient_0():
    module = HIER(4, 5, **(SMALL | {"topk": 1}))
    points, labels = batch()
    loss, on_points, on_proxies, on_nodes = gradients(module, points, labels)
    base = proxy_anchor(points, labels, module.proxies, alpha=32.0, margin=0.1)
    assert loss.item() == pytest.approx(base.item())
    torch.testing.assert_close(on_points, torch.autograd.grad(base, points)[0])
    assert (on_nodes == 0).all() and (on_proxies != 0).any()


@pytest.mark.parametrize("setting", [
    {"margin": 0.0, "regularizer_weight": 10.0, "base_alpha": 100.0, "base_margin": 1.0},
    {"margin": 1.0, "regularizer_weight": 0.01, "base_alpha": 0.01, "base_margin": 0.0},
    {"temperature": 1e-6, "num_hierarchy_proxies": 2},
])  # fmt: skip
def test_float32_is_finite_at_the_ends_of_the_space(setting):
    module = HIER(40, 24, **(SMALL | setting))
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(64, 24, generator=generator) * torch.logspace(-6, 6, 64)[:, None]
    vectors[5] = vectors[50]
    points = to_ball(vectors, **BALL).detach().requires_grad_()
    for value in gradients(module, points, torch.arange(64) % 40):
        assert value.isfinite().all()


def test_points_outside_the_ball_are_pulled_to_its_rim():
    module = HIER(4, 5, **SMALL)
    points, labels = batch()
    far = points.detach() * 100
    rim = torch.nn.functional.normalize(far, dim=1) * (1 - 1e-3) / math.sqrt(0.1)
    assert module(far, labels).item() == pytest.approx(module(rim, labels).item(), rel=1e-6)


def test_float64_stays_float64_and_autocast_changes_no_bit():
    module = HIER(4, 5, **SMALL)
    assert module(*batch()).dtype == torch.float64
    points, labels = batch(dtype=torch.float32)
    plain = gradients(module, points, labels)
    with torch.autocast("cpu", torch.bfloat16):
        loss = module(points, labels)
    cast = [loss.detach(), *torch.autograd.grad(loss, [points, *module.parameters()])]
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
    assert loss.dtype == torch.float32


def test_initial_hierarchical_proxies_have_nine_tenths_of_the_clipped_norm():
    lcas = HIER(4, 128, seed=0, num_hierarchy_proxies=512).lcas.detach()
    assert float(lcas.norm(dim=1).mean()) == pytest.approx(0.9 * 2.3, rel=0.01)
    assert not torch.equal(lcas, HIER(4, 128, seed=1, num_hierarchy_proxies=512).lcas)


def test_training_lowers_the_regulariser():
    module = HIER(4, 5, **(SMALL | {"regularizer_weight": 10.0}))
    points, labels = batch(dtype=torch.float32)
    before = copy.deepcopy(module)
    optimizer = torch.optim.Adam([module.lcas], lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        module(points.detach(), labels).backward()
        optimizer.step()
        module.after_step()
    parts = []
    for state in (before, module):
        losses = []
        for step in range(100, 120):
            state.load_state_dict(state.state_dict() | {"steps": torch.tensor(step)})
            state(points, labels)
            losses.append(sum(state.diagnostics()[f"loss_{name}"] for name in ("samples", "hierarchy")))
        parts.append(sum(losses) / len(losses))
    assert parts[1] < 0.9 * parts[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("regularizer_weight", -1.0), ("margin", math.nan), ("temperature", 0.0), ("num_hierarchy_proxies", 1),
     ("topk", 0), ("topk", 2.5), ("triplets_per_anchor", 0), ("noise", "normal"), ("base_alpha", 0.0),
     ("curvature", 0.0), ("clip_radius", math.inf)],
)  # fmt: skip
def test_an_argument_out_of_range_is_named(name, value):
    shown = {"base_alpha": "alpha=0.0 of proxy_anchor"}.get(name, f"{name}={value!r} of ")
    with pytest.raises(UserError, match=re.escape(shown)):
        HIER(4, 5, **(SMALL | {name: value}))
