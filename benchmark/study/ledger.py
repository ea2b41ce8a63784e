"""The ledger of a study, `test_ledger.jsonl`: one line for every access to its test classes.

An access is whatever shows something about them: their images, and the embeddings that a run kept of them.
"""

import time
from pathlib import Path

from benchmark.core import records
from benchmark.core.records import JsonObject

NAME = "test_ledger.jsonl"


def log_access(directory: Path, entry: JsonObject) -> None:
    """Append a line to the ledger; call it before the access.

    Args:
        directory: the study's folder.
        entry: the fields of the line, in addition to the time.

    Raises:
        OSError: the line cannot be written, so the test classes must stay closed.
    """
    records.append_line(directory / NAME, {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | entry)
