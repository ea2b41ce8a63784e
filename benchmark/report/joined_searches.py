"""One row for a search and its repetitions: the numbers of the first search, and intervals that cover the search."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmark.protocol.nested import over_searches
from benchmark.report.comparison import Comparable
from benchmark.report.table import Effort, Key, Row

SUMMED = ("all_trials", "stopped", "iterations", "epochs", "hours", "looks", "idle", "off", "num_folds")


def joined(rows: Mapping[int, Row], keys: Sequence[Key], main: Sequence[Key], confidence: float) -> Row:
    """Return the row of the first search, with the mean and interval over all searches where all are complete.

    Args:
        rows: the row of each search, by its number; number 0 is among them.
        keys: keys of all columns, in which rows with the same searches are compared over these.
        main: keys of the columns that get an interval over searches.
        confidence: confidence level of the interval.
    """
    first = rows[0]
    reasons = [f"search{number}: {row.reason}" for number, row in sorted(rows.items()) if number and row.reason]
    row = replace(first, reason="; ".join(filter(None, (first.reason, *reasons))), effort=_total(list(rows.values())))
    for key in keys:
        runs = {number: each.values.get(key, {}) for number, each in sorted(rows.items())}
        if all(values and values.keys() == runs[0].keys() for values in runs.values()):
            row.by_search[key] = {(number, run): value for number, of in runs.items() for run, value in of.items()}
    row.over_searches = {key: over_searches(row.by_search[key], confidence) for key in main if key in row.by_search}
    return row


def unlike(first: Comparable, other: Comparable) -> str:
    """Describe why a repetition is not a sample of the same search; an empty string if it is one.

    Args:
        first: what the numbers of the first search depend on.
        other: what those of the repetition depend on.
    """
    if other.trials != first.trials:
        return f"it has {other.trials} trials, not {first.trials}"
    if other.num_runs != first.num_runs:
        return f"it has {other.num_runs} runs, not {first.num_runs}"
    mine, theirs = first.code or {}, other.code or {}
    if changed := sorted(name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]):
        return f"other code computed it ({', '.join(changed[:3])})"
    return ""


def joined_dependence(searches: Sequence[Comparable]) -> Comparable:
    """Return what the numbers of a search and of its repetitions depend on: all their versions, devices and code.

    Args:
        searches: what those of each search depend on, the first one first.
    """
    first, packages = searches[0], dict.fromkeys(name for one in searches for name in one.versions)
    codes = {tuple(sorted(one.code.items())) for one in searches if one.code}
    return replace(
        first,
        versions={name: frozenset().union(*(one.versions.get(name, ()) for one in searches)) for name in packages},
        devices=frozenset().union(*(one.devices for one in searches)),
        codes_accepted=max(len(codes), *(one.codes_accepted for one in searches)),
        num_records=sum(one.num_records for one in searches),
    )


def _total(rows: Sequence[Row]) -> Effort | None:
    """The effort of the first row, with the sums over all rows; a sum is None where a part of it is not known."""
    efforts = [row.effort for row in rows if row.effort]
    if not efforts:
        return None
    sums = {name: _sum([getattr(effort, name) for effort in efforts]) for name in SUMMED}
    return replace(efforts[0], **sums, searches=len(efforts), codes=max(effort.codes for effort in efforts))


def _sum(numbers: Sequence[Any]) -> Any:
    """The sum of numbers; None if one is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
