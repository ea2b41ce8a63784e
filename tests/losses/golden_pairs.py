"""Replay of golden files of pair and triplet losses, each with the module of its YAML file."""

from functools import partial

import numpy as np
import torch

from benchmark.losses import multi_similarity
from benchmark.losses.pairs import pairs_of, unit_distances
from benchmark.losses.triplet import contributing
from benchmark.study.instantiate import build
from tests.losses.every_loss import config


def make(golden, name, overrides=None, **setting):
    """Build the module of conf/loss/NAME.yaml with the golden file's settings, in its floating type."""
    node = config(name, **setting)
    needs = {key: golden.hyper[key] for key in node["needs"]}
    return build(node["module"] | (overrides or {}), "loss", **needs).to(golden.dtype)


def replay(golden, module):
    """Compare value and gradient; gradients of parameters are left in the module."""
    embeddings = golden.leaf("embeddings")
    loss = module(embeddings, golden["labels"])
    loss.backward()
    golden.compare("value", loss)
    golden.compare("grad_embeddings", embeddings.grad)


def check_named(golden, monkeypatch, *, name, settings):
    replay(golden, make(golden, name, **{key: golden.hyper[key] for key in settings}))


def check_semihard(golden, monkeypatch):
    margin, labels = golden.hyper["margin"], golden["labels"]
    distance = unit_distances(golden["embeddings"]).double()
    counted = contributing(distance, *pairs_of(labels), margin, "semihard")
    for other, counts in zip(("miner_p", "miner_n"), counted, strict=True):
        expected = torch.zeros_like(counts)
        expected.index_put_((golden["miner_a"], golden[other]), torch.tensor(1), accumulate=True)
        assert torch.equal(counts, expected), golden.meta
    replay(golden, make(golden, "triplet_semihard", margin=margin))


def check_margin(golden, monkeypatch, *, name):
    options = {key: golden.hyper[key] for key in ("learn_beta", "nu")}
    module = make(golden, name, options, margin=golden.hyper["margin"], beta=golden.hyper["beta"])
    beta = golden["beta"].reshape(-1).expand(module.beta.shape)  # a hyper-parameter is one number for all classes
    module.beta.data.copy_(beta)
    replay(golden, module)
    if "grad_beta" in golden.arrays:
        gradient = module.beta.grad
        golden.compare("grad_beta", torch.zeros_like(beta) if gradient is None else gradient)


def check_ntxent(golden, monkeypatch):
    # The library adds float64's tiny to a probability; passing that number makes float32 saturate there too.
    tiny = float(np.finfo(np.float64).tiny)
    saturate = golden.option("saturate", "tiny", **{"tiny": tiny, "1e-20": 1e-20, "none": "none"})
    replay(golden, make(golden, "ntxent", {"saturate": saturate}, temperature=golden.hyper["temperature"]))


def check_snr(golden, monkeypatch):
    setting = {key: golden.hyper[key] for key in ("pos_margin", "neg_margin", "regularizer_weight")}
    reg_on = golden.option("reg_on", "raw", raw="raw", unit="unit")  # raw: as in the library that made the files
    replay(golden, make(golden, "snr", {"reg_on": reg_on}, **setting))


def check_ms_miner(golden, monkeypatch):
    mined = []
    mine = multi_similarity.mine
    monkeypatch.setattr(multi_similarity, "mine", lambda *arguments: mined.append(mine(*arguments)) or mined[-1])
    check_named(golden, monkeypatch, name="ms_miner", settings=("alpha", "beta", "base", "epsilon"))
    monkeypatch.undo()
    for mask, (anchors, others) in zip(mined[0], (("miner_a1", "miner_p"), ("miner_a2", "miner_n")), strict=True):
        expected = set(zip(golden[anchors].tolist(), golden[others].tolist(), strict=True))
        assert {tuple(pair) for pair in mask.nonzero().tolist()} == expected, golden.meta


def check_ms_authors(golden, monkeypatch):
    """Compare with the authors' loss, which does not normalise; the file has the gradient of that loss."""
    assert golden.hyper["input_is_unit_norm"] and golden.hyper["hard_mining"], golden.meta
    monkeypatch.setattr(multi_similarity, "cosine_similarity", lambda a, b: a @ b.T)
    names = {"alpha": "scale_pos", "beta": "scale_neg", "base": "thresh", "epsilon": "epsilon"}
    setting = {ours: golden.hyper[theirs] for ours, theirs in names.items()}
    replay(golden, make(golden, "ms_miner", {"drop_duplicates": True}, **setting))
    monkeypatch.undo()


def check_roadmap(golden, monkeypatch):
    names = ("temperature", "slope", "delta", "alpha", "beta", "calibration_weight")
    setting = {key: golden.hyper[key] for key in names}
    replay(golden, make(golden, "roadmap", {"beyond": golden.hyper["beyond"]}, **setting))


def check_recall_at_k(golden, monkeypatch):
    setting = {key: golden.hyper[key] for key in ("temperature", "cut_temperature")}
    grows = {"temperature_grows": golden.hyper["temperature_grows"]}
    module = build(config("recall_at_k", **setting)["module"] | grows, "loss", seed=0)
    replay(golden, module.to(golden.dtype))


CHECKS = {
    "contrastive": partial(check_named, name="contrastive", settings=("pos_margin", "neg_margin")),
    "triplet": partial(check_named, name="triplet", settings=("margin",)),
    "triplet_semihard": check_semihard,
    "ntxent": check_ntxent,
    "margin": partial(check_margin, name="margin"),
    "margin_class": partial(check_margin, name="margin_class"),
    "fastap": partial(check_named, name="fastap", settings=("num_bins",)),
    "snr": check_snr,
    "ms": partial(check_named, name="ms", settings=("alpha", "beta", "base")),
    "ms_miner": check_ms_miner,
    "ms_miner_authors": check_ms_authors,
    "smooth_ap": partial(check_named, name="smooth_ap", settings=("temperature",)),
    "roadmap": check_roadmap,
    "recall_at_k": check_recall_at_k,
}
