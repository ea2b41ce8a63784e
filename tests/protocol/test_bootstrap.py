"""The bootstrap over classes, compared with a literal loop, and its coverage over simulated test classes."""

import math
import random

import numpy as np
import pytest
import torch

from benchmark.protocol.bootstrap import over_classes, ranks_over_classes
from benchmark.protocol.retrieval import query_scores, retrieval_metrics
from tests.protocol.test_retrieval import loop_metrics, loop_scores


def literal_means(scores: list[float], labels: list[int], resamples: int, seed: int) -> list[float]:
    """Draw whole classes, list the scores of all their queries, and average the list."""
    counted = [(s, label) for s, label in zip(scores, labels, strict=True) if not math.isnan(s)]
    classes = sorted({label for _, label in counted})
    draws, means = random.Random(seed), []
    for _ in range(resamples):
        listed = [s for drawn in draws.choices(classes, k=len(classes)) for s, label in counted if label == drawn]
        means.append(sum(listed) / len(listed))
    return means


def test_the_interval_is_that_of_a_literal_loop() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 12, 150) * 7  # classes of different sizes
    scores = (labels % 5) / 5 + rng.normal(0, 0.1, 150)
    scores[::10] = np.nan
    found = over_classes(scores, labels, resamples=4000, seed=3, confidence=0.9)
    means = np.array(literal_means(scores.tolist(), labels.tolist(), 4000, seed=4))
    assert found.mean == pytest.approx(np.nanmean(scores), abs=1e-12)
    assert found.error == pytest.approx(means.std(ddof=1), rel=0.05)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=0.01)
    assert found.num_classes == 12


def test_the_interval_covers_the_mean_over_all_classes_that_could_have_been_tested() -> None:
    rng = np.random.default_rng(0)
    true_mean, num_classes, covered, covered_by_queries = 0.4, 60, 0, 0
    for trial in range(400):
        sizes = rng.integers(5, 16, num_classes)
        labels = np.repeat(np.arange(num_classes), sizes)
        scores = true_mean + rng.normal(0, 0.15, num_classes)[labels] + rng.normal(0, 0.2, len(labels))
        found = over_classes(scores, labels, resamples=300, seed=trial)
        covered += found.low <= true_mean <= found.high
        half = 1.96 * scores.std(ddof=1) / math.sqrt(len(scores))
        covered_by_queries += abs(scores.mean() - true_mean) <= half
    # 400 trials at 95 %: standard deviation 1.1 %. Percentile intervals of 60 classes are a little short.
    assert 0.91 <= covered / 400 <= 0.98
    assert covered_by_queries / 400 < 0.8  # drawing queries, which are not independent, would not do


@pytest.mark.parametrize(
    ("scores", "labels", "options", "phrase"),
    [
        ([0.1, 0.2], [1], {}, "must be"),
        ([0.1, 0.2], [1, 1], {}, "needs 2"),
        ([0.1, math.nan], [1, 2], {}, "needs 2"),
        ([0.1, 0.2], [1, 2], {"resamples": 1}, "at least 2"),
        ([0.1, 0.2], [1, 2], {"confidence": 1.0}, "between"),
    ],
)
def test_what_cannot_be_resampled_is_refused(scores, labels, options, phrase) -> None:
    with pytest.raises(ValueError, match=phrase):
        over_classes(np.array(scores), np.array(labels), **{"resamples": 10} | options)


@pytest.mark.parametrize("with_gallery", [False, True])
def test_scores_of_queries_are_those_of_a_loop_over_each_query_alone(with_gallery: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    points, labels = torch.randn(40, 5, generator=rng), torch.randint(0, 9, (40,), generator=rng)
    gallery = (torch.randn(30, 5, generator=rng), torch.randint(0, 9, (30,), generator=rng)) if with_gallery else ()
    found = query_scores(points, labels, *gallery, recall_at=(2,))
    references, reference_labels = gallery or (points, labels)
    table = loop_scores(points, references, "cosine")
    for q in range(len(points)):
        kept = [g for g in range(len(references)) if with_gallery or g != q]
        own = [reference_labels[g].item() for g in kept]
        if labels[q].item() not in own:
            assert all(math.isnan(scores[q]) for scores in found.values())
            continue
        expected = loop_metrics([[table[q][g] for g in kept]], [labels[q].item()], own, itself=False, recall_at=(2,))
        for name, scores in found.items():
            assert scores[q].item() == pytest.approx(expected[name], abs=1e-12), (q, name)
    metrics = retrieval_metrics(points, labels, *gallery, recall_at=(2,))
    for name, scores in found.items():
        assert np.nanmean(scores.numpy()) == pytest.approx(metrics[name], abs=1e-12)


def test_ranks_over_classes_are_those_of_all_samples_of_two_classes() -> None:
    # Classes of 1 and 3 queries. Drawn twice: only the first (1/4), both (1/2), only the second (1/4).
    labels = np.array([5, 9, 9, 9])
    scores = {
        "a": np.array([1.0, 0.0, 0.0, 0.0]),  # means 1, 1/4, 0
        "b": np.array([0.0, 1.0, 1.0, 0.4]),  # 0, 0.6, 0.8
        "c": np.array([0.5, 0.5, 0.5, 0.5]),  # 1/2 always
    }
    found = ranks_over_classes(scores, labels, resamples=20_000)
    assert [found[name].first for name in "abc"] == pytest.approx([0.25, 0.75, 0.0], abs=0.015)
    assert [found[name].mean for name in "abc"] == pytest.approx(
        [0.25 * 1 + 0.75 * 3, 0.75 * 1 + 0.25 * 3, 2], abs=0.03
    )
    assert ranks_over_classes(scores, labels, resamples=50, seed=1) == ranks_over_classes(
        scores, labels, resamples=50, seed=1
    )


def test_a_query_that_one_method_lacks_counts_for_none_and_shapes_must_fit() -> None:
    labels = np.array([1, 1, 2, 2])
    scores = {"a": np.array([0.0, math.nan, 1.0, 1.0]), "b": np.array([0.1, 9.0, 0.5, 0.5])}
    found = ranks_over_classes(scores, labels, resamples=4000)
    assert found["b"].first == pytest.approx(0.25, abs=0.03), "only where the first class is drawn twice"
    with pytest.raises(ValueError, match=r"scores are \[\(4,\), \(3,\)\]"):
        ranks_over_classes({"a": scores["a"], "b": np.zeros(3)}, labels, resamples=10)
    with pytest.raises(ValueError, match="scores are"):
        ranks_over_classes({}, labels, resamples=10)
