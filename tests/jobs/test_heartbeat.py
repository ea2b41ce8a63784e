"""Work that advances writes heartbeats; a unit hangs when they stop changing, measured by the detector's own clock."""

import json
import os
import time
import weakref
from pathlib import Path

import pytest

from benchmark.core.pulse import heard_by
from benchmark.jobs import heartbeat
from benchmark.jobs.heartbeat import HangDetector, Heartbeat, last_heartbeat
from benchmark.training.loop import train_fold
from tests.training.small_fold import a_checkpoint, a_fold, a_schedule, nothing


class Clock:
    """A monotonic clock that a test moves."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


def is_hung_after(detector: HangDetector, clock: Clock, unit: Path, seconds: float, started: bool = True) -> bool:
    """Check at the detector's interval until some seconds have passed; whether the last check finds the unit hung."""
    hung = False
    until = clock.now + seconds
    while clock.now < until:
        clock.now += detector.every or 1.0
        hung = bool(detector.hung({"it": (unit, started)}))
    return hung


def after_first_heartbeat(clock: Clock, unit: Path) -> tuple[HangDetector, Heartbeat]:
    """A detector with a limit of a minute that has seen a unit's first heartbeat."""
    detector = HangDetector(60.0, clock)
    detector.begin("it", None)
    detector.hung({"it": (unit, True)})
    heartbeat = Heartbeat(unit, every=0.0)
    detector.hung({"it": (unit, True)})
    return detector, heartbeat


def test_a_heartbeat_names_the_worker_and_is_deleted_at_the_end(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path)
    content = last_heartbeat(tmp_path)
    assert content is not None and content["pid"] == os.getpid() and content["beats"] == 0
    assert {"host", "worker", "started", "at", "epoch"} <= content.keys()
    heartbeat.stop()
    assert last_heartbeat(tmp_path) is None and not list(tmp_path.iterdir())


def test_the_file_counts_every_beat_and_is_written_at_its_interval(tmp_path: Path) -> None:
    clock = Clock()
    heartbeat_of_unit = Heartbeat(tmp_path, every=10.0, clock=clock)
    seen = []
    for _ in range(45):
        clock.now += 1.0
        heartbeat_of_unit.tick()
        seen.append((last_heartbeat(tmp_path) or {})["beats"])
    assert sorted(set(seen)) == [0, 10, 20, 30, 40]


def test_every_batch_trained_on_or_evaluated_beats(tmp_path: Path) -> None:
    beats: list[int] = []
    with heard_by(lambda: beats.append(1)):
        schedule = a_schedule(max_epochs=3, iterations_per_epoch=2)
        train_fold(a_fold(), schedule, a_checkpoint(tmp_path / "checkpoint.pt"), nothing)
    assert len(beats) == 3 * 2 + 4 * 2, "6 batches, and one to embed and one to search before and after each epoch"


def test_a_tick_costs_less_than_20_microseconds(tmp_path: Path) -> None:
    heartbeat_of_unit = Heartbeat(tmp_path)
    started = time.process_time()
    for _ in range(10_000):
        heartbeat_of_unit.tick()
    assert (time.process_time() - started) / 10_000 < 20e-6


def test_a_unit_hangs_once_its_count_has_not_changed_for_too_long(tmp_path: Path) -> None:
    clock = Clock()
    detector, heartbeat_of_unit = after_first_heartbeat(clock, tmp_path)
    assert not is_hung_after(detector, clock, tmp_path, 55)
    heartbeat_of_unit.tick()
    assert not is_hung_after(detector, clock, tmp_path, 55)
    assert is_hung_after(detector, clock, tmp_path, 10)


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_jump_of_the_wall_clock_neither_kills_nor_saves_a_unit(
    jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, wall = Clock(), time.time()
    detector, heartbeat_of_unit = after_first_heartbeat(clock, tmp_path)
    is_hung_after(detector, clock, tmp_path, 30)
    monkeypatch.setattr(heartbeat.time, "time", lambda: wall + jump)
    heartbeat_of_unit.tick()
    assert (last_heartbeat(tmp_path) or {})["at"] == wall + jump
    assert not is_hung_after(detector, clock, tmp_path, 40), "it moved"
    monkeypatch.setattr(heartbeat.time, "time", lambda: wall - jump)
    os.utime(tmp_path / heartbeat.FILE_NAME, (wall - jump, wall - jump))
    assert is_hung_after(detector, clock, tmp_path, 40), "it did not move, whatever the time"


def test_time_in_which_nothing_was_checked_counts_as_two_intervals_at_most(tmp_path: Path) -> None:
    """The driver and its workers were suspended together for a day, or the laptop slept."""
    clock = Clock()
    detector, _ = after_first_heartbeat(clock, tmp_path)
    is_hung_after(detector, clock, tmp_path, 20)
    clock.now += 86_400.0
    assert not detector.hung({"it": (tmp_path, True)})
    assert is_hung_after(detector, clock, tmp_path, 60)


def test_time_in_a_queue_does_not_count_and_a_leftover_heartbeat_is_no_start(tmp_path: Path) -> None:
    clock = Clock()
    detector = HangDetector(60.0, clock)
    (tmp_path / heartbeat.FILE_NAME).write_text(json.dumps({"beats": 7}))  # the leftover of a worker that was killed
    detector.begin("it", last_heartbeat(tmp_path))
    assert not is_hung_after(detector, clock, tmp_path, 600, started=False)
    Heartbeat(tmp_path)
    assert not is_hung_after(detector, clock, tmp_path, 55, started=False)
    assert is_hung_after(detector, clock, tmp_path, 15, started=False), "timed from its first heartbeat"


def test_a_unit_that_hangs_between_its_first_heartbeat_and_the_first_check_gets_no_time_to_start(
    tmp_path: Path,
) -> None:
    clock = Clock()
    detector = HangDetector(60.0, clock)
    detector.begin("it", None)
    Heartbeat(tmp_path)
    assert not is_hung_after(detector, clock, tmp_path, 55) and is_hung_after(detector, clock, tmp_path, 15)
    clock = Clock()
    detector = HangDetector(60.0, clock)
    detector.begin("it", last_heartbeat(tmp_path))
    assert not is_hung_after(detector, clock, tmp_path, 200), "that heartbeat was there before"


def test_a_worker_that_hangs_before_its_first_heartbeat_is_found(tmp_path: Path) -> None:
    clock = Clock()
    detector = HangDetector(60.0, clock)
    detector.begin("it", None)
    assert not is_hung_after(detector, clock, tmp_path, heartbeat.START_SECONDS - 10), "imports may take a while"
    assert is_hung_after(detector, clock, tmp_path, 20)


def test_a_new_attempt_starts_without_the_silence_of_the_last_one(tmp_path: Path) -> None:
    clock = Clock()
    detector, _ = after_first_heartbeat(clock, tmp_path)
    assert is_hung_after(detector, clock, tmp_path, 70)
    detector.begin("another", last_heartbeat(tmp_path))
    assert detector.hung({"another": (tmp_path, True)}) == []


def test_without_a_limit_nothing_hangs(tmp_path: Path) -> None:
    clock = Clock()
    detector = HangDetector(None, clock)
    assert not is_hung_after(detector, clock, tmp_path, 1000) and detector.every is None


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_an_attempt_that_is_over_is_forgotten(seconds: float | None, tmp_path: Path) -> None:
    """Its key is its future, which holds its answer."""
    detector, key = HangDetector(seconds, Clock()), Heartbeat(tmp_path)
    kept = weakref.ref(key)
    detector.begin(key, None)
    detector.hung({key: (tmp_path, True)})
    del key
    detector.hung({})
    assert kept() is None


def test_a_torn_heartbeat_is_none(tmp_path: Path) -> None:
    for content in (b"", b"{", b"[1", b"7"):
        (tmp_path / heartbeat.FILE_NAME).write_bytes(content)
        assert last_heartbeat(tmp_path) is None
