"""ProxyGML, compared with its definition in loops and values worked out by hand; ties."""

import itertools
import math

import pytest
import torch
from torch.overrides import TorchFunctionMode

from benchmark.core.errors import UserError
from benchmark.losses import proxygml as module
from benchmark.losses.proxygml import proxygml
from tests.losses.conftest import cosine


def by_loops(embeddings, labels, proxies, *, r, reg_weight=0.0, scale=1.0, replicate_k=False):
    """Compute the loss from lists of floats; `proxies` has C lists of N vectors."""
    C, N = len(proxies), len(proxies[0])
    k = math.ceil(r * C * N)
    if not replicate_k:
        k = min(max(k, N + 1), C * N)
    losses = []
    for embedding, label in zip(embeddings, labels, strict=True):
        similar = [(cosine(embedding, proxies[c][n]), c) for c in range(C) for n in range(N)]
        order = sorted(similar, key=lambda pair: (pair[1] != label, -pair[0]))
        votes = {}
        for value, c in order[:k]:
            votes[c] = votes.get(c, 0.0) + scale * value
        p = math.exp(votes[label]) / (1e-8 + sum(math.exp(vote) for vote in votes.values()))
        losses.append(-math.log(p + 1e-20))
    regulariser = []
    for c in range(C):
        for proxy in proxies[c]:
            sums = [sum(cosine(proxy, other) for other in others) for others in proxies]
            regulariser.append(math.log(sum(math.exp(s) for s in sums)) - sums[c])
    return sum(losses) / len(losses) + reg_weight * sum(regulariser) / len(regulariser)


@pytest.fixture
def case():
    """Float64 embeddings (9, 5) of any norm, labels of 7 classes, two of them absent, and proxies (7, 3, 5)."""
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(9, 5, generator=generator, dtype=torch.float64) * torch.arange(1, 10)[:, None]
    proxies = torch.randn(7, 3, 5, generator=generator, dtype=torch.float64) * 4
    return embeddings, torch.tensor([0, 0, 1, 3, 3, 3, 4, 6, 6]), proxies


@pytest.mark.parametrize("reg_weight", [0.0, 0.3])
@pytest.mark.parametrize("replicate_k", [False, True])
@pytest.mark.parametrize("r", [0.02, 0.09, 0.14, 0.18, 0.4, 1.0])  # k = 1, 2, 3 (own), 4, 9 and 21 of 21 proxies
def test_agrees_with_the_definition_in_loops(case, r, replicate_k, reg_weight):
    settings = {"r": r, "reg_weight": reg_weight, "replicate_k": replicate_k}
    expected = by_loops(*(tensor.tolist() for tensor in case), **settings)
    assert proxygml(*case, **settings).item() == pytest.approx(expected, rel=1e-11)


def test_the_scale_multiplies_the_cosines_of_samples_and_not_those_among_proxies(case):
    settings = {"r": 0.4, "reg_weight": 0.3, "scale": 20.0}
    expected = by_loops(*(tensor.tolist() for tensor in case), **settings)
    assert proxygml(*case, **settings).item() == pytest.approx(expected, rel=1e-11)
    with pytest.raises(UserError, match="scale"):
        proxygml(*case, r=0.4, scale=0.0)


def test_two_orthogonal_proxies_worked_out_by_hand():
    # The sample lies on its own proxy: votes 1 and 0, and the vote 0 counts: p = e / (e + 1) up to the 1e-8. The
    # proxies' cosines are the identity matrix, so each has the cross entropy log(1 + 1/e).
    arguments = torch.tensor([[5.0, 0.0]]), torch.tensor([0]), torch.tensor([[0.1, 0.0], [0.0, 7.0]])
    assert proxygml(*arguments, r=1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert proxygml(*arguments, r=1.0, reg_weight=0.5).item() == pytest.approx(1.5 * math.log(1 + math.exp(-1)))


@pytest.mark.parametrize("settings", [{"r": 0.3}, {"r": 1.0, "reg_weight": 0.7}, {"r": 0.1, "replicate_k": True}])
def test_gradients_agree_with_finite_differences(case, settings):
    embeddings, labels, proxies = case
    inputs = embeddings.requires_grad_(), proxies.requires_grad_()
    assert torch.autograd.gradcheck(lambda e, p: proxygml(e, labels, p, **settings), inputs, atol=1e-7)


def test_a_fraction_too_small_for_another_class_has_a_gradient_unless_k_is_replicated(case):
    embeddings, labels, proxies = case
    embeddings.requires_grad_()
    for replicate_k, has_gradient in ((True, False), (False, True)):
        loss = proxygml(embeddings, labels, proxies, r=3 / 21, replicate_k=replicate_k)
        (gradient,) = torch.autograd.grad(loss, embeddings)
        assert (gradient.abs().max().item() > 1e-3) == has_gradient
        assert gradient.abs().max().item() > 1e-3 or loss.item() < 1e-6


def test_the_first_of_equally_similar_proxies_are_kept():
    # k = 4: the 2 own ones and 2 of the 4 others, equally similar; a proxy that is not kept gets no gradient.
    other = torch.tensor([0.6, 0.8])
    proxies = torch.stack([other, other, torch.tensor([1.0, 0.1]), torch.tensor([1.0, -0.1]), other, other])
    for own, kept in ((1, [0, 1, 2, 3]), (0, [0, 1, 2, 3]), (2, [0, 1, 4, 5])):
        by_class = proxies.roll(2 * own - 2, 0).view(3, 2, 2).clone().requires_grad_()
        proxygml(torch.tensor([[1.0, 0.0]]), torch.tensor([own]), by_class, r=4 / 6).backward()
        assert by_class.grad.view(6, 2).abs().sum(dim=1).nonzero().flatten().tolist() == kept


def test_one_proxy_per_class_may_be_given_as_a_matrix(case):
    embeddings, labels, proxies = case
    settings = {"r": 0.4, "reg_weight": 0.3}
    assert torch.equal(
        proxygml(embeddings, labels, proxies[:, 0], **settings),
        proxygml(embeddings, labels, proxies[:, :1], **settings),
    )


def test_the_regulariser_does_not_depend_on_its_chunks(case, monkeypatch):
    results = []
    for chunk in (1, 15, 2**22):  # 1, 2 and all of the 21 proxies
        monkeypatch.setattr(module, "CHUNK", chunk)
        embeddings, labels, proxies = case
        proxies = proxies.clone().requires_grad_()
        proxygml(embeddings, labels, proxies, r=0.4, reg_weight=5.0).backward()
        results.append(proxies.grad)
    for gradient in results[:-1]:
        torch.testing.assert_close(gradient, results[-1], rtol=1e-12, atol=1e-13)


class Largest(TorchFunctionMode):
    """Records the size of the largest tensor that any call returns."""

    numel = calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel, self.calls = max(self.numel, result.numel()), self.calls + 1
        return result


def test_no_tensor_is_as_large_as_proxies_by_classes(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 10_000)
    generator = torch.Generator().manual_seed(0)
    proxies = torch.randn(500, 2, 16, generator=generator).requires_grad_()
    embeddings = torch.randn(8, 16, generator=generator).requires_grad_()
    with Largest() as largest:
        proxygml(embeddings, torch.arange(8), proxies, r=0.1, reg_weight=0.3).backward()
    assert largest.numel == 16_000 and largest.calls > 500  # all proxies' coordinates; 1000 x 500 would be 500,000


def test_stays_finite_in_float32_at_the_ends_of_the_space():
    generator = torch.Generator().manual_seed(0)
    for N, r, reg_weight, sign in itertools.product((1, 16), (0.001, 0.02, 1.0), (0.0, 1.0), (-1, 1)):
        direction = torch.randn(6, generator=generator)
        proxies = (direction * torch.ones(5, N, 6)).requires_grad_()  # all equal: each vote is N or -N
        embeddings = (sign * direction * torch.logspace(-3, 3, 4)[:, None]).requires_grad_()
        loss = proxygml(embeddings, torch.tensor([0, 1, 2, 4]), proxies, r=r, reg_weight=reg_weight)
        loss.backward()
        assert loss.isfinite() and embeddings.grad.isfinite().all() and proxies.grad.isfinite().all()


def test_one_class_a_lone_sample_and_exact_duplicates_are_defined(case):
    embeddings, labels, proxies = case
    for rows in ([0], [3, 4, 5], [2, 2, 2]):
        chosen, settings = (embeddings[rows].tolist(), labels[rows].tolist()), {"r": 0.4, "reg_weight": 0.3}
        leaf = embeddings[rows].requires_grad_()
        loss = proxygml(leaf, labels[rows], proxies, **settings)
        loss.backward()
        assert loss.item() == pytest.approx(by_loops(*chosen, proxies.tolist(), **settings), rel=1e-11)
        assert leaf.grad.isfinite().all()
    only = proxygml(embeddings[:2], labels[:2], proxies[:1], r=0.4, reg_weight=0.3)
    assert only.item() == pytest.approx(0, abs=1e-6)  # a single class


def test_autocast_changes_no_bit_and_half_precision_inputs_are_used_in_float32(case):
    embeddings, labels, proxies = case[0].float(), case[1], case[2].float()
    settings = {"r": 0.4, "reg_weight": 0.3}
    plain = proxygml(embeddings, labels, proxies, **settings)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(proxygml(embeddings, labels, proxies, **settings), plain)
        assert proxygml(*case, **settings).dtype == torch.float64
    half = embeddings.bfloat16(), labels, proxies.bfloat16()
    assert torch.equal(proxygml(*half, **settings), proxygml(half[0].float(), labels, half[2].float(), **settings))


def test_a_nan_embedding_is_not_hidden(case):
    embeddings, labels, proxies = case
    embeddings[3, 2] = math.nan
    assert proxygml(embeddings, labels, proxies, r=0.4).isnan()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"r": 0.0}, "r=0.0 of proxygml"),
        ({"r": 1.1}, "r=1.1 of proxygml"),
        ({"r": math.nan}, "r=nan of proxygml"),
        ({"r": 0.5, "reg_weight": -1.0}, "reg_weight=-1.0 of proxygml"),
        ({"r": 0.5, "reg_weight": math.inf}, "reg_weight=inf of proxygml"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_value(case, settings, named):
    with pytest.raises(UserError, match=named):
        proxygml(*case, **settings)


def test_a_label_without_a_proxy_is_an_error(case):
    with pytest.raises((IndexError, RuntimeError)):
        proxygml(case[0], case[1] + 1, case[2], r=0.4)
