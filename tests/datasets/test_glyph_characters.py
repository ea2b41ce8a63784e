import unicodedata

import numpy as np
import pytest

from benchmark.datasets.glyph_characters import BLOCKS, block_of, choose_characters, is_candidate
from benchmark.datasets.glyph_outlines import FACES, Outline

FACE_NAMES = list(FACES)


def shape(number, shift=0):
    """Return a triangle that is unique to a number, moved sideways by `shift`."""
    points = np.array([[shift, 0], [shift + 10, 0], [shift, number]], np.int32)
    return Outline(points, np.array([2], np.int32), np.ones(3, bool), 1000)


def font(characters=range(0x41, 0x4B), num_faces=8):
    """Return characters with a unique shape in each of the first faces; 10 characters in 8 faces are just enough."""
    return {
        (code_point, face): shape(100 * code_point + place)
        for code_point in characters
        for place, face in enumerate(FACE_NAMES[:num_faces])
    }


def test_keeps_characters_with_eight_faces_in_a_block_of_ten():
    chosen = choose_characters(font())
    assert list(chosen) == list(range(0x41, 0x4B))
    assert all(faces == FACE_NAMES[:8] for faces in chosen.values())


def test_characters_and_faces_are_sorted_regardless_of_the_order_of_reading():
    backwards = dict(reversed(font().items()))
    assert choose_characters(backwards) == choose_characters(font())
    assert list(choose_characters(backwards)) == sorted(font_code_points())


def font_code_points():
    return {code_point for code_point, _ in font()}


def test_a_face_with_the_outline_of_an_earlier_one_does_not_count_even_if_it_is_moved_sideways():
    outlines = font(num_faces=9)
    outlines[0x41, FACE_NAMES[5]] = shape(100 * 0x41 + 2, shift=-3)
    assert choose_characters(outlines)[0x41] == [face for place, face in enumerate(FACE_NAMES[:9]) if place != 5]


def test_an_outline_moved_upward_is_a_different_one():
    raised = shape(100 * 0x41 + 2)
    raised = raised._replace(points=raised.points + np.array([0, 5], np.int32))
    outlines = font(num_faces=9) | {(0x41, FACE_NAMES[5]): raised}
    assert len(choose_characters(outlines)[0x41]) == 9


def test_a_character_with_seven_different_outlines_is_dropped():
    outlines = font(range(0x41, 0x4C))
    outlines[0x44, FACE_NAMES[7]] = outlines[0x44, FACE_NAMES[0]]
    assert 0x44 not in choose_characters(outlines)
    assert len(choose_characters(outlines)) == 10


def test_of_two_characters_with_a_common_outline_the_higher_is_dropped():
    outlines = font(range(0x41, 0x4C))
    outlines[0x48, FACE_NAMES[1]] = outlines[0x43, FACE_NAMES[6]]
    assert list(choose_characters(outlines)) == [code_point for code_point in range(0x41, 0x4C) if code_point != 0x48]


def test_a_character_dropped_for_too_few_faces_does_not_exclude_its_look_alike():
    outlines = font(range(0x41, 0x4C))
    outlines[0x48, FACE_NAMES[1]] = outlines[0x43, FACE_NAMES[6]]
    del outlines[0x43, FACE_NAMES[0]]
    assert list(choose_characters(outlines)) == [code_point for code_point in range(0x41, 0x4C) if code_point != 0x43]


def test_a_block_with_nine_characters_is_dropped():
    greek = list(range(0x3B1, 0x3BA))
    assert len(greek) == 9
    assert list(choose_characters(font() | font(greek))) == list(range(0x41, 0x4B))


@pytest.mark.slow
def test_the_fonts_hold_the_outlines_that_were_counted_by_hand(outlines):
    assert len(outlines) == 32_385
    assert len({code_point for code_point, _ in outlines}) == 2_747
    assert len({outline.shape_key() for outline in outlines.values()}) == 28_145


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\x7f", "Basic Latin"),
        ("\x80", "Latin-1 Supplement"),
        ("Ω", "Greek and Coptic"),
        ("ა", "Georgian"),
        ("ꟿ", "Latin Extended-D"),
    ],
)
def test_block_of_finds_the_block(character, name):
    assert BLOCKS[block_of(ord(character))][2] == name


@pytest.mark.parametrize("code_point", [0x0300, 0x036F, 0x0500, 0x3042, 0xA800, 0x1F600])
def test_block_of_is_none_between_and_after_the_blocks(code_point):
    assert block_of(code_point) is None


def test_the_blocks_are_ascending_and_disjoint():
    ends = [bound for first, last, _ in BLOCKS for bound in (first, last)]
    assert ends == sorted(set(ends))
    assert len(BLOCKS) == 26


@pytest.mark.parametrize("character", ["\n", " ", "\xa0", "\xad", "\u0483", "\u2028"])
def test_characters_without_ink_are_not_candidates(character):
    assert unicodedata.category(character)[0] in "CZM"
    assert not is_candidate(ord(character))


def test_visible_characters_of_the_blocks_are_candidates():
    assert all(is_candidate(ord(character)) for character in "A7+éЖ→½€")
    assert not is_candidate(ord("あ"))
