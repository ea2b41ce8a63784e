"""Facts on disk: every file is whole or absent, says which schema wrote it, and can be checked.

A record is one finished piece of work (a fold, a trial, a run) as JSON with four parts: `schema`, `kind`,
`result` (compared bit for bit between runs) and `provenance` (seed, versions, commit, hardware, seconds), plus the
SHA-256 of the result, so that a damaged file is told from a good one. Nothing here knows what a record means.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError

JsonObject = dict[str, Any]  # a JSON object: what `json.loads` returns, of which only its reader knows the fields
SCHEMA = 1
FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


class CorruptFileError(UserError):
    """A file of ours that is truncated, altered or written by a newer version."""


@dataclass(frozen=True)
class Record:
    """One finished piece of work.

    Attributes:
        kind: `fold`, `trial` or `run`.
        result: what was found; equal inputs give an equal result, bit for bit.
        provenance: how it was found; differs between machines and days.
        schema: version of the layout of `result`.
    """

    kind: str
    result: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader, or a restart after SIGKILL, sees all of it or the previous one.

    Args:
        path: of the file.
        data: all of it.
        durable: whether it is on the disk on return, to survive a power cut as well.

    Raises:
        OSError: the disk is full or read-only; the message says what to do, and the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _explained(error, path) from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(error: OSError, path: Path) -> OSError:
    """The same error with what a person can do about it."""
    if error.errno in FULL:
        advice = "the disk is full. Free some space and run the same command again: nothing finished is lost"
    elif error.errno in READ_ONLY:
        advice = "the folder cannot be written. Make it writable, or name another one with results_dir=FOLDER"
    else:
        advice = error.strerror or "unknown reason"
    return OSError(error.errno, f"Cannot write {path}: {advice}.")


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON line and force it to disk before returning."""
    line = json.dumps(value, sort_keys=True, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two machines that append to a network file system lose lines
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _explained(error, path) from error


def digest(value: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_record(path: Path, record: Record) -> None:
    """Write a record whole or not at all.

    Raises:
        ValueError: a number is not finite; a failure is never a number.
    """
    body = asdict(record) | {"result_sha256": digest(record.result)}
    write_whole(path, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())


def read_record(path: Path) -> Record:
    """Read a record and check it.

    Raises:
        CorruptFileError: the file is not what was written; it is named, with what to do.
        FileNotFoundError: there is no such record.
    """
    try:
        body = json.loads(path.read_bytes())
        checksum = body.pop("result_sha256")
        record = Record(**body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(f"{path} is damaged or not a record ({error}).") from error
    if record.schema > SCHEMA:
        raise CorruptFileError(f"{path} has schema {record.schema}; this version reads up to {SCHEMA}. Upgrade.")
    if digest(record.result) != checksum:
        raise CorruptFileError(f"{path} does not match its own checksum: it was altered after it was written.")
    return record


def read_or_set_aside(path: Path) -> tuple[Record | None, str | None]:
    """A finished record, or None with a note about a damaged one, which is moved out of the way to be redone."""
    try:
        return read_record(path), None
    except FileNotFoundError:
        return None, None
    except CorruptFileError as error:
        return None, f"{error} It is kept as {set_aside(path).name}; only that piece is done again."


def set_aside(path: Path, why: str = "damaged") -> Path:
    """Rename a file or folder to a name nobody reads, and return that name."""
    target = path.with_name(f"{path.name}.{why}-{time.time_ns()}")
    os.replace(path, target)
    return target


def write_checked(path: Path, payload: bytes) -> None:
    """Write binary data behind its own SHA-256."""
    write_whole(path, hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def read_checked(path: Path) -> bytes:
    """Binary data written by `write_checked`.

    Raises:
        CorruptFileError: the checksum does not match.
        FileNotFoundError: there is no such file.
    """
    head, _, payload = path.read_bytes().partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != head:
        raise CorruptFileError(f"{path} is damaged: its checksum does not match.")
    return payload


@contextlib.contextmanager
def only_one(path: Path, what: str, wait_seconds: float = 0.2) -> Iterator[None]:
    """Hold a lock file for the time of the block; the system frees it when the process dies, however it dies.

    The default wait outlasts a look by `is_held`.

    Raises:
        ValueError: another process still holds it after `wait_seconds`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab+", buffering=0)  # noqa: SIM115 - closed below, after the block
    except OSError as error:
        raise _explained(error, path) from error
    with file:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read().decode(errors="replace").strip() or "unknown"
                    busy = f"{what} is already being worked on by process {holder} ({path})."
                    raise ValueError(f"{busy} Wait for it, or stop it: what it finished is kept.") from None
                time.sleep(0.05)
        with contextlib.suppress(OSError):  # a full disk: who holds the lock is a courtesy, that it is held is not
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


def is_held(path: Path) -> bool:
    """Whether some process holds a lock file; asks by taking it for an instant, and writes nothing."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # there is none, or none that can be locked
    return False
