"""Beats are left by the loop, and judged by how long their count stays the same on the judge's own clock."""

import json
import os
import time
import weakref
from pathlib import Path

import pytest

from benchmark.jobs import heartbeat
from benchmark.jobs.heartbeat import HangDetector, Heartbeat, last_beat
from benchmark.training.components import TrainingComponents
from benchmark.training.loop import train_fold
from tests.training.small_fold import a_fold, a_schedule, nothing


class Clock:
    """A monotonic clock that goes when it is told to."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


def look(judge: HangDetector, clock: Clock, unit: Path, seconds: float, started: bool = True) -> bool:
    """Let so many seconds pass between looks, and say whether the last look finds the unit hanging."""
    hung = False
    until = clock.now + seconds
    while clock.now < until:
        clock.now += judge.every or 1.0
        hung = bool(judge.hung({"it": (unit, started)}))
    return hung


def begun(clock: Clock, unit: Path) -> tuple[HangDetector, Heartbeat]:
    """A judge with a limit of a minute that has seen a unit's first beat."""
    judge = HangDetector(60.0, clock)
    judge.begin("it", None)
    judge.hung({"it": (unit, True)})
    heartbeat = Heartbeat(unit, every=0.0)
    judge.hung({"it": (unit, True)})
    return judge, heartbeat


def test_a_beat_says_who_works_on_the_unit_and_is_gone_when_it_is_done(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path)
    beat = last_beat(tmp_path)
    assert beat is not None and beat["pid"] == os.getpid() and beat["batches"] == 0
    assert {"host", "worker", "started", "at", "epoch"} <= beat.keys()
    heartbeat.stop()
    assert last_beat(tmp_path) is None and not list(tmp_path.iterdir())


def test_the_file_is_written_at_most_so_often_and_counts_every_batch(tmp_path: Path) -> None:
    clock = Clock()
    beating = Heartbeat(tmp_path, every=10.0, clock=clock)
    seen = []
    for _ in range(45):
        clock.now += 1.0
        beating.tick()
        seen.append((last_beat(tmp_path) or {})["batches"])
    assert sorted(set(seen)) == [0, 10, 20, 30, 40]


def test_every_batch_trained_on_or_evaluated_beats(tmp_path: Path) -> None:
    fold, beats = a_fold(), []
    fold.beat = lambda: beats.append(1)
    train_fold(fold, a_schedule(max_epochs=3, iterations_per_epoch=2), tmp_path / "checkpoint.pt", nothing)
    assert len(beats) == 3 * 2 + 4, "6 batches trained on, and the one of validation before and after each epoch"
    assert TrainingComponents.beat is None


def test_a_beat_costs_no_microseconds_worth_measuring(tmp_path: Path) -> None:
    beating = Heartbeat(tmp_path)
    started = time.perf_counter()
    for _ in range(10_000):
        beating.tick()
    assert (time.perf_counter() - started) / 10_000 < 20e-6


def test_a_unit_hangs_once_its_count_stays_the_same_for_too_long(tmp_path: Path) -> None:
    clock = Clock()
    judge, beating = begun(clock, tmp_path)
    assert not look(judge, clock, tmp_path, 55)
    beating.tick()
    assert not look(judge, clock, tmp_path, 55)
    assert look(judge, clock, tmp_path, 10)


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_jump_of_the_wall_clock_neither_kills_nor_saves_a_unit(
    jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, wall = Clock(), time.time()
    judge, beating = begun(clock, tmp_path)
    look(judge, clock, tmp_path, 30)
    monkeypatch.setattr(heartbeat.time, "time", lambda: wall + jump)
    beating.tick()
    assert (last_beat(tmp_path) or {})["at"] == wall + jump
    assert not look(judge, clock, tmp_path, 40), "it moved"
    monkeypatch.setattr(heartbeat.time, "time", lambda: wall - jump)
    os.utime(tmp_path / heartbeat.FILE_NAME, (wall - jump, wall - jump))
    assert look(judge, clock, tmp_path, 40), "it did not move, whatever the time"


def test_time_in_which_nobody_looked_does_not_condemn(tmp_path: Path) -> None:
    """The driver and its workers were stopped together for a day, or the laptop slept."""
    clock = Clock()
    judge, _ = begun(clock, tmp_path)
    look(judge, clock, tmp_path, 20)
    clock.now += 86_400.0
    assert not judge.hung({"it": (tmp_path, True)})
    assert look(judge, clock, tmp_path, 60)


def test_time_in_a_queue_does_not_count_and_an_earlier_attempt_s_beat_is_no_start(tmp_path: Path) -> None:
    clock = Clock()
    judge = HangDetector(60.0, clock)
    (tmp_path / heartbeat.FILE_NAME).write_text(json.dumps({"batches": 7}))  # left by a worker that was killed
    judge.begin("it", last_beat(tmp_path))
    assert not look(judge, clock, tmp_path, 600, started=False)
    Heartbeat(tmp_path)
    assert not look(judge, clock, tmp_path, 55, started=False)
    assert look(judge, clock, tmp_path, 15, started=False), "watched from its first beat"


def test_a_unit_that_hangs_between_its_first_beat_and_the_first_look_is_given_no_time_to_start(tmp_path: Path) -> None:
    clock = Clock()
    judge = HangDetector(60.0, clock)
    judge.begin("it", None)
    Heartbeat(tmp_path)
    assert not look(judge, clock, tmp_path, 55) and look(judge, clock, tmp_path, 15)
    clock = Clock()
    judge = HangDetector(60.0, clock)
    judge.begin("it", last_beat(tmp_path))
    assert not look(judge, clock, tmp_path, 200), "that beat was there before"


def test_a_worker_that_hangs_before_its_first_beat_is_found_as_well(tmp_path: Path) -> None:
    clock = Clock()
    judge = HangDetector(60.0, clock)
    judge.begin("it", None)
    assert not look(judge, clock, tmp_path, heartbeat.START_SECONDS - 10), "imports may take a while"
    assert look(judge, clock, tmp_path, 20)


def test_another_attempt_starts_with_a_clean_slate(tmp_path: Path) -> None:
    clock = Clock()
    judge, _ = begun(clock, tmp_path)
    assert look(judge, clock, tmp_path, 70)
    judge.begin("another", last_beat(tmp_path))
    assert judge.hung({"another": (tmp_path, True)}) == []


def test_without_a_limit_nothing_hangs(tmp_path: Path) -> None:
    clock = Clock()
    judge = HangDetector(None, clock)
    assert not look(judge, clock, tmp_path, 1000) and judge.every is None


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_an_attempt_that_is_over_is_forgotten(seconds: float | None, tmp_path: Path) -> None:
    """Its key is its future, which holds its answer."""
    judge, key = HangDetector(seconds, Clock()), Heartbeat(tmp_path)
    kept = weakref.ref(key)
    judge.begin(key, None)
    judge.hung({key: (tmp_path, True)})
    del key
    judge.hung({})
    assert kept() is None


def test_a_torn_beat_is_none(tmp_path: Path) -> None:
    for content in (b"", b"{", b"[1", b"7"):
        (tmp_path / heartbeat.FILE_NAME).write_bytes(content)
        assert last_beat(tmp_path) is None
