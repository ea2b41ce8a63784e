"""The table of how rows rank if other test classes are drawn: the choice of classes is the same in all runs.

It needs the test embeddings that runs keep, and reads them only if the user asks for resamples.
"""

from collections.abc import Mapping
from pathlib import Path

from benchmark.report.runs import read_runs
from benchmark.report.table import Block, Head, Section
from benchmark.report.traditional_rows import KIND_OF_PAPERS


def rank(section: Section, folders: Mapping[str, Path], resamples: int) -> None:
    """Rank the complete rows of a section by its first main column over resampled test classes, and add the table.

    Args:
        section: its rows; `class_ranks` is filled where all runs kept their embeddings.
        folders: folder of each row's study, by name of the row.
        resamples: number of draws of the classes.

    Raises:
        UserError: a study's ledger cannot be written, or two studies have other test images.
        CorruptFileError: a file of embeddings is damaged, or is not the one that its record was made with.
    """
    from benchmark.report.class_intervals import KEPT_EPOCH, ranks_of_studies  # imports PyTorch

    column = section.main_columns()[0]
    rows = {row.name: row for row in section.rows if row.kind in ("", KIND_OF_PAPERS) and column.key in row.values}
    name = ".".join(column.key if len(column.key) > 1 else (KEPT_EPOCH, *column.key))
    found = ranks_of_studies({row: read_runs(folders[row]) for row in rows}, name, resamples)
    for row, each in found.items():
        rows[row].class_ranks[column.key] = each
    left_out = ", ".join(rows[row].label for row in rows if row not in found)
    missing = f" Left out, because a run kept no test embeddings: {left_out}." if left_out else ""
    if not found:
        section.footnotes.append(f"No ranks over test classes: fewer than two rows kept embeddings.{missing}")
        return
    lines = [[rows[row].label, f"{100 * each.first:.0f} %", f"{each.mean:.1f}"] for row, each in found.items()]
    note = (
        f"First: how often the row has the highest {column.heading}, averaged over its runs, in {resamples:,} "
        f"bootstrap samples of the test classes; rank: its mean rank in them.{missing}"
    )
    heads = [Head("Loss"), Head("First"), Head("Rank")]
    section.blocks.append(Block("classes", "Ranks over resampled test classes.", heads, 1, {"": lines}, [note]))
