"""Records on disk: every file is complete or absent, names its schema version, and can be verified.

A record is one finished unit of work (a fold, a trial, a run) as JSON with four parts: `schema`, `kind`, `result`
(compared bit for bit between runs) and `provenance` (seed, versions, commit, hardware, seconds). The SHA-256 of the
result is stored with it, so that a damaged file is detected. This module does not interpret results.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmark.core.errors import DISK_FULL, NO_ACCESS, UserError

JsonObject = dict[str, Any]  # as `json.loads` returns it; only its reader knows the fields
SCHEMA = 1
TEMPORARY = re.compile(r"\.(.+?)(?:\.\w+)?\.\d+\.tmp")  # names of files that `write_whole` has not renamed yet
READ_ONLY = (*NO_ACCESS, errno.EEXIST)  # EEXIST: a parent folder is a file


class CorruptFileError(UserError):
    """A file of this project that is truncated, altered or written by a newer version."""


class WriteError(UserError, OSError):
    """A file that cannot be written; also an `OSError`, so that optional files can be skipped on any `OSError`."""


class LockedError(UserError):
    """Another process holds the lock."""


@dataclass(frozen=True)
class Record:
    """One finished unit of work.

    Attributes:
        kind: `fold`, `trial`, `run`, ...
        result: the outcome; equal inputs give an equal result, bit for bit.
        provenance: how it was obtained; differs between machines and days.
        schema: version of the layout of `result`.
    """

    kind: str
    result: JsonObject
    provenance: JsonObject = field(default_factory=dict)
    schema: int = SCHEMA


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file atomically: a reader, or a restart after SIGKILL, sees either all of it or the previous content.

    Args:
        path: the file; missing parent folders are created.
        data: its whole content.
        durable: flush to disk before returning, so that the file also survives a power cut.

    Raises:
        WriteError: the file cannot be written, for example because the disk is full; the old file is untouched.
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


def remove_unfinished(folder: Path) -> None:
    """Delete what processes left behind that were killed inside `write_whole`, in a folder and below it.

    A subfolder with a held `lock` is skipped, and so is the record next to it: a worker that outlived its driver, as a
    SLURM job can, may be writing them at this moment.

    Args:
        folder: a folder whose lock the caller holds; it need not exist.
    """
    for path in folder.rglob(".*.tmp"):
        if found := TEMPORARY.fullmatch(path.name):
            inside = [path.with_name(found[1]), *path.parents]
            owners = [parent for parent in inside if folder in parent.parents]
            if not any(is_held(owner / "lock") for owner in owners):
                path.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(error: OSError, path: Path) -> WriteError:
    """Convert an error to one with the file's name and advice."""
    if error.errno in DISK_FULL:
        advice = "the disk is full. Free some space and run the same command again: nothing finished is lost"
    elif error.errno in READ_ONLY:
        advice = "the folder cannot be written. Make it writable, or name another one with results_dir=FOLDER"
    else:
        advice = error.strerror or "unknown reason"
    explained = WriteError(f"Cannot write {path}: {advice}.")
    explained.errno = error.errno
    return explained


def append_line(path: Path, value: JsonObject) -> None:
    """Append one JSON line and force it to disk before returning.

    Raises:
        ValueError: a number is not finite.
        WriteError: the file cannot be written.
    """
    line = json.dumps(value, sort_keys=True, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # else machines that append on a network file system lose lines
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _explained(error, path) from error


def digest(value: object) -> str:
    """SHA-256 of a JSON value, in hexadecimal; it does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_record(path: Path, record: Record) -> None:
    """Write a record completely or not at all.

    Raises:
        ValueError: a number is not finite; a failure is never recorded as a number.
        WriteError: the file cannot be written.
    """
    body = asdict(record) | {"result_sha256": digest(record.result)}
    write_whole(path, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())


def read_record(path: Path) -> Record:
    """Read a record and verify it.

    Raises:
        CorruptFileError: the file is not a record, was altered, or was written by a newer version.
        FileNotFoundError: there is no such file.
    """
    data = path.read_bytes()
    try:
        body = json.loads(data)
    except ValueError as error:
        raise CorruptFileError(f"{path} is damaged or not a record ({error}).") from error
    if not isinstance(body, dict) or not isinstance(schema := body.get("schema"), int):
        raise CorruptFileError(f"{path} is damaged or not a record.")
    if schema > SCHEMA:
        raise CorruptFileError(f"{path} has schema {schema}; this version reads up to {SCHEMA}. Upgrade.")
    checksum = body.pop("result_sha256", None)
    if body.keys() != {f.name for f in fields(Record)}:
        raise CorruptFileError(f"{path} is damaged or not a record.")
    record = Record(**body)
    if digest(record.result) != checksum:
        raise CorruptFileError(f"{path} does not match its own checksum: it was altered after it was written.")
    return record


def read_or_quarantine(path: Path) -> tuple[Record | None, str | None]:
    """Read a finished record; a damaged one is quarantined, so that its unit is redone.

    Returns:
        The record, or None if it is missing or damaged; and a note for the user if it is damaged, else None.
    """
    try:
        return read_record(path), None
    except FileNotFoundError:
        return None, None
    except CorruptFileError as error:
        return None, f"{error} It is kept as {quarantine(path).name}; only this unit is repeated."


def quarantine(path: Path, why: str = "damaged") -> Path:
    """Quarantine a file or folder: rename it to a name that nothing reads, and return the new path."""
    target = path.with_name(f"{path.name}.{why}-{time.time_ns()}")
    os.replace(path, target)
    return target


def write_checked(path: Path, payload: bytes) -> None:
    """Write binary data, preceded by its SHA-256.

    Raises:
        WriteError: the file cannot be written.
    """
    write_whole(path, hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def read_checked(path: Path) -> bytes:
    """Read binary data written by `write_checked`.

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
    """Hold a lock file during the block; the operating system releases it when the process ends for any reason.

    Args:
        path: the lock file, which is created.
        what: name of the locked resource for messages, such as "Study NAME".
        wait_seconds: how long to wait for the lock; the default outlasts a check by `is_held`.

    Raises:
        LockedError: another process still holds it after `wait_seconds`.
        WriteError: the lock file cannot be created.
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
                    raise LockedError(f"{busy} Wait for it, or stop it: what it finished is kept.") from None
                time.sleep(0.05)
        with contextlib.suppress(OSError):  # on a full disk the lock holds, but does not name its owner
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


def is_held(path: Path) -> bool:
    """Whether any process holds a lock file; takes a shared lock for an instant and writes nothing."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # it does not exist or cannot be locked
    return False
