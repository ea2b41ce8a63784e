"""Records on disk: every file is complete or absent, names its schema version, and can be verified.

A record is one finished unit of work (a fold, a trial, a run) as JSON with five parts: `schema`, `kind`, `result`
(equal inputs give an equal result, bit for bit), `identity` (digests of everything that can change the result) and
`provenance` (versions, commit, hardware, seconds). A SHA-256 of all five is stored with them, so that a damaged file is
detected. Records of schema 1, which have no identity and a checksum of the result alone, are still read. This module
does not interpret results.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from benchmark.core.cache_dir import ANOTHER, in_cache
from benchmark.core.errors import DISK_FULL, LIMITS, NO_ACCESS, UserError
from benchmark.core.pulse import beat

JsonObject = dict[str, Any]  # as `json.loads` returns it; only its reader knows the fields
SCHEMA = 2
TEMPORARY = re.compile(r"\.(.+?)(?:\.\w+)?\.\d+\.tmp")  # names of files that `write_whole` has not renamed yet
ABANDONED_SECONDS = 3600.0  # age of a half-written file after which no machine is still writing it
MOST_BYTES = 2**28  # of a record, or of a file of lines; real ones have less than a hundredth
ATTEMPTS = 10  # to create a lock in a folder that others may be removing
READ_ONLY = (*NO_ACCESS, errno.EEXIST)  # EEXIST: a parent folder is a file, or a link to nothing


class CorruptFileError(UserError):
    """A file of this project that is truncated or altered."""

    why: ClassVar[str] = "damaged"  # part of the file's name once it is quarantined


class ForeignFileError(CorruptFileError):
    """An intact file whose identity is not the expected one: another setting, other code, another configuration."""

    why = "other"


class NewerFileError(UserError):
    """A file that a newer version of this project wrote; it is intact, so nothing may move or replace it."""


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
        identity: digests of what the outcome depends on; None in schema 1, and in records that are never compared.
        schema: version of the file's layout.
    """

    kind: str
    result: JsonObject
    provenance: JsonObject = field(default_factory=dict)
    identity: JsonObject | None = None
    schema: int = SCHEMA


def write_whole(path: Path, *data: bytes | memoryview, durable: bool = True) -> None:
    """Write a file atomically: a reader, or a restart after SIGKILL, sees either all of it or the previous content.

    Args:
        path: the file; missing parent folders are created.
        data: its whole content, perhaps in several parts.
        durable: flush to disk before returning, so that the file also survives a power cut.

    Raises:
        WriteError: the file cannot be written, for example because the disk is full; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.writelines(data)
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


def remove_abandoned(folder: Path) -> None:
    """Delete what killed processes left behind inside `write_whole`, in a folder that has no lock.

    A file is kept if its process still runs, or if it is younger than an hour: another machine may be writing it.

    Args:
        folder: the folder; it need not exist.
    """
    for path in folder.glob(".*.tmp"):
        if not TEMPORARY.fullmatch(path.name) or _is_running(int(path.name.split(".")[-2])):
            continue
        with contextlib.suppress(OSError):  # another process deletes it, too, or the folder is read-only
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()


def _is_running(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it is another user's
    return True


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(error: OSError, path: Path) -> WriteError:
    """Convert an error to one with the file's name and advice."""
    another = ANOTHER if in_cache(path) else "name another one with results_dir=FOLDER"
    if error.errno in DISK_FULL:
        space = f"Free some space{f' or {ANOTHER},' if in_cache(path) else ''}"
        advice = f"the disk is full. {space} and run the same command again: nothing finished is lost"
    elif error.errno in LIMITS:
        advice = f"{error.strerror}. Raise the limit (ulimit {LIMITS[error.errno]}): nothing finished is lost"
    elif error.errno == errno.ELOOP:
        advice = f"it is a symbolic link, and what it points to may be somebody else's. Delete the link, or {another}"
    elif error.errno in READ_ONLY:
        advice = f"the folder cannot be written. Make it writable, or {another}"
    else:
        advice = f"{error.strerror or 'unknown reason'}. Repair the folder, or {another}"
    explained = WriteError(f"Cannot write {path}: {advice}.")
    explained.errno = error.errno
    return explained


def not_a_link(path: str, flags: int) -> int:
    """An opener for `open` that refuses a symbolic link, since a results folder may come from somebody else."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def append_line(path: Path, value: JsonObject) -> None:
    """Append one JSON line and force it to disk before returning.

    If the file ends in half a line, which a killed process left, the new line still begins on a line of its own. If
    writing fails, the file is cut back to its previous length where the system allows it.

    Raises:
        ValueError: a number is not finite.
        WriteError: the file cannot be written.
    """
    line = json.dumps(value, sort_keys=True, allow_nan=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+", buffering=0, opener=not_a_link) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # else machines that append on a network file system lose lines
            end = file.seek(0, os.SEEK_END)
            torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            try:
                _write_all(file.fileno(), b"\n" * torn + line)
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), end)
                raise
    except OSError as error:
        raise _explained(error, path) from error


def _write_all(descriptor: int, data: bytes) -> None:
    while data:  # a nearly full disk takes a part
        data = data[os.write(descriptor, data) :]


def digest(value: object) -> str:
    """SHA-256 of a JSON value, in hexadecimal; it does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_record(path: Path, record: Record) -> None:
    """Write a record completely or not at all.

    Raises:
        ValueError: a number is not finite (a failure is never recorded as a number), or `record.schema` is not current.
        WriteError: the file cannot be written.
    """
    if record.schema != SCHEMA:
        raise ValueError(f"{path}: records are written with schema {SCHEMA}, not {record.schema}.")
    body = asdict(record)
    text = json.dumps(body | {"sha256": digest(body)}, indent=1, allow_nan=False)
    write_whole(path, f"{text}\n".encode())


def read_file(path: Path, most_bytes: int | None = None) -> bytes:
    """The content of a regular file; a device or a pipe, which may never end, is not read.

    Args:
        path: the file, perhaps in a results folder from somebody else.
        most_bytes: largest size; None for any.

    Raises:
        CorruptFileError: it is not a regular file, or too large.
        OSError: it cannot be read.
    """
    try:
        opened = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - closed by the block below
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ELOOP):  # a folder, or a link to itself
            raise CorruptFileError(f"{path} is damaged: it is not a regular file.") from error
        raise
    with opened as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CorruptFileError(f"{path} is damaged: it is not a regular file.")
        if most_bytes is not None and status.st_size > most_bytes:
            raise CorruptFileError(f"{path} is damaged: it is larger than {most_bytes:,} bytes.")
        return file.read()


def _without_waiting(path: str, flags: int) -> int:
    """An opener for `open` that does not wait for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_record(path: Path) -> Record:
    """Read a record and verify it.

    Raises:
        CorruptFileError: the file is not a record, or was altered.
        NewerFileError: a newer version wrote it.
        FileNotFoundError: there is no such file.
    """
    return parse_record(read_file(path, MOST_BYTES), path)


def parse_record(data: bytes, path: Path, *, is_verified: bool = False) -> Record:
    """Parse a record and verify it.

    Args:
        data: the content of its file.
        path: the file, for messages.
        is_verified: whether this content was verified before: its checksum is not computed again.

    Raises:
        CorruptFileError: the file is not a record, or was altered.
        NewerFileError: a newer version wrote it.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path} is damaged or not a record ({error}).") from error
    if not isinstance(body, dict) or type(schema := body.get("schema")) is not int or schema < 1:
        raise CorruptFileError(f"{path} is damaged or not a record.")
    if schema > SCHEMA:
        raise NewerFileError(f"{path} has schema {schema}; this version reads up to {SCHEMA}. Upgrade this project.")
    checksum = body.pop("result_sha256" if schema == 1 else "sha256", None)
    names = {f.name for f in fields(Record)} - ({"identity"} if schema == 1 else set())
    if body.keys() != names or not _has_shape(body):
        raise CorruptFileError(f"{path} is damaged or not a record.")
    if not is_verified and digest_or_none(body["result"] if schema == 1 else body) != checksum:
        raise CorruptFileError(f"{path} does not match its own checksum: it was altered after it was written.")
    return Record(**body)


def _has_shape(body: JsonObject) -> bool:
    parts = (body["result"], body["provenance"], body.get("identity") or {})
    return isinstance(body["kind"], str) and all(isinstance(part, dict) for part in parts)


def digest_or_none(value: object) -> str | None:
    """The digest of a value from a file; None if it has what JSON lacks, such as a date or NaN, or nests too deeply."""
    try:
        return digest(value)
    except (TypeError, ValueError, RecursionError):
        return None


def quarantine(path: Path, why: str = "damaged") -> Path:
    """Quarantine a file or folder: rename it to a name that nothing reads, and return the new path.

    Args:
        path: the file or folder.
        why: the reason in one word, which becomes part of the new name.
    """
    target = path.with_name(f"{path.name}.{why}-{time.time_ns()}")
    os.replace(path, target)
    return target


def write_checked(path: Path, payload: bytes | memoryview) -> None:
    """Write binary data, preceded by its SHA-256.

    Raises:
        WriteError: the file cannot be written.
    """
    write_whole(path, hashlib.sha256(payload).hexdigest().encode() + b"\n", payload)


def read_checked(path: Path) -> bytes:
    """Read binary data written by `write_checked`.

    Raises:
        CorruptFileError: the checksum does not match.
        FileNotFoundError: there is no such file.
    """
    head, _, payload = read_file(path).partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != head:
        raise CorruptFileError(f"{path} is damaged: its checksum does not match.")
    return payload


@contextlib.contextmanager
def only_one(path: Path, what: str, wait_seconds: float = 0.2) -> Iterator[None]:
    """Hold a lock file during the block; the operating system releases it when the process ends for any reason.

    If the block fails before anything else is in the folder, the lock and the folders that were created for it are
    removed, so that a command that refuses to start leaves nothing behind.

    Args:
        path: the lock file, which is created.
        what: name of the locked resource for messages, such as "Study NAME".
        wait_seconds: how long to wait for the lock; the default outlasts a check by `is_held`.

    Raises:
        LockedError: another process still holds it after `wait_seconds`.
        WriteError: the lock file cannot be created, or its disk has no locks.
    """
    deadline = time.monotonic() + wait_seconds
    created = [folder for folder in path.parents if not folder.exists()]
    attempts = 0
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "ab+", buffering=0, opener=not_a_link)  # noqa: SIM115 - closed below, after the block
        except FileNotFoundError as error:  # perhaps its last holder has just removed the folder
            attempts += 1
            if attempts == ATTEMPTS:
                raise _explained(error, path) from error
            continue
        except OSError as error:
            raise _explained(error, path) from error
        with file:
            _lock(file, path, what, deadline)
            if not _is_at(file, path):  # its last holder removed it, and another process may hold a new one
                continue
            with contextlib.suppress(OSError):  # on a full disk the lock holds, but does not name its owner
                file.truncate(0)
                file.write(f"{os.getpid()} on {platform.node()}".encode())
            try:
                yield
            except BaseException:
                _remove_alone(path, created)
                raise
            return


def _lock(file: io.FileIO, path: Path, what: str, deadline: float) -> None:
    """Lock an open file, or raise as `only_one` does; `deadline` is a time of `time.monotonic`."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().decode(errors="replace").strip() or "unknown"
                busy = f"{what} is already being worked on by process {holder} ({path})."
                raise LockedError(f"{busy} Wait for it, or stop it: what it finished is kept.") from None
            beat()
            time.sleep(0.05)
        except OSError as error:  # a network file system without locks
            raise _explained(error, path) from error


def _is_at(file: io.FileIO, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except OSError:
        return False


def _remove_alone(lock: Path, created: Sequence[Path]) -> None:
    """Remove a held lock file and the folders created for it, the innermost first, unless something else is in them."""
    with contextlib.suppress(OSError):
        if os.listdir(lock.parent) != [lock.name]:
            return
        lock.unlink()
        for folder in created:
            folder.rmdir()


def is_held(path: Path) -> bool:
    """Whether any process holds a lock file; takes a shared lock for an instant and writes nothing."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # it does not exist or cannot be locked
    return False
