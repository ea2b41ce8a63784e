"""Replay of golden files of HIST: the distribution loss alone, and the whole loss."""

import torch

from benchmark.losses.hist import HIST, incidence, propagation, squared_distances


def hist_module(golden, **options):
    """Build HIST with the file's distributions; `options` are the settings that the file does not state."""
    clamp = golden.option("logvar_clamp", [0, 6], **{"[0": (0.0, 6.0), "(0": (0.0, 6.0), "none": None})
    settings = {"tau": golden.hyper["tau"], "alpha": golden.hyper["alpha"], "logvar_clamp": clamp}
    module = HIST(*golden["means"].shape, **settings, **options, seed=0).to(golden.dtype)
    state = {key: golden[key] for key in golden.arrays if key in dict(module.named_parameters())}
    module.load_state_dict(module.state_dict() | state)
    return module


def hist_graph(golden, module):
    """Return the hypergraph H (B, C) of the file's batch."""
    distance = squared_distances(golden["embeddings"], module.means, module.log_vars, module.logvar_clamp)
    return incidence(distance, golden["labels"], module.alpha)


def compare_hist(golden, module):
    embeddings, labels = golden.leaf("embeddings"), golden["labels"]
    loss = module(embeddings, labels)
    loss.backward()
    golden.compare("value", loss)
    golden.compare("grad_embeddings", embeddings.grad)
    for name, parameter in module.named_parameters():
        if f"grad_{name}" in golden.arrays:
            golden.compare(f"grad_{name}", parameter.grad)
    graph, present = hist_graph(golden, module), labels.unique()
    golden.compare("H", graph[:, present])
    absent = torch.ones(graph.shape[1]).index_fill(0, present, 0).bool()
    assert not graph[:, absent].any()


def check_hist_dist(golden, monkeypatch):
    compare_hist(golden, hist_module(golden, hidden=3, semantic_weight=0.0))


def check_hist_full(golden, monkeypatch):
    golden.option("leaky_slope", 0.1, **{"0.1": None})
    golden.option("bn_eps", 1e-5, **{"1e-05": None})
    golden.option("bn_mode", "train", train=None)
    module = hist_module(golden, hidden=golden.hyper["hidden"], semantic_weight=golden.hyper["lambda_s"])
    compare_hist(golden, module)
    parts = module.diagnostics()
    golden.compare("loss_dist", parts["loss_distribution"])
    golden.compare("loss_ce", parts["loss_semantic"])
    graph = propagation(hist_graph(golden, module))
    golden.compare("G", graph)
    golden.compare("logits", module.hgnn(golden["embeddings"], graph))


CHECKS = {"hist_dist": check_hist_dist, "hist_full": check_hist_full}
