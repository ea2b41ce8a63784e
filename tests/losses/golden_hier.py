"""Replay of golden files of HIER, with the triplets and the noise that the authors' code drew."""

import torch

from benchmark.losses.hier import reciprocal_neighbours, similarity
from benchmark.losses.proxy_anchor import proxy_anchor
from benchmark.protocol.hyperbolic import hyperbolic_distance, to_ball
from tests.losses.hier_triplets import triplet_losses


def check_hier(golden, monkeypatch):
    hyper, labels = golden.hyper, golden["labels"]
    ball = {"curvature": hyper["hyp_c"], "clip_radius": hyper["clip_r"]}
    euclid, lcas, proxies = (golden.leaf(key) for key in ("embeddings_euclid", "lcas", "pa_proxies"))
    points, nodes = to_ball(euclid, **ball), to_ball(lcas, **ball)
    golden.compare("embeddings_ball", points)
    golden.compare("lcas_ball", nodes)
    distances = {
        "sample": hyperbolic_distance(points, nodes, curvature=ball["curvature"]),
        "proxy": hyperbolic_distance(nodes, nodes, curvature=ball["curvature"]),
    }
    apart = hyperbolic_distance(points, points, curvature=ball["curvature"])
    ranks = {"sample": similarity(apart) + (labels[:, None] == labels), "proxy": similarity(distances["proxy"])}
    losses = {}
    for name in distances:
        check_triplets(golden[f"trip_{name}"], ranks[name], hyper)
        noise = torch.stack([golden[f"gumbel_{name}_{which}"] for which in ("ij", "ijk")])
        settings = {"margin": hyper["mrg"], "temperature": hyper["tau"]}
        losses[name] = triplet_losses(distances[name], golden[f"trip_{name}"], noise, **settings).mean()
        golden.compare(f"loss_{name}", losses[name])
    base = proxy_anchor(points, labels, proxies, alpha=hyper["pa_alpha"], margin=hyper["pa_mrg"])
    value = losses["sample"] + losses["proxy"]
    total = hyper["lambda1"] * base + hyper["lambda2"] * value
    compare_gradients(golden, value, {"embeddings_euclid": euclid, "embeddings_ball": points, "lcas": lcas}, "grad_")
    leaves = {"pa_embeddings_euclid": euclid, "pa_embeddings_ball": points, "pa_proxies": proxies}
    compare_gradients(golden, base, leaves, "grad_")
    compare_gradients(golden, total, {"embeddings_euclid": euclid}, "grad_total_")
    for key, number in {"value": value, "loss_pa": base, "total": total}.items():
        golden.compare(key, number)


def compare_gradients(golden, loss, leaves, prefix):
    gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
    for key, gradient in zip(leaves, gradients, strict=True):
        golden.compare(prefix + key, gradient)


def check_triplets(triplets, similarities, hyper):
    """Check that our code could draw these triplets: related positives, unrelated negatives, complete anchors."""
    if hyper["topk"] > len(similarities) - 2:  # capped by our code
        return
    kth, next_one = similarities.detach().topk(hyper["topk"] + 1, dim=1).values[:, -2:].T
    if (kth - next_one).min() < 1e-9:  # exact duplicates: rounding decides which one is a neighbour
        return
    related = reciprocal_neighbours(similarities.detach(), hyper["topk"])
    anchors, positives, negatives = triplets
    assert related[anchors, positives].all()
    assert not related[anchors, negatives].any()
    expected = (related.sum(dim=1) >= 2).nonzero()[:, 0].repeat_interleave(hyper["triplets_per_anchor"])
    assert anchors.tolist() == expected.tolist()


CHECKS = {"hier": check_hier}
