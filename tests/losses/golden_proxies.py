"""Replay of golden files of losses with one or several learnable vectors per class."""

from functools import partial

import torch

from benchmark.losses.arcface import arcface
from benchmark.losses.cosface import cosface
from benchmark.losses.normalized_softmax import normalized_softmax
from benchmark.losses.proxies import ProxyLoss
from benchmark.losses.proxy_anchor import proxy_anchor
from benchmark.losses.proxy_nca import ProxyNCA
from benchmark.losses.soft_triple import soft_triple
from tests.losses.library import of_vectors


def check_proxies(golden, monkeypatch, losses):
    """Compare several implementations on the proxies of a file."""
    for make in losses:
        embeddings, proxies = golden.leaf("embeddings"), golden.leaf("proxies")
        loss = make(golden)(embeddings, golden["labels"], proxies)
        gradients = torch.autograd.grad(loss, [embeddings, proxies])
        golden.compare("value", loss)
        golden.compare("grad_embeddings", gradients[0])
        golden.compare("grad_proxies", gradients[1])


def nca_module(golden, denominator):
    hyper = golden.hyper
    scale = hyper.get("softmax_scale") or hyper["equivalent_cosine_scale"] / 2
    if "temperature" in hyper:  # Proxy-NCA++, whose file states the scale in three ways
        assert abs(hyper["scale"] ** 2 - scale) + abs(1 / hyper["temperature"] - scale) < 1e-9
    golden.option("reduction", "mean", mean="mean")
    module = ProxyNCA(*golden["proxies"].shape, softmax_scale=scale, seed=0, denominator=denominator)
    return lambda e, y, p: torch.func.functional_call(module, {"proxies": p}, (e, y))


def library_anchor(golden):
    from pytorch_metric_learning.losses import ProxyAnchorLoss

    proxies = golden["proxies"]
    module = ProxyAnchorLoss(*proxies.shape, margin=golden.hyper["mrg"], alpha=golden.hyper["alpha"])
    return of_vectors(module, proxies)


def our_anchor(golden):
    return partial(proxy_anchor, alpha=golden.hyper["alpha"], margin=golden.hyper["mrg"])


def check_columns(golden, monkeypatch, loss, names):
    """Compare a loss whose file has one column (D,) per class with `ProxyLoss`, whose proxies are rows."""
    embeddings, columns = golden.leaf("embeddings"), golden.leaf("W")
    base = partial(loss, **{name: golden.hyper[name] for name in names})
    module = ProxyLoss(*columns.T.shape, base=base, proxy_init="normal", seed=0)
    value = torch.func.functional_call(module, {"proxies": columns.T}, (embeddings, golden["labels"]))
    gradients = torch.autograd.grad(value, [embeddings, columns])
    golden.compare("value", value)
    golden.compare("grad_embeddings", gradients[0])
    golden.compare("grad_W", gradients[1])


def check_soft_triple(golden, monkeypatch, weight, centres, **settings):
    """Compare on columns c K + k of (D, C K); sources differ in the names of K and of the regulariser's weight."""
    hyper = golden.hyper
    C, K = hyper["num_classes"], hyper[centres]
    embeddings, columns = golden.leaf("embeddings"), golden.leaf("fc")
    settings |= {name: hyper[name] for name in ("la", "gamma", "margin")} | {"reg_weight": hyper[weight]}
    value = soft_triple(embeddings, golden["labels"], columns.T.reshape(C, K, -1), **settings)
    gradients = torch.autograd.grad(value, [embeddings, columns])
    if hyper.get("input_is_unit_norm"):
        # The authors' loss does not normalise unit rows, so its gradient has a part along the row. Normalisation
        # inside the loss removes that part and leaves the rest of a unit row's gradient unchanged.
        rows, theirs = golden.arrays["embeddings"], golden.arrays["grad_embeddings"]
        golden.arrays["grad_embeddings"] = theirs - (theirs * rows).sum(1, keepdims=True) * rows
    golden.compare("value", value)
    golden.compare("grad_embeddings", gradients[0])
    golden.compare("grad_fc", gradients[1])


CHECKS = {
    "proxy_nca_pml": partial(check_proxies, losses=[partial(nca_module, denominator="all")]),
    "proxy_nca_paper": partial(check_proxies, losses=[partial(nca_module, denominator="others")]),
    "proxy_nca_pp": partial(check_proxies, losses=[partial(nca_module, denominator="all")]),
    "proxy_anchor": partial(check_proxies, losses=[our_anchor, library_anchor]),
    "normalized_softmax": partial(check_columns, loss=normalized_softmax, names=["temperature"]),
    "cosface": partial(check_columns, loss=cosface, names=["scale", "margin"]),
    "arcface": partial(check_columns, loss=arcface, names=["scale", "margin"]),
    "soft_triple": partial(check_soft_triple, weight="tau", centres="K"),
    "soft_triple_pml": partial(check_soft_triple, weight="reg_weight", centres="centers_per_class", root_epsilon=0.0),
}
