"""Separated and concatenated, compared with rankings by plain loops."""

import math

import numpy as np
import pytest
import torch

from benchmark.protocol.modes import score, side_by_side

LABELS = [0, 0, 1, 1, 1, 2, 2, 2]


def folds(seed=0, num=3, dim=2):
    """Return vectors (3, 8, 2) within the unit ball."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, len(LABELS), dim, generator=generator) * 1.2 - 0.6


def r_precision_by_loops(distance):
    total = 0.0
    for i, own in enumerate(LABELS):
        others = sorted((j for j in range(len(LABELS)) if j != i), key=lambda j: distance(i, j))
        num = LABELS.count(own) - 1
        total += sum(LABELS[j] == own for j in others[:num]) / num
    return total / len(LABELS)


def hyperbolic(x, y):
    """Return the distance in the unit ball by the arcosh formula."""
    gap = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    room = (1 - sum(a * a for a in x)) * (1 - sum(b * b for b in y))
    return math.acosh(1 + 2 * gap / room)


def cosine_distance(x, y):
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    return 1 - dot / math.hypot(*x) / math.hypot(*y)


@pytest.mark.parametrize("seed", range(4))
def test_hyperbolic_folds_are_concatenated_by_summing_their_distances(seed):
    points = folds(seed)
    one = [lambda i, j, fold=fold: hyperbolic(fold[i].tolist(), fold[j].tolist()) for fold in points]
    found = score(points, torch.tensor(LABELS), ["r_precision"], metric="hyperbolic", curvature=1.0)
    alone = [r_precision_by_loops(distance) for distance in one]
    assert [fold["r_precision"] for fold in found["separated_folds"]] == pytest.approx(alone)
    assert found["separated"]["r_precision"] == pytest.approx(sum(alone) / 3)
    together = r_precision_by_loops(lambda i, j: sum(distance(i, j) for distance in one))
    assert found["concatenated"]["r_precision"] == pytest.approx(together)


@pytest.mark.parametrize("seed", range(4))
def test_unit_vectors_are_concatenated_by_joining_them(seed):
    vectors = torch.nn.functional.normalize(folds(seed), dim=2)
    joined = [[number for fold in vectors for number in fold[i].tolist()] for i in range(len(LABELS))]
    found = score(vectors, torch.tensor(LABELS), ["r_precision", "map_at_r"], metric="cosine")
    together = r_precision_by_loops(lambda i, j: cosine_distance(joined[i], joined[j]))
    assert found["concatenated"]["r_precision"] == pytest.approx(together)
    assert found["concatenated"].keys() == found["separated"].keys() == {"r_precision", "map_at_r"}


def test_only_points_of_a_ball_are_searched_in_parts():
    vectors, parts = side_by_side(folds(), "hyperbolic")
    assert (tuple(vectors.shape), parts) == ((8, 6), 3)
    assert side_by_side(folds(), "cosine")[1] == 1


def test_queries_are_scored_among_the_gallery_in_both_modes() -> None:
    rng = np.random.default_rng(3)
    embeddings = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(2, 24, 3)).astype(np.float32)), dim=2)
    labels, is_query = torch.arange(24) % 4, torch.arange(24) % 3 == 0

    def found_first(vectors: np.ndarray) -> float:
        """Return the fraction of queries whose nearest gallery vector is of their class, by loops."""
        hits = []
        for q in np.flatnonzero(is_query):
            gallery = [(float(vectors[q] @ vectors[g]), int(labels[g])) for g in np.flatnonzero(~is_query)]
            hits.append(max(gallery)[1] == int(labels[q]))
        return sum(hits) / len(hits)

    alone = [found_first(fold) for fold in embeddings.double().numpy()]
    joined = found_first(np.concatenate(list(embeddings.double().numpy()), axis=1))
    found = score(embeddings, labels, ["precision_at_1"], is_query=is_query, metric="cosine")
    assert found["separated"]["precision_at_1"] == pytest.approx(sum(alone) / 2)
    assert found["concatenated"]["precision_at_1"] == pytest.approx(joined)
    everyone = score(embeddings, labels, ["map_at_r"], metric="cosine")
    assert everyone != score(embeddings, labels, ["map_at_r"], is_query=is_query, metric="cosine")
