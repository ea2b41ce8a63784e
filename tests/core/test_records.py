"""Files are whole or absent, damage is named, and only one process holds a lock."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from benchmark.core import records


def a_record() -> records.Record:
    result, identity = {"map_at_r": 0.1 + 0.2, "reason": None}, {"study": "ab", "index": 3}
    return records.Record("fold", result, {"seconds": 1.5}, identity)


def test_a_record_comes_back_bit_for_bit(tmp_path: Path) -> None:
    records.write_record(tmp_path / "deep" / "r.json", a_record())
    assert records.read_record(tmp_path / "deep" / "r.json") == a_record()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        records.write_record(tmp_path / "r.json", records.Record("fold", {"map_at_r": value}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "altered"),
    [("kind", "trial"), ("result", {"map_at_r": 0.9, "reason": None}), ("provenance", {"seconds": 2.5}),
     ("identity", {"study": "cd", "index": 3}), ("identity", None)],
)  # fmt: skip
def test_an_altered_part_is_found_by_the_checksum(part: str, altered: Any, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    records.write_record(path, a_record())
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: altered}))
    with pytest.raises(records.CorruptFileError, match=r"r\.json.*altered"):
        records.read_record(path)


def of_schema_1(record: records.Record) -> dict[str, Any]:
    """What was written before records had identities."""
    body = {"schema": 1, "kind": record.kind, "result": record.result, "provenance": record.provenance}
    return body | {"result_sha256": records.digest(record.result)}


def test_a_record_of_schema_1_is_read_with_its_checksum_and_never_written(tmp_path: Path) -> None:
    path, expected = tmp_path / "r.json", replace(a_record(), schema=1, identity=None)
    path.write_text(json.dumps(of_schema_1(a_record())))
    assert records.read_record(path) == expected
    path.write_text(json.dumps(of_schema_1(a_record()) | {"result": {"map_at_r": 0.9}}))
    with pytest.raises(records.CorruptFileError, match=r"r\.json.*altered"):
        records.read_record(path)
    with pytest.raises(ValueError, match="written with schema 2, not 1"):
        records.write_record(path, expected)


@pytest.mark.parametrize("claim", [{"schema": 2}, {"schema": 1}, {"schema": 1, "identity": {"study": "ab"}}])
def test_a_record_that_claims_another_schema_is_refused(claim: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    records.write_record(path, a_record())
    body = of_schema_1(a_record()) if claim["schema"] == 2 else json.loads(path.read_text())
    path.write_text(json.dumps(body | claim))
    with pytest.raises(records.CorruptFileError, match="not a record"):
        records.read_record(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "fold"}', "\x00" * 40])
def test_a_truncated_record_is_named_and_quarantined(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trial_003.json"
    path.write_text(text)
    with pytest.raises(records.CorruptFileError, match=r"trial_003\.json is damaged or not a record"):
        records.read_record(path)
    kept = records.quarantine(path)
    assert list(tmp_path.glob("trial_003.json.damaged-*")) == list(tmp_path.iterdir()) == [kept]


def test_a_record_of_a_newer_version_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    records.write_record(path, a_record())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": records.SCHEMA + 1}))
    with pytest.raises(records.NewerFileError, match="Upgrade"):
        records.read_record(path)
    assert not issubclass(records.NewerFileError, records.CorruptFileError), "it is never set aside"


def test_a_missing_record_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        records.read_record(tmp_path / "r.json")


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


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.parametrize("when", ["write", "flush"])
@pytest.mark.parametrize("cut_back", [True, False])
def test_a_line_cut_off_by_a_full_disk_damages_no_other_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, cut_back: bool
) -> None:
    path, write = tmp_path / "deep" / "ledger.jsonl", os.write
    records.append_line(path, {"look": 1})

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    def some_bytes(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[:5]) if data.startswith(b"{") else full()

    with monkeypatch.context() as patched:
        patched.setattr(os, "write" if when == "write" else "fsync", some_bytes if when == "write" else full)
        if not cut_back:
            patched.setattr(os, "ftruncate", full)
        with pytest.raises(records.WriteError, match="disk is full"):
            records.append_line(path, {"look": 2})
    left = [] if cut_back else ['{"loo' if when == "write" else '{"look": 2}']
    assert lines(path) == ['{"look": 1}', *left]
    records.append_line(path, {"look": 3})
    assert lines(path) == ['{"look": 1}', *left, '{"look": 3}']


@pytest.mark.parametrize("torn", ["", '{"look": 1}\n{"lo', '{"look": 1}', "\n", "\u00e9"])
def test_a_line_starts_on_its_own_line_after_a_killed_process(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(torn, encoding="utf-8")
    for number in (2, 3):
        records.append_line(path, {"look": number})
    assert lines(path) == [*torn.splitlines(), '{"look": 2}', '{"look": 3}']


def test_a_partial_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    records.append_line(tmp_path / "ledger.jsonl", {"look": 1})
    assert lines(tmp_path / "ledger.jsonl") == ['{"look": 1}']


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


def test_a_lock_whose_block_fails_goes_with_its_folders_unless_something_else_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name, written in (("mine", []), ("a/b/c", []), ("d/e", ["study.yaml"])):
        folder = tmp_path / name
        with pytest.raises(ZeroDivisionError), records.only_one(folder / "lock", "it"):
            for file in written:
                (folder / file).write_text("")
            1 / 0  # noqa: B018
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["d", "d/e", "d/e/lock", "d/e/study.yaml", "mine"]
    with records.only_one(tmp_path / "f" / "lock", "it"):
        pass
    assert (tmp_path / "f" / "lock").exists()


def test_a_folder_that_cannot_be_created_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def refuse(folder: Path, **_: object) -> None:
        attempts.append(folder)
        raise FileNotFoundError(2, "No such file or directory", str(folder))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(records.WriteError, match="lock"), records.only_one(tmp_path / "a" / "lock", "It", 60.0):
        pass
    assert len(attempts) == records.ATTEMPTS


def test_who_waited_for_a_lock_that_was_removed_holds_the_new_one(tmp_path: Path) -> None:
    path, inside, held = tmp_path / "study" / "lock", threading.Event(), list[bool]()

    def wait() -> None:
        inside.wait()
        with records.only_one(path, "it", wait_seconds=20):
            held.append(records.is_held(path))

    waiting = threading.Thread(target=wait)
    waiting.start()
    with pytest.raises(ZeroDivisionError), records.only_one(path, "it"):
        inside.set()
        time.sleep(0.3)  # the other thread has opened the file and waits for its lock
        1 / 0  # noqa: B018
    waiting.join()
    assert held == [True] and path.exists()


def test_a_folder_and_a_link_to_itself_in_the_place_of_a_file_are_damage(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("folder", "loop"):
        for read in (records.read_record, records.read_checked):
            with pytest.raises(records.CorruptFileError, match=f"{name} is damaged: it is not a regular file"):
                read(tmp_path / name)


def test_what_a_dead_process_left_is_deleted_and_what_a_living_or_another_machine_writes_is_kept(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    day_ago = time.time() - 86_400
    dead, living, young, other = (
        tmp_path / name
        for name in (f".t.csv.{ended.pid}.tmp", f".t.csv.{os.getpid()}.tmp", f".t.md.{ended.pid}.tmp", ".notes.tmp")
    )
    for path in (dead, living, young, other):
        path.write_bytes(b"half")
        if path is not young:
            os.utime(path, (day_ago, day_ago))
    records.remove_abandoned(tmp_path)
    records.remove_abandoned(tmp_path / "missing")
    assert [path.exists() for path in (dead, living, young, other)] == [False, True, True, True]
