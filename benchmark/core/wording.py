"""How messages word numbers, durations, sizes and lists."""

from collections.abc import Collection, Iterable, Sequence

SHOWN = 5  # lines of a list in a message
MOST_RANGES = 10  # of a list of numbers
Span = tuple[int, int]  # the first and the last of consecutive numbers


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun, and whatever else depends on the number.

    Args:
        number: the number.
        one: what follows 1.
        many: what follows any other number; empty: `one` with an s.

    >>> counted(1, "image"), counted(1200, "image"), counted(2, "image is skipped", "images are skipped")
    ('1 image', '1,200 images', '2 images are skipped')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def human_time(seconds: float) -> str:
    """Format a duration, given in seconds.

    >>> human_time(42), human_time(150), human_time(7300)
    ('42 s', '2.5 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def human_size(num_bytes: float) -> str:
    """Format a size, given in bytes.

    >>> human_size(330_960), human_size(97_800_000), human_size(3_083_860_082)
    ('0.3 MB', '97.8 MB', '3.1 GB')
    """
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes < 1e8 else f"{num_bytes / 1e9:,.1f} GB"


def plus_minus(mean: float, half_width: float | None, mark: str = "+-", sign: str = "") -> str:
    """Format a mean, in percent, with half the width of its interval.

    >>> plus_minus(51.234, 0.5), plus_minus(1.0, None, sign="+"), plus_minus(51.234, 0.5, "±")
    ('51.23 +- 0.50', '+1.00', '51.23 ± 0.50')

    Args:
        mean: the mean.
        half_width: half the width; None without an interval.
        mark: stands between the two.
        sign: "+" for differences, which have a sign also above 0.
    """
    return f"{mean:{sign}.2f}" + ("" if half_width is None else f" {mark} {half_width:.2f}")


def first_lines(lines: Sequence[str]) -> str:
    """Format the first `SHOWN` lines of a list in a message, and the number of the others.

    Args:
        lines: all lines, without indentation.

    Returns:
        Text that begins with a newline.
    """
    more = [f"and {len(lines) - SHOWN:,} more"] * (len(lines) > SHOWN)
    return "".join(f"\n  {line}" for line in (*lines[:SHOWN], *more))


def named(things: Sequence[str]) -> str:
    """Name the first few of some things.

    >>> named(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(things[:3]) + f" and {len(things) - 3:,} more" * (len(things) > 3)


def ranges(numbers: Iterable[int]) -> str:
    """Name whole numbers, three and more in a row by the first and the last of them.

    >>> ranges([0, 3, 4, 5, 9]), ranges([2, 3])
    ('0, 3-5, 9', '2, 3')
    """
    spans: list[Span] = []
    for number in sorted({*numbers}):
        follows = bool(spans) and spans[-1][1] == number - 1
        spans[len(spans) - follows :] = [(spans[-1][0] if follows else number, number)]
    return _listed(spans)


def missing(present: Collection[int], total: int, one: str) -> str:
    """Say which of the numbers from 0 on are missing; empty if none is.

    >>> missing([0, 1, 2], 10, "run"), missing([0, 2], 3, "run"), missing([0], 1, "run")
    ('7 of 10 runs are missing: 3-9', '1 of 3 runs is missing: 1', '')

    Args:
        present: the numbers that are not.
        total: how many numbers there are, in a foreign file perhaps 2^53.
        one: what one of them is.
    """
    known = sorted({number for number in present if 0 <= number < total})
    spans = [(low + 1, high - 1) for low, high in zip([-1, *known], [*known, total], strict=True) if high - low > 1]
    if not spans:
        return ""
    absent = total - len(known)
    return f"{absent:,} of {counted(total, one)} {'is' if absent == 1 else 'are'} missing: {_listed(spans)}"


def _listed(spans: Sequence[Span]) -> str:
    """Name the first `MOST_RANGES` spans, and how many numbers the others have."""
    texts = [f"{low}" if low == high else f"{low}{'-' if high - low > 1 else ', '}{high}" for low, high in spans]
    more = sum(high - low + 1 for low, high in spans[MOST_RANGES:])
    return ", ".join(texts[:MOST_RANGES]) + f" and {more:,} more" * (more > 0)
