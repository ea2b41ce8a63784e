"""Fixtures that read the fonts and draw the images once for all tests of this folder."""

import pytest

from benchmark.datasets import glyphs
from benchmark.datasets.glyph_characters import block_of, is_candidate
from benchmark.datasets.glyph_outlines import matplotlib_font_dir, read_outlines


@pytest.fixture(scope="session")
def outlines():
    return read_outlines(matplotlib_font_dir(), wanted=is_candidate)


@pytest.fixture(scope="session")
def glyphs_cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("glyphs_cache")


@pytest.fixture(scope="session")
def full(outlines, glyphs_cache_dir):
    return prepared(glyphs.Glyphs(cache_dir=glyphs_cache_dir), outlines)


@pytest.fixture(scope="session")
def small(outlines, glyphs_cache_dir):
    return prepared(glyphs.Glyphs(every=8, cache_dir=glyphs_cache_dir), outlines)


@pytest.fixture
def tiny(outlines, tmp_path, monkeypatch):
    """A data set of two blocks, one per half, not yet drawn; drawing takes about 0.1 s."""
    two_blocks = {key: outline for key, outline in outlines.items() if block_of(key[0]) in (8, 12)}
    monkeypatch.setattr(glyphs, "read_outlines", lambda font_dir, wanted: two_blocks)
    return glyphs.Glyphs(size=8, seed=1, cache_dir=tmp_path)


def prepared(data, outlines):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "read_outlines", lambda font_dir, wanted: outlines)
        data.prepare()
    return data
