"""The table of metrics on the levels of a hierarchy, from the scores that final runs record beside the usual ones."""

from collections.abc import Sequence

from benchmark.core.records import JsonObject
from benchmark.core.wording import plus_minus
from benchmark.protocol.statistics import Interval, t_interval
from benchmark.report.table import Block, Head, Key, Section

FIELD = "levels"  # of a run's result
MODES = {"concatenated": "Concatenated", "separated": "Separated"}
METRICS = {
    "h_ap": "H-AP",
    "ndcg": "NDCG",
    "asi": "ASI",
    "super_map_at_r": "Super MAP@R",
    "class_map_at_r": "Class mean MAP@R",
}
ABOUT = {
    "h_ap": "H-AP, NDCG, ASI: the ranking as a whole; a reference of the class counts more than one of the super class",
    "super_map_at_r": "Super MAP@R: every reference of the super class is relevant",
    "class_map_at_r": "Class mean MAP@R: averaged over classes, not over queries",
}


def level_columns(results: Sequence[JsonObject]) -> list[Key]:
    """Return mode and metric of each score on the levels that all of some runs have.

    Args:
        results: results of the runs that have a score.
    """
    levels = [result.get(FIELD, {}) for result in results]
    keys = [(mode, metric) for mode in MODES for metric in METRICS]
    return [key for key in keys if levels and all(key[1] in one.get(key[0], {}) for one in levels)]


def level_intervals(results: Sequence[JsonObject], confidence: float) -> dict[Key, Interval]:
    """Return mean and interval of each score on the levels that all runs have, in percent.

    Args:
        results: results of the runs that have a score.
        confidence: confidence level of the intervals.
    """
    return {
        (mode, metric): t_interval([100 * result[FIELD][mode][metric] for result in results], confidence)
        for mode, metric in level_columns(results)
    }


def levels_block(section: Section) -> list[Block]:
    """Return the table of a section's scores on the levels, as a list; empty if no row has any."""
    rows = [row for row in section.rows if row.levels]
    if not rows:
        return []
    groups = {
        title: [[row.full_label, *(_text(row.levels.get((mode, metric))) for metric in METRICS)] for row in rows]
        for mode, title in MODES.items()
    }
    heads = [Head("Loss"), *map(Head, METRICS.values())]
    block = Block("levels", "Levels of the hierarchy.", heads, 1, groups).without_empty_columns()
    shown = {head.title for head in block.heads}
    about = "; ".join(text for metric, text in ABOUT.items() if METRICS[metric] in shown)
    note = f"{about}. Mean ± {100 * section.confidence:.0f} % t-interval over runs, in percent."
    return [Block(block.name, block.title, block.heads, 1, block.groups, [note])]


def _text(interval: Interval | None) -> str:
    return "" if interval is None else plus_minus(interval.mean, interval.half_width, "±")
