"""HIER's triplets, compared with loops over floats: relations, draws and losses."""

import math

import pytest
import torch

from benchmark.losses import hier
from benchmark.losses.hier import draw_triplets, mean_triplet_loss, reciprocal_neighbours
from tests.losses.hier_triplets import triplet_losses

GUMBEL = hier.gumbel
SETTINGS = {"margin": 0.1, "temperature": 0.1}


def float_triplet(rows, triplet, noise=None, margin=0.1, temperature=0.1):
    """Return the loss of one triplet, given its distances to the proxies as lists."""
    i, j, k = (rows[index] for index in triplet)
    choices = []
    for number, members in enumerate(((i, j), (i, j, k))):
        shift = noise[number] if noise is not None else [0.0] * len(i)
        logits = [-max(m[p] for m in members) / temperature + shift[p] for p in range(len(i))]
        choices.append(logits.index(max(logits)))
    two, three = choices
    if two == three:
        return 0.0
    differences = (i[two] - i[three], j[two] - j[three], k[three] - k[two])
    return sum(max(0.0, difference + margin) for difference in differences)


def float_related(similarities, topk):
    """Return whether two points are reciprocal neighbours, for a table without ties."""
    num = len(similarities)
    best = [sorted(range(num), key=lambda b: -row[b])[:topk] for row in similarities]
    return [[a != b and a in best[b] and b in best[a] for b in range(num)] for a in range(num)]


def table(rows, columns, seed=0):
    return 3 * torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("with_noise", [True, False])
@pytest.mark.parametrize("num_proxies", [2, 9])
def test_triplet_losses_agree_with_the_loop(num_proxies, with_noise):
    distances = table(10, num_proxies)
    triplets = torch.randint(10, (3, 60), generator=torch.Generator().manual_seed(1))
    noise = table(2 * 60, num_proxies, seed=2).view(2, 60, -1) if with_noise else torch.zeros(2, 1, 1)
    found = triplet_losses(distances, triplets, noise, **SETTINGS)
    shifts = noise.expand(2, 60, num_proxies).transpose(0, 1).tolist()
    expected = [float_triplet(distances.tolist(), t, s) for t, s in zip(triplets.T.tolist(), shifts, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert 0 < sum(value == 0 for value in expected) < 60


@pytest.mark.parametrize(
    ("margin", "loss", "k_counts"), [(0.1, 0.0, 0), (1.0, 0.9 + 0.5, 0), (3.0, 2.9 + 2.5 + 1.0, 1)]
)
def test_a_triplet_and_its_gradient_worked_out_by_hand(margin, loss, k_counts):
    # Two proxies. max(d_i, d_j) = (1, 1.1): a(ij) is the first. max with d_k = (3, 1.1): a(ijk) is the second.
    # Hinges: 1 - 1.1 + margin for i, 0.5 - 1 + margin for j, 1 - 3 + margin for k.
    # By softmax, with temperature 1, the first has p = 1 / (1 + exp(-.1)) of ij and q = 1 / (1 + exp(1.9)) of ijk.
    # V = d_i + d_j - [k counts] d_k decreases by `fall` from the first to the second proxy. So the derivatives of the
    # loss by the first logits are p(1 - p) fall for ij and -q(1 - q) fall for ijk; by the second logits, the opposite.
    # Both logits of ij and the second of ijk are -d_i, the first of ijk is -d_k.
    distances = torch.tensor([[1.0, 1.1], [0.5, 1.0], [3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    found = triplet_losses(
        distances, torch.tensor([[0], [1], [2]]), torch.zeros(2, 1, 1), margin=margin, temperature=1.0
    )
    assert found.item() == pytest.approx(loss, abs=1e-12)
    if margin == 0.1:  # all hinges at 0 or below
        return
    p, q, fall = 1 / (1 + math.exp(-0.1)), 1 / (1 + math.exp(1.9)), (1.5 - 2.1) - k_counts * (3.0 - 1.0)
    by_two, by_three = p * (1 - p) * fall, -q * (1 - q) * fall
    expected = [[1 - by_two, -1 + by_two + by_three], [1.0, -1.0], [-k_counts - by_three, k_counts]]
    found.sum().backward()
    torch.testing.assert_close(distances.grad, torch.tensor(expected, dtype=torch.float64))


def paper_triplet(rows, triplet, shifts, margin, temperature):
    """Return the differentiable loss of one triplet, whose ancestors are straight-through Gumbel-softmax choices."""
    i, j, k = (rows[index] for index in triplet)
    largest_of_two = torch.maximum(i, j)
    choices = []
    for largest, shift in zip((largest_of_two, torch.maximum(largest_of_two, k)), shifts, strict=True):
        soft = torch.softmax(shift - largest / temperature, dim=0)
        logits = (shift - largest / temperature).tolist()
        hard = torch.zeros_like(soft)
        hard[logits.index(max(logits))] = 1
        choices.append(hard + soft - soft.detach())
    two, three = choices
    if two.argmax() == three.argmax():
        return 0 * rows.sum()
    gaps = ((two - three) @ i, (two - three) @ j, (three - two) @ k)
    return sum((gap + margin).clamp(min=0) for gap in gaps)


@pytest.mark.parametrize("steps", [None, 4], ids=["distinct", "ties"])
@pytest.mark.parametrize("with_noise", [True, False])
@pytest.mark.parametrize("margin", [0.1, 2.0])
def test_gradients_of_weighted_losses_are_those_of_straight_through_choices(steps, with_noise, margin):
    distances = table(7, 6)
    if steps:  # few values, so that maxima and choices have ties
        distances = (distances * steps / 3).round() / steps
    distances.requires_grad_()
    generator = torch.Generator().manual_seed(1)
    triplets = torch.randint(7, (3, 80), generator=generator)  # also of a point with itself
    weights = torch.randn(80, generator=generator, dtype=torch.float64)
    noise = table(2 * 80, 6, seed=2).view(2, 80, 6) if with_noise else torch.zeros(2, 80, 6, dtype=torch.float64)
    settings = {"margin": margin, "temperature": 0.3}
    found = triplet_losses(distances, triplets, noise if with_noise else noise[:, :1, :1], **settings)
    expected = torch.stack([
        paper_triplet(distances, t, noise[:, number], **settings) for number, t in enumerate(triplets.T.tolist())
    ])  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert 10 < int((found > 0).sum()) < 80
    gradients = [torch.autograd.grad(weights @ losses, distances)[0] for losses in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_chunks_add_up_to_the_mean_and_its_gradient(monkeypatch, rows):
    distances = table(12, 8).requires_grad_()
    triplets = torch.randint(12, (3, 50), generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(hier, "CHUNK", rows * 8)
    drawn = []
    monkeypatch.setattr(hier, "gumbel", lambda *a: drawn.append(GUMBEL(*a)) or drawn[-1])
    found = mean_triplet_loss(distances, triplets, torch.tensor(50), torch.Generator().manual_seed(3), **SETTINGS)
    assert len(drawn) == math.ceil(50 / rows)
    whole = triplet_losses(distances, triplets, torch.cat(drawn, dim=1), **SETTINGS).mean()
    assert found.item() == pytest.approx(whole.item(), rel=1e-12)
    gradients = [torch.autograd.grad(3 * loss, distances)[0] for loss in (found, whole)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_noise_follows_the_gumbel_distribution():
    # Mean 0.5772 (Euler), variance pi^2 / 6; P(noise < 0) = exp(-1).
    noise = hier.gumbel((2, 200, 500), torch.float32, torch.Generator().manual_seed(0))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, rel=0.02)
    assert float((noise < 0).float().mean()) == pytest.approx(math.exp(-1), abs=0.005)
    assert noise.isfinite().all()
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 0.02


@pytest.mark.parametrize("topk", [1, 2, 5, 9])
def test_reciprocal_neighbours_agree_with_the_loop(topk):
    similarities = table(11, 11)
    similarities.fill_diagonal_(9.0)
    assert reciprocal_neighbours(similarities, topk).tolist() == float_related(similarities.tolist(), topk)


@pytest.mark.parametrize(("num", "cut"), [(1, 1), (2, 1), (3, 1), (8, 6)])
def test_topk_is_capped_at_the_number_of_points_minus_two(num, cut):
    similarities = table(num, num)
    similarities.fill_diagonal_(9.0)
    assert torch.equal(reciprocal_neighbours(similarities, 30), reciprocal_neighbours(similarities, cut))


def test_triplets_are_drawn_uniformly_from_related_and_unrelated_points():
    related = torch.zeros(6, 6, dtype=torch.bool)
    for a, b in ((0, 1), (0, 2), (1, 2), (3, 4)):  # 3 and 4 have one related point only, 5 has none
        related[a, b] = related[b, a] = True
    (anchors, positives, negatives), _ = draw_triplets(related, 3000, torch.Generator().manual_seed(0), False)
    assert anchors.tolist() == [0] * 3000 + [1] * 3000 + [2] * 3000
    assert related[anchors, positives].all()
    assert not related[anchors, negatives].any() and (anchors != negatives).all()
    counts = torch.bincount(positives[:3000], minlength=6).tolist()
    assert counts[1] == pytest.approx(1500, abs=120) and counts[1] + counts[2] == 3000
    counts = torch.bincount(negatives[:3000], minlength=6).tolist()
    assert counts[3:] == pytest.approx([1000] * 3, abs=120)
    (anchors, _, negatives), _ = draw_triplets(related, 3000, torch.Generator().manual_seed(0), True)
    assert float((anchors == negatives).float().mean()) == pytest.approx(1 / 4, abs=0.03)


def test_there_are_no_triplets_without_related_or_without_unrelated_points():
    for related in (torch.zeros(4, 4, dtype=torch.bool), ~torch.eye(4, dtype=torch.bool)):
        triplets, count = draw_triplets(related, 5, torch.Generator(), False)
        assert triplets.shape == (3, 0) and count == 0


@pytest.mark.parametrize("allow_self_negative", [False, True])
def test_the_draws_are_those_of_torch_multinomial(allow_self_negative):
    generator = torch.Generator().manual_seed(0)
    related = torch.rand(60, 60, generator=generator) < 0.05
    related = (related | related.T).fill_diagonal_(False)
    found, _ = draw_triplets(related, 7, torch.Generator().manual_seed(1), allow_self_negative)
    generator.manual_seed(1)
    unrelated = ~related
    if not allow_self_negative:
        unrelated.fill_diagonal_(False)
    anchors = [a for a in range(60) if related[a].sum() >= 2]
    assert 20 < len(anchors) < 60
    drawn = [torch.multinomial(mask[anchors].float(), 7, True, generator=generator) for mask in (related, unrelated)]
    assert found[0].tolist() == [a for a in anchors for _ in range(7)]
    assert torch.equal(found[1:], torch.stack(drawn).flatten(1))


def test_triplets_after_the_last_that_counts_change_nothing():
    distances = table(12, 8).requires_grad_()
    triplets = torch.randint(12, (3, 50), generator=torch.Generator().manual_seed(1))
    results = []
    for some in (triplets[:, :30], triplets):
        loss = mean_triplet_loss(distances, some, torch.tensor(30), None, **SETTINGS)
        results.append([loss, *torch.autograd.grad(loss, distances)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
