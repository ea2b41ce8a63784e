"""Training curves of one fold, written by record-keeper as SQLite (`logs.db`) and CSV.

record-keeper only appends: a resumed fold would write an epoch twice, and a column that appears late would get a second
header in the CSV. The files are therefore rewritten as a whole, from the history in the checkpoint, at the end of a
fold and occasionally before. No decision or table depends on them.
"""

import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.training.history import HistoryRow


def write_curves(folder: Path, history: Sequence[HistoryRow]) -> None:
    """Replace the curves in `folder` with those of `history`.

    Args:
        folder: folder of the curve files; it holds nothing else.
        history: one row for each evaluated epoch, as in a fold's record.

    Raises:
        UserError: the files cannot be written; the message says what to do.
    """
    try:
        _write(folder, history)
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"Cannot write {folder}: {error}. Free some space or check the disk, and run the same command again: "
            "nothing finished is lost."
        ) from error


def _write(folder: Path, history: Sequence[HistoryRow]) -> None:
    from record_keeper import RecordKeeper, RecordWriter

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keeper = RecordKeeper(record_writer=RecordWriter(str(folder)))
    state_names = sorted({name for row in history for name in row["diagnostics"]})
    for row in history:
        keeper.update_records(_groups(row, state_names), row["epoch"])
    keeper.save_records()


def _groups(row: HistoryRow, state_names: Sequence[str]) -> dict[str, Mapping[str, object]]:
    """Group a row's numbers by table; a diagnostic missing from the row is NaN."""
    groups: dict[str, Mapping[str, object]] = {}
    if "map_at_r" in row:
        groups["validation"] = {
            "map_at_r": row["map_at_r"], "r_precision": row["r_precision"], "precision_at_1": row["precision_at_1"],
        }  # fmt: skip
    if "watched" in row:
        groups["test"] = row["watched"]
    if row["loss"] is not None:
        groups["training"] = {"loss": row["loss"]}
    if state_names:
        groups["loss_state"] = {name: float(row["diagnostics"].get(name, float("nan"))) for name in state_names}
    return groups
