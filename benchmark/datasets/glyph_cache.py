"""A folder with the two halves of a data set as files, and what is known about them beside it (a part of `glyphs`).

The halves are separate files, so that whoever reads the trainval half never opens the test half. `about.json` is
written last and holds the SHA-256 of each half: a half counts only with it. One process draws at a time, others wait.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.core import records

LOCK_SECONDS = 600.0  # how long to wait for another process that fills the same folder


@dataclass(frozen=True)
class HalvesCache:
    """The folder of one data set with one choice of parameters.

    Attributes:
        folder: where the files are or will be.
        parameters: JSON values that the content depends on; a folder filled with others does not count.
    """

    folder: Path
    parameters: dict[str, Any]

    def path(self, half: str) -> Path:
        """The file of one half."""
        return self.folder / f"{half}.npz"

    def about(self) -> dict[str, Any] | None:
        """What was noted when the halves were written, None where that is missing, damaged or of other parameters."""
        try:
            about = records.read_record(self.folder / "about.json").result
        except (FileNotFoundError, records.CorruptFileError):
            return None
        return about if about.get("parameters") == self.parameters else None

    def read(self, half: str) -> bytes | None:
        """The bytes of one half, None where they are missing or not the ones that were written."""
        about = self.about()
        if about is None or not self.path(half).is_file():
            return None
        payload = self.path(half).read_bytes()
        return payload if hashlib.sha256(payload).hexdigest() == about["sha256"][half] else None

    def is_whole(self, halves: Iterable[str]) -> bool:
        """True if about.json and the given halves can be read; other halves are not opened."""
        return self.about() is not None and all(self.read(half) is not None for half in halves)

    def ensure(self, halves: Iterable[str], make: Callable[[], tuple[dict[str, bytes], dict[str, Any]]]) -> bool:
        """Fill the folder unless the given halves are whole; True if that was needed. Other halves are not opened.

        Args:
            halves: the halves that the caller is going to read.
            make: gives the bytes of every half, and facts to note beside them.
        """
        if self.is_whole(halves):
            return False
        with records.only_one(self.folder / "lock", f"The cache {self.folder}", wait_seconds=LOCK_SECONDS):
            if self.is_whole(halves):  # another process filled it while this one waited
                return False
            self._set_aside_damaged(halves)
            payloads, facts = make()
            for half, payload in payloads.items():
                records.write_whole(self.path(half), payload)
            sha256 = {half: hashlib.sha256(payload).hexdigest() for half, payload in payloads.items()}
            about = facts | {"parameters": self.parameters, "sha256": sha256}
            records.write_record(self.folder / "about.json", records.Record(kind="dataset", result=about))
        return True

    def _set_aside_damaged(self, halves: Iterable[str]) -> None:
        about = self.folder / "about.json"
        if self.about() is None:  # then nothing tells a damaged half from a good one: all are simply replaced
            damaged = [about] if about.exists() else []
        else:
            damaged = [self.path(half) for half in halves if self.path(half).exists() and self.read(half) is None]
        for path in damaged:
            kept = records.set_aside(path)
            warnings.warn(f"{path} is damaged; it is kept as {kept.name} and drawn again.", stacklevel=2)
