"""The sampler, compared property by property with the Reality Check's rule in plain loops."""

import random
from collections import Counter

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.samplers import m_per_class
from benchmark.samplers.m_per_class import MPerClass


def loop_list(labels: np.ndarray, m: int, rng: random.Random, length: int = 100_000) -> list[int]:
    """Return one index list of the Reality Check: whole passes over the shuffled classes, with m images of each."""
    images: dict[int, list[int]] = {}
    for position, label in enumerate(labels.tolist()):
        images.setdefault(label, []).append(position)
    classes, chosen = list(images), []
    for _ in range(max(1, length // (m * len(classes)))):
        rng.shuffle(classes)
        for label in classes:
            few = len(images[label]) < m
            chosen += rng.choices(images[label], k=m) if few else rng.sample(images[label], k=m)
    return chosen


def facts(images: list[int], labels: np.ndarray, m: int) -> list[tuple[tuple[int, int, int], ...]]:
    """Return, for each whole pass in a list, the numbers of images and of different images of each class."""
    in_pass = m * len(set(labels.tolist()))
    passes = [images[start : start + in_pass] for start in range(0, len(images) - in_pass + 1, in_pass)]
    found = []
    for one in passes:
        groups = [one[start : start + m] for start in range(0, in_pass, m)]
        assert all(len({labels[i] for i in group}) == 1 for group in groups), "a class is not m images in a row"
        sizes = Counter(labels.tolist())
        rows = [(int(labels[g[0]]), len(g), len(set(g)) if sizes[labels[g[0]]] >= m else 0) for g in groups]
        found.append(tuple(sorted(rows)))
    return found


def some_labels(num_classes: int, seed: int = 0) -> np.ndarray:
    """Return labels of classes with 1 to 9 images, whose ids are neither dense nor sorted."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(10 * num_classes)[:num_classes]
    return rng.permutation(np.repeat(ids, rng.integers(1, 10, num_classes)))


def joined(sampler: MPerClass, iterations: range) -> list[int]:
    return np.concatenate([sampler.batch(iteration) for iteration in iterations]).tolist()


@pytest.mark.parametrize(
    ("num_classes", "m"), [(2, 4), (75, 4), *(pytest.param(341, m, marks=pytest.mark.slow) for m in (1, 6))]
)
def test_a_list_has_the_properties_of_the_list_made_by_loops(num_classes: int, m: int) -> None:
    labels = some_labels(num_classes)
    ours = joined(MPerClass(labels, m * num_classes, m, seed=3), range(100_000 // (m * num_classes)))
    theirs = loop_list(labels, m, random.Random(3))
    assert len(ours) == len(theirs)
    assert facts(ours, labels, m) == facts(theirs, labels, m)


@pytest.mark.parametrize(
    ("num_classes", "m", "length"),
    [(75, 4, 99_900), (74, 4, 99_752), (8_488, 4, 67_904), (75, 1, 99_975), (60_000, 2, 120_000)],
    ids=["CUB", "Cars", "SOP", "proxies", "one pass longer than the list"],
)
def test_a_list_is_100_000_images_cut_to_whole_passes_and_its_incomplete_last_batch_is_dropped(
    num_classes: int, m: int, length: int
) -> None:
    labels, in_pass = np.repeat(np.arange(num_classes), 5), m * num_classes
    sampler = MPerClass(labels, 32, m, seed=0)
    num_batches = length // 32
    first = joined(sampler, range(num_batches))
    assert counts_of_passes(first, labels, in_pass) == {m * (len(first) // in_pass)}
    second = joined(sampler, range(num_batches, num_batches + -(-in_pass // 32)))
    assert counts_of_passes(second[:in_pass], labels, in_pass) == {m}, "the next list does not start with a pass"
    assert second[:in_pass] != first[:in_pass]


def counts_of_passes(images: list[int], labels: np.ndarray, in_pass: int) -> set[int]:
    """Return the set of class counts in the whole passes at the start of a list; one number if all are equal."""
    counts = Counter(labels[images[: len(images) // in_pass * in_pass]].tolist())
    return {counts[label] for label in labels.tolist()}


def test_batches_are_consecutive_slices_that_may_straddle_two_passes() -> None:
    labels = some_labels(5)  # a pass has 10 images, so batches of 7 straddle passes
    one_by_one = joined(MPerClass(labels, 1, 2, seed=1), range(700))
    sevens = MPerClass(labels, 7, 2, seed=1)
    assert joined(sevens, range(100)) == one_by_one
    assert any(max(Counter(labels[sevens.batch(i)].tolist()).values()) > 2 for i in range(100))


def test_a_class_with_fewer_than_m_images_is_drawn_with_replacement() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1, 1])
    images = joined(MPerClass(labels, 8, 4, seed=0), range(4_000))
    groups = [tuple(images[i : i + 4]) for i in range(0, len(images), 4)]
    of_two = Counter(group for group in groups if labels[group[0]] == 0)
    assert len(of_two) == 16  # 2 ** 4 ordered draws, each near 4,000 / 16 = 250; five deviations are 5 * sqrt(234) = 77
    assert all(abs(count - 250) < 77 for count in of_two.values())


def test_all_ordered_choices_of_images_are_equally_likely() -> None:
    labels = np.array([0, 1, 1, 1, 1])
    images = joined(MPerClass(labels, 4, 2, seed=0), range(6_000))
    pairs = Counter(tuple(images[i : i + 2]) for i in range(0, len(images), 2) if labels[images[i]] == 1)
    # 4 * 3 ordered pairs, each near 6,000 / 12 = 500; five standard deviations are 5 * sqrt(500 * 11 / 12) = 107.
    assert len(pairs) == 12 and all(abs(count - 500) < 107 for count in pairs.values())


def test_all_orders_of_the_classes_are_equally_likely() -> None:
    images = joined(MPerClass(np.arange(3), 3, 1, seed=0), range(6_000))
    orders = Counter(tuple(images[i : i + 3]) for i in range(0, len(images), 3))
    # 6 orders, each near 1,000; five standard deviations are 5 * sqrt(1,000 * 5 / 6) = 144.
    assert len(orders) == 6 and all(abs(count - 1_000) < 144 for count in orders.values())


@pytest.mark.parametrize("fresh_classes", [False, True])
def test_a_batch_depends_on_the_seed_and_the_iteration_only(fresh_classes: bool) -> None:
    labels = some_labels(20)

    def make(seed: int) -> MPerClass:
        return MPerClass(labels, 8, 2, seed, fresh_classes=fresh_classes)

    wanted = [0, 1, 12_499, 12_500, 30_000]  # a list of 100,000 images has 12,500 batches
    forwards = make(5)
    batches = {iteration: forwards.batch(iteration) for iteration in wanted}
    backwards = make(5)
    for iteration in reversed(wanted):
        assert np.array_equal(backwards.batch(iteration), batches[iteration])
        assert np.array_equal(make(5).batch(iteration), batches[iteration])
        assert not np.array_equal(make(6).batch(iteration), batches[iteration])
    assert len({tuple(batch.tolist()) for batch in batches.values()}) == len(wanted)


def test_the_global_generators_are_neither_read_nor_moved() -> None:
    labels = some_labels(20)
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    expected = MPerClass(labels, 8, 2, 5).batch(3).tolist()
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(1)
    assert MPerClass(labels, 8, 2, 5).batch(3).tolist() == expected


def test_writing_into_a_batch_changes_no_later_batch() -> None:
    sampler = MPerClass(some_labels(20), 8, 2, 5)
    first = sampler.batch(0)
    expected = first.tolist()
    first[:] = -1
    assert sampler.batch(0).tolist() == expected


def test_a_batch_longer_than_a_list_gets_a_list_just_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m_per_class, "LIST_LENGTH", 10)
    labels = some_labels(4)
    batch = MPerClass(labels, 18, 2, seed=0).batch(0)  # passes of 8 images: 3 of them hold a batch of 18
    assert len(batch) == 18 and set(Counter(labels[batch[:16]].tolist()).values()) == {4}


def test_fresh_classes_gives_every_batch_its_own_different_classes() -> None:
    labels = np.repeat(np.arange(10), 6)
    sampler = MPerClass(labels, 12, 3, seed=0, fresh_classes=True)
    seen: Counter[int] = Counter()
    for iteration in range(500):
        batch = sampler.batch(iteration)
        counts = Counter(labels[batch].tolist())
        assert len(batch) == len(set(batch.tolist())) == 12 and list(counts.values()) == [3] * 4
        seen.update(counts.keys())
    # 500 batches of 4 classes: each of the 10 near 200; five standard deviations are 5 * sqrt(500 * 0.4 * 0.6) = 55.
    assert all(abs(seen[label] - 200) < 55 for label in range(10))


@pytest.mark.parametrize(
    ("num_classes", "settings", "named"),
    [
        (5, {"batch_size": 8, "m": 0}, "m=0"),
        (5, {"batch_size": 0, "m": 1}, "batch_size=0"),
        (1, {"batch_size": 8, "m": 1}, "images of 1 class"),
        (0, {"batch_size": 8, "m": 1}, "images of 0 class"),
        (5, {"batch_size": 10, "m": 4, "fresh_classes": True}, "batch_size=10, m=4"),
        (75, {"batch_size": 128, "m": 1, "fresh_classes": True}, "128 classes, but the fold has 75"),
    ],
)
def test_an_impossible_batch_is_refused_with_its_numbers(num_classes: int, settings: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        MPerClass(np.repeat(np.arange(num_classes), 3), seed=0, **settings)


def test_hpl_s_batches_of_128_classes_are_slices_of_passes_where_a_fold_has_75_classes() -> None:
    labels = np.repeat(np.arange(75), 3)
    counts = Counter(labels[MPerClass(labels, 128, 1, seed=0).batch(0)].tolist())
    assert len(counts) == 75 and sorted(counts.values()) == [1] * 22 + [2] * 53
