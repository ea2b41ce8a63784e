"""Retrieval metrics, compared with plain loops over sorted lists and pytorch-metric-learning's calculator."""

import functools

import numpy as np
import pytest
import torch

from benchmark.protocol import nearest as nearest_module
from benchmark.protocol import retrieval
from benchmark.protocol.retrieval import retrieval_metrics
from tests.cases import slow_except
from tests.losses.library import of_version_2

RECALL_AT = (1, 2, 4, 1000)


def loop_scores(queries, references, metric):
    """Compute scores in float64; larger is nearer."""
    q, r = np.asarray(queries, dtype=np.float64), np.asarray(references, dtype=np.float64)
    if metric == "cosine":
        q = q / np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-30)
        r = r / np.maximum(np.linalg.norm(r, axis=1, keepdims=True), 1e-30)
        return [[float(a @ b) for b in r] for a in q]
    return [[-float(((a - b) ** 2).sum()) for b in r] for a in q]


def loop_metrics(scores, query_labels, labels, itself, recall_at=RECALL_AT):
    """Apply the four formulas, one query at a time; among equal scores, the lower index ranks first."""
    sums, lone = dict.fromkeys(["precision_at_1", "r_precision", "map_at_r", *recall_at], 0.0), 0
    for q, row in enumerate(scores):
        others = [g for g in range(len(row)) if not (itself and g == q)]
        ranked = [labels[g] == query_labels[q] for g in sorted(others, key=lambda g: (-row[g], g))]
        r = sum(ranked)
        if r == 0:
            lone += 1
            continue
        sums["precision_at_1"] += ranked[0]
        sums["r_precision"] += sum(ranked[:r]) / r
        sums["map_at_r"] += sum(ranked[i] * sum(ranked[: i + 1]) / (i + 1) for i in range(r)) / r
        for k in recall_at:
            sums[k] += any(ranked[:k])
    scored = len(scores) - lone
    means = {name if isinstance(name, str) else f"recall_at_{name}": total / scored for name, total in sums.items()}
    return means | {"num_queries": len(scores), "num_lone_queries": lone}


def pml_metrics(queries, query_labels, gallery=None, gallery_labels=None):
    """Compute P@1, RP and MAP@R by pytorch-metric-learning with faiss, without normalising vectors."""
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    make = of_version_2("utils.accuracy_calculator").AccuracyCalculator
    calculator = make(include=names, k="max_bin_count", device=torch.device("cpu"))
    found = calculator.get_accuracy(queries, query_labels, gallery, gallery_labels)
    return [found[name] for name in names]


def ours(*args, **kwargs):
    found = retrieval_metrics(*args, **kwargs)
    return [found["precision_at_1"], found["r_precision"], found["map_at_r"]]


def clusters(num_classes, low, high, dimensions, seed, spread=1.0):
    """Return shuffled clusters of low..high vectors per class, with class ids that are neither dense nor ascending."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.permutation(num_classes) * 7 - 3, rng.integers(low, high + 1, num_classes))
    rng.shuffle(labels)
    centres = rng.standard_normal((num_classes * 7, dimensions))
    vectors = spread * centres[labels] + rng.standard_normal((len(labels), dimensions))
    return torch.from_numpy(vectors).float(), torch.from_numpy(labels)


def signs(num, seed):
    """Return vectors of +-1 in 16 dimensions: norm 4, so all cosines are exact multiples of 1/8, and most are tied."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.choice([-1.0, 1.0], (num, 16))).float(), torch.from_numpy(rng.integers(0, 9, num))


@pytest.fixture(params=["numpy", "portable"])
def path(request, monkeypatch):
    """Both code paths: that of a CPU, and that of any other device."""
    if request.param == "portable":
        monkeypatch.setattr(nearest_module, "_numpy_is_faster", lambda tensor: False)


@functools.cache
def clusters_and_metrics(metric, num_classes, low, high):
    """Clusters and what the loop finds in them; not to be changed."""
    x, y = clusters(num_classes, low, high, 8, seed=num_classes, spread=0.5)
    return x, y, loop_metrics(loop_scores(x, x, metric), y.tolist(), y.tolist(), itself=True)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("block", slow_except([1, 256], [1, 7, 256]))
@pytest.mark.parametrize(("num_classes", "low", "high"), [(12, 1, 9), (3, 40, 60), (60, 1, 3)])
def test_metrics_equal_those_of_the_loop(path, metric, block, num_classes, low, high):
    x, y, expected = clusters_and_metrics(metric, num_classes, low, high)
    found = retrieval_metrics(x, y, metric=metric, recall_at=RECALL_AT, block=block)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_query_gallery_metrics_equal_those_of_the_loop(path, metric):
    q, yq = clusters(12, 1, 6, 8, seed=1, spread=0.5)
    g, yg = clusters(10, 2, 9, 8, seed=2, spread=0.5)  # other classes too, so that some queries are lone
    expected = loop_metrics(loop_scores(q, g, metric), yq.tolist(), yg.tolist(), itself=False)
    assert 0 < expected["num_lone_queries"] < len(q)
    found = retrieval_metrics(q, yq, g, yg, metric=metric, recall_at=RECALL_AT, block=16)
    assert found == pytest.approx(expected, abs=1e-12)


@functools.cache
def signs_and_metrics(num, seed):
    """Vectors of +-1, and what the loop finds among them and in their first half; not to be changed."""
    x, y = signs(num, seed)
    of_half = loop_metrics(loop_scores(x, x[: num // 2], "cosine"), y.tolist(), y[: num // 2].tolist(), itself=False)
    return x, y, loop_metrics(loop_scores(x, x, "cosine"), y.tolist(), y.tolist(), itself=True), of_half


@pytest.mark.parametrize("seed", slow_except([0], range(3)))
@pytest.mark.parametrize("num", [40, 400])
def test_among_equal_scores_the_lower_index_ranks_first(path, num, seed):
    x, y, expected, of_half = signs_and_metrics(num, seed)
    assert retrieval_metrics(x, y, recall_at=RECALL_AT, block=64) == pytest.approx(expected, abs=1e-12)
    found = retrieval_metrics(x, y, x[: num // 2], y[: num // 2], recall_at=RECALL_AT, block=64)
    assert found == pytest.approx(of_half, abs=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("num", slow_except([7, 60], [7, 60, 333, 700]))
def test_copies_of_a_vector_tie_regardless_of_rounding(path, num, metric):
    """A collapsed model: all vectors are equal, or there are two different ones, so only the index decides."""
    rng = np.random.default_rng(num)
    points = torch.from_numpy(rng.standard_normal((2, 33))).float()
    points[:, 5] = 0.0
    labels = torch.from_numpy(rng.integers(0, 1 + num // 6, num))
    for x in (points[:1].repeat(num, 1), points[torch.from_numpy(rng.integers(0, 2, num))]):
        same = [[float(torch.equal(a, b)) for b in points] for a in points]
        x[num // 2 :, 5] = -0.0  # equal to 0.0, but not bit for bit
        kind = [0 if torch.equal(v, points[0]) else 1 for v in x]
        scores = [[same[a][b] for b in kind] for a in kind]
        expected = loop_metrics(scores, labels.tolist(), labels.tolist(), itself=True)
        assert retrieval_metrics(x, labels, metric=metric, recall_at=RECALL_AT) == pytest.approx(expected, abs=1e-12)


def test_minus_zero_is_zero(path):
    x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -0.0], [-0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    y = torch.tensor([0, 1, 0, 1])
    expected = loop_metrics(loop_scores(x, x, "cosine"), y.tolist(), y.tolist(), itself=True)
    assert retrieval_metrics(x, y, recall_at=RECALL_AT) == pytest.approx(expected)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_metrics_equal_those_of_pytorch_metric_learning(path, spread):
    x, y = clusters(30, 5, 60, 32, seed=5, spread=spread)
    unit = torch.nn.functional.normalize(x)
    assert ours(x, y) == pytest.approx(pml_metrics(unit, y), abs=1e-6)
    assert ours(x, y, metric="l2") == pytest.approx(pml_metrics(x, y), abs=1e-6)


def test_query_gallery_metrics_equal_those_of_pytorch_metric_learning():
    q, yq = clusters(40, 3, 9, 32, seed=6, spread=0.4)
    g, yg = clusters(50, 2, 30, 32, seed=7, spread=0.4)
    unit = torch.nn.functional.normalize
    assert ours(q, yq, g, yg) == pytest.approx(pml_metrics(unit(q), yq, unit(g), yg), abs=1e-6)


def test_metrics_with_ties_and_copies_equal_those_of_pytorch_metric_learning():
    x, y = signs(300, seed=8)
    assert ours(x, y) == pytest.approx(pml_metrics(x / 4, y), abs=1e-6)


def test_metrics_worked_out_by_hand():
    # On a line, l2. Query 0 (class a, at 0.0) meets a(1.0), b(1.5), b(3.0), a(6.0): R = 2, hits 1 0: RP 1/2, MAP@R 1/2.
    # a(1.0): b(1.5) a(0.0) ..: hits 0 1: RP 1/2, MAP@R (1/2)/2. a(6.0): b(3.0) b(1.5): 0, 0, first hit third.
    # b(1.5): a(1.0): R = 1: 0, 0; then a(0.0) and b(3.0) tie at 1.5, and a(0.0) has the lower index: b comes third.
    # b(3.0): b(1.5): 1, 1.
    x = torch.tensor([[0.0], [1.0], [6.0], [1.5], [3.0]])
    found = retrieval_metrics(x, torch.tensor([0, 0, 0, 1, 1]), metric="l2", recall_at=(1, 2, 3))
    assert found == pytest.approx(
        {
            "precision_at_1": 2 / 5,
            "r_precision": (1 / 2 + 1 / 2 + 0 + 0 + 1) / 5,
            "map_at_r": (1 / 2 + 1 / 4 + 0 + 0 + 1) / 5,
            "recall_at_1": 2 / 5,
            "recall_at_2": 3 / 5,
            "recall_at_3": 5 / 5,
            "num_queries": 5,
            "num_lone_queries": 0,
        }
    )


def test_lone_queries_are_counted_and_excluded_but_remain_references():
    x = torch.tensor([[0.0], [1.0], [0.4], [9.0]])
    found = retrieval_metrics(x, torch.tensor([5, 5, 6, 7]), metric="l2")
    assert (found["num_queries"], found["num_lone_queries"]) == (4, 2)
    assert found["precision_at_1"] == found["map_at_r"] == 0.0  # the lone item at 0.4 is nearer to both
    with pytest.raises(ValueError, match="None of the 3 queries has a relevant reference"):
        retrieval_metrics(x[1:], torch.tensor([5, 6, 7]))


def test_one_class_and_two_items():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert ours(x, torch.zeros(50, dtype=torch.long)) == [1.0, 1.0, 1.0]
    assert ours(x[:2], torch.tensor([3, 3])) == [1.0, 1.0, 1.0]
    assert ours(x, torch.zeros(50, dtype=torch.long), x, torch.zeros(50, dtype=torch.long)) == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="None of the 2 queries"):
        retrieval_metrics(x[:2], torch.tensor([3, 4]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_are_searched_in_float32(dtype):
    x, y = clusters(10, 3, 9, 16, seed=3)
    assert ours(x.to(dtype), y) == ours(x.to(dtype).float(), y)


def test_labels_may_be_of_any_integer_type_and_gradients_are_ignored():
    x, y = clusters(10, 3, 9, 16, seed=3)
    assert ours(x.requires_grad_(), y.int()) == ours(x.detach(), y)


def test_norms_beyond_the_range_of_float32_squares_do_not_affect_the_cosine():
    x, y = clusters(10, 3, 9, 16, seed=3)
    assert ours(x * 2.0**100, y) == ours(x * 2.0**-100, y) == ours(x, y)


def test_a_zero_vector_scores_like_an_orthogonal_one():
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.1]])
    assert retrieval_metrics(x, torch.tensor([0, 0, 1]))["precision_at_1"] == 1.0


@pytest.mark.parametrize("spread", [0.1, 1e-2, 1e-3, 1e-4])
def test_the_cosine_keeps_its_digits_where_all_vectors_point_the_same_way(path, spread):
    x, y = clusters(20, 3, 9, 16, seed=4, spread=0.5)
    x = (spread * x + torch.full((16,), 2.0)).float()
    exact = loop_metrics(loop_scores(x.double(), x.double(), "cosine"), y.tolist(), y.tolist(), itself=True)
    assert retrieval_metrics(x, y, recall_at=RECALL_AT) == pytest.approx(exact, abs=1e-12)
    queries, labels = x[::3], y[::3].clone()
    exact = loop_metrics(loop_scores(queries.double(), x.double(), "cosine"), labels.tolist(), y.tolist(), itself=False)
    found = retrieval_metrics(queries, labels, x, y, recall_at=RECALL_AT)
    assert found == pytest.approx(exact, abs=1e-12)


def test_zero_vectors_and_copies_among_vectors_that_point_the_same_way(path):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((8, 50)) / 10 + rng.random(50)).float()
    x[[1, 5]], x[6] = 0.0, x[3]
    scores = nearest_module.Search(x, None, "cosine", 8).scores(torch.arange(8))
    others = [0, 2, 3, 4, 5, 6, 7]
    assert scores[1, others].tolist() == [0.0] * 7 and scores[5, 1] == 0.0  # ties, in the order of the references
    for row in (0, 2, 4, 7):
        assert scores[row, 3] == scores[row, 6] and scores[row, 1] == scores[row, 5]
        assert all(scores[row, 1] < scores[row, other] for other in {0, 2, 3, 4, 7} - {row})


def test_euclidean_distance_keeps_its_digits_far_from_the_origin():
    x, y = clusters(20, 3, 9, 16, seed=4, spread=0.5)
    x = (x * 256).round() / 256  # so that the shift itself loses nothing
    assert ours(x + 2**12, y, metric="l2") == pytest.approx(ours(x, y, metric="l2"), abs=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("metric", ["cosine", "l2", "hyperbolic"])
def test_vectors_that_are_not_finite_are_refused(bad, metric):
    options = {"metric": metric} | ({"curvature": 0.1} if metric == "hyperbolic" else {})
    x, y = torch.zeros(4, 3, dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    x[2, 1] = bad
    with pytest.raises(ValueError, match="1 of 4 vectors in queries are not finite in float32, the first at index 2"):
        retrieval_metrics(x, y, **options)
    with pytest.raises(ValueError, match="vectors in gallery"):
        retrieval_metrics(torch.zeros(4, 3), y, x, y, **options)


X, Y = torch.zeros(4, 3), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((X, Y[:3]), {}, "labels of queries must be 4 integers"),
        ((X, Y.float()), {}, "labels of queries must be 4 integers, not torch.float32"),
        ((X[0], Y), {}, r"queries must be \(N, D\) floating point"),
        ((X[:0], Y[:0]), {}, r"queries must be \(N, D\) floating point"),
        ((X.long(), Y), {}, "floating point, not torch.int64"),
        ((X, Y, X), {}, "belong together"),
        ((X, Y, X[:, :2], Y), {}, "queries have 3 dimensions and the gallery has 2"),
        ((X, Y), {"metric": "dot"}, "metric is 'dot'"),
        ((X, Y), {"block": 0}, "block is 0"),
        ((X, Y), {"metric": "hyperbolic"}, "needs the curvature"),
        ((X, Y), {"metric": "hyperbolic", "curvature": 0.1, "parts": 2}, "parts is 2; vectors of 3 dimensions"),
        ((X, Y), {"metric": "hyperbolic", "curvature": 0.1, "parts": 0}, "parts is 0"),
        ((X, Y), {"metric": "l2", "parts": 3}, "curvature=None and parts=3 belong to 'hyperbolic'"),
        ((X, Y), {"curvature": 0.1}, "curvature=0.1 and parts=1 belong to 'hyperbolic'"),
        ((X, Y), {"recall_at": (1, 0)}, r"recall_at \(1, 0\)"),
        ((X + torch.arange(4)[:, None] * 1e20, Y), {"metric": "l2"}, "overflow float32"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(*args, **kwargs)


def test_no_query_is_searched_four_times_as_deep_as_necessary(monkeypatch):
    blocks = []

    def spied(search, rows, scores=retrieval.Search.scores):
        blocks.append(rows)
        return scores(search, rows)

    monkeypatch.setattr(retrieval.Search, "scores", spied)
    relevant = torch.tensor([1, 2, 3, 4, 15, 16, 200])  # of each query
    labels = torch.arange(7).repeat_interleave(relevant + 1)
    num = relevant[labels]
    retrieval_metrics(torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0)), labels, block=150)
    assert sorted(torch.cat(blocks).tolist()) == list(range(len(labels)))
    assert [(num[rows].min().item(), num[rows].max().item(), len(rows)) for rows in blocks] == [
        (1, 3, 9), (4, 15, 21), (16, 16, 17), (200, 200, 101), (200, 200, 100),
    ]  # fmt: skip


@pytest.mark.parametrize(("num", "largest"), [(900, 450), (700, 700)])
def test_a_block_has_at_most_768_rows_by_default(monkeypatch, num, largest):
    sizes = []

    def spied(search, rows, scores=retrieval.Search.scores):
        sizes.append(len(rows))
        return scores(search, rows)

    monkeypatch.setattr(retrieval.Search, "scores", spied)
    retrieval_metrics(torch.randn(num, 2, generator=torch.Generator().manual_seed(0)), torch.arange(num) % 100)
    assert max(sizes) == largest and sum(sizes) == num


def test_metrics_are_plain_numbers_for_json():
    x, y = clusters(5, 3, 9, 4, seed=3)
    found = retrieval_metrics(x, y, recall_at=(1,))
    assert {type(found[name]) for name in found} == {float, int}
    assert type(found["num_queries"]) is int


def test_inputs_and_the_precision_setting_are_unchanged(path):
    x, y = clusters(10, 3, 9, 16, seed=3)
    before, precision = x.clone(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        retrieval_metrics(x, y, metric="l2")
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(x, before)


def test_products_are_ieee_float32_though_training_allows_tf32(monkeypatch):
    x, y = clusters(10, 3, 9, 16, seed=3)
    monkeypatch.setattr(nearest_module, "_numpy_is_faster", lambda tensor: False)
    seen, mm, precision = [], torch.mm, torch.get_float32_matmul_precision()

    def watched(*args, **kwargs):
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return mm(*args, **kwargs)

    monkeypatch.setattr(torch, "mm", watched)
    torch.set_float32_matmul_precision("high")
    try:
        retrieval_metrics(x, y)
    finally:
        torch.set_float32_matmul_precision(precision)
    assert set(seen) == {"ieee"}


@pytest.mark.gpu
def test_a_gpu_gives_the_metrics_of_the_cpu_though_training_allows_tf32():
    x, y = clusters(100, 5, 60, 128, seed=9, spread=0.3)
    expected = retrieval_metrics(x, y, recall_at=RECALL_AT)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert retrieval_metrics(x.cuda(), y.cuda(), recall_at=RECALL_AT) == pytest.approx(expected, abs=2e-6)
        assert retrieval_metrics(x.cuda(), y, x, y) == pytest.approx(retrieval_metrics(x, y, x, y), abs=2e-6)
    finally:
        torch.set_float32_matmul_precision(precision)
