"""A folder with the two halves of a data set as files, and their checksums next to them (a part of `glyphs`).

The halves are separate files, so that reading the trainval half never opens the test half. `about.json` is written last
and holds the SHA-256 of each half; a half without it does not count. One process draws at a time; others wait.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmark.core import records
from benchmark.core.records import JsonObject

LOCK_SECONDS = 600.0  # how long to wait for another process that fills the same folder


@dataclass(frozen=True)
class HalvesCache:
    """The folder of one data set for one choice of parameters.

    Attributes:
        folder: where the files are or will be.
        parameters: JSON values that the content depends on; a folder filled for others does not count.
    """

    folder: Path
    parameters: JsonObject

    def path(self, half: str) -> Path:
        """File of one half."""
        return self.folder / f"{half}.npz"

    def about(self) -> JsonObject | None:
        """Read what was noted when the halves were written; None if it is missing, damaged or for other parameters."""
        try:
            about = records.read_record(self.folder / "about.json").result
        except (FileNotFoundError, records.CorruptFileError):
            return None
        return about if about.get("parameters") == self.parameters else None

    def read(self, half: str) -> bytes | None:
        """Read one half; None if it is missing, or differs from what was written."""
        about = self.about()
        if about is None or not self.path(half).is_file():
            return None
        payload = self.path(half).read_bytes()
        return payload if hashlib.sha256(payload).hexdigest() == about["sha256"][half] else None

    def is_whole(self, halves: Iterable[str]) -> bool:
        """Whether about.json and the given halves can be read; other halves are not opened."""
        return self.about() is not None and all(self.read(half) is not None for half in halves)

    def ensure(self, halves: Iterable[str], make: Callable[[], tuple[dict[str, bytes], JsonObject]]) -> bool:
        """Fill the folder unless the given halves are whole; other halves are not opened.

        Args:
            halves: the halves that the caller is going to read.
            make: returns the bytes of every half, and facts to note in about.json.

        Returns:
            Whether `make` was called.

        Raises:
            LockedError: another process still fills the folder after `LOCK_SECONDS`.
            WriteError: the folder cannot be written.
        """
        if self.is_whole(halves):
            return False
        with records.only_one(self.folder / "lock", f"The cache {self.folder}", wait_seconds=LOCK_SECONDS):
            if self.is_whole(halves):  # another process filled it while this one waited
                return False
            records.remove_unfinished(self.folder)
            self._quarantine_damaged(halves)
            payloads, facts = make()
            for half, payload in payloads.items():
                records.write_whole(self.path(half), payload)
            sha256 = {half: hashlib.sha256(payload).hexdigest() for half, payload in payloads.items()}
            about = facts | {"parameters": self.parameters, "sha256": sha256}
            records.write_record(self.folder / "about.json", records.Record(kind="dataset", result=about))
        return True

    def _quarantine_damaged(self, halves: Iterable[str]) -> None:
        about = self.folder / "about.json"
        if self.about() is None:  # without checksums a damaged half looks like a good one, so all are replaced
            damaged = [about] if about.exists() else []
        else:
            damaged = [self.path(half) for half in halves if self.path(half).exists() and self.read(half) is None]
        for path in damaged:
            kept = records.quarantine(path)
            warnings.warn(f"{path} is damaged; it is kept as {kept.name} and drawn again.", stacklevel=2)
