"""A cache folder with one file per half of a data set, and their checksums next to them (used by `glyphs`).

The halves are separate files, so that reading the trainval half never opens the test half. `about.json` is written last
and holds the SHA-256 of each half; a half without a hash does not count. Only one process draws at a time; the others
wait.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmark.core import records
from benchmark.core.records import JsonObject

LOCK_SECONDS = 600.0  # how long to wait for another process that is filling the folder


@dataclass(frozen=True)
class HalvesCache:
    """The cache folder of a data set with given parameters.

    Attributes:
        folder: folder of the files, which may not exist yet.
        parameters: JSON values that determine the content; a folder filled for other values does not count.
    """

    folder: Path
    parameters: JsonObject

    def path(self, half: str) -> Path:
        """Return the path of the file of a half."""
        return self.folder / f"{half}.npz"

    def about(self) -> JsonObject | None:
        """Read `about.json`; None if it is missing, damaged or for other parameters."""
        try:
            about = records.read_record(self.folder / "about.json").result
        except (FileNotFoundError, records.CorruptFileError):
            return None
        return about if about.get("parameters") == self.parameters else None

    def read(self, half: str) -> bytes | None:
        """Read one half; None if it is missing or does not match its checksum."""
        about = self.about()
        if about is None or not self.path(half).is_file():
            return None
        payload = self.path(half).read_bytes()
        return payload if hashlib.sha256(payload).hexdigest() == about["sha256"][half] else None

    def is_whole(self, halves: Iterable[str]) -> bool:
        """Return whether about.json and the given halves are intact; other halves are not opened."""
        return self.about() is not None and all(self.read(half) is not None for half in halves)

    def ensure(self, halves: Iterable[str], make: Callable[[], tuple[dict[str, bytes], JsonObject]]) -> bool:
        """Fill the folder unless the given halves are intact; other halves are not opened.

        Args:
            halves: the halves that the caller will read.
            make: returns the bytes of every half, and facts to store in about.json.

        Returns:
            Whether `make` was called.

        Raises:
            LockedError: another process is still filling the folder after `LOCK_SECONDS`.
            WriteError: the folder cannot be written.
        """
        if self.is_whole(halves):
            return False
        with records.only_one(self.folder / "lock", f"The cache {self.folder}", wait_seconds=LOCK_SECONDS):
            if self.is_whole(halves):  # another process filled it in the meantime
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
        if self.about() is None:  # without checksums, damage cannot be detected, so all halves are replaced
            damaged = [about] if about.exists() else []
        else:
            damaged = [self.path(half) for half in halves if self.path(half).exists() and self.read(half) is None]
        for path in damaged:
            kept = records.quarantine(path)
            warnings.warn(f"{path} is damaged. It is kept as {kept.name}; its images are drawn again.", stacklevel=2)
