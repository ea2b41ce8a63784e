"""SoftTriple, compared with its equation in loops; limits of settings; memory."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.core.errors import UserError
from benchmark.losses.cosface import cosface
from benchmark.losses.soft_triple import soft_triple
from tests.losses.conftest import cosine

TYPES = (torch.float32, torch.float64)


@pytest.fixture
def centres():
    """Float64 centres (7, 3, 5) of any norm for the classes of `batch`."""
    return torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 2


def by_loops(embeddings, labels, centres, *, la, gamma, margin, reg_weight=0.0, root_epsilon=1e-5):
    total = 0.0
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        logits = []
        for c, members in enumerate(centres.tolist()):
            similar = [cosine(embedding, member) for member in members]
            weights = [math.exp((s - max(similar)) / gamma) for s in similar]
            pooled = sum(w * s for w, s in zip(weights, similar, strict=True)) / sum(weights)
            logits.append(la * (pooled - (margin if c == label else 0)))
        total += math.log(sum(math.exp(logit - logits[label]) for logit in logits))
    C, K, _ = centres.shape
    gaps = [
        math.sqrt(2 + root_epsilon - 2 * cosine(members[k], members[j]))
        for members in centres.tolist()
        for j in range(K)
        for k in range(j)
    ]
    return total / len(labels) + (reg_weight * sum(gaps) / (C * K * (K - 1)) if K > 1 else 0)


@pytest.mark.parametrize("reg_weight", [0.0, 2.0])
@pytest.mark.parametrize("margin", [0.01, 1.0])
@pytest.mark.parametrize(("la", "gamma"), [(20.0, 0.1), (78.0, 58.9), (200.0, 1e-4), (0.01, 100.0)])
def test_agrees_with_the_equation_in_loops(batch, centres, la, gamma, margin, reg_weight):
    setting = {"la": la, "gamma": gamma, "margin": margin, "reg_weight": reg_weight}
    expected = by_loops(batch[0], batch[1], centres, **setting)
    assert soft_triple(batch[0], batch[1], centres, **setting).item() == pytest.approx(expected, rel=1e-11)


def test_one_sample_between_two_centres_worked_out_by_hand():
    # Class 0 has centres at 0 and 90 degrees, class 1 has both at 180. A sample at 0: cosines (1, 0) and (-1, -1).
    # gamma = 1: S_0 = e / (e + 1), S_1 = -1. Logits 3 (S_0 - 0.5) and -3. Gaps sqrt(2) and 0, over C K (K - 1) = 4.
    centres = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [-5.0, 0.0]]], dtype=torch.float64)
    sample = torch.tensor([[7.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    loss = soft_triple(*sample, centres, la=3.0, gamma=1.0, margin=0.5, reg_weight=0.8, root_epsilon=0.0)
    own = 3 * (math.e / (math.e + 1) - 0.5)
    assert loss.item() == pytest.approx(
        math.log(math.exp(own) + math.exp(-3)) - own + 0.8 * math.sqrt(2) / 4, rel=1e-12
    )


@pytest.mark.parametrize("gamma", [0.1, 1.0, 50.0])
@pytest.mark.parametrize("root_epsilon", [0.0, 1e-5])
def test_gradients_agree_with_finite_differences(batch, centres, gamma, root_epsilon):
    def loss(embeddings, vectors):
        setting = {"la": 5.0, "gamma": gamma, "margin": 0.2, "reg_weight": 0.7, "root_epsilon": root_epsilon}
        return soft_triple(embeddings, batch[1], vectors, **setting)

    assert torch.autograd.gradcheck(loss, (batch[0].requires_grad_(), centres.requires_grad_()), atol=1e-6)


def test_one_centre_per_class_is_cosface_and_has_no_regulariser(batch):
    embeddings, labels, proxies = batch
    expected = cosface(embeddings, labels, proxies, scale=20.0, margin=0.3)
    for vectors in (proxies, proxies[:, None]):
        loss = soft_triple(embeddings, labels, vectors, la=20.0, gamma=0.1, margin=0.3, reg_weight=2.0)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_small_gamma_takes_the_nearest_centre_and_a_large_one_their_mean(batch, centres):
    embeddings, labels, _ = batch
    unit = torch.nn.functional.normalize(embeddings, dim=1), torch.nn.functional.normalize(centres, dim=2)
    similarity = torch.einsum("bd,ckd->bck", *unit)
    for gamma, pooled in ((1e-5, similarity.amax(2)), (1e7, similarity.mean(2))):
        expected = torch.nn.functional.cross_entropy(9 * pooled, labels)
        loss = soft_triple(embeddings, labels, centres, la=9.0, gamma=gamma, margin=0.0)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_order_of_centres_within_a_class_does_not_matter(batch, centres):
    setting = {"la": 20.0, "gamma": 0.1, "margin": 0.01, "reg_weight": 0.2}
    expected = soft_triple(batch[0], batch[1], centres, **setting)
    turned = soft_triple(batch[0], batch[1], centres[:, [2, 0, 1]], **setting)
    assert turned.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("root_epsilon", [0.0, 1e-5])
def test_coincident_centres_get_no_gradient_from_the_regulariser(batch, root_epsilon, dtype):
    embeddings, labels, proxies = batch[0].to(dtype), batch[1], batch[2].to(dtype)
    vectors = torch.stack([proxies, 3 * proxies, proxies], dim=1).requires_grad_()
    gradients = []
    for reg_weight in (0.0, 2.0):
        setting = {"la": 1.0, "gamma": 0.1, "margin": 0.1, "reg_weight": reg_weight, "root_epsilon": root_epsilon}
        gradients += torch.autograd.grad(soft_triple(embeddings, labels, vectors, **setting), vectors)
    assert gradients[1].isfinite().all()
    assert (gradients[1] - gradients[0]).abs().max() < (1e-4 if dtype == torch.float32 else 1e-8)


def test_the_regulariser_alone_merges_the_centres_of_a_class(centres):
    sample = torch.ones(1, 5, dtype=torch.float64), torch.tensor([0])
    for _ in range(400):
        vectors = centres.requires_grad_()
        loss = soft_triple(*sample, vectors, la=1e-6, gamma=1.0, margin=0.0, reg_weight=2.0)
        centres = vectors.detach() - 5 * torch.autograd.grad(loss, vectors)[0]
    unit = torch.nn.functional.normalize(centres, dim=2)
    assert (unit @ unit.mT).min() > 0.99


def test_one_class_leaves_only_the_regulariser():
    embeddings = torch.tensor([[1.0, 2.0], [-3.0, 0.5]]).requires_grad_()
    loss = soft_triple(
        embeddings, torch.tensor([0, 0]), torch.eye(2)[None], la=20.0, gamma=0.1, margin=0.1, reg_weight=0.6
    )
    assert loss.item() == pytest.approx(0.6 * math.sqrt(2 + 1e-5) / 2)
    assert torch.autograd.grad(loss, embeddings)[0].abs().max() == 0


@pytest.mark.parametrize(
    ("name", "values"),
    [("la", (0.0, -1.0, math.inf, math.nan)), ("gamma", (0.0, -1.0, math.inf, math.nan))]
    + [(name, (-0.1, math.inf, math.nan)) for name in ("margin", "reg_weight", "root_epsilon")],
)
def test_a_setting_out_of_range_is_refused(batch, centres, name, values):
    for value in values:
        setting = {"la": 20.0, "gamma": 0.1, "margin": 0.01} | {name: value}
        with pytest.raises(UserError, match=f"{name}={value} of soft_triple"):
            soft_triple(batch[0], batch[1], centres, **setting)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def test_no_two_centres_of_different_classes_are_ever_multiplied():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(8, 6, generator=generator).requires_grad_()
    vectors = torch.randn(50, 10, 6, generator=generator).requires_grad_()
    with LargestTensor() as largest:
        labels = torch.arange(8)
        soft_triple(embeddings, labels, vectors, la=20.0, gamma=0.1, margin=0.01, reg_weight=0.2).backward()
    # (B, C K) = 4000, (C, K, D) = 3000 and (C, K, K) = 5000; (B, C, K, D) would be 24,000 and (C K, C K) 250,000.
    assert largest.elements == 5000
