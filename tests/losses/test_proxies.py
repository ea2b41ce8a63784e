"""The module that owns proxies: initialisation, refused bases, and equality with its base."""

import inspect
import math
import traceback
from functools import partial

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses import HasRecordFields
from benchmark.losses.arcface import arcface
from benchmark.losses.cosface import cosface
from benchmark.losses.hier import HIER
from benchmark.losses.normalized_softmax import normalized_softmax
from benchmark.losses.proxies import ProxyLoss, initial_proxies
from benchmark.losses.soft_triple import soft_triple
from tests.cases import for_each
from tests.losses.library import only_in_version_2

COSFACE = partial(cosface, scale=8.0, margin=0.2)
SOFT_TRIPLE = partial(soft_triple, la=5.0, gamma=0.2, margin=0.1, reg_weight=0.3)
ENDS = {  # bounds of the search spaces, and wider ones for single data sets
    "normalized_softmax": [partial(normalized_softmax, temperature=t) for t in (0.01, 100.0)],
    "cosface": [partial(cosface, scale=s, margin=m) for s in (0.01, 200.0) for m in (0.0, 1.0)],
    "arcface": [partial(arcface, scale=s, margin=m) for s in (0.01, 300.0) for m in (0.0, 90.0)],
    "soft_triple": [
        partial(soft_triple, la=la, gamma=gamma, margin=1.0, reg_weight=weight)
        for la in (0.01, 200.0) for gamma in (1e-4, 100.0) for weight in (0.0, 2.0)
    ],
}  # fmt: skip
every_end = for_each("base", [base for bases in ENDS.values() for base in bases])


def proxies_for(base, proxies):
    """Return proxies (C, D) for the base; for SoftTriple three centres per class, two of which coincide."""
    return torch.stack([proxies, proxies.flip(1), proxies], dim=1) if base.func is soft_triple else proxies


def make(num_classes=7, embedding_dim=5, base=COSFACE, proxy_init="normal", seed=0, **options):
    return ProxyLoss(num_classes, embedding_dim, base=base, proxy_init=proxy_init, seed=seed, **options)


def test_equals_its_base_on_its_proxies_in_value_and_gradient(batch):
    embeddings, labels, proxies = batch
    module = make().double()
    module.load_state_dict({"proxies": proxies})
    loss = module(embeddings, labels)
    loss.backward()
    by_hand = proxies.requires_grad_()
    expected = cosface(embeddings, labels, by_hand, scale=8.0, margin=0.2)
    assert torch.equal(loss, expected)
    assert torch.equal(module.proxies.grad, torch.autograd.grad(expected, by_hand)[0])


def test_the_checkpoint_holds_everything_that_training_changes(batch):
    module = make(base=SOFT_TRIPLE, centres_per_class=3)
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == {"proxies": (7, 3, 5)}
    twin = make(base=SOFT_TRIPLE, centres_per_class=3, seed=1)
    twin.load_state_dict(module.state_dict())
    embeddings, labels = batch[0].float(), batch[1]
    assert torch.equal(twin(embeddings, labels), module(embeddings, labels))


@pytest.mark.parametrize(
    ("proxy_init", "centres", "mean_square"),
    # A uniform draw within b has mean square b^2 / 3, here with b^2 = 1 / (C K).
    [("normal", 1, 1.0), ("normal", 4, 1.0), ("kaiming_fan_out", 1, 2 / 300), ("kaiming_uniform", 4, 1 / 3600)],
)
def test_initial_proxies_have_the_spread_of_their_source(proxy_init, centres, mean_square):
    proxies = initial_proxies(300, 40, proxy_init, 3, centres)
    assert proxies.shape == ((300, 40) if centres == 1 else (300, centres, 40))
    assert abs(proxies.mean().item()) < 0.03 * math.sqrt(mean_square)  # standard error at most 0.009 of a deviation
    assert proxies.square().mean().item() == pytest.approx(mean_square, rel=0.06)  # standard error at most 0.013
    if proxy_init == "kaiming_uniform":
        assert 0.99 < proxies.abs().max().item() * math.sqrt(1200) <= 1


@only_in_version_2
def test_uniform_initialisation_has_the_spread_of_the_librarys_soft_triple():
    from pytorch_metric_learning.losses import SoftTripleLoss

    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = SoftTripleLoss(num_classes=50, embedding_size=32, centers_per_class=4).fc
    ours = initial_proxies(50, 32, "kaiming_uniform", 0, 4)
    assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=2e-3)
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.03)


def test_unit_proxies_have_norm_1_and_the_directions_of_normal_ones():
    normal, unit = (initial_proxies(30, 16, name, 3, 2) for name in ("normal", "unit"))
    torch.testing.assert_close(unit.square().sum(dim=-1), torch.ones(30, 2))
    torch.testing.assert_close((unit * normal).sum(dim=-1), normal.square().sum(dim=-1).sqrt())


@pytest.mark.parametrize("proxy_init", ["normal", "unit", "kaiming_fan_out", "kaiming_uniform"])
def test_the_initial_proxies_depend_only_on_the_seed(proxy_init):
    before = torch.get_rng_state()
    first, again, other = (make(proxy_init=proxy_init, seed=seed).proxies for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_a_setting_that_the_base_refuses_is_refused_before_any_training():
    with pytest.raises(UserError, match=r"ProxyLoss with proxies of shape \(7, 5\): scale=0.0 of cosface must be"):
        make(base=partial(COSFACE, scale=0.0))


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (
            partial(COSFACE, margn=0.1),
            "base cosface: got an unexpected keyword argument 'margn'. .*it takes embed",
        ),
        (partial(cosface, margin=0.1), "base cosface: missing a required argument: 'scale'"),
        (lambda embeddings, labels: embeddings.sum(), "base <lambda>: too many positional arguments"),
        (torch.nn.Linear(5, 5).double, "base double: too many positional arguments"),
    ],
)
def test_a_base_that_takes_other_arguments_is_refused_by_its_signature(base, message):
    with pytest.raises(UserError, match=rf"ProxyLoss with proxies of shape \(7, 5\) cannot call its {message}"):
        make(base=base)


def with_a_bug(fault):
    def base(embeddings, labels, proxies):
        fault(embeddings)
        return embeddings.sum()

    return base


def wrong_call(_):
    cosface(scale=1.0)  # a TypeError from inside the base, which is not a wrong signature


BUGS = {
    "a TypeError": (wrong_call, TypeError),
    "a ValueError": (lambda _: [].index(3), ValueError),
    "a RuntimeError": (lambda embeddings: embeddings @ torch.ones(7), RuntimeError),
    "a shape": (lambda embeddings: cosface(embeddings, None, torch.ones(7, 3, 5), scale=1.0, margin=0.0), ValueError),
}


@pytest.mark.parametrize(("fault", "kind"), BUGS.values(), ids=BUGS)
def test_a_bug_in_a_base_shows_its_own_file_and_line(fault, kind):
    with pytest.raises(kind) as caught:
        make(base=with_a_bug(fault))
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert any(frame.filename == __file__ and frame.name == "base" for frame in frames)
    assert caught.value.__notes__ == ["Raised when ProxyLoss with proxies of shape (7, 5) tried its base once."]
    assert caught.value.__cause__ is None


def test_a_base_without_a_signature_is_tried():
    compiled = torch.cosine_similarity
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(compiled)
    with pytest.raises(TypeError, match="cosine_similarity"):  # the third argument is not a dimension
        make(base=compiled)


@pytest.mark.parametrize("centres", [3, 5])
def test_most_bases_take_one_proxy_per_class_only(centres):
    with pytest.raises(ValueError, match=rf"not \(1, 5\) and \(7, {centres}, 5\)"):
        make(centres_per_class=centres)


@pytest.mark.parametrize("option", [{"num_classes": 0}, {"embedding_dim": 0}, {"centres_per_class": 0}])
def test_a_count_below_one_is_refused(option):
    with pytest.raises(UserError, match=f"{next(iter(option))}=0 of the loss must be a whole number of at least 1"):
        make(**option)


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(
        UserError, match="proxy_init='xavier' of the loss must be one of normal, unit, kaiming_fan_out, kaim"
    ):
        make(proxy_init="xavier")


def test_trying_the_base_leaves_no_gradient():
    assert make().proxies.grad is None


@every_end
def test_finite_in_float32_for_samples_of_any_norm_on_or_opposite_to_their_proxy(base):
    generator = torch.Generator().manual_seed(0)
    proxies = torch.randn(40, 16, generator=generator) * torch.logspace(-4, 4, 40)[:, None]
    embeddings = torch.randn(32, 16, generator=generator) * torch.logspace(-4, 4, 32)[:, None]
    embeddings[:3] = torch.stack([proxies[0], -proxies[1], embeddings[5]])
    labels = torch.cat([torch.tensor([0, 1, 30]), torch.arange(29) % 30])  # 9 classes absent, many singletons
    gradients = []
    for dtype in (torch.float32, torch.float64):
        inputs = embeddings.to(dtype).requires_grad_(), proxies_for(base, proxies.to(dtype)).requires_grad_()
        loss = base(inputs[0], labels, inputs[1])
        assert loss.isfinite()
        assert loss.dtype == dtype
        gradients.append(torch.autograd.grad(loss, inputs))
        assert all(gradient.isfinite().all() for gradient in gradients[-1])
    for single, double in zip(*gradients, strict=True):  # by row, since short rows have the large gradients
        norm = double.flatten(1).norm(dim=1)
        gap = (single.double() - double).flatten(1).norm(dim=1)
        normal = torch.ones(len(norm), dtype=torch.bool)
        normal[:2] = False  # at the ends of the arc cosine the two types clamp the angle at different values
        assert (gap[normal] <= 0.02 * norm[normal] + 1e-4 * norm.median()).all()


@every_end
def test_autocast_changes_no_bit_and_half_precision_gives_float32(batch, base):
    embeddings, labels, proxies = batch[0].float(), batch[1], proxies_for(base, batch[2].float())
    plain = base(embeddings, labels, proxies)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(base(embeddings, labels, proxies), plain)
        assert base(batch[0], labels, proxies.double()).dtype == torch.float64
    half = embeddings.bfloat16()
    assert torch.equal(base(half, labels, proxies), base(half.float(), labels, proxies))


@every_end
def test_autocast_does_not_change_the_gradient(batch, base):
    gradients = []
    for enabled in (False, True):
        embeddings, proxies = batch[0].float().requires_grad_(), proxies_for(base, batch[2].float()).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = base(embeddings, batch[1], proxies)
        gradients.append(torch.autograd.grad(loss, [embeddings, proxies]))
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@every_end
def test_norms_and_repetitions_of_the_batch_do_not_matter(batch, base):
    embeddings, labels, proxies = batch[0], batch[1], proxies_for(base, batch[2])
    loss = base(embeddings, labels, proxies).item()
    assert base(embeddings * 1e6, labels, proxies * 1e-6).item() == pytest.approx(loss, rel=1e-11)
    assert base(embeddings.repeat(2, 1), labels.repeat(2), proxies).item() == pytest.approx(loss, rel=1e-11)


@every_end
def test_the_loss_of_a_batch_is_the_mean_of_its_samples_losses(batch, base):
    embeddings, labels, proxies = batch[0], batch[1], proxies_for(base, batch[2])
    alone = [base(e[None], y[None], proxies).item() for e, y in zip(embeddings, labels, strict=True)]
    assert base(embeddings, labels, proxies).item() == pytest.approx(sum(alone) / len(alone), rel=1e-11)


@every_end
def test_a_label_without_a_proxy_is_an_error(batch, base):
    with pytest.raises((IndexError, RuntimeError)):
        base(batch[0], batch[1] + 1, proxies_for(base, batch[2]))


def test_the_record_counts_the_centres_of_all_classes_and_those_of_a_hierarchy() -> None:
    one = ProxyLoss(7, 3, base=COSFACE, proxy_init="normal", seed=0)
    ten = ProxyLoss(7, 3, base=SOFT_TRIPLE, proxy_init="kaiming_uniform", seed=0, centres_per_class=10)
    hier = HIER(7, 3, seed=0)  # with 512 of the hierarchy
    assert [loss.record_fields([], None) for loss in (one, ten, hier)] == [{"num_proxies": n} for n in (7, 70, 519)]
    assert all(isinstance(loss, HasRecordFields) for loss in (one, ten, hier))
