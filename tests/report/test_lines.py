"""Invalid lines, heartbeats, choices and records: `status` shows the rest and reports what it skips."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.core import records
from benchmark.core.typed import convert
from benchmark.jobs.heartbeat import FILE_NAME
from benchmark.report.lines import Alive, Failure, SessionTimes, read_heartbeat, read_lines
from benchmark.report.progress import (
    UnitState,
    failures,
    last_workers,
    seconds_of,
    stages,
    unit_state,
    unreadable_lines,
)
from benchmark.study import contents
from benchmark.study.identity import StudyIdentity
from benchmark.study.layout import choice_on_disk
from benchmark.study.stored import read_study
from tests.study.examples import CHOICE, good
from tests.study.mutations import mutations, not_covered

FAILURE = {
    "at": "2026-01-02T03:04:05+0000", "unit": "trial_002/fold_1", "reason": "KeyError: 'gone'", "lost": True,
    "tries": 3, "log": "bo/trial_002/fold_1/log",
}  # fmt: skip
SESSION = {"wall_seconds": 10.0, "compute_seconds": 15.0, "workers": 2}
ALIVE = {"host": "here", "pid": 7, "worker": "driver", "started": 1.5e9, "at": 1.5e9, "beats": 10, "epoch": 2}
EXAMPLES: dict[type, dict[str, Any]] = {Failure: FAILURE, SessionTimes: SESSION, Alive: ALIVE}
RESULTS = Path(__file__).parents[2] / "results"
STRANGE = ["", "null", "[]", "{}", "7", '"text"', "{", "NaN", "[" * 3000, "9" * 5000, '{"\\ud800": 1}', "\x00\x1b[31m"]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", errors="replace"))
    return path


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_each_wrong_field_of_a_line_and_a_heartbeat_is_named(kind: type) -> None:
    assert not_covered(kind, [EXAMPLES[kind]]) == set() and convert(EXAMPLES[kind], kind, Path("file"))
    for mutation in mutations(kind, EXAMPLES[kind]):
        with pytest.raises(records.CorruptFileError) as caught:
            convert(mutation.value, kind, Path("file"))
        assert str(caught.value).startswith(f"file: {mutation.field} is "), mutation


def test_unreadable_lines_are_skipped_and_reported(tmp_path: Path) -> None:
    lines = [json.dumps(FAILURE), *STRANGE, json.dumps(FAILURE | {"lost": "yes"}), json.dumps(FAILURE), '{"torn']
    path = write(tmp_path / "trouble.jsonl", "\n".join(lines))
    found, faults = read_lines(path, Failure)
    assert found == [Failure(**FAILURE)] * 2 == failures(tmp_path)
    assert len(faults) == len(STRANGE) + 1 and faults == unreadable_lines(tmp_path)
    assert faults[0].startswith(f"{path}, line 2: ")
    assert faults[-1] == f'{path}, line {len(STRANGE) + 2}: lost is "yes"; it must be true or false.'
    assert read_lines(tmp_path / "none", Failure) == ([], [])


def test_the_workers_are_those_of_the_last_readable_session(tmp_path: Path) -> None:
    assert last_workers(tmp_path) == 1
    lines = [SESSION, SESSION | {"workers": 3}, SESSION | {"workers": -5}]
    path = write(tmp_path / "bo" / "sessions.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert last_workers(tmp_path) == 3
    assert unreadable_lines(tmp_path) == [f"{path}, line 3: workers is -5; it must be a whole number of at least 1."]


@pytest.mark.parametrize("text", [*STRANGE, json.dumps(ALIVE | {"at": "soon"})], ids=lambda text: text[:9])
def test_an_invalid_heartbeat_is_none(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / FILE_NAME, text)
    assert read_heartbeat(tmp_path) is None
    write(path, json.dumps(ALIVE))
    assert read_heartbeat(tmp_path) == Alive(**ALIVE)


def test_an_invalid_choice_is_ignored(tmp_path: Path) -> None:
    path, study = tmp_path / "bo" / "best.yaml", StudyIdentity("", "ieee", frozenset(), version=1)
    for mutation in mutations(contents.Choice, CHOICE):
        if mutation.what != "a huge integer":  # JSON has more of them than YAML's writer
            write(path, yaml.safe_dump(mutation.value | {"record": "trial_007.json"}))
            assert choice_on_disk(tmp_path, study) is None, mutation
    for text in STRANGE:
        write(path, text)
        assert choice_on_disk(tmp_path, study) is None, text[:20]
    write(path, yaml.safe_dump(CHOICE | {"sha256": "ab12", "record": "trial_007.json"}))
    assert choice_on_disk(tmp_path, study) == contents.Choice(**CHOICE)


def test_a_record_with_invalid_seconds_counts_as_zero(tmp_path: Path) -> None:
    path, record = tmp_path / "trial_007.json", good()[contents.Trial][0][1]
    records.write_record(path, record)
    assert seconds_of(path, contents.Trial) == 50.0
    assert seconds_of(path, contents.Run) == 0.0 and seconds_of(tmp_path / "none.json", contents.Trial) == 0.0
    for seconds in ({"train": "long", "evaluate": 1.0}, {"train": -1.0, "evaluate": 1.0}, {}, [1.0], None):
        records.write_record(path, records.Record("trial", record.result, record.provenance | {"seconds": seconds}))
        assert seconds_of(path, contents.Trial) == 0.0


@pytest.mark.parametrize("text", STRANGE, ids=lambda text: text[:9])
@pytest.mark.parametrize("committed", ["reference", "traditional"])
def test_a_study_with_invalid_files_still_has_stages(tmp_path: Path, committed: str, text: str) -> None:
    unit, run = "bo/trial_001/fold_0", "traditional/setting/run_0"
    units = (f"{unit}/alive.json", f"{unit}/record.json", f"{run}0.json", f"{run}1/alive.json")
    for name in ("trouble.jsonl", "bo/sessions.jsonl", "bo/trial_000.json", "bo/best.yaml", *units):
        write(tmp_path / name, text + "\n")
    stored = read_study(next((RESULTS / committed).glob("studies/*/hpl_pa")))
    (part,) = stages(stored, tmp_path)
    assert (part.finished, part.spent, len(part.problems)) == (0, 0.0, 1)


def test_the_heartbeat_of_a_running_unit_is_read(tmp_path: Path) -> None:
    write(tmp_path / FILE_NAME, json.dumps(ALIVE))
    with records.only_one(tmp_path / "lock", "unit"):
        state = unit_state(tmp_path, tmp_path / "record.json", contents.Fold, set())
    assert state == UnitState(tmp_path, "running", heartbeat=Alive(**ALIVE))
