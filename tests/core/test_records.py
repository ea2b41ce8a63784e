"""Files are whole or absent, damage is named, and only one process holds a lock."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.core import records


def a_record() -> records.Record:
    return records.Record("fold", {"map_at_r": 0.1 + 0.2, "reason": None}, {"seconds": 1.5})


def test_a_record_comes_back_bit_for_bit(tmp_path: Path) -> None:
    records.write_record(tmp_path / "deep" / "r.json", a_record())
    assert records.read_record(tmp_path / "deep" / "r.json") == a_record()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        records.write_record(tmp_path / "r.json", records.Record("fold", {"map_at_r": value}))
    assert not list(tmp_path.iterdir())


def test_an_altered_result_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    records.write_record(path, a_record())
    body = json.loads(path.read_text())
    body["result"]["map_at_r"] = 0.9
    path.write_text(json.dumps(body))
    with pytest.raises(records.CorruptFileError, match=r"r\.json.*altered"):
        records.read_record(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "fold"}', "\x00" * 40])
def test_a_truncated_record_is_named_and_quarantined(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trial_003.json"
    path.write_text(text)
    record, note = records.read_or_quarantine(path)
    assert record is None and note is not None and "trial_003.json" in note
    assert not path.exists() and len(list(tmp_path.glob("trial_003.json.damaged-*"))) == 1


def test_a_record_of_a_newer_version_is_not_guessed_at(tmp_path: Path) -> None:
    records.write_record(tmp_path / "r.json", records.Record("fold", {}, {}, schema=records.SCHEMA + 1))
    with pytest.raises(records.CorruptFileError, match="Upgrade"):
        records.read_record(tmp_path / "r.json")


def test_a_missing_record_is_neither_damaged_nor_there(tmp_path: Path) -> None:
    assert records.read_or_quarantine(tmp_path / "r.json") == (None, None)


def test_binary_data_with_one_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    records.write_checked(path, b"weights" * 100)
    assert records.read_checked(path) == b"weights" * 100
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(records.CorruptFileError, match="checksum"):
        records.read_checked(path)


@pytest.mark.parametrize("when", ["write", "rename"])
def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync" if when == "write" else "replace", full)
    with pytest.raises(records.WriteError, match=r"(?s)r\.json.*disk is full.*Free some space") as caught:
        records.write_whole(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_really_full_disk_is_reported() -> None:
    with pytest.raises(records.WriteError, match="disk is full"):
        records.append_line(Path("/dev/full"), {"a": 1})


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(records.WriteError, match="results_dir=FOLDER"):
        records.write_whole(tmp_path / "new" / "r.json", b"")


def test_what_a_killed_process_was_writing_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from benchmark.core import records\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "records.write_checked(Path(sys.argv[1]), b'weights')\n"
    )
    path, others = tmp_path / "fold_0" / "checkpoint.pt", [tmp_path / ".hidden.tmp", tmp_path / "r.json"]
    for other in others:
        other.write_bytes(b"")
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert [left.name.startswith(".checkpoint.pt.") for left in path.parent.iterdir()] == [True]
    records.remove_unfinished(tmp_path)
    assert sorted(found for found in tmp_path.rglob("*") if found.is_file()) == others
    records.remove_unfinished(tmp_path / "absent")


def test_what_a_living_worker_is_writing_stays(tmp_path: Path) -> None:
    unit = tmp_path / "run_03"
    written = [unit / ".best.pt.7.tmp", unit / "curves" / ".a.csv.7.tmp", tmp_path / ".run_03.json.7.tmp"]
    with records.only_one(unit / "lock", "the unit"):
        for path in written:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
        records.remove_unfinished(tmp_path)
        assert all(path.exists() for path in written)
    records.remove_unfinished(tmp_path)
    assert not any(path.exists() for path in written)


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert records.digest({"a": 1, "b": [2.5]}) == records.digest({"b": [2.5], "a": 1})
    assert records.digest({"a": 1}) != records.digest({"a": 1.5})


def test_a_second_process_is_refused_while_the_first_holds_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from benchmark.core import records\n"
        "try:\n    with records.only_one(Path(sys.argv[1]), 'Study x on y'): print('in')\n"
        "except records.LockedError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with records.only_one(tmp_path / "lock", "this"):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "Study x on y is already being worked on by process" in said and str(os.getpid()) in said
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "in\n"
