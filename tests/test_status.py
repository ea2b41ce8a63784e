"""What `status` and `logs` show: from records, locks and heartbeats, without touching anything."""

import dataclasses
import fcntl
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from benchmark.core import records
from benchmark.jobs import heartbeat
from benchmark.logs import follow, logs
from benchmark.report.progress import stages
from benchmark.status import status
from benchmark.study.stored import read_study, write_study
from tests.command_line import assert_refused, run, study_dir

NAME = "glyphs_small-small_conv-hpl/proxy_nca"


def shown(results: Path, *overrides: str) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of plain output by study and part."""
    ended = run(status, f"results_dir={results}", *overrides)
    assert ended.status == 0, ended
    head, *rows = [line.split("\t") for line in ended.out.splitlines() if "\t" in line]
    return {(row[0], row[1]): dict(zip(head[2:], row[2:], strict=True)) for row in rows}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_a_finished_search_and_its_final_runs_to_come(results: Path) -> None:
    rows = shown(results)
    spent = sum(
        sum(records.read_record(study_dir(results) / "bo" / f"trial_00{i}.json").provenance["seconds"].values())
        for i in range(2)
    )
    search, final = rows[NAME, "search"], rows[NAME, "final runs"]
    assert (search["done"], search["units"], search["left"]) == ("2 of 2 trials", "4 of 4", "-")
    assert search["compute"] == f"{spent:.0f} s"
    assert (final["done"], final["units"]) == ("0 of 2 runs", "0 of 4")
    assert final["left"] == "unknown, no driver running"


def test_what_runs_waits_and_is_lost_and_how_long_the_rest_takes(results: Path) -> None:
    folder = study_dir(results)
    (folder / "bo" / "best.yaml").unlink()
    stored = dataclasses.replace(read_study(folder), trials=5)  # 10 units
    write_study(folder, stored)
    running, lost, stopped = (folder / "bo" / "trial_002" / "fold_0", folder / "bo" / "trial_002" / "fold_1",
                              folder / "bo" / "trial_003" / "fold_0")  # fmt: skip
    for unit in (running, lost, stopped):
        unit.mkdir(parents=True)
        (unit / "log").touch()
    line = {"at": "2026-01-02T03:04:05+0000", "unit": "trial_002/fold_1", "reason": "KeyError: 'gone'", "lost": True,
            "tries": 3, "log": str(lost / "log")}  # fmt: skip
    (folder / "trouble.jsonl").write_text(json.dumps(line) + "\n" + '{"torn')
    (folder / "bo" / "sessions.jsonl").unlink()
    before = snapshot(results)
    with records.only_one(running / "lock", "unit"), records.only_one(folder / "lock", "study"):
        heartbeat.Heartbeat(running)
        (part,) = stages(stored, folder)
        ended = run(status, f"results_dir={results}", "dataset=glyphs_small", "loss=proxy_nca")
    states = {state: part.count(state) for state in ("done", "running", "lost", "waiting")}
    assert states == {"done": 4, "running": 1, "lost": 1, "waiting": 4}
    assert part.left == pytest.approx(part.spent / 4 * 6)
    here = f"driver on {os.uname().nodename} (process {os.getpid()})"
    assert f"trial_002/fold_0 is running: {here}, advanced " in ended.out
    assert "2026-01-02T03:04:05+0000 trial_002/fold_1: KeyError: 'gone' (see " in ended.out
    for unit in (running, folder):
        (unit / "lock").unlink(missing_ok=True)
    (running / "alive.json").unlink()
    assert snapshot(results) == {p: c for p, c in before.items() if not p.endswith("proxy_nca/lock")}


def test_an_invalid_line_heartbeat_and_record_are_skipped_and_reported(results: Path) -> None:
    folder = study_dir(results)
    path = folder / "bo" / "trial_000.json"
    record = records.read_record(path)
    records.write_record(path, dataclasses.replace(record, provenance=record.provenance | {"seconds": "long"}))
    (folder / "trouble.jsonl").write_text('{"lost": "yes"}\n')
    (folder / "bo" / "trial_001" / "fold_0" / "alive.json").write_text('{"at": "soon"}')
    ended = run(status, f"results_dir={results}")
    assert ended.status == 0 and f'skipped: {folder / "trouble.jsonl"}, line 1: lost is "yes"' in ended.out, ended
    assert f'{path}: provenance.seconds is "long"; it must be an object.' in ended.out and "1 of 2 trials" in ended.out


@pytest.mark.slow
def test_status_and_logs_change_nothing_and_work_where_nothing_can_be_written(results: Path) -> None:
    (study_dir(results) / "bo" / "trial_000.json").write_text("{")  # damaged, and not to be quarantined by a reader
    before = snapshot(results)
    for path in (*results.rglob("*"), results):
        path.chmod(path.stat().st_mode & ~0o222)
    progress, log = (run(story, f"results_dir={results}") for story in (status, logs))
    assert "1 of 2 trials" in progress.out and log.out.endswith(" end\n")
    assert f"{NAME}: {study_dir(results) / 'bo' / 'trial_000.json'} is damaged or not a record" in progress.out
    assert snapshot(results) == before
    for path in (results, *results.rglob("*")):
        path.chmod(0o755)


def test_a_look_at_a_lock_does_not_refuse_the_driver_that_takes_it_at_the_same_moment(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    with open(lock, "rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with records.only_one(lock, "it"):
            assert records.is_held(lock)
    assert not records.is_held(lock) and not records.is_held(tmp_path / "none")


def test_nothing_to_show_is_refused_with_the_next_command(tmp_path: Path, results: Path) -> None:
    assert_refused(run(status, f"results_dir={tmp_path / 'none'}"), "There is no study below", "make bo")
    assert_refused(run(logs, f"results_dir={tmp_path / 'none'}"), "No unit has a log", "make bo")
    assert_refused(run(status, f"results_dir={results}", "loss=triplet"), "There is no study in", "make bo")


def test_a_damaged_study_is_named_and_the_others_are_shown(results: Path) -> None:
    shutil.copytree(study_dir(results), study_dir(results, "damaged"))
    (study_dir(results, "damaged") / "study.yaml").write_text("identity: ")
    ended = run(status, f"results_dir={results}")
    assert "damaged" in ended.out and "2 of 2 trials" in ended.out and ended.status == 0
    assert_refused(run(status, f"study={study_dir(results, 'damaged')}"), "study.yaml is damaged")


def test_logs_show_the_newest_unit_or_the_named_one_and_name_what_there_is(results: Path) -> None:
    bo = study_dir(results) / "bo"
    for number, path in enumerate(sorted(bo.glob("trial_*/fold_*/log"))):
        os.utime(path, (1000 + number, 1000 + number))
    os.utime(bo / "trial_000" / "fold_1" / "log", (2000, 2000))
    ended = run(logs, f"results_dir={results}")
    assert ended.out.splitlines()[0] == f"== {bo / 'trial_000' / 'fold_1' / 'log'}"
    assert "start: " in ended.out and ended.out.endswith(" end\n")
    named = run(logs, f"results_dir={results}", "unit=trial_001/fold_0")
    assert named.out.splitlines()[0] == f"== {bo / 'trial_001' / 'fold_0' / 'log'}"
    assert_refused(run(logs, f"results_dir={results}", "unit=trial_9"), "no log of unit trial_9", "trial_000/fold_1")


def test_a_log_is_followed_until_its_unit_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    path.write_text("first\n")

    def work() -> None:
        with records.only_one(tmp_path / "lock", "unit"):
            begun.set()
            time.sleep(0.3)
            with open(path, "a") as log:
                log.write("last\n")

    begun = threading.Event()
    worker = threading.Thread(target=work)
    worker.start()
    begun.wait()
    follow(path, while_it_runs=True)
    worker.join()
    assert capsys.readouterr().out == "first\nlast\n"


def test_control_characters_in_a_results_folder_reach_neither_terminal_nor_pipe(results: Path) -> None:
    hostile = "x\x1b[2J\x9b\u202e\ty\nz"
    folder = study_dir(results).rename(study_dir(results).with_name(hostile))
    line = {"at": "\x1b]0;t\x07", "unit": "u\x1b", "reason": "r\x1b[31m", "lost": True, "tries": 3, "log": "l\x1b"}
    (folder / "trouble.jsonl").write_text(json.dumps(line) + "\n")
    unit = folder / "bo" / "trial_009" / "fold_0"
    unit.mkdir(parents=True)
    (unit / "log").write_bytes(b"one\x1b[2J\x9b\xff\ttwo\n\x07three\n")
    shown_by = {command: run(command, f"results_dir={results}") for command in (status, logs)}
    for ended in shown_by.values():
        assert ended.status == 0 and all(char.isprintable() or char in "\n\t" for char in ended.out + ended.err), ended
    rows = [row.split("\t") for row in shown_by[status].out.splitlines() if "\t" in row]
    assert {len(row) for row in rows} == {8} and rows[1][0] == r"glyphs_small-small_conv-hpl/x\x1b[2J\x9b\u202e\ty\nz"
    assert r"r\x1b[31m (see l\x1b)" in shown_by[status].out
    assert shown_by[logs].out.endswith("one\\x1b[2J\ufffd\ufffd\ttwo\n\\x07three\n")


def test_a_terminal_shows_the_loss_first_below_the_name_of_its_group(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.status.is_terminal", lambda: True)
    lines = run(status, f"results_dir={results}").out.splitlines()
    assert lines[:3] == ["", "glyphs_small-small_conv-hpl", "loss\tpart\tdone\tunits\tcompute\tleft"]
    assert [line.split("\t")[:4] for line in lines[3:5]] == [
        ["proxy_nca", "search", "2 of 2", "4 of 4"], ["proxy_nca", "final runs", "0 of 2", "0 of 4"],
    ]  # fmt: skip
    assert lines[4].endswith("unknown *")
    assert lines[-1] == f"* no driver is running: {NAME} (final runs)"
