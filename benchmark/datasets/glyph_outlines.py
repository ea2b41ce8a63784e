"""Outlines of characters as integers, read from the TrueType fonts that matplotlib ships (used by `glyphs`).

Source: the `glyf` and `cmap` tables of the TrueType specification, read with fontTools. No renderer and no hinting:
images rendered by FreeType differ between its versions (347 of 418 glyphs between matplotlib 3.7.5 and 3.11.2), but the
integers in the font files do not (byte-identical in matplotlib 3.5.3 to 3.11.2).

Excluded from the 16 faces: Computer Modern (its cmaps hold TeX positions), STIXNonUni and STIXSiz (private use, sizes),
the two Display faces (20 to 47 glyphs) and LastResort (a placeholder for every code point).
"""

import hashlib
import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from benchmark.core.errors import UserError

ShapeKey: TypeAlias = tuple[bytes, bytes, bytes, int]

# Faces in the order of the images of a class, with the SHA-256 of <face>.ttf.
FACES = {
    "DejaVuSans": "3fdf69cabf06049ea70a00b5919340e2ce1e6d02b0cc3c4b44fb6801bd1e0d22",
    "DejaVuSans-Bold": "b184b89e3c1075f22f6b71575b6fc20d4972b3cfd3b23322ca6fd596dcaef167",
    "DejaVuSans-Oblique": "ccdf74b350f11fd3dd5774de50e5e6346a1a5da1f5b7d5fb83590665e97a5213",
    "DejaVuSans-BoldOblique": "6edf0283160186af451cbee71e7b845f2e4cabf264bb992ce668c83c25465e6f",
    "DejaVuSansMono": "602ec86b8948cfcd956482fe64f94c36c867770149ef2f791d4613f443bcecb3",
    "DejaVuSansMono-Bold": "baada9a5172fe20886251aff0433fc38461912d5daf07287e7bee56620a8da96",
    "DejaVuSansMono-Oblique": "28052813f7a709fc89f52d192dc995ef4f0fdc5c3d7b73a49d6849b1916d0cd0",
    "DejaVuSansMono-BoldOblique": "a69081c15c76c827e0a27a5a7f5c74b6135c843499955495ffa8c20d3a98288b",
    "DejaVuSerif": "107244956e9962b9e96faccdc551825e0ae0898ae13737133e1b921a2fd35ffa",
    "DejaVuSerif-Bold": "c3753f2ed6bc673f15846dc45addbeb3b9c872f32fb18fd53a21f1bef1ed7676",
    "DejaVuSerif-Italic": "3e7994fbc54fa10ce3352a42d548fadd7d9cadb69cb1109bc9d960f6dac57f04",
    "DejaVuSerif-BoldItalic": "d93efec7a9d2e826768d1a2ee95b95870e15e29599a84f3484af1de1cec2e181",
    "STIXGeneral": "167378031e2dddc6216d67819c9260e9a06ffc4c478e4e23cb98a6fd44b183c2",
    "STIXGeneralBol": "e8533dc7083fa346bda1933d60ea4a83b67d0945bceaf1b3541f82b4a0e2c6a0",
    "STIXGeneralItalic": "6cfcb333d22b7c3c623bdfd40174f14c85c3d6731ca6166c1edc80140eae8527",
    "STIXGeneralBolIta": "98788fd4ba48dfbb2bd026c0e20a247a8b06c7372879628b7a6bb0d5bb09736c",
}


class Outline(NamedTuple):
    """The closed contours of one character in one face.

    Attributes:
        points: int32 (n, 2), font units, y up.
        ends: int32 (n_contours,), index of the last point of each contour.
        on_curve: bool (n,); False marks the control point of a quadratic curve.
        units_per_em: font units in one em.
    """

    points: np.ndarray
    ends: np.ndarray
    on_curve: np.ndarray
    units_per_em: int

    def shape_key(self) -> ShapeKey:
        """Return a key that two outlines share exactly if they differ at most by a horizontal shift."""
        shifted = self.points - np.array([self.points[:, 0].min(), 0], dtype=np.int32)
        return shifted.tobytes(), self.ends.tobytes(), self.on_curve.tobytes(), self.units_per_em


def matplotlib_font_dir() -> Path:
    """Return the folder of matplotlib's own fonts, without importing matplotlib if the package contains them."""
    spec = find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        inside = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
        if inside.is_dir():
            return inside
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def checked_font_files(font_dir: Path) -> dict[str, bytes]:
    """Read the 16 font files, and verify the SHA-256 of each.

    Args:
        font_dir: folder of the files `<face>.ttf`.

    Returns:
        The bytes of each file, by face.

    Raises:
        UserError: files are missing or have an unexpected SHA-256; the message names all of them.
    """
    files, faults = {}, []
    for face, expected in FACES.items():
        path = font_dir / f"{face}.ttf"
        if not path.is_file():
            faults.append(f"{path} is missing")
            continue
        files[face] = path.read_bytes()
        found = hashlib.sha256(files[face]).hexdigest()
        if found != expected:
            faults.append(f"{path} has sha256 {found}, expected {expected}")
    if faults:
        raise UserError(
            f"The glyphs data set is drawn from matplotlib's own font files, and {len(faults)} of {len(FACES)} are "
            f"not the known ones: {'; '.join(faults)}. A matplotlib packaged by a Linux distribution may use the "
            'system\'s fonts: run "pip install --force-reinstall --no-deps matplotlib" in a virtual environment.'
        )
    return files


def read_outlines(font_dir: Path, wanted: Callable[[int], bool]) -> dict[tuple[int, str], Outline]:
    """Read the outlines of the wanted characters in all faces that have them, by (code point, face).

    Composite glyphs are resolved into plain contours. A character without an outline (a space) is skipped.

    Args:
        font_dir: folder with the 16 files of `FACES`.
        wanted: predicate on code points: whether to read the character.

    Raises:
        UserError: a font file is missing or its SHA-256 is not the expected one.
    """
    from fontTools.ttLib import TTFont

    outlines = {}
    for face, data in checked_font_files(font_dir).items():
        font = TTFont(io.BytesIO(data))
        glyphs, units_per_em = font["glyf"], font["head"].unitsPerEm
        for code_point, name in font.getBestCmap().items():
            if not wanted(code_point):
                continue
            coordinates, ends, flags = glyphs[name].getCoordinates(glyphs)
            if len(coordinates):
                points = np.array(coordinates.array).reshape(-1, 2).astype(np.int32)
                on_curve = (np.array(flags, dtype=np.uint8) & 1).astype(bool)
                outlines[code_point, face] = Outline(points, np.array(ends, np.int32), on_curve, units_per_em)
    return outlines
