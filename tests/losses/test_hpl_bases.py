"""HPL with every base: it reduces to the base bit for bit, and its levels agree with the base's equation in loops."""

import math
from functools import partial

import pytest
import torch

from benchmark.losses.center_contrastive import center_contrastive
from benchmark.losses.circle import circle_class
from benchmark.losses.cosface import cosface
from benchmark.losses.hpl import HPL
from benchmark.losses.potential_field import potential_field
from benchmark.losses.proxies import ProxyLoss
from benchmark.losses.proxy_anchor import proxy_anchor
from benchmark.losses.proxy_nca import proxy_nca
from benchmark.losses.soft_triple import soft_triple
from tests.losses.proxy_loops import center_contrastive_by_loops, circle_class_by_loops, potential_field_by_loops

TRIPLE = {"la": 9.0, "gamma": 0.2, "margin": 0.05, "reg_weight": 0.3}
BASES = {  # function, settings, centres per class, initialisation
    "nca": (proxy_nca, {"scale": 9.0}, 1, "normal"),
    "eq3": (partial(proxy_nca, denominator="others"), {"scale": 9.0}, 1, "normal"),
    "pa": (proxy_anchor, {"alpha": 32.0, "margin": 0.1}, 1, "kaiming_fan_out"),
    "cosface": (cosface, {"scale": 16.0, "margin": 0.3}, 1, "normal"),
    "soft_triple": (soft_triple, TRIPLE, 3, "kaiming_uniform"),
    "potential_field": (potential_field, {"alpha": 3.0, "delta": 0.9}, 2, "normal"),
    "center_contrastive": (
        center_contrastive,
        {"scale": 16.0, "margin": 0.2, "center_weight": 0.5},
        1,
        "normal",
    ),
    "circle_class": (circle_class, {"gamma": 8.0, "margin": 0.25}, 1, "normal"),
}
every_base = pytest.mark.parametrize("base", BASES)


def make(base, num_levels=2, **options):
    function, settings, centres_per_class, proxy_init = BASES[base]
    defaults = {
        "base": function, "levels": [settings] * num_levels, "weights": [1.0, 0.1, 0.7][:num_levels],
        "warmup_iterations": 0, "update_every": 2, "proxy_init": proxy_init, "seed": 4,
        "centres_per_class": centres_per_class,
    }  # fmt: skip
    if "class_to_super" not in options:
        defaults["num_coarse"] = [3, 2][: num_levels - 1]
    return HPL(7, 5, **defaults | options)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def cosface_by_loops(embeddings, labels, proxies, *, scale, margin):
    total = 0.0
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        logits = [scale * (cosine(embedding, w) - margin * (c == label)) for c, w in enumerate(proxies.tolist())]
        total += math.log(sum(math.exp(z) for z in logits)) - logits[label]
    return total / len(labels)


def soft_triple_by_loops(embeddings, labels, centres, *, la, gamma, margin, reg_weight):
    """SoftTriple with one centre per class: the similarity is the cosine for any gamma, without a regulariser."""
    classes = centres.tolist() if centres.dim() == 3 else [[row] for row in centres.tolist()]
    total = 0.0
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        logits = []
        for c, rows in enumerate(classes):
            similar = [cosine(embedding, row) for row in rows]
            weights = [math.exp(s / gamma) for s in similar]
            pooled = sum(w * s for w, s in zip(weights, similar, strict=True)) / sum(weights)
            logits.append(la * (pooled - margin * (c == label)))
        total += math.log(sum(math.exp(z) for z in logits)) - logits[label]
    K = len(classes[0])
    pairs = [(rows[k], rows[m]) for rows in classes for k in range(K) for m in range(k)]
    apart = sum(math.sqrt(2 + 1e-5 - 2 * cosine(a, b)) for a, b in pairs)
    return total / len(labels) + (reg_weight * apart / (len(classes) * K * (K - 1)) if K > 1 else 0.0)


@every_base
@pytest.mark.parametrize("coarse_update", ["centroid", "gradient"])
@pytest.mark.parametrize(
    "reduced", [{"num_levels": 1}, {"weights": [1.0, 0.0]}, {"warmup_iterations": 100}],
    ids=["one level", "w1=0", "warm-up"],
)  # fmt: skip
def test_reduces_to_its_base_bit_for_bit(batch, base, reduced, coarse_update):
    embeddings, labels, _ = batch
    embeddings = embeddings.float().requires_grad_()
    module = make(base, coarse_update=coarse_update, **reduced)
    function, settings, _, _ = BASES[base]
    proxies = module.proxies.detach().clone().requires_grad_()
    optimizers = [torch.optim.AdamW(p, lr=0.1, weight_decay=0.1) for p in (module.parameters(), [proxies])]
    for _ in range(4):
        losses = module(embeddings, labels), function(embeddings, labels, proxies, **settings)
        gradients = []
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            embeddings.grad = None
            loss.backward()
            optimizer.step()
            gradients.append(embeddings.grad)
        module.after_step()
        assert torch.equal(*losses)
        assert torch.equal(*gradients)
    assert torch.equal(module.proxies, proxies)


@every_base
def test_one_level_is_the_module_of_the_base_alone(batch, base):
    embeddings, labels, _ = batch
    function, settings, centres_per_class, proxy_init = BASES[base]
    alone = ProxyLoss(7, 5, base=partial(function, **settings), proxy_init=proxy_init, seed=4,
                      centres_per_class=centres_per_class)  # fmt: skip
    module = make(base, num_levels=1)
    assert torch.equal(module.proxies, alone.proxies)
    assert torch.equal(module(embeddings.float(), labels), alone(embeddings.float(), labels))


@pytest.mark.parametrize("groups", [{"num_levels": 3}, {"class_to_super": [4, 2, 2, 4, 9, 9, 4]}], ids=["3", "given"])
@every_base
def test_levels_that_it_built_agree_with_loops(batch, base, groups, nca_by_loops, anchor_by_loops):
    embeddings, labels, _ = batch
    oracle = {"nca": nca_by_loops, "eq3": partial(nca_by_loops, denominator="others"), "pa": anchor_by_loops,
              "cosface": cosface_by_loops, "soft_triple": soft_triple_by_loops,
              "potential_field": potential_field_by_loops, "circle_class": circle_class_by_loops,
              "center_contrastive": center_contrastive_by_loops}[base]  # fmt: skip
    module = make(base, update_every=3, **groups).double()
    for _ in range(2):  # k = 2 ends with an update
        module(embeddings, labels)
        module.after_step()
    assert module.diagnostics()["coarse_updates"] == 1
    expected = oracle(embeddings, labels, module.proxies, **BASES[base][1])
    of_class = list(range(7))
    for level, weight in enumerate([0.1, 0.7][: module.num_levels - 1], start=1):
        above = module.owners(level - 1).tolist()
        of_class = [above[c] for c in of_class]
        coarse_labels = torch.tensor([of_class[y] for y in labels.tolist()])
        expected += weight * oracle(embeddings, coarse_labels, module.centres(level), **BASES[base][1])
    assert module(embeddings, labels).item() == pytest.approx(expected, rel=1e-12)
    if "class_to_super" in groups:
        assert of_class == [1, 0, 0, 1, 2, 2, 1]  # 2, 4, 9 become 0, 1, 2


def test_several_centres_are_grouped_by_their_mean(batch):
    embeddings, labels, _ = batch
    module = make("soft_triple", class_to_super=[0, 0, 1, 1, 1, 2, 2])
    module(embeddings.float(), labels)
    classes = []
    for rows in module.proxies.tolist():
        unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]
        classes.append([sum(column) / 3 for column in zip(*unit, strict=True)])
    members = [classes[:2], classes[2:5], classes[5:]]
    means = [[sum(column) / len(m) for column in zip(*m, strict=True)] for m in members]
    torch.testing.assert_close(module.centres(1), torch.tensor(means))
    assert [tuple(vectors.shape) for vectors in module.level_proxies()] == [(7, 3, 5), (3, 5)]


@pytest.mark.parametrize("num_levels", [2, 3])
def test_tied_groups_reach_every_centre_of_a_class(batch, num_levels):
    embeddings, labels, _ = batch
    module = make("soft_triple", num_levels, coarse_update="tied").double()
    module(embeddings, labels)  # creates the groups

    def loss(vectors):
        return torch.func.functional_call(module, {"proxies": vectors}, (embeddings, labels))

    proxies = module.proxies.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, proxies, atol=1e-6)
    coarse = loss(proxies) - soft_triple(embeddings, labels, proxies, **TRIPLE)
    assert (torch.autograd.grad(coarse, proxies)[0].norm(dim=2) > 1e-6).all()


def test_a_base_of_one_proxy_per_class_refuses_several():
    with pytest.raises(ValueError, match=r"Level 0 of HPL, 7 proxies in \(7, 2, 5\), .* tried its base once"):
        make("cosface", centres_per_class=2)
