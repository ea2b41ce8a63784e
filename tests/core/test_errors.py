"""Which exceptions are the user's, and what their messages name."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.core import records
from benchmark.core.download import DownloadError
from benchmark.core.errors import IncompleteError, UserError, WorkerDiedError, message_for_user

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", [UserError, DownloadError, records.CorruptFileError, records.LockedError])
def test_the_users_errors_are_their_message_and_no_value_error(kind: type[Exception]) -> None:
    assert message_for_user(kind("Do this.")) == "Do this."
    assert not issubclass(kind, ValueError | OSError)


def test_a_worker_that_died_comes_with_advice() -> None:
    message = message_for_user(WorkerDiedError("A worker ended."))
    assert message is not None and "executor.workers=1" in message and "resumes from here" in message


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT])
def test_an_unusable_file_and_a_full_disk_are_the_users_and_are_named(number: int) -> None:
    message = message_for_user(OSError(number, os.strerror(number), "/data/birds"))
    assert message is not None and f"{os.strerror(number)}: /data/birds" in message
    moved = message_for_user(OSError(number, os.strerror(number), "/data/a", None, "/data/b"))
    assert moved is not None and "/data/a -> /data/b" in moved


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory") as caught:
        os.listdir(tmp_path / "file")
    assert str(tmp_path / "file") in str(message_for_user(caught.value))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("too many values to unpack"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "weights.pt"),
        OSError(errno.EIO, "Input/output error", "/data"),
        OSError(errno.EACCES, "Permission denied"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        IncompleteError("a command says this itself"),
        TypeError(),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_anything_else_is_a_defect(error: BaseException) -> None:
    assert message_for_user(error) is None


def test_the_foundation_imports_no_heavy_library() -> None:
    """Commands such as `status` answer at once."""
    names = {path.stem for path in (ROOT / "benchmark" / "core").glob("[a-z]*.py")}
    modules = [f"benchmark.core.{name}" for name in sorted(names)]
    code = f"import sys, {', '.join(modules)}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "benchmark" in said.split() and len(modules) >= 8
    assert not set(said.split()) & {"torch", "numpy", "hydra", "omegaconf", "yaml", "rich", "pandas", "scipy", "PIL"}
