"""Beats are left by the loop, and judged by how long their count stays the same on the judge's own clock."""

import json
import os
import time
import weakref
from pathlib import Path

import pytest

from benchmark import pulse
from benchmark.parts import Parts
from benchmark.pulse import Heart, Judge, last_beat
from benchmark.train import train_fold
from tests.small_fold import a_fold, a_schedule, nothing


class Clock:
    """A monotonic clock that goes when it is told to."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


def look(judge: Judge, clock: Clock, unit: Path, seconds: float, started: bool = True) -> bool:
    """Let so many seconds pass between looks, and say whether the last look finds the unit hanging."""
    hung = False
    until = clock.now + seconds
    while clock.now < until:
        clock.now += judge.every or 1.0
        hung = bool(judge.hung({"it": (unit, started)}))
    return hung


def begun(clock: Clock, unit: Path) -> tuple[Judge, Heart]:
    """A judge with a limit of a minute that has seen a unit's first beat."""
    judge = Judge(60.0, clock)
    judge.begin("it", None)
    judge.hung({"it": (unit, True)})
    heart = Heart(unit, every=0.0)
    judge.hung({"it": (unit, True)})
    return judge, heart


def test_a_beat_says_who_works_on_the_unit_and_is_gone_when_it_is_done(tmp_path: Path) -> None:
    heart = Heart(tmp_path)
    beat = last_beat(tmp_path)
    assert beat is not None and beat["pid"] == os.getpid() and beat["batches"] == 0
    assert {"host", "worker", "started", "at", "epoch"} <= beat.keys()
    heart.stop()
    assert last_beat(tmp_path) is None and not list(tmp_path.iterdir())


def test_the_file_is_written_at_most_so_often_and_counts_every_batch(tmp_path: Path) -> None:
    clock = Clock()
    heart = Heart(tmp_path, every=10.0, clock=clock)
    seen = []
    for _ in range(45):
        clock.now += 1.0
        heart.beat()
        seen.append((last_beat(tmp_path) or {})["batches"])
    assert sorted(set(seen)) == [0, 10, 20, 30, 40]


def test_every_batch_trained_on_or_evaluated_beats(tmp_path: Path) -> None:
    fold, beats = a_fold(), []
    fold.beat = lambda: beats.append(1)
    train_fold(fold, a_schedule(max_epochs=3, iterations_per_epoch=2), tmp_path / "checkpoint.pt", nothing)
    assert len(beats) == 3 * 2 + 4, "6 batches trained on, and the one of validation before and after each epoch"
    assert Parts.beat is None


def test_a_beat_costs_no_microseconds_worth_measuring(tmp_path: Path) -> None:
    heart = Heart(tmp_path)
    started = time.perf_counter()
    for _ in range(10_000):
        heart.beat()
    assert (time.perf_counter() - started) / 10_000 < 20e-6


def test_a_unit_hangs_once_its_count_stays_the_same_for_too_long(tmp_path: Path) -> None:
    clock = Clock()
    judge, heart = begun(clock, tmp_path)
    assert not look(judge, clock, tmp_path, 55)
    heart.beat()
    assert not look(judge, clock, tmp_path, 55)
    assert look(judge, clock, tmp_path, 10)


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_jump_of_the_wall_clock_neither_kills_nor_saves_a_unit(
    jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, wall = Clock(), time.time()
    judge, heart = begun(clock, tmp_path)
    look(judge, clock, tmp_path, 30)
    monkeypatch.setattr(pulse.time, "time", lambda: wall + jump)
    heart.beat()
    assert (last_beat(tmp_path) or {})["at"] == wall + jump
    assert not look(judge, clock, tmp_path, 40), "it moved"
    monkeypatch.setattr(pulse.time, "time", lambda: wall - jump)
    os.utime(tmp_path / pulse.NAME, (wall - jump, wall - jump))
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
    judge = Judge(60.0, clock)
    (tmp_path / pulse.NAME).write_text(json.dumps({"batches": 7}))  # left by a worker that was killed
    judge.begin("it", last_beat(tmp_path))
    assert not look(judge, clock, tmp_path, 600, started=False)
    Heart(tmp_path)
    assert not look(judge, clock, tmp_path, 55, started=False)
    assert look(judge, clock, tmp_path, 15, started=False), "watched from its first beat"


def test_a_unit_that_hangs_between_its_first_beat_and_the_first_look_is_given_no_time_to_start(tmp_path: Path) -> None:
    clock = Clock()
    judge = Judge(60.0, clock)
    judge.begin("it", None)
    Heart(tmp_path)
    assert not look(judge, clock, tmp_path, 55) and look(judge, clock, tmp_path, 15)
    clock = Clock()
    judge = Judge(60.0, clock)
    judge.begin("it", last_beat(tmp_path))
    assert not look(judge, clock, tmp_path, 200), "that beat was there before"


def test_a_worker_that_hangs_before_its_first_beat_is_found_as_well(tmp_path: Path) -> None:
    clock = Clock()
    judge = Judge(60.0, clock)
    judge.begin("it", None)
    assert not look(judge, clock, tmp_path, pulse.START_SECONDS - 10), "imports may take a while"
    assert look(judge, clock, tmp_path, 20)


def test_another_attempt_starts_with_a_clean_slate(tmp_path: Path) -> None:
    clock = Clock()
    judge, _ = begun(clock, tmp_path)
    assert look(judge, clock, tmp_path, 70)
    judge.begin("another", last_beat(tmp_path))
    assert judge.hung({"another": (tmp_path, True)}) == []


def test_without_a_limit_nothing_hangs(tmp_path: Path) -> None:
    clock = Clock()
    judge = Judge(None, clock)
    assert not look(judge, clock, tmp_path, 1000) and judge.every is None


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_an_attempt_that_is_over_is_forgotten(seconds: float | None, tmp_path: Path) -> None:
    """Its key is its future, which holds its answer."""
    judge, key = Judge(seconds, Clock()), Heart(tmp_path)
    kept = weakref.ref(key)
    judge.begin(key, None)
    judge.hung({key: (tmp_path, True)})
    del key
    judge.hung({})
    assert kept() is None


def test_a_torn_beat_is_none(tmp_path: Path) -> None:
    for content in (b"", b"{", b"[1", b"7"):
        (tmp_path / pulse.NAME).write_bytes(content)
        assert last_beat(tmp_path) is None
