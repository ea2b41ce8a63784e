import hashlib
import os

import pytest

from benchmark.core import records
from benchmark.datasets import glyph_cache
from benchmark.datasets.glyph_cache import HalvesCache

BOTH = ("trainval", "test")
PAYLOADS = {"trainval": b"trainval classes", "test": b"test classes"}


class Maker:
    """Returns two halves, and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return dict(PAYLOADS), {"classes": 7}


@pytest.fixture
def make():
    return Maker()


@pytest.fixture
def cache(tmp_path, make):
    cache = HalvesCache(tmp_path / "some" / "folder", {"size": 8})
    assert cache.ensure(BOTH, make)
    return cache


def test_a_new_folder_holds_both_halves_and_the_facts(cache):
    assert {half: cache.read(half) for half in BOTH} == PAYLOADS
    assert cache.about() == {
        "classes": 7,
        "parameters": {"size": 8},
        "sha256": {half: hashlib.sha256(payload).hexdigest() for half, payload in PAYLOADS.items()},
    }


def test_an_intact_folder_is_not_filled_again(cache, make):
    assert not cache.ensure(BOTH, make)
    assert make.calls == 1


def test_nothing_can_be_read_before_it_is_filled(tmp_path):
    empty = HalvesCache(tmp_path, {})
    assert empty.about() is None
    assert empty.read("trainval") is None


@pytest.mark.parametrize("content", [b"trainval classes ", b"trainval Classes", b"trainval", b""])
def test_a_damaged_half_is_named_and_quarantined_and_filled_again(cache, make, content):
    path = cache.path("trainval")
    path.write_bytes(content)
    assert cache.read("trainval") is None
    with pytest.warns(UserWarning, match=r"trainval\.npz is damaged\. It is kept as trainval\.npz\.damaged"):
        assert cache.ensure(("trainval",), make)
    assert cache.read("trainval") == PAYLOADS["trainval"]
    assert [kept.read_bytes() for kept in path.parent.glob("*.damaged*")] == [content]


def test_a_missing_half_is_filled_again_without_a_warning(cache, make):
    cache.path("test").unlink()
    assert cache.ensure(BOTH, make)
    assert cache.read("test") == PAYLOADS["test"]


def test_a_half_that_is_not_requested_may_be_damaged_or_missing(cache, make):
    cache.path("test").write_bytes(b"junk")
    assert not cache.ensure(("trainval",), make)
    cache.path("test").unlink()
    assert not cache.ensure(("trainval",), make)
    assert cache.read("trainval") == PAYLOADS["trainval"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_a_damaged_about_is_named_and_quarantined(cache, make, content):
    (cache.folder / "about.json").write_bytes(content)
    assert cache.about() is None
    with pytest.warns(UserWarning, match=r"about\.json is damaged"):
        assert cache.ensure((), make)
    assert cache.about()["classes"] == 7


def test_a_folder_filled_for_other_parameters_does_not_count(cache, make):
    other = HalvesCache(cache.folder, {"size": 16})
    assert other.read("trainval") is None
    with pytest.warns(UserWarning, match="damaged"):
        assert other.ensure(BOTH, make)
    assert other.about()["parameters"] == {"size": 16}


def test_an_interrupted_fill_without_about_does_not_count(tmp_path, make, monkeypatch):
    cache = HalvesCache(tmp_path, {})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(records, "write_record", interrupt)
        cache.ensure(BOTH, make)
    assert cache.path("test").exists()
    assert not cache.is_whole(BOTH)
    assert cache.ensure(BOTH, make)
    assert cache.is_whole(BOTH)


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_failure_to_make_the_halves_leaves_the_folder_without_them(tmp_path):
    cache = HalvesCache(tmp_path, {})
    with pytest.raises(ZeroDivisionError):
        cache.ensure(BOTH, lambda: 1 / 0)
    assert not cache.path("trainval").exists()
    assert cache.about() is None


def test_a_folder_filled_by_another_process_in_the_meantime_is_not_filled_twice(tmp_path, make, monkeypatch):
    cache = HalvesCache(tmp_path, {})
    real_lock = records.only_one

    def lock_after_another_process(*arguments, **settings):
        monkeypatch.setattr(records, "only_one", real_lock)
        HalvesCache(tmp_path, {}).ensure(BOTH, make)  # the other process came first and has finished
        return real_lock(*arguments, **settings)

    monkeypatch.setattr(records, "only_one", lock_after_another_process)
    assert not cache.ensure(BOTH, make)
    assert make.calls == 1


def test_waits_for_the_process_that_fills_the_folder_and_then_gives_up(tmp_path, make, monkeypatch):
    monkeypatch.setattr(glyph_cache, "LOCK_SECONDS", 0.1)
    cache = HalvesCache(tmp_path, {})
    with (
        records.only_one(tmp_path / "lock", "The other"),
        pytest.raises(records.LockedError, match=f"already being worked on by process {os.getpid()}"),
    ):
        cache.ensure(BOTH, make)
    assert make.calls == 0


def test_what_a_killed_process_left_half_written_is_deleted(tmp_path, make):
    (tmp_path / ".trainval.npz.7.tmp").write_bytes(b"half")
    HalvesCache(tmp_path, {}).ensure(BOTH, make)
    assert not list(tmp_path.glob("*.tmp"))


def test_an_intact_folder_can_be_read_without_write_permission(cache, make, monkeypatch):
    monkeypatch.setattr(records, "only_one", interrupt)  # root ignores permissions, so any write would go through here
    monkeypatch.setattr(records, "write_whole", interrupt)
    assert not cache.ensure(BOTH, make)
