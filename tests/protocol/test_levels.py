"""Metrics by level, compared with their definitions in plain loops and with values worked out by hand."""

import math
from collections import Counter

import pytest
import torch

from benchmark.protocol import levels
from benchmark.protocol.levels import has_hierarchy, level_scores, over_classes, score_levels
from benchmark.protocol.retrieval import query_scores, retrieval_metrics


def by_loops(ranked):
    """Return H-AP, NDCG, ASI, MAP@R on super classes and on classes of levels from the nearest to the farthest."""
    counts = Counter(ranked)
    if not counts[1] + counts[2]:
        return [math.nan] * 5
    relevance = [level / 2 / counts[level] for level in ranked]
    relevant = [k for k, level in enumerate(ranked) if level]
    h_rank = {k: relevance[k] + sum(min(relevance[k], relevance[j]) for j in relevant if j < k) for k in relevant}
    h_ap = sum(h_rank[k] / (k + 1) for k in relevant) / sum(relevance[k] for k in relevant)

    def gained(order):
        return sum((2**level - 1) / math.log2(k + 2) for k, level in enumerate(order))

    best = sorted(ranked, reverse=True)
    shared = [(Counter(ranked[:d]) & Counter(best[:d])).total() / d for d in range(1, len(relevant) + 1)]

    def map_at_r(hits):
        r = sum(hits)
        return sum(hits[k] * sum(hits[: k + 1]) / (k + 1) for k in range(r)) / r if r else math.nan

    maps = map_at_r([level >= 1 for level in ranked]), map_at_r([level == 2 for level in ranked])
    return [h_ap, gained(ranked) / gained(best), sum(shared) / len(shared), *maps]


def loop_levels(scores, query_labels, query_super, labels, super_labels, itself):
    """Return the levels of each query's ranking; among equal scores, the lower index ranks first."""
    rankings = []
    for q, row in enumerate(scores):
        order = sorted((g for g in range(len(row)) if not (itself and g == q)), key=lambda g: (-row[g], g))
        own = query_labels[q], query_super[q]
        rankings.append([(super_labels[g] == own[1]) + (labels[g] == own[0]) for g in order])
    return rankings


def cosines(queries, references):
    def unit(vector):
        length = math.sqrt(sum(x * x for x in vector)) or 1.0
        return [x / length for x in vector]

    unit_references = [unit(r) for r in references.tolist()]
    return [[sum(map(float.__mul__, unit(q), r)) for r in unit_references] for q in queries.tolist()]


def hierarchy(num, seed, num_classes=15, num_super=4):
    """Return vectors (N, 5), labels and super labels, neither dense nor ascending, with singletons of both."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(num_super, (num_classes,), generator=generator)
    label = torch.randint(num_classes - 2, (num,), generator=generator)
    label[:3] = torch.tensor([num_classes - 2, num_classes - 1, num_classes - 1])
    group[-2:] = torch.tensor([num_super, num_super + 1])  # a class of one image, and one without sisters
    vectors = torch.randn(num_super + 2, 5, generator=generator)[group[label]]
    vectors += torch.randn(num_classes, 5, generator=generator)[label] + torch.randn(num, 5, generator=generator)
    return vectors, label * 3 % 47 + 2, 11 - group[label]


def assert_equal(found, rankings):
    for name, values in zip(levels.PER_QUERY, zip(*map(by_loops, rankings), strict=True), strict=True):
        assert found[name].tolist() == pytest.approx(list(values), abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("block", [1, 7, None])
def test_scores_among_the_queries_are_those_of_the_loops(block):
    x, labels, groups = hierarchy(60, 0)
    rankings = loop_levels(cosines(x, x), *(y.tolist() for y in (labels, groups) * 2), itself=True)
    assert_equal(level_scores(x, labels, groups, block=block), rankings)


def test_scores_of_queries_in_a_gallery_are_those_of_the_loops():
    whole = hierarchy(110, 1)
    queries, gallery = [part[:30] for part in whole], [part[30:] for part in whole]
    own = [y.tolist() for y in (*queries[1:], *gallery[1:])]
    expected = loop_levels(cosines(queries[0], gallery[0]), *own, itself=False)
    assert_equal(level_scores(*queries, *gallery), expected)


def test_among_equal_scores_the_lower_index_ranks_first():
    _, labels, groups = hierarchy(60, 3)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])[torch.arange(60) * 7 % 3]
    rankings = loop_levels(cosines(x, x), *(y.tolist() for y in (labels, groups) * 2), itself=True)
    assert_equal(level_scores(x, labels, groups), rankings)
    x[:20] *= -1
    assert_equal(level_scores(x, labels, groups), loop_levels(
        cosines(x, x), *(y.tolist() for y in (labels, groups) * 2), itself=True))  # fmt: skip


def test_scores_by_hand():
    # References at distances 1, 2, ...: super class, class, other, super class. n_2 = 1, n_1 = 2, rel = 1 and 1/4.
    # H-rank at ranks 1, 2, 4: 1/4; 1 + 1/4; 1/4 + 1/4 + 1/4. H-AP = (1/4 + 5/8 + 3/16) / (3/2) = 17/24.
    # NDCG: gains 1, 3, 0, 1 against 3, 1, 1. ASI: none of {1} in {2}; {1, 2} is the best two; {1, 2} of {2, 1, 1}: 2/3.
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    found = level_scores(
        x[:1], torch.tensor([5]), torch.tensor([0]), x[1:], torch.tensor([6, 5, 8, 7]), torch.tensor([0, 0, 1, 0]),
        metric="l2",
    )  # fmt: skip
    assert found["h_ap"].item() == pytest.approx(17 / 24)
    log3, log5 = math.log2(3), math.log2(5)
    assert found["ndcg"].item() == pytest.approx((1 + 3 / log3 + 1 / log5) / (3 + 1 / log3 + 1 / 2))
    assert found["asi"].item() == pytest.approx((0 + 1 + 2 / 3) / 3)
    assert found["super_map_at_r"].item() == pytest.approx((1 + 1) / 3)
    assert found["map_at_r"].item() == 0


def test_map_at_r_and_its_like_on_super_classes_are_those_of_the_plain_metric():
    x, labels, groups = hierarchy(200, 4)
    found = level_scores(x, labels, groups)
    assert torch.allclose(found["map_at_r"], query_scores(x, labels)["map_at_r"], atol=1e-12, equal_nan=True)
    super_map = retrieval_metrics(x, groups)["map_at_r"]
    assert found["super_map_at_r"].nanmean().item() == pytest.approx(super_map, abs=1e-12)


def test_a_ranking_by_level_has_the_best_scores():
    x = torch.tensor([[0.0], [0.1], [1.0], [1.1], [5.0], [5.1]])
    found = level_scores(x, torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 0, 1, 1]), metric="l2")
    assert all(scores.tolist() == pytest.approx([1.0] * 6) for scores in found.values())


def test_both_modes_average_over_queries_and_over_classes():
    x, labels, groups = hierarchy(70, 5)
    folds = torch.nn.functional.normalize(torch.stack([x, x.flip(1) + x[:, :1]]), dim=2)
    found = score_levels(folds, labels, groups, metric="cosine")
    assert tuple(found["concatenated"]) == levels.AVERAGES
    alone = [level_scores(fold, labels, groups) for fold in folds]
    for name in levels.AVERAGES[:-1]:
        means = [sum(kept) / len(kept) for s in alone if (kept := [v for v in s[name].tolist() if v == v])]
        assert [fold[name] for fold in found["separated_folds"]] == pytest.approx(means)
        assert found["separated"][name] == pytest.approx(sum(means) / 2)
    by_class = {}
    for label, value in zip(labels.tolist(), alone[1]["map_at_r"].tolist(), strict=True):
        if value == value:
            by_class.setdefault(label, []).append(value)
    means = [sum(values) / len(values) for values in by_class.values()]
    assert len(means) == 14 and found["separated_folds"][1]["class_map_at_r"] == pytest.approx(sum(means) / 14)
    joined = level_scores(torch.cat([*folds], dim=1), labels, groups)
    assert found["concatenated"]["h_ap"] == pytest.approx(joined["h_ap"].nanmean().item())


def test_queries_in_a_gallery_are_averaged_alone():
    x, labels, groups = hierarchy(60, 6)
    chosen = torch.arange(60) % 3 == 0
    found = score_levels(x[None], labels, groups, metric="l2", is_query=chosen)["concatenated"]
    alone = level_scores(
        x[chosen], labels[chosen], groups[chosen], x[~chosen], labels[~chosen], groups[~chosen], metric="l2"
    )
    assert found["ndcg"] == pytest.approx(alone["ndcg"].nanmean().item())


@pytest.mark.parametrize("groups", [torch.zeros(24, dtype=torch.long), torch.arange(24) // 4])
def test_without_a_hierarchy_there_is_only_the_average_over_classes(groups):
    labels = torch.arange(24) // 4
    x = torch.randn(1, 24, 5, generator=torch.Generator().manual_seed(7))
    assert not has_hierarchy(labels, groups)
    found = score_levels(x, labels, groups, metric="cosine")["concatenated"]
    assert found == {"class_map_at_r": pytest.approx(retrieval_metrics(x[0], labels)["map_at_r"])}  # equal classes


def test_a_class_counts_once_however_many_queries_it_has():
    classes, means = over_classes(torch.tensor([1.0, 0.0, 0.5, math.nan]), torch.tensor([4, 4, 9, 9]))
    assert classes.tolist() == [4, 9] and means.tolist() == [0.5, 0.5]


def test_a_gallery_needs_labels_of_both_levels():
    with pytest.raises(ValueError, match="belong together"):
        level_scores(torch.ones(2, 2), torch.zeros(2), torch.zeros(2), torch.ones(2, 2), torch.zeros(2))


def test_minus_zero_ties_with_zero():
    found = levels._ranked(torch.tensor([[-0.0, 0.0, 0.5]]), torch.tensor([[2, 1, 0]], dtype=torch.uint8))
    assert found.tolist() == [[0, 2, 1]]
