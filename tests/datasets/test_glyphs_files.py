"""Storage of the glyphs: two files, verified and drawn once; `test_glyphs.py` tests their content."""

import shutil
import subprocess
import sys

import pytest

from benchmark.core.errors import UserError
from benchmark.datasets import glyphs
from benchmark.datasets.glyphs import Glyphs


def test_the_trainval_half_is_read_without_opening_the_test_half(small):
    # Python reports each opened file to an audit hook; reading the test half shows that the hook works.
    code = f"""
import sys
from pathlib import Path
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
from benchmark.datasets.glyphs import Glyphs
data = Glyphs(every=8, cache_dir=Path({str(small.cache_dir)!r}))
data.trainval(), data.fingerprint, data.total_classes
print(sum("trainval.npz" in path for path in opened), sum("test.npz" in path for path in opened))
data.test()
print(sum("test.npz" in path for path in opened))
print([name for name in ("matplotlib", "fontTools", "torch") if name in sys.modules])
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == ["1 0", "1", "[]"]


@pytest.mark.parametrize("content", [b"not a half", None])
def test_the_trainval_half_does_not_depend_on_the_state_of_the_test_half(small, tmp_path, content):
    data = copy_of(small, tmp_path)
    path = data.folder / "test.npz"
    path.unlink() if content is None else path.write_bytes(content)
    assert (data.trainval().images == small.trainval().images).all()
    assert data.fingerprint == small.fingerprint
    assert not path.exists() if content is None else path.read_bytes() == content


def test_the_trainval_half_is_repaired_without_reading_the_test_half(tiny, monkeypatch):
    before = tiny.trainval()
    (tiny.folder / "trainval.npz").write_bytes(b"not a half")
    read, asked = glyphs.HalvesCache.read, []
    monkeypatch.setattr(glyphs.HalvesCache, "read", lambda cache, half: asked.append(half) or read(cache, half))
    with pytest.warns(UserWarning, match=r"trainval\.npz is damaged"):
        assert (tiny.trainval().images == before.images).all()
    assert set(asked) == {"trainval"}


def copy_of(data, tmp_path):
    """Return the data set with another cache folder."""
    copied = Glyphs(size=data.size, every=data.every, seed=data.seed, cache_dir=tmp_path / "copy")
    shutil.copytree(data.folder, copied.folder)
    return copied


def test_a_damaged_half_is_drawn_again(tiny):
    before = tiny.test()
    path = tiny.folder / "test.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"test\.npz is damaged"):
        after = tiny.test()
    assert (after.images == before.images).all()
    assert not tiny.prepare().is_new


def test_prepare_finds_damage_in_both_halves(tiny):
    tiny.prepare()
    for half in ("trainval", "test"):
        (tiny.folder / f"{half}.npz").write_bytes(b"")
        with pytest.warns(UserWarning, match=rf"{half}\.npz is damaged"):
            assert tiny.prepare().is_new


def test_a_half_that_stays_damaged_is_an_error_and_not_a_loop(tiny, monkeypatch):
    tiny.prepare()
    (tiny.folder / "test.npz").write_bytes(b"")
    monkeypatch.setattr(glyphs.HalvesCache, "ensure", lambda *_: True)
    with pytest.raises(UserError, match=r"test\.npz was drawn and is damaged again"):
        tiny.test()


def test_the_fingerprint_is_read_from_a_small_file(tiny):
    known = tiny.fingerprint
    for path in tiny.folder.glob("*.npz"):
        path.unlink()
    assert tiny.fingerprint == known
    assert (tiny.folder / "about.json").stat().st_size < 2_000


@pytest.mark.slow
def test_the_fingerprint_depends_on_settings_and_pixels(full, small, tiny):
    other_seed = Glyphs(size=8, seed=2, cache_dir=tiny.cache_dir)
    without_warp = Glyphs(size=8, seed=1, warp=0, cache_dir=tiny.cache_dir)
    same_pixels = Glyphs(size=8, seed=2, warp=0, cache_dir=tiny.cache_dir)
    several = [full, small, tiny, other_seed, without_warp, same_pixels]
    assert len({data.fingerprint for data in several}) == 6
    assert (without_warp.trainval().images == same_pixels.trainval().images).all()
    assert (other_seed.trainval().images != tiny.trainval().images).any()
    assert all(len(data.fingerprint) == 64 for data in several)


def test_the_fingerprint_changes_when_other_images_are_drawn_with_the_same_settings(tiny, tmp_path, monkeypatch):
    known = tiny.fingerprint
    without_one_image = glyphs.read_outlines(None, None)
    del without_one_image[ord("Ա"), "DejaVuSans"]
    monkeypatch.setattr(glyphs, "read_outlines", lambda font_dir, wanted: without_one_image)
    assert Glyphs(size=8, seed=1, cache_dir=tmp_path / "again").fingerprint != known


def test_a_second_drawing_gives_the_same_files(tiny, tmp_path):
    again = Glyphs(size=8, seed=1, cache_dir=tmp_path / "again")
    tiny.prepare()
    again.prepare()
    for name in ("trainval.npz", "test.npz", "about.json"):
        assert (tiny.folder / name).read_bytes() == (again.folder / name).read_bytes()


@pytest.mark.slow
def test_two_processes_at_once_draw_it_once(tmp_path):
    code = (
        "from pathlib import Path; from benchmark.datasets.glyphs import Glyphs; "
        f"found = Glyphs(every=8, cache_dir=Path({str(tmp_path)!r})).prepare(); print(found.is_new, found.fingerprint)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0].split() for process in processes]
    assert sorted(drawn for drawn, _ in said) == ["False", "True"]
    assert said[0][1] == said[1][1]
    left = {path.name for path in Glyphs(every=8, cache_dir=tmp_path).folder.iterdir()}
    assert left == {"trainval.npz", "test.npz", "about.json", "lock"}
