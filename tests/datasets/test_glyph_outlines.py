import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.datasets import glyph_outlines
from benchmark.datasets.glyph_outlines import FACES, checked_font_files, matplotlib_font_dir, read_outlines


@pytest.fixture
def fonts(tmp_path):
    """Return a folder with links to the real font files."""
    for face in FACES:
        (tmp_path / f"{face}.ttf").symlink_to(matplotlib_font_dir() / f"{face}.ttf")
    return tmp_path


def test_the_installed_fonts_are_the_expected_ones():
    assert list(checked_font_files(matplotlib_font_dir())) == list(FACES)


def test_a_font_that_differs_is_named_with_both_checksums_and_what_to_do(fonts):
    path = fonts / "DejaVuSerif-Bold.ttf"
    altered = path.read_bytes() + b"\0"
    path.unlink()
    path.write_bytes(altered)
    with pytest.raises(UserError) as caught:
        read_outlines(fonts, wanted=lambda code_point: True)
    said = str(caught.value)
    assert str(path) in said
    assert "1 of 16" in said
    assert hashlib.sha256(altered).hexdigest() in said
    assert FACES["DejaVuSerif-Bold"] in said
    assert "pip install --force-reinstall" in said
    assert "DejaVuSerif-Italic" not in said


def test_every_missing_font_is_named(fonts):
    (fonts / "STIXGeneral.ttf").unlink()
    (fonts / "DejaVuSans.ttf").unlink()
    with pytest.raises(UserError, match=r"DejaVuSans\.ttf is missing; .*STIXGeneral\.ttf is missing"):
        checked_font_files(fonts)


def from_the_left(points):
    return {(x, y) for x, y in (points - [points[:, 0].min(), 0]).tolist()}


COMPARED = "-Ag&éǺЖΏ½≠"


@pytest.fixture(scope="module")
def compared():
    return read_outlines(matplotlib_font_dir(), wanted=lambda code_point: chr(code_point) in COMPARED)


@pytest.mark.parametrize("face", FACES)
def test_the_points_are_those_that_freetype_reads(compared, face):
    # FreeType adds the midpoints of control points, and repeats the first point at the end. It moves a
    # whole character sideways to its left side bearing, which is not part of the shape.
    from matplotlib import ft2font

    unscaled = ft2font.LoadFlags.NO_SCALE if hasattr(ft2font, "LoadFlags") else ft2font.LOAD_NO_SCALE
    font = ft2font.FT2Font(str(matplotlib_font_dir() / f"{face}.ttf"))
    for character in COMPARED:
        if (ord(character), face) in compared:
            points, ends, on_curve, units_per_em = compared[ord(character), face]
            font.load_char(ord(character), flags=unscaled)
            vertices, codes = font.get_path()
            vertices, is_close = vertices * 64, codes == 79  # the code that closes a contour has no position
            assert from_the_left(points) <= from_the_left(vertices[~is_close])
            assert len(ends) == is_close.sum()
            assert (~on_curve).sum() == (codes == 3).sum() / 2  # a control point and an end for each curve
            assert units_per_em == font.units_per_EM


@pytest.mark.slow
def test_an_accented_letter_is_resolved_into_the_letter_and_the_accent(outlines):
    plain, accented = outlines[ord("e"), "DejaVuSans"], outlines[ord("é"), "DejaVuSans"]
    assert len(accented.ends) == len(plain.ends) + 1
    letter = {tuple(point) for point in plain.points.tolist()}
    assert letter <= {tuple(point) for point in accented.points.tolist()}


@pytest.mark.slow
def test_outlines_have_one_flag_per_point_and_end_with_their_last_contour(outlines):
    for outline in outlines.values():
        assert outline.points.dtype == np.int32
        assert len(outline.on_curve) == len(outline.points) == outline.ends[-1] + 1


def test_only_wanted_characters_are_read_and_a_space_has_no_outline():
    found = read_outlines(matplotlib_font_dir(), wanted=lambda code_point: code_point in (0x20, 0x41))
    assert {code_point for code_point, _ in found} == {0x41}
    assert [face for _, face in found] == list(FACES)


def test_the_font_folder_is_found_without_importing_matplotlib():
    code = (
        "import sys; from benchmark.datasets.glyph_outlines import matplotlib_font_dir; "
        "print(matplotlib_font_dir()); assert 'matplotlib' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert (Path(found) / "DejaVuSans.ttf").is_file()


def test_matplotlib_is_asked_for_its_folder_if_its_data_are_elsewhere(monkeypatch, tmp_path):
    import matplotlib

    monkeypatch.setattr(glyph_outlines, "find_spec", lambda name: None)
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    assert matplotlib_font_dir() == tmp_path / "fonts" / "ttf"
