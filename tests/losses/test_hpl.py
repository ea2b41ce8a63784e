"""HPL's loss, compared with loops over its levels and with its base; refused arguments."""

import copy
import math
import traceback
from functools import partial

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import ProxyAnchorLoss

from benchmark.core.errors import UserError
from benchmark.losses.hpl import HPL
from benchmark.losses.proxy_anchor import proxy_anchor
from benchmark.losses.proxy_nca import ProxyNCA, proxy_nca

EQ3 = partial(proxy_nca, denominator="others")
BASES = {"nca": (proxy_nca, {"scale": 9.0}), "eq3": (EQ3, {"scale": 9.0}),
         "pa": (proxy_anchor, {"alpha": 32.0, "margin": 0.1})}  # fmt: skip


def batch_only(embeddings, labels):
    """Not a valid base: it takes no proxies."""
    return embeddings.sum()


def buggy(embeddings, labels, proxies):
    """A base with a bug: it multiplies (1, D) by (3, 4)."""
    return (embeddings @ torch.ones(3, 4)).sum()


NO_BASES = {"no proxies": (batch_only, {}), "buggy": (buggy, {})}


def make(base="nca", num_classes=7, dim=5, num_levels=2, **options):
    function, settings = (BASES | NO_BASES)[base]
    defaults = {
        "base": function, "levels": [settings] * num_levels, "weights": [1.0, 0.1, 0.1][:num_levels],
        "warmup_iterations": 0, "update_every": 2, "proxy_init": "normal", "seed": 0,
    }  # fmt: skip
    if "class_to_super" not in options:
        defaults["num_coarse"] = [3, 2][: num_levels - 1]
    return HPL(num_classes, dim, **defaults | options)


def with_hierarchy(module, proxies):
    """Build the module with a fixed hierarchy: 7 classes -> 3 groups -> 2 groups, with random coarse proxies."""
    generator = torch.Generator().manual_seed(1)
    state = module.state_dict() | {"proxies": proxies, "counters": torch.tensor([9, 0, 1])}
    owners = {"owners_0": torch.tensor([0, 1, 2, 0, 1, 0, 2]), "owners_1": torch.tensor([1, 0, 1])}
    for name, value in state.items():
        if name.startswith("centres"):
            state[name] = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        state[name] = owners.get(name, state[name])
    module.load_state_dict(state)
    return module


@pytest.mark.parametrize("base", BASES)
def test_three_levels_with_their_own_settings_agree_with_loops(batch, base, nca_by_loops, anchor_by_loops):
    embeddings, labels, proxies = batch
    if base == "pa":
        levels = [{"alpha": 32.0, "margin": 0.1}, {"alpha": 8.0, "margin": 0.0}, {"alpha": 2.0, "margin": 0.7}]
        oracle = anchor_by_loops
    else:
        levels = [{"scale": 9.0}, {"scale": 40.0}, {"scale": 0.3}]
        oracle = partial(nca_by_loops, denominator="all" if base == "nca" else "others")
    module = make(base, num_levels=3, levels=levels, weights=[1.0, 0.1, 0.7]).double()
    with_hierarchy(module, proxies)
    group = [0, 1, 2, 0, 1, 0, 2]
    super_group = [1, 0, 1]
    coarse = torch.tensor([group[y] for y in labels.tolist()])
    coarsest = torch.tensor([super_group[g] for g in coarse.tolist()])
    losses = [
        oracle(embeddings, labels, proxies, **levels[0]),
        oracle(embeddings, coarse, module.centres(1), **levels[1]),
        oracle(embeddings, coarsest, module.centres(2), **levels[2]),
    ]
    assert module(embeddings, labels).item() == pytest.approx(losses[0] + 0.1 * losses[1] + 0.7 * losses[2], rel=1e-12)
    assert [module.diagnostics()[f"loss_level_{level}"] for level in range(3)] == pytest.approx(losses, rel=1e-12)


@pytest.mark.parametrize("denominator", ["all", "others"])
def test_one_level_equals_proxy_nca_at_twice_its_softmax_scale(batch, denominator):
    embeddings, labels, _ = batch
    base = ProxyNCA(7, 5, softmax_scale=13.98, seed=4, denominator=denominator)
    module = make("nca" if denominator == "all" else "eq3", num_levels=1, levels=[{"scale": 2 * 13.98}], seed=4)
    assert torch.equal(module(embeddings.float(), labels), base(embeddings.float(), labels))


def test_coarse_levels_train_the_embeddings_but_no_proxy(batch):
    embeddings, labels, proxies = batch
    module = with_hierarchy(make("pa").double(), proxies)
    embeddings.requires_grad_()
    module(embeddings, labels).backward()
    function, settings = BASES["pa"]
    fine = proxies.clone().requires_grad_()
    fine_gradients = torch.autograd.grad(function(embeddings, labels, fine, **settings), [embeddings, fine])
    coarse_labels = module.owners(0)[labels]
    coarse = torch.autograd.grad(function(embeddings, coarse_labels, module.centres(1), **settings), embeddings)[0]
    assert torch.equal(module.proxies.grad, fine_gradients[1])
    torch.testing.assert_close(embeddings.grad, fine_gradients[0] + 0.1 * coarse)
    assert [name for name, _ in module.named_parameters()] == ["proxies"]
    assert not any(buffer.requires_grad for buffer in module.buffers())


def test_tied_centroids_pass_their_gradient_to_the_fine_proxies(batch):
    embeddings, labels, proxies = batch
    module = with_hierarchy(make(num_levels=3, coarse_update="tied").double(), proxies)

    def loss(vectors):
        return torch.func.functional_call(module, {"proxies": vectors}, (embeddings, labels))

    unit = proxies / proxies.norm(dim=1, keepdim=True)
    members = [[0, 3, 5], [1, 4], [2, 6]]
    means = torch.stack([unit[m].mean(dim=0) for m in members])
    torch.testing.assert_close(module.level_proxies()[1], means)
    torch.testing.assert_close(module.level_proxies()[2], torch.stack([
        means[1] / means[1].norm(), (means[0] / means[0].norm() + means[2] / means[2].norm()) / 2
    ]))  # fmt: skip
    assert torch.autograd.gradcheck(loss, proxies.requires_grad_(), atol=1e-6)
    fine = proxy_nca(embeddings, labels, proxies, scale=9.0)
    differ = torch.autograd.grad(loss(proxies), proxies)[0] - torch.autograd.grad(fine, proxies)[0]
    assert differ.abs().max() > 1e-4


def test_two_coarse_proxies_are_two_columns_of_the_mask(batch, anchor_by_loops):
    embeddings, labels, proxies = batch
    module = make("pa", num_coarse=2, weights=[1.0, 1.0]).double()
    module.load_state_dict(module.state_dict() | {"proxies": proxies})
    loss = module(embeddings, labels)
    fine = anchor_by_loops(embeddings, labels, proxies, alpha=32, margin=0.1)
    coarse = anchor_by_loops(embeddings, module.owners(0)[labels], module.centres(1), alpha=32, margin=0.1)
    assert loss.item() == pytest.approx(fine + coarse, rel=1e-12)
    assert set(module.owners(0).tolist()) == {0, 1}


def test_one_coarse_proxy_adds_nothing_to_a_softmax_over_all_proxies(batch):
    embeddings, labels, proxies = batch
    module = make(num_coarse=1).double()
    module.load_state_dict(module.state_dict() | {"proxies": proxies})
    assert module(embeddings, labels).item() == proxy_nca(embeddings, labels, proxies, scale=9.0).item()
    assert module.diagnostics()["loss_level_1"] == 0


@pytest.mark.parametrize("base", BASES)
def test_order_of_the_batch_does_not_matter(batch, base):
    embeddings, labels, proxies = batch
    module = with_hierarchy(make(base, num_levels=3).double(), proxies)
    order = torch.tensor([4, 0, 8, 2, 6, 1, 3, 5, 7])
    assert module(embeddings[order], labels[order]).item() == pytest.approx(
        module(embeddings, labels).item(), rel=1e-13
    )


def test_autocast_changes_no_bit(batch):
    embeddings, labels, _ = batch
    module = make("pa")
    plain = module(embeddings.float(), labels)
    twin = make("pa")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(twin(embeddings.float(), labels), plain)
    assert torch.equal(twin.centres(1), module.centres(1))


def test_proxies_are_initialised_like_those_of_the_base():
    assert torch.equal(make(seed=3).proxies, ProxyNCA(7, 5, softmax_scale=1, seed=3).proxies)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        (of_library,) = ProxyAnchorLoss(50, 20).parameters()
    assert torch.equal(make("pa", 50, 20, proxy_init="kaiming_fan_out", seed=3).proxies, of_library)
    wide = make("pa", 800, 20, proxy_init="kaiming_fan_out").proxies
    assert wide.std().item() == pytest.approx(math.sqrt(2 / 800), rel=0.05)


def test_construction_and_grouping_use_no_global_generator(batch):
    embeddings, labels, _ = batch
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    make()(embeddings.float(), labels)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == before[1]


def test_a_copy_is_independent(batch):
    embeddings, labels, _ = batch
    module = make()
    module(embeddings.float(), labels)
    twin = copy.deepcopy(module)
    for _ in range(3):
        twin.after_step()
    assert twin.diagnostics()["coarse_updates"] == 2
    assert module.diagnostics()["coarse_updates"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clustering": "ward"}, "clustering='ward' of HPL must be one of kmeans, agglomerative, gmm"),
        ({"empty": "drop"}, "empty='drop' of HPL must be one of keep, reseed_farthest"),
        ({"centres_per_class": 0}, "centres_per_class=0 of HPL must be a whole number of at least 1"),
        ({"true_groups": [0, 1]}, r"true_groups of HPL has shape \(2,\).* each of the 7 classes"),
        ({"num_coarse": 7}, "num_coarse=7 on level 1 of HPL .* below 7"),
        ({"num_coarse": 0}, "num_coarse=0 on level 1"),
        ({"num_coarse": 2.5}, "num_coarse=2.5 on level 1"),
        ({"num_levels": 3, "num_coarse": [3, 3]}, "num_coarse=3 on level 2 of HPL .* below 3"),
        ({"base": "eq3", "num_coarse": 1}, "Level 1 of HPL, 1 proxies.*denominator='others'"),
        ({"base": "eq3", "num_classes": 2, "num_coarse": 1}, "Level 1 of HPL, 1 proxies"),
        ({"levels": [{"scale": 9.0}]}, "2 levels with 7, 3 proxies, but settings for 1 and 2 weights"),
        ({"weights": [1.0]}, "settings for 2 and 1 weights"),
        ({"num_coarse": None}, "1 levels with 7 proxies, but settings for 2"),
        ({"weights": [0.0, 0.1]}, r"weights=\[0.0, 0.1\]"),
        ({"weights": [1.0, -0.1]}, r"weights=\[1.0, -0.1\]"),
        ({"weights": [1.0, math.nan]}, r"weights=\[1.0, nan\]"),
        ({"update_every": 0}, "update_every=0 of HPL must be a whole number of at least 1"),
        ({"update_every": 1.5}, "update_every=1.5"),
        ({"warmup_iterations": -1}, "warmup_iterations=-1"),
        ({"kmeans_restarts": 0}, "kmeans_restarts=0"),
        ({"levels": [{"scale": 9.0}, {"scale": -3.0}]}, "Level 1 of HPL.*scale=-3.0 of ProxyNCA"),
        (
            {"levels": [{"scale": 9.0}, {"scael": 3.0}]},
            "Level 1 of HPL.*called with .*, scael; it takes .*, scale,",
        ),
        ({"base": "no proxies"}, "Level 0 of HPL.*cannot call its base batch_only: too many positional arguments"),
        ({"base": "pa", "levels": [{"alpha": 9.0, "margin": -1.0}] * 2}, "Level 0 of HPL.*margin=-1.0"),
        ({"proxy_init": "uniform"}, "proxy_init='uniform' of HPL must be one of normal, unit, kaiming_fan_out, kaim"),
        ({"coarse_update": "none"}, "coarse_update='none' of HPL must be one of centroid, tied, gradient"),
        ({"cluster_space": "unit"}, "cluster_space='unit' of HPL must be one of normalized, raw"),
        ({"class_to_super": [0, 1, 0]}, r"shape \(3,\).* each of the 7 classes"),
        ({"class_to_super": [0.5] * 7}, "float64; it must hold one integer"),
        ({"class_to_super": [0, 1, 0, 1, 0, 1, 2], "num_coarse": 3}, "num_coarse=3 of HPL must be omitted"),
        ({"base": "eq3", "class_to_super": [4] * 7}, "one group: these data have no hierarchy.*loss=hpl_nca"),
    ],
)
def test_invalid_arguments_are_refused_at_construction(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


def test_a_bug_in_a_base_shows_its_own_file_and_line_and_the_level():
    with pytest.raises(RuntimeError, match="Level 0 of HPL, 7 proxies in") as caught:
        make("buggy")
    assert any(f.filename == __file__ and f.name == "buggy" for f in traceback.extract_tb(caught.value.__traceback__))
