"""Everything that a unit may do for minutes before its first batch beats, so that its worker does not seem to hang."""

import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import traditional as command
from benchmark.bo import bo
from benchmark.core import records
from benchmark.core.pulse import beat, heard_by
from benchmark.datasets.image_check import inspect
from benchmark.images import verified
from benchmark.images.cache import Cache, build
from benchmark.images.decoded_on_read import DecodedOnRead
from benchmark.jobs import session, train_unit
from benchmark.jobs.heartbeat import last_heartbeat
from benchmark.protocol.retrieval import retrieval_metrics
from benchmark.study.frozen import feature_images
from benchmark.study.study import Study
from tests.command_line import run, study_dir, tiny, trainings
from tests.images.synthetic_photos import write_photos

SIZES = [(40, 60)] * 5
Do = Callable[[Path, Callable[..., Study]], None]


@contextmanager
def counted() -> Iterator[list[int]]:
    """Yield a list with an entry for each beat during the block."""
    beats: list[int] = []
    with heard_by(lambda: beats.append(1)):
        yield beats


def fill(folder: Path) -> Path:
    build(folder / "cache", folder, write_photos(folder, SIZES), short_side=None, workers=2)
    return folder / "cache"


def decode(folder: Path, _: Any) -> None:
    fill(folder)


def hash_the_files_of_a_cache_that_is_new_to_this_process(folder: Path, _: Any) -> None:
    with heard_by(lambda: None):
        cache = fill(folder)
    verified._known.clear()
    (cache / verified.MEMO).unlink()
    Cache(cache)


def hash_image_files(folder: Path, _: Any) -> None:
    assert DecodedOnRead(folder, write_photos(folder, SIZES), None).contents


def check_images(folder: Path, _: Any) -> None:
    assert not any(seen.problem for seen in inspect(folder, write_photos(folder, SIZES), "images"))


def compute_the_features_of_a_frozen_trunk(_: Path, compose_study: Callable[..., Study]) -> None:
    pixels = np.zeros((4, 32, 32), np.uint8)
    assert feature_images(compose_study("training=frozen"), pixels).views.view(0).shape[0] == 4


def wait_for_another_process(folder: Path, _: Any) -> None:
    with open(folder / "lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        threading.Timer(0.2, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with records.only_one(folder / "lock", "The folder", wait_seconds=60):
            pass


def search_the_nearest_neighbours(_: Path, __: Any) -> None:
    vectors = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    retrieval_metrics(vectors, torch.arange(60) // 3, metric="cosine", block=20)


WORK: dict[str, tuple[Do, int]] = {  # with the fewest beats
    "decode": (decode, len(SIZES)),
    "hash cached pixels": (hash_the_files_of_a_cache_that_is_new_to_this_process, 1),
    "hash image files": (hash_image_files, len(SIZES)),
    "check images": (check_images, len(SIZES)),
    "features": (compute_the_features_of_a_frozen_trunk, 1),
    "wait": (wait_for_another_process, 2),
    "search": (search_the_nearest_neighbours, 3),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "user"))


@pytest.mark.parametrize("name", WORK)
def test_long_work_beats(name: str, tmp_path: Path, compose_study: Callable[..., Study]) -> None:
    do, fewest = WORK[name]
    with counted() as beats:
        do(tmp_path, compose_study)
    assert len(beats) >= fewest


def test_a_beat_without_a_listener_does_nothing_and_the_last_listener_hears_until_its_block_ends() -> None:
    beat()
    with counted() as outer:
        with pytest.raises(ZeroDivisionError), counted() as inner:
            beat()
            raise ZeroDivisionError
        beat()
    beat()
    assert (len(outer), len(inner)) == (1, 1)


@pytest.mark.slow
def test_a_run_of_the_traditional_protocol_writes_its_heartbeat_while_it_prepares_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_unit, "WRITE_SECONDS", 0.0)
    seen: list[dict[str, Any] | None] = []
    make_plan = command.make_plan

    def beats(study: Study, fingerprint: str) -> Any:
        beat()
        seen.extend(last_heartbeat(path.parent) for path in tmp_path.rglob("alive.json"))
        return make_plan(study, fingerprint)

    monkeypatch.setattr(command, "make_plan", beats)
    ended = run(command.traditional, "dataset=glyphs_small", "loss=proxy_nca", "trunk.width=8", "training.epochs=1",
                "training.batch_size=64", "protocol.num_runs=1", "executor=inline", f"results_dir={tmp_path}",
                protocol="traditional")  # fmt: skip
    assert ended.status == 0, ended.err
    assert [found and found["beats"] for found in seen] == [1]


@pytest.mark.slow
def test_a_unit_whose_machine_has_no_features_yet_writes_its_heartbeat_while_it_computes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "fill_features", lambda study: None)  # as where workers are on other machines
    monkeypatch.setattr(train_unit, "WRITE_SECONDS", 0.0)
    seen: list[dict[str, Any] | None] = []
    unit = study_dir(tmp_path) / "bo" / "trial_000" / "fold_0"
    with trainings(lambda number, parts: seen.append(last_heartbeat(unit)) if number == 0 else None):
        assert tiny(bo, tmp_path, "trials=1", "training=frozen").status == 0
    assert seen[0] is not None and seen[0]["beats"] >= 1
