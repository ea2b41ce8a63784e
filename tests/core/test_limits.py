"""Limits of a session: what they refuse is a sentence, leaves the old file as it was, and leaves no other file."""

import contextlib
import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core import records
from benchmark.core.errors import WorkerDiedError, message_for_user
from benchmark.jobs.executors.messages import error_from_json, error_to_json
from benchmark.jobs.executors.pool import Pool

LIMITS = pytest.mark.bad_input("environment", "limits")
WRITES: dict[str, Callable[[Path], None]] = {
    "a file": lambda path: records.write_whole(path, bytes(50_000)),
    "a record": lambda path: records.write_record(path, records.Record("fold", {"text": "x" * 50_000})),
    "a checkpoint": lambda path: records.write_checked(path, bytes(50_000)),
    "a line": lambda path: records.append_line(path, {"text": "x" * 50_000}),
}


@contextlib.contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    """Lower a limit of this process within the block."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def no_more_files() -> int:
    """The limit of open files that this process has reached already."""
    with open(os.devnull, "rb") as file:
        return file.fileno()


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(Exception) as caught:
        work()
    message = message_for_user(caught.value)
    assert message is not None, caught.value
    return message


@LIMITS
@pytest.mark.parametrize("most", [0, 1, 4096, 49_000])
@pytest.mark.parametrize("name", WRITES)
def test_a_file_that_may_not_become_so_large_is_named_with_the_limit(name: str, most: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"{}\n")
    with limited(resource.RLIMIT_FSIZE, most):
        message = refusal(lambda: WRITES[name](path))
    assert str(path) in message and "ulimit -f" in message and "nothing finished is lost" in message
    assert path.read_bytes() == b"{}\n" and list(tmp_path.iterdir()) == [path]


@LIMITS
@pytest.mark.parametrize("name", [*WRITES, "a lock", "a read"])
def test_too_many_open_files_are_named_with_the_limit(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"{}\n")

    def work() -> None:
        if name == "a lock":
            with records.only_one(path, "Study"):
                pass
        elif name == "a read":
            records.read_file(path)
        else:
            WRITES[name](path)

    with limited(resource.RLIMIT_NOFILE, no_more_files()):
        message = refusal(work)
    assert str(path) in message and "ulimit -n" in message
    assert path.read_bytes() == b"{}\n" and list(tmp_path.iterdir()) == [path]


@LIMITS
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.ESTALE], ids=errno.errorcode.get)
def test_a_disk_without_locks_is_named(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(records.fcntl, "flock", refused)

    def lock() -> None:
        with records.only_one(tmp_path / "lock", "Study"):
            pass

    message = refusal(lock)
    assert str(tmp_path / "lock") in message and os.strerror(number) in message and "results_dir=FOLDER" in message


MEMORY: dict[str, Callable[[], object]] = {
    "Python": lambda: bytearray(2**46),
    "NumPy": lambda: np.ones(2**46),
    "PyTorch": lambda: torch.ones(2**46),
    "a GPU": lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.")),
}


@LIMITS
@pytest.mark.parametrize("name", MEMORY)
def test_memory_that_runs_out_is_a_sentence_and_a_worker_that_is_replaced(name: str) -> None:
    assert "Memory ran out" in (message := refusal(MEMORY[name])) and "executor.workers=1" in message
    with pytest.raises(Exception) as caught:
        MEMORY[name]()
    assert isinstance(error_from_json(error_to_json(caught.value)), WorkerDiedError), "its unit is tried again"


@LIMITS
def test_a_thread_that_the_system_refuses_is_named_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert "ulimit -u" in refusal(lambda: Pool([object()]))  # type: ignore[list-item]
