"""The images found for some queries as one HTML page without links to anything: opens from disk, without a network."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from benchmark.images.decode import Reading, UnreadableImageError, decode
from benchmark.images.decoded_on_read import read

SIDE = 128  # of a thumbnail, in pixels
UPRIGHT = Reading(orient=True, background=(255, 255, 255))
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 75rem; padding: 0 1rem; }
section { border-top: 1px solid color-mix(in srgb, currentColor 30%, transparent); padding: .75rem 0; }
ol { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; margin: 0; padding: 0; }
figure { margin: 0; width: 8rem; }
img { width: 8rem; height: 8rem; object-fit: contain; background: #8882; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; overflow-wrap: anywhere; }
"""


class Hit(NamedTuple):
    """An image that was found.

    Attributes:
        path: its path, as it is shown.
        file: the file.
        score: its similarity or distance.
    """

    path: str
    file: Path
    score: float


def page(title: str, about: str, found: Sequence[tuple[str, Path, Sequence[Hit]]]) -> str:
    """The page.

    Args:
        title: its heading.
        about: a sentence below it.
        found: for each query its path as shown, its file and what was found.
    """
    sections = []
    for number, (name, file, hits) in enumerate(found):
        items = "\n".join(
            f"<li>{_figure(hit.file, f'{rank}. {hit.path}', f'{hit.score:.3f}')}</li>"
            for rank, hit in enumerate(hits, 1)
        )
        sections.append(
            f'<section aria-labelledby="q{number}">\n<h2 id="q{number}">{html.escape(name)}</h2>\n'
            f"{_figure(file, f'query: {name}', '')}\n<ol>\n{items}\n</ol>\n</section>"
        )
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(about)}</p>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _figure(file: Path, caption: str, score: str) -> str:
    text = html.escape(caption)
    shown = f"<br>{html.escape(score)}" if score else ""
    return f'<figure><img alt="{text}" src="{_thumbnail(file)}"><figcaption>{text}{shown}</figcaption></figure>'


def _thumbnail(file: Path) -> str:
    """A thumbnail of an image as a data URL; an empty one if the file cannot be read any more."""
    try:
        pixels = decode(read(file)[0], None, UPRIGHT)
    except UnreadableImageError:
        pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    buffer = io.BytesIO()
    ImageOps.contain(Image.fromarray(pixels), (SIDE, SIDE)).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
