"""Replay of golden files of the cross-batch memory."""

import math

import numpy as np
import pytest


def check_xbm(golden, monkeypatch):
    """Compare with the gradient for unit rows; ours includes normalisation, which removes the part along the row."""
    from benchmark.losses.xbm import XBM

    hyper, rows, gradient = golden.hyper, golden.arrays["embeddings"], golden.arrays["grad_embeddings"]
    assert np.square(rows).sum(axis=-1) == pytest.approx(1)
    golden.arrays["grad_embeddings"] = gradient - (gradient * rows).sum(axis=-1, keepdims=True) * rows
    module = XBM(
        hyper["D"],
        hyper["memory_size"],
        memory_fraction=1,
        neg_margin=math.sqrt(2 - 2 * hyper["margin"]),
        weight=hyper["weight"],
        start_iteration=hyper["start_iteration"],
        pos_epsilon=hyper["pos_eps"],
        replicate_quirks=True,
    )
    for step in replay(golden, module, "ptr_after"):
        report = module.diagnostics()
        golden.compare("batch_loss", report["loss_batch"], step)
        if step >= hyper["start_iteration"]:
            golden.compare("memory_loss", report["loss_memory"], step)
            golden.compare("rows_used", report["memory_rows"], step)


def check_xbm_pml(golden, monkeypatch):
    from benchmark.losses.xbm import XBM

    hyper = golden.hyper
    if golden.option("loss", None, lp="ours", cos="library", ms="library") == "ours":
        options = {key: hyper[key] for key in ("pos_margin", "neg_margin")}
    else:
        options = library_loss(golden)
    module = XBM(hyper["D"], hyper["memory_size"], memory_fraction=1, flavour="pml", **options)
    for step in replay(golden, module, "queue_idx_after"):
        golden.compare("rows_used", module.diagnostics()["memory_rows"], step)


def replay(golden, module, place):
    """Run forward and backward for every step of the stream; compare loss, gradient and queue with the file."""
    module = module.to(golden.dtype)
    for step in range(golden.hyper["steps"]):
        embeddings = golden["embeddings"][step].requires_grad_()
        loss = module(embeddings, golden["labels"][step])
        loss.backward()
        golden.compare("value", loss, step)
        golden.compare("grad_embeddings", embeddings.grad, step)
        golden.compare("memory_feats_after", module.memory, step)
        golden.compare("memory_labels_after", module.memory_labels, step)
        next_row = module.counters[1] if module.replicate_quirks else module.counters[1] % len(module.memory)
        golden.compare(place, next_row, step)
        yield step


def library_loss(golden):
    from pytorch_metric_learning import distances, losses, miners

    hyper = golden.hyper
    if golden.option("loss", None, cos="cos", ms="ms") == "cos":
        margins = {key: hyper[key] for key in ("pos_margin", "neg_margin")}
        return {"loss": losses.ContrastiveLoss(**margins, distance=distances.CosineSimilarity())}
    miner = None if hyper["epsilon"] is None else miners.MultiSimilarityMiner(epsilon=hyper["epsilon"])
    loss = losses.MultiSimilarityLoss(alpha=hyper["alpha"], beta=hyper["beta"], base=hyper["base"])
    return {"loss": loss, "miner": miner}


CHECKS = {"xbm": check_xbm, "xbm_pml": check_xbm_pml}
