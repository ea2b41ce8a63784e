"""Training curves of one fold, kept by record-keeper as SQLite (`logs.db`) and CSV.

record-keeper only appends: a resumed fold would write an epoch twice, and a column that appears late would get a second
header into the CSV. The files are therefore written whole, from the history that the checkpoint holds, at the end of a
fold and now and then before. Decisions and tables never read them.
"""

import errno
import shutil
import sqlite3
from pathlib import Path
from typing import Any

VALIDATION = ("map_at_r", "r_precision", "precision_at_1")


def write_curves(folder: Path, history: list[dict[str, Any]]) -> None:
    """Replace the curves in `folder` by those of `history`.

    Args:
        folder: holds nothing but these files.
        history: one row for each evaluated epoch, as in a fold's record.

    Raises:
        OSError: they cannot be written; the message says what to do.
    """
    try:
        _write(folder, history)
    except (OSError, sqlite3.Error) as error:
        message = f"Cannot write {folder}: {error}. Free some space or check the disk, and run the same command again"
        raise OSError(errno.EIO, f"{message}: nothing finished is lost.") from error


def _write(folder: Path, history: list[dict[str, Any]]) -> None:
    from record_keeper import RecordKeeper, RecordWriter

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keeper = RecordKeeper(record_writer=RecordWriter(str(folder)))
    state_names = sorted({name for row in history for name in row["diagnostics"]})
    for row in history:
        groups = {"validation": {key: row[key] for key in VALIDATION}} if "map_at_r" in row else {}
        if "watched" in row:
            groups["test"] = row["watched"]
        if row["loss"] is not None:
            groups["training"] = {"loss": row["loss"]}
        if state_names:
            groups["loss_state"] = {n: float(row["diagnostics"].get(n, float("nan"))) for n in state_names}
        keeper.update_records(groups, row["epoch"])
    keeper.save_records()
