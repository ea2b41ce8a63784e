"""The evaluation of any embeddings, against loops over floats."""

import math

import numpy as np
import pytest
import torch

from benchmark.protocol.evaluation import evaluation


def scores_by_loops(
    points: np.ndarray, labels: list[int], queries: list[int], gallery: list[int], k: int
) -> list[dict]:
    """Each query's scores, from sorted distances of unit vectors; NaN for a query without a relevant image."""
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    found = []
    for q in queries:
        others = [g for g in gallery if g != q]
        ranked = sorted(others, key=lambda g: (-float(sum(a * b for a, b in zip(unit[q], unit[g], strict=True))), g))
        hits = [labels[g] == labels[q] for g in ranked]
        total = sum(hits)
        if not total:
            found.append(dict.fromkeys(("map_at_r", "precision_at_1", "r_precision", f"recall_at_{k}"), math.nan))
            continue
        average = sum(sum(hits[: i + 1]) / (i + 1) for i in range(total) if hits[i]) / total
        found.append({"map_at_r": average, "precision_at_1": float(hits[0]), "r_precision": sum(hits[:total]) / total,
                      f"recall_at_{k}": float(any(hits[:k]))})  # fmt: skip
    return found


def mean(values: list[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return sum(kept) / len(kept)


POINTS = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
LABELS = [0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 4, 4, 5, 6, 6, 6, 7, 7, 7, 7]
SUPER = [0 if label < 3 else 1 for label in LABELS]


@pytest.mark.parametrize("with_gallery", [False, True])
def test_scores_of_queries_classes_and_super_classes_are_those_of_loops(with_gallery: bool) -> None:
    rows = list(range(24))
    queries = rows[::2] if with_gallery else rows
    gallery = [row for row in rows if row not in queries] if with_gallery else rows
    is_query = torch.tensor([row in queries for row in rows]) if with_gallery else None
    found = evaluation(
        torch.from_numpy(POINTS),
        torch.tensor(LABELS),
        super_labels=torch.tensor(SUPER),
        is_query=is_query,
        recall_at=[3],
    )
    loops = scores_by_loops(POINTS, LABELS, queries, gallery, 3)
    for name in loops[0]:
        assert found.scores[name] == pytest.approx(mean([one[name] for one in loops]))
    lone = sum(math.isnan(one["map_at_r"]) for one in loops)
    assert lone > 0 and (found.num_queries, found.num_lone_queries) == (len(queries), lone)
    for groups, of in ((found.classes, LABELS), (found.super_classes, SUPER)):
        assert groups is not None
        for i, group in enumerate(groups.ids.tolist()):
            own = [one for q, one in zip(queries, loops, strict=True) if of[q] == group]
            assert int(groups.num_queries[i]) == sum(not math.isnan(one["map_at_r"]) for one in own)
            for name in loops[0]:
                assert float(groups.scores[name][i]) == pytest.approx(mean([one[name] for one in own]))
    of_classes = [mean([one["map_at_r"] for q, one in zip(queries, loops, strict=True) if LABELS[q] == label])
                  for label in found.classes.ids.tolist()]  # fmt: skip
    assert found.scores["class_map_at_r"] == pytest.approx(mean(of_classes))
    assert {"h_ap", "ndcg", "asi", "super_map_at_r"} <= set(found.scores)


def test_separated_is_the_mean_over_models_and_concatenated_joins_unit_vectors() -> None:
    models = np.stack([POINTS, 100 * POINTS[:, ::-1] + 3])
    rows, labels = list(range(24)), torch.tensor(LABELS)
    separated = evaluation(torch.from_numpy(models), labels, mode="separated", recall_at=[3])
    each = [mean([one["map_at_r"] for one in scores_by_loops(points, LABELS, rows, rows, 3)]) for points in models]
    assert separated.scores["map_at_r"] == pytest.approx(sum(each) / 2)
    joined = np.concatenate([points / np.linalg.norm(points, axis=1, keepdims=True) for points in models], axis=1)
    expected = mean([one["map_at_r"] for one in scores_by_loops(joined, LABELS, rows, rows, 3)])
    found = evaluation(torch.from_numpy(models), labels, recall_at=[3])
    assert found.scores["map_at_r"] == pytest.approx(expected) and expected != pytest.approx(sum(each) / 2)


def test_a_hierarchy_of_one_super_class_or_of_single_classes_has_no_scores_of_levels() -> None:
    for groups in ([0] * 24, LABELS):
        found = evaluation(torch.from_numpy(POINTS), torch.tensor(LABELS), super_labels=torch.tensor(groups))
        assert "h_ap" not in found.scores and found.super_classes is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [({"mode": "both"}, "mode='both'"), ({"metric": "dot"}, "metric='dot'"),
     ({"labels": torch.zeros(5)}, "with N labels"), ({"super_labels": torch.zeros(5)}, "super_labels has the shape"),
     ({"is_query": torch.ones(5)}, "is_query has the")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change: dict, said: str) -> None:
    labels = change.pop("labels", torch.tensor(LABELS))
    with pytest.raises(ValueError, match=said):
        evaluation(torch.from_numpy(POINTS), labels, **change)
