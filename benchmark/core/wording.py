"""How messages word numbers, durations, sizes and lists."""

from collections.abc import Sequence

SHOWN = 5  # lines of a list in a message


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
