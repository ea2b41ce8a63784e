"""Nearest neighbours, compared with a full sort by numpy."""

import numpy as np
import pytest
import torch

from benchmark.protocol import neighbours
from benchmark.protocol.neighbours import nearest_neighbours


def embeddings(metric: str) -> torch.Tensor:
    """Return two folds of 30 vectors in 5 dimensions, normalised for the cosine."""
    found = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 30, 5)).astype(np.float32))
    return torch.nn.functional.normalize(found, dim=2) if metric == "cosine" else found


def sorted_others(vectors: torch.Tensor, metric: str) -> np.ndarray:
    """Return all images (N, N) by distance from each, the image itself first."""
    joined = np.concatenate(list(vectors.numpy().astype(np.float64)), axis=1)
    distances = -joined @ joined.T if metric == "cosine" else np.linalg.norm(joined[:, None] - joined[None], axis=2)
    np.fill_diagonal(distances, -np.inf)
    return np.argsort(distances, axis=1)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_every_image_s_neighbours_are_the_nearest_others_by_all_folds_together(metric: str) -> None:
    vectors = embeddings(metric)
    found = nearest_neighbours(vectors, None, 4, metric=metric)
    np.testing.assert_array_equal(found, sorted_others(vectors, metric)[:, 1:5])


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_query_s_neighbours_are_gallery_images_at_their_places_among_all(metric: str) -> None:
    vectors, is_query = embeddings(metric), torch.arange(30) % 3 == 0
    found = nearest_neighbours(vectors, is_query, 4, metric=metric)
    expected = [
        [other for other in order if not is_query[other]][:4]
        for order, asked in zip(sorted_others(vectors, metric), is_query, strict=True)
        if asked
    ]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("metric", ["cosine", "l2", "hyperbolic"])
@pytest.mark.parametrize("count", [1, 4, 29])
def test_the_nearest_others_are_in_order_and_without_the_image_itself(
    monkeypatch: pytest.MonkeyPatch, metric: str, count: int
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 7)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 4))) / 3
    x[7] = x[2]
    lengths = x.norm(dim=1)
    apart = (x[:, None] - x).square().sum(dim=2)
    scores = {
        "cosine": (x @ x.T) / lengths / lengths[:, None],
        "l2": -apart,
        "hyperbolic": -apart / (1 - 0.1 * lengths**2) / (1 - 0.1 * lengths[:, None] ** 2),  # in the arcosh, so in order
    }[metric]
    options = {"curvature": 0.1} if metric == "hyperbolic" else {}
    found = nearest_neighbours(x[None], None, count, metric=metric, **options)
    assert found.shape == (30, count)
    for row, columns in enumerate(found.tolist()):
        others = [c if c != row else -1 for c in (-scores[row].round(decimals=9)).argsort(stable=True).tolist()]
        assert columns == [c for c in others if c >= 0][:count]


def test_there_are_never_more_neighbours_than_images_to_search() -> None:
    vectors, is_query = embeddings("cosine"), torch.arange(30) > 2
    assert nearest_neighbours(vectors, None, 99, metric="cosine").shape == (30, 29)
    assert nearest_neighbours(vectors, is_query, 99, metric="cosine").shape == (27, 3)


def test_among_exact_copies_an_image_is_never_its_own_neighbour() -> None:
    vectors = torch.nn.functional.normalize(torch.ones(1, 9, 4), dim=2)
    found = nearest_neighbours(vectors, None, 3, metric="cosine")
    assert found.shape == (9, 3) and not (found == np.arange(9)[:, None]).any()


@pytest.mark.gpu
def test_a_gpu_finds_the_neighbours_that_the_cpu_finds() -> None:
    vectors = embeddings("cosine")
    on_gpu = nearest_neighbours(vectors.cuda(), None, 4, metric="cosine")
    np.testing.assert_array_equal(on_gpu, nearest_neighbours(vectors, None, 4, metric="cosine"))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_among_exact_copies_the_lower_position_comes_first(metric: str) -> None:
    vectors = torch.nn.functional.normalize(torch.ones(2, 9, 4), dim=2)
    found = nearest_neighbours(vectors, None, 3, metric=metric)
    assert found.tolist() == [[other for other in range(9) if other != row][:3] for row in range(9)]
