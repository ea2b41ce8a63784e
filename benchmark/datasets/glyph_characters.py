"""The characters that are the classes of `glyphs`, and their Unicode blocks.

Source: blocks, general categories and canonical decompositions of the Unicode Character Database. A block's range
never changes once assigned; categories and decompositions of the characters used here are identical in Unicode
12.1 (Python 3.8) and 15.1 (Python 3.13).
"""

import unicodedata
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping

from benchmark.datasets.glyph_outlines import FACES, Outline, ShapeKey

# First and last code point and name, ascending; the index of a block is its super class id.
BLOCKS = (
    (0x0000, 0x007F, "Basic Latin"),
    (0x0080, 0x00FF, "Latin-1 Supplement"),
    (0x0100, 0x017F, "Latin Extended-A"),
    (0x0180, 0x024F, "Latin Extended-B"),
    (0x0250, 0x02AF, "IPA Extensions"),
    (0x02B0, 0x02FF, "Spacing Modifier Letters"),
    (0x0370, 0x03FF, "Greek and Coptic"),
    (0x0400, 0x04FF, "Cyrillic"),
    (0x0530, 0x058F, "Armenian"),
    (0x0E80, 0x0EFF, "Lao"),
    (0x10A0, 0x10FF, "Georgian"),
    (0x1D00, 0x1D7F, "Phonetic Extensions"),
    (0x1D80, 0x1DBF, "Phonetic Extensions Supplement"),
    (0x1E00, 0x1EFF, "Latin Extended Additional"),
    (0x1F00, 0x1FFF, "Greek Extended"),
    (0x2000, 0x206F, "General Punctuation"),
    (0x2070, 0x209F, "Superscripts and Subscripts"),
    (0x20A0, 0x20CF, "Currency Symbols"),
    (0x2100, 0x214F, "Letterlike Symbols"),
    (0x2150, 0x218F, "Number Forms"),
    (0x2190, 0x21FF, "Arrows"),
    (0x2200, 0x22FF, "Mathematical Operators"),
    (0x2C60, 0x2C7F, "Latin Extended-C"),
    (0x2D00, 0x2D2F, "Georgian Supplement"),
    (0xA700, 0xA71F, "Modifier Tone Letters"),
    (0xA720, 0xA7FF, "Latin Extended-D"),
)
BLOCK_NAMES = [name for _, _, name in BLOCKS]
NUM_TRAINVAL_BLOCKS = 11  # Basic Latin to Georgian; the others are for testing; each half has about half of the classes
MIN_FACES = 8
MIN_CHARACTERS_PER_BLOCK = 10  # as iNaturalist 2019 requires ten species per genus

_FIRSTS = [first for first, _, _ in BLOCKS]


def block_of(code_point: int) -> int | None:
    """Return the super class id of a code point; None outside the 26 blocks."""
    place = bisect_right(_FIRSTS, code_point) - 1
    return place if place >= 0 and code_point <= BLOCKS[place][1] else None


def is_candidate(code_point: int) -> bool:
    """Return whether a character is visible by itself: in a block, and not a control, separator or combining mark."""
    return block_of(code_point) is not None and unicodedata.category(chr(code_point))[0] not in "CZM"


def choose_characters(outlines: Mapping[tuple[int, str], Outline]) -> dict[int, list[str]]:
    """Choose the faces of each class, by code point, ascending.

    1. Of the faces in which a character has an identical outline, up to a horizontal shift, only the first is kept.
    2. A character needs at least `MIN_FACES` different outlines.
    3. Of characters that share an outline in any face (Latin A, Greek Alpha, Cyrillic A), only the lowest is kept:
       merging them would mix super classes, and keeping several would be label noise.
    4. A block needs at least `MIN_CHARACTERS_PER_BLOCK` characters.

    Args:
        outlines: outlines by (code point, face), all within the blocks.

    Returns:
        Names of the faces kept for each code point, in the order of `FACES`.
    """
    distinct = _distinct_outlines(outlines)
    owners = defaultdict(list)
    for code_point, faces in distinct.items():
        for key in faces:
            owners[key].append(code_point)
    look_alikes = {code_point for sharing in owners.values() for code_point in sharing[1:]}
    kept = [code_point for code_point in distinct if code_point not in look_alikes]
    population = Counter(block_of(code_point) for code_point in kept)
    return {
        code_point: list(distinct[code_point].values())
        for code_point in kept
        if population[block_of(code_point)] >= MIN_CHARACTERS_PER_BLOCK
    }


def _distinct_outlines(outlines: Mapping[tuple[int, str], Outline]) -> dict[int, dict[ShapeKey, str]]:
    """Apply rules 1 and 2: for each code point, ascending, keep the first face with each outline."""
    distinct: dict[int, dict[ShapeKey, str]] = {}
    for code_point in sorted({code_point for code_point, _ in outlines}):
        first_face: dict[ShapeKey, str] = {}
        for face in FACES:
            if (code_point, face) in outlines:
                first_face.setdefault(outlines[code_point, face].shape_key(), face)
        if len(first_face) >= MIN_FACES:
            distinct[code_point] = first_face
    return distinct
