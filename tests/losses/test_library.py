"""Every loss that pytorch-metric-learning has too, compared with it in value and gradients.

All arguments that set the loss are given to the library, and none has its default, so both versions 2 and 3 must agree.
The cross-batch memory is in `test_xbm.py`.
"""

import ast
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning import losses, miners, regularizers

import benchmark
from benchmark.losses.arcface import arcface
from benchmark.losses.contrastive import Contrastive
from benchmark.losses.cosface import cosface
from benchmark.losses.fastap import FastAP
from benchmark.losses.margin import Margin
from benchmark.losses.multi_similarity import MultiSimilarity
from benchmark.losses.normalized_softmax import normalized_softmax
from benchmark.losses.ntxent import NTXent
from benchmark.losses.proxy_anchor import proxy_anchor
from benchmark.losses.proxy_nca import proxy_nca
from benchmark.losses.snr import SNRContrastive
from benchmark.losses.soft_triple import soft_triple
from benchmark.losses.triplet import Triplet
from tests.losses.every_loss import CLASSES, FOLDER
from tests.losses.library import angle, euclidean, of_vectors

BATCHES = {
    "four of each class": [0, 1, 2, 3, 4, 5] * 4,
    "imbalanced": [0] * 9 + [1] * 4 + [2] * 2 + [3, 4, 7],
    "no positive": list(range(8)),
    "no negative": [5] * 8,
    "one pair": [1, 1],
    "two classes": [0, 6],
    "one sample": [2],
}


def contrastive(**margins):
    return Contrastive(**margins), losses.ContrastiveLoss(**margins, distance=euclidean())


def triplet(margin):
    loss = losses.TripletMarginLoss(
        margin=margin, swap=False, smooth_loss=False, triplets_per_anchor="all", distance=euclidean()
    )
    return Triplet(margin=margin), loss


def semihard(margin):
    miner = miners.TripletMarginMiner(margin=margin, type_of_triplets="semihard", distance=euclidean())
    _, loss = triplet(margin)
    return Triplet(margin=margin, triplets="semihard"), lambda e, y: loss(e, y, miner(e, y))


def margin(beta, **settings):
    ours = Margin(beta=1.0, **settings).double()
    theirs = losses.MarginLoss(beta=1.0, **settings, triplets_per_anchor="all", distance=euclidean()).double()
    for module in (ours, theirs):
        values = beta * torch.linspace(0.8, 1.2, len(module.beta), dtype=torch.float64)
        if settings["learn_beta"]:
            module.beta.data.copy_(values)
        else:
            module.beta = values  # a plain tensor in version 2, which `double` does not convert
    return ours, theirs


def fastap(num_bins):
    return FastAP(num_bins=num_bins), losses.FastAPLoss(num_bins=num_bins, distance=euclidean(power=2))


def ntxent(temperature):
    return NTXent(temperature=temperature), losses.NTXentLoss(temperature=temperature)


def snr(regularizer_weight, **margins):
    ours = SNRContrastive(**margins, regularizer_weight=regularizer_weight, reg_on="raw")
    mean = {"embedding_regularizer": regularizers.ZeroMeanRegularizer(), "embedding_reg_weight": regularizer_weight}
    return ours, losses.SignalToNoiseRatioContrastiveLoss(**margins, **mean)


def ms(**settings):
    return MultiSimilarity(**settings, miner_epsilon=None), losses.MultiSimilarityLoss(**settings)


def ms_miner(epsilon, **settings):
    loss, miner = losses.MultiSimilarityLoss(**settings), miners.MultiSimilarityMiner(epsilon=epsilon)
    return MultiSimilarity(**settings, miner_epsilon=epsilon), lambda e, y: loss(e, y, miner(e, y))


SETTINGS = [
    *((contrastive, {"pos_margin": p, "neg_margin": n}) for p, n in [(0.1, 1.1), (-0.2, 0.4), (0.4, 1.3), (2.0, 2.0)]),
    *((kind, {"margin": m}) for kind in (triplet, semihard) for m in (0.1, 0.7, 2.0, -0.2, 0.0)),
    *((margin, {"beta": 1.1, "margin": m, "nu": nu, "learn_beta": True, "num_classes": classes})
      for m in (0.3, -0.2, 2.0, -2.0) for nu in (0.0, 0.3) for classes in (None, CLASSES)),
    (margin, {"beta": 1.1, "margin": 0.3, "nu": 0.3, "learn_beta": False, "num_classes": None}),
    *((fastap, {"num_bins": bins}) for bins in (2, 11, 27)),
    *((ntxent, {"temperature": t}) for t in (0.05, 0.3, 2.0)),
    *((snr, {"pos_margin": p, "neg_margin": n, "regularizer_weight": w})
      for p, n, w in [(0.1, 1.1, 0.3), (0.0, 0.5, 0.0), (1.0, 3.0, 2.0)]),
    *((kind, setting | extra)
      for kind, extra in [(ms, {}), (ms_miner, {"epsilon": 0.2}), (ms_miner, {"epsilon": 0.7})]
      for setting in [{"alpha": 3.0, "beta": 40.0, "base": 0.4}, {"alpha": 0.1, "beta": 90.0, "base": 0.9}]),
]  # fmt: skip


def results(loss, embeddings, labels):
    """The value of a loss, and its gradients by the embeddings and by beta, if it has one."""
    leaf = embeddings.clone().requires_grad_()
    value = loss(leaf, labels)
    leaves = [leaf, *(loss.parameters() if isinstance(loss, torch.nn.Module) else [])]
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True) if value.requires_grad else [None] * len(leaves)
    return [value.sum(), *(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True))]


@pytest.mark.parametrize(("kind", "setting"), SETTINGS, ids=[f"{k.__name__} {[*s.values()]}" for k, s in SETTINGS])
def test_a_loss_of_pairs_agrees_with_the_librarys(kind, setting):
    generator = torch.Generator().manual_seed(1)
    for name, labels in BATCHES.items():
        embeddings = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)
        ours, theirs = (results(loss, embeddings, torch.tensor(labels)) for loss in kind(**setting))
        for found, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


C, K, D = 7, 3, 5
sizes = {"num_classes": C, "embedding_size": D}
PROXY_LOSSES = [
    *((partial(arcface, scale=s, margin=m), losses.ArcFaceLoss(**sizes, scale=s, margin=angle(m)))
      for s, m in [(100.0, 23.2259), (0.01, 90.0), (300.0, 80.0), (220.4, 0.0)]),
    *((partial(cosface, scale=s, margin=m), losses.CosFaceLoss(**sizes, scale=s, margin=m))
      for s, m in [(100.0, 0.6182), (0.01, 1.0), (200.0, 0.0)]),
    *((partial(normalized_softmax, temperature=t), losses.NormalizedSoftmaxLoss(**sizes, temperature=t))
      for t in (0.01, 0.0631, 100.0)),
    *((partial(proxy_anchor, alpha=a, margin=m), losses.ProxyAnchorLoss(**sizes, alpha=a, margin=m))
      for a, m in [(30.0, 0.2), (0.5, 0.9), (100.0, 0.0)]),
    *((partial(proxy_nca, scale=2 * s), losses.ProxyNCALoss(**sizes, softmax_scale=s, distance=euclidean(power=2)))
      for s in (0.3, 4.5, 50.0)),
]  # fmt: skip


def assert_equal_with_vectors(ours, theirs, batch, vectors):
    inputs = batch[0].requires_grad_(), batch[1], vectors.requires_grad_()
    values = [loss(*inputs) for loss in (ours, of_vectors(theirs, vectors))]
    torch.testing.assert_close(*values, rtol=1e-11, atol=1e-13)
    gradients = [torch.autograd.grad(value, [inputs[0], vectors]) for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"), PROXY_LOSSES, ids=[f"{f.func.__name__} {[*f.keywords.values()]}" for f, _ in PROXY_LOSSES]
)
def test_a_loss_of_proxies_agrees_with_the_librarys(ours, theirs, batch):
    assert_equal_with_vectors(ours, theirs, batch, batch[2])


@pytest.mark.parametrize("setting", [(21.0, 0.2, 0.02, 0.1), (78.02, 16.03, 0.5, 1.1), (1.0, 0.05, 0.0, 0.0)])
def test_soft_triple_agrees_with_the_librarys(setting, batch):
    la, gamma, margin, weight = setting
    theirs = losses.SoftTripleLoss(
        **sizes, centers_per_class=K, la=la, gamma=gamma, margin=margin,
        weight_regularizer=regularizers.SparseCentersRegularizer(C, K), weight_reg_weight=weight,
    )  # fmt: skip
    ours = partial(soft_triple, la=la, gamma=gamma, margin=margin, reg_weight=weight, root_epsilon=0.0)
    centres = torch.randn(C * K, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert_equal_with_vectors(lambda e, y, c: ours(e, y, c.reshape(C, K, D)), theirs, batch, centres)


@pytest.mark.slow
def test_only_the_distance_for_a_users_library_losses_and_the_peers_of_make_bench_import_the_library():
    package, found = Path(benchmark.__file__).parent, set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {(str(path.relative_to(package)), name.partition(".")[0]) for name in names}
            assert "benchmark.losses.distances" not in names, path  # which would need it in turn
    assert {path for path, name in found if name == "pytorch_metric_learning"} == {"losses/distances.py", "perf/cpu.py"}


def test_no_file_of_a_loss_names_the_library_or_that_distance():
    files = sorted(FOLDER.rglob("*.yaml"))
    assert len(files) > 30
    for path in files:
        text = path.read_text()
        assert "pytorch_metric_learning" not in text and "losses.distances" not in text, path
