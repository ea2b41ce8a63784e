import hashlib
from collections import Counter

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.datasets import glyphs
from benchmark.datasets.glyphs import Glyphs
from benchmark.datasets.listing import Counts
from benchmark.study.instantiate import build

# Classes and images of each block, counted by the separate program that defined the data set.
BLOCK_COUNTS = {
    "Basic Latin": (93, 1419),
    "Latin-1 Supplement": (94, 1454),
    "Latin Extended-A": (127, 2032),
    "Latin Extended-B": (205, 2454),
    "IPA Extensions": (95, 1475),
    "Spacing Modifier Letters": (52, 678),
    "Greek and Coptic": (81, 1175),
    "Cyrillic": (134, 1744),
    "Armenian": (72, 864),
    "Lao": (31, 248),
    "Georgian": (83, 844),
    "Phonetic Extensions": (90, 970),
    "Phonetic Extensions Supplement": (38, 452),
    "Latin Extended Additional": (251, 2764),
    "Greek Extended": (205, 2460),
    "General Punctuation": (33, 414),
    "Superscripts and Subscripts": (36, 431),
    "Currency Symbols": (24, 238),
    "Letterlike Symbols": (18, 169),
    "Number Forms": (38, 392),
    "Arrows": (77, 653),
    "Mathematical Operators": (84, 740),
    "Latin Extended-C": (24, 240),
    "Georgian Supplement": (38, 304),
    "Modifier Tone Letters": (20, 174),
    "Latin Extended-D": (44, 385),
}
IMAGES_PER_CLASS = {8: 492, 9: 30, 10: 46, 11: 16, 12: 899, 13: 17, 14: 26, 15: 18, 16: 543}


def whole(data):
    """Return images, labels and code points of both halves, concatenated."""
    halves = data.trainval(), data.test()
    code_points = [int(name[2:].split()[0], 16) for half in halves for name in half.class_names]
    images, labels = (np.concatenate([getattr(half, name) for half in halves]) for name in ("images", "labels"))
    return images, labels, np.array(code_points)


def sha256(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def digest(data):
    images, labels, code_points = whole(data)
    return sha256(images, labels.astype("<i4"), code_points.astype("<i4"))


@pytest.mark.slow
def test_prepare_returns_the_numbers_of_images_and_classes(full):
    summary = full.prepare()
    assert summary.total == Counts(25_173, 2_087, 26)
    assert summary.by_role == {"trainval": Counts(14_387, 1_067, 11), "test": Counts(10_786, 1_020, 15)}
    assert "STIX" in summary.licence
    assert "DejaVu" in summary.licence
    assert not summary.is_new
    assert 0 <= summary.seconds < 600
    assert summary.fingerprint == full.fingerprint


@pytest.mark.slow
def test_the_halves_hold_what_prepare_returns(full):
    for half, images, classes, super_classes in (
        (full.trainval(), 14_387, 1_067, 11),
        (full.test(), 10_786, 1_020, 15),
    ):
        assert half.images.shape == (images, 32, 32)
        assert half.images.dtype == np.uint8
        assert half.labels.shape == (images,)
        assert half.labels.dtype == half.class_ids.dtype == half.super_labels.dtype == np.int64
        assert set(half.labels.tolist()) == set(half.class_ids.tolist())
        assert len(half.class_ids) == len(half.class_names) == len(half.super_labels) == classes
        assert len(set(half.super_labels.tolist())) == super_classes
    assert full.total_classes == 2_087


@pytest.mark.slow
def test_every_block_has_its_number_of_classes_and_images(full):
    classes, images = Counter(), Counter()
    for half in (full.trainval(), full.test()):
        block = {label: half.super_names[place] for label, place in zip(half.class_ids, half.super_labels, strict=True)}
        classes.update(block.values())
        images.update(block[label] for label in half.labels)
    assert {name: (classes[name], images[name]) for name in half.super_names} == BLOCK_COUNTS


@pytest.mark.slow
def test_every_class_has_eight_to_sixteen_images(full):
    _, labels, _ = whole(full)
    assert Counter(Counter(labels.tolist()).values()) == IMAGES_PER_CLASS


@pytest.mark.slow
def test_images_labels_and_characters_match_the_known_digest(full):
    images, labels, code_points = whole(full)
    assert sha256(images) == "86b611485c4eab73946aafb618188bb79b95d830d0fef4367285bb2540edfd8e"
    assert sha256(code_points.astype("<i4")) == "5cdb0463730e82f7794a7da4de9ab9bbb9b0b1137a9e1caf9110cf27a57616fc"
    assert sha256(labels.astype("<i4")) == "c4b37ab23776f0c12884a6e85456eadd58d020f4a2e3d69b5ac24923c56731c1"
    assert digest(full) == "e40be06ed8976e86c9c47d8cbe95ca0568cdcb28ae4a01cf1486038a1362da7c"
    assert full.digest == digest(full)


@pytest.mark.slow
def test_images_of_64_pixels_match_the_known_digest(tmp_path):
    large = Glyphs(size=64, cache_dir=tmp_path)
    assert digest(large) == "3de164c31452a4cdb8826d1d86857146570fa923e3f5304b4ca562794979465e"
    assert sha256(whole(large)[0]) == "1255cd970b42d7674c1f27cd2eb2422fd15d807ba03a50354e209cbb6ab774ca"


@pytest.mark.slow
def test_upright_images_match_the_known_digest(tmp_path):
    upright = Glyphs(warp=0.0, cache_dir=tmp_path)
    assert digest(upright) == "e8e9b86701bbfe86fd47f73a3fe28983efb8f956d04c12fd571616c7c5e3a3f2"
    assert sha256(whole(upright)[0]) == "229f8ef0f35c331c3425c1e3909860ca750edf62d6961589232f6cb9ef5a77a9"


@pytest.mark.parametrize("preset", ["small", pytest.param("full", marks=pytest.mark.slow)])
def test_the_halves_share_no_class_and_no_super_class(preset, request):
    data = request.getfixturevalue(preset)
    trainval, test = data.trainval(), data.test()
    assert not set(trainval.class_ids.tolist()) & set(test.class_ids.tolist())
    assert not set(trainval.super_labels.tolist()) & set(test.super_labels.tolist())
    assert trainval.class_ids.tolist() + test.class_ids.tolist() == list(range(data.total_classes))
    assert trainval.super_names[trainval.super_labels.max()] == "Georgian"
    assert test.super_names[test.super_labels.min()] == "Phonetic Extensions"


@pytest.mark.slow
def test_classes_are_named_by_character_and_look_alikes_are_dropped(full):
    names = full.trainval().class_names
    assert names[0] == "U+0021 EXCLAMATION MARK"
    assert "U+0041 LATIN CAPITAL LETTER A" in names
    assert "U+03A9 GREEK CAPITAL LETTER OMEGA" in names
    assert "U+0391 GREEK CAPITAL LETTER ALPHA" not in names
    assert "U+0410 CYRILLIC CAPITAL LETTER A" not in names
    assert "U+2190 LEFTWARDS ARROW" in full.test().class_names


@pytest.mark.slow
def test_the_small_preset_is_every_eighth_class_with_the_very_same_images(full, small):
    images, labels, code_points = whole(full)
    few_images, few_labels, few_code_points = whole(small)
    assert (len(few_images), len(few_code_points)) == (3_159, 261)
    assert (few_code_points == code_points[::8]).all()
    assert (few_images == images[labels % 8 == 0]).all()
    assert (few_labels == labels[labels % 8 == 0] // 8).all()
    assert {half.super_names[place] for half in (small.trainval(), small.test()) for place in half.super_labels} == set(
        BLOCK_COUNTS
    )


def test_unexpected_pixels_are_refused_with_both_digests(tiny, monkeypatch):
    wrong = "0" * 64
    monkeypatch.setitem(glyphs.KNOWN_DIGESTS, (8, 0.15, 1, 1), wrong)
    with pytest.raises(UserError, match=f"have the digest [0-9a-f]{{64}}, expected {wrong}"):
        tiny.prepare()
    assert not list(tiny.folder.glob("*.npz"))
    assert not (tiny.folder / "about.json").exists()


def test_a_wrong_font_stops_the_drawing_and_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(glyphs, "matplotlib_font_dir", lambda: tmp_path)
    data = Glyphs(cache_dir=tmp_path)
    with pytest.raises(UserError, match=r"16 of 16 are not the known ones: .*DejaVuSans\.ttf is missing"):
        data.trainval()
    assert not list(data.folder.glob("*.npz"))


def test_progress_is_shown_while_drawing_and_never_for_an_intact_cache(tiny):
    seen = []

    def progress(what):
        assert what == "drawing"
        return lambda done, total: seen.append((done, total))

    summary = tiny.prepare(progress)
    assert summary.is_new
    assert seen[-1] == (summary.total.images, summary.total.images)
    assert seen == sorted(seen)
    seen.clear()
    tiny.prepare(progress)
    assert seen == []


def test_the_default_folder_is_in_the_user_s_cache_and_differs_between_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("BENCHMARK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Glyphs().folder.parent == tmp_path / "metric-learning-benchmark" / "glyphs"
    several = [Glyphs(), Glyphs(size=64), Glyphs(every=8), Glyphs(warp=0.1), Glyphs(seed=1)]
    assert len({data.folder for data in several}) == 5
    assert Glyphs(warp=0).folder == Glyphs(warp=0.0).folder


def test_a_configuration_cannot_choose_where_images_are_written(tmp_path):
    node = {"_target_": "benchmark.datasets.glyphs.Glyphs", "cache_dir": str(tmp_path / "elsewhere")}
    with pytest.raises(UserError, match=r"a configuration cannot choose the cache.*BENCHMARK_CACHE"):
        build(node, "dataset")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 7}, "size is 7; give a whole number from 8 to 128"),
        ({"size": 129}, "size is 129"),
        ({"size": 32.0}, r"size is 32\.0"),
        ({"every": 0}, "every is 0; give a whole number from 1 to 100"),
        ({"every": 101}, "every is 101"),
        ({"every": True}, "every is True"),
        ({"seed": -1}, "seed is -1"),
        ({"warp": -0.1}, r"warp is -0\.1; give a number from 0 to 0\.5"),
        ({"warp": 0.6}, r"warp is 0\.6"),
        ({"warp": float("nan")}, "warp is nan"),
        ({"warp": "0.15"}, r"warp is '0\.15'"),
    ],
)
def test_a_setting_out_of_range_is_named_with_what_is_allowed(settings, said):
    with pytest.raises(UserError, match=said):
        Glyphs(**settings)
