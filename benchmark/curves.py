"""Training curves of one fold, kept by record-keeper as SQLite (`logs.db`) and CSV.

record-keeper only appends, so a resumed fold would write an epoch twice: the files are therefore rebuilt from the
checkpoint's history when a fold starts or goes on, and appended to from there. Decisions and tables never read them.
"""

import shutil
from pathlib import Path
from typing import Any

VALIDATION = ("map_at_r", "r_precision", "precision_at_1")


class Curves:
    """Writer of one fold's curves.

    Args:
        folder: holds nothing but these files, and is emptied first.
    """

    def __init__(self, folder: Path) -> None:
        from record_keeper import RecordKeeper, RecordWriter

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._keeper = RecordKeeper(record_writer=RecordWriter(str(folder)))
        self._num_written = 0

    def write(self, history: list[dict[str, Any]]) -> None:
        """Append the rows of `history` that are not on disk yet."""
        rows = history[self._num_written :]
        for row in rows:
            groups = {"validation": {key: row[key] for key in VALIDATION}}
            if row["loss"] is not None:
                groups["training"] = {"loss": row["loss"]}
            if row["diagnostics"]:
                groups["loss_state"] = {key: float(value) for key, value in row["diagnostics"].items()}
            self._keeper.update_records(groups, row["epoch"])
        if rows:
            self._keeper.save_records()
        self._num_written = len(history)
