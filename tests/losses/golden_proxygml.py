"""Replay of golden files of ProxyGML."""

import numpy as np
import pytest


def check_proxygml(golden, monkeypatch):
    """Compare with the gradient for unit rows; ours includes normalisation, which removes the part along the row."""
    from benchmark.losses.proxygml import proxygml

    rows, gradient = golden.arrays["embeddings"], golden.arrays["grad_embeddings"]
    assert np.square(rows).sum(axis=1) == pytest.approx(1)
    golden.arrays["grad_embeddings"] = gradient - (gradient * rows).sum(axis=1, keepdims=True) * rows
    hyper = golden.hyper
    C, N = hyper["num_classes"], hyper["N"]
    for replicate_k in (True, False) if hyper["topk"] > N else (True,):
        embeddings, columns = golden.leaf("embeddings"), golden.leaf("Proxies")  # class c owns c N .. c N + N - 1
        arguments = embeddings, golden["labels"], columns.T.reshape(C, N, -1)
        options = {"r": hyper["r"], "replicate_k": replicate_k}
        loss = proxygml(*arguments, reg_weight=hyper["weight_lambda"], **options)
        loss.backward()
        golden.compare("value", loss)
        golden.compare("grad_embeddings", embeddings.grad)
        golden.compare("grad_Proxies", columns.grad)
        golden.compare("loss_classify", proxygml(*arguments, **options))


CHECKS = {"proxygml": check_proxygml}
