"""Lists of numbers in messages."""

import random
import re

import pytest

from benchmark.core.wording import missing, ranges


def read_back(text: str) -> list[int]:
    """The numbers that a text names, by a reader of its own."""
    found = []
    for part in text.split(", "):
        low, _, high = part.partition("-")
        found += [*range(int(low), int(high or low) + 1)]
    return found


@pytest.mark.parametrize("seed", range(20))
def test_every_number_is_named_once_and_those_in_a_row_by_their_ends(seed: int) -> None:
    draw = random.Random(seed)
    numbers = sorted(draw.sample(range(12), draw.randint(1, 12)))
    text = ranges(draw.sample(numbers, len(numbers)))
    assert read_back(text) == numbers
    inner = [number for number in numbers if {number - 1, number + 1} <= {*numbers}]
    assert not {*inner} & {*map(int, re.findall(r"[0-9]+", text))}


@pytest.mark.parametrize("seed", range(20))
def test_what_is_missing_is_what_is_not_present(seed: int) -> None:
    draw = random.Random(seed)
    present = draw.sample(range(14), draw.randint(0, 11))  # some of them beyond the total
    absent = [number for number in range(12) if number not in present]
    first, _, named = missing(present, 12, "run").partition(": ")
    assert first == f"{len(absent)} of 12 runs {'is' if len(absent) == 1 else 'are'} missing"
    assert read_back(named) == absent


def test_a_long_list_ends_with_a_count() -> None:
    text = ranges(range(0, 100, 2))
    assert text.startswith("0, 2, 4, ") and text.endswith(", 18 and 40 more")
    assert missing([1], 10**18, "run").endswith(f"missing: 0, 2-{10**18 - 1}")
