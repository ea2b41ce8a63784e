"""The random sampler has the properties of a shuffled loader that drops its last batch."""

from collections import Counter

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.samplers.random import Random

LABELS = np.array([3, 3, 8, 8, 8, 5, 5, 5, 5, 9, 9])  # 11 images


def joined(sampler: Random, iterations: range) -> list[int]:
    return np.concatenate([sampler.batch(iteration) for iteration in iterations]).tolist()


@pytest.mark.parametrize(("batch_size", "batches_in_pass"), [(1, 11), (4, 2), (5, 2), (6, 1), (11, 1)])
def test_a_pass_holds_no_image_twice_and_its_incomplete_last_batch_is_dropped(
    batch_size: int, batches_in_pass: int
) -> None:
    sampler = Random(LABELS, batch_size, seed=0)
    twice_across = 0
    for number in range(60):
        start = number * batches_in_pass
        images = joined(sampler, range(start, start + batches_in_pass))
        assert len(images) == len(set(images)) == batch_size * batches_in_pass and set(images) <= set(range(11))
        longer = joined(sampler, range(start, start + batches_in_pass + 1))
        twice_across += len(longer) > len(set(longer))
    assert twice_across > 30, "the next batch continues the pass instead of starting a new one"


def test_the_batches_of_a_pass_are_slices_of_one_order() -> None:
    one_by_one = joined(Random(LABELS, 1, seed=4), range(11))
    fours = Random(LABELS, 4, seed=4)
    assert joined(fours, range(2)) == one_by_one[:8]


def test_every_image_is_equally_likely_at_every_position_regardless_of_its_class() -> None:
    first: Counter[int] = Counter()
    last: Counter[int] = Counter()
    sampler = Random(LABELS, 5, seed=0)
    for number in range(5_500):
        first[int(sampler.batch(2 * number)[0])] += 1
        last[int(sampler.batch(2 * number + 1)[-1])] += 1
    # Each of 11 images near 500 times; five standard deviations are 5 * sqrt(5,500 * 1 / 11 * 10 / 11) = 107.
    assert all(abs(count[image] - 500) < 107 for count in (first, last) for image in range(11))


def test_a_batch_depends_on_the_seed_and_the_iteration_only() -> None:
    wanted = [0, 1, 2, 3, 999]
    forwards = Random(LABELS, 5, seed=5)
    batches = {iteration: forwards.batch(iteration) for iteration in wanted}
    backwards = Random(LABELS[::-1], 5, seed=5)
    for iteration in reversed(wanted):
        assert np.array_equal(backwards.batch(iteration), batches[iteration])
        assert not np.array_equal(Random(LABELS, 5, seed=6).batch(iteration), batches[iteration])
    assert len({tuple(batch.tolist()) for batch in batches.values()}) == len(wanted)


def test_the_global_generators_are_neither_read_nor_moved() -> None:
    np.random.seed(0)
    before = str(np.random.get_state())
    expected = Random(LABELS, 5, 5).batch(3).tolist()
    assert str(np.random.get_state()) == before
    np.random.seed(1)
    assert Random(LABELS, 5, 5).batch(3).tolist() == expected


def test_writing_into_a_batch_changes_no_later_batch() -> None:
    sampler = Random(LABELS, 5, 5)
    first = sampler.batch(0)
    expected = first.tolist()
    first[:] = -1
    assert sampler.batch(0).tolist() == expected


@pytest.mark.parametrize(
    ("labels", "batch_size", "named"),
    [
        (LABELS, 0, "batch_size=0.*1..11"),
        (LABELS, 12, "batch_size=12, but there are 11 images.*1..11"),
        (np.zeros(5, int), 2, "images of 1 class"),
        (np.zeros(0, int), 2, "images of 0 class"),
    ],
)
def test_an_impossible_batch_is_refused_with_its_numbers(labels: np.ndarray, batch_size: int, named: str) -> None:
    with pytest.raises(UserError, match=named):
        Random(labels, batch_size, seed=0)
