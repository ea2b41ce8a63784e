"""Figures from what a study keeps: test embeddings, nearest neighbours, and the state of the loss.

`kept` reads it; every other module draws one kind of figure. Functions return matplotlib figures, which `save` writes.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core import records

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf")


def save(figure: "Figure", stem: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a figure in each format, whole or not at all, and return the paths.

    Args:
        figure: the figure.
        stem: path without its suffix; the folder is created.
        formats: suffixes that matplotlib knows.

    Raises:
        WriteError: a file cannot be written.
    """
    paths = []
    for suffix in formats:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=150, bbox_inches="tight", metadata=_without_date(suffix))
        path = stem.with_name(f"{stem.name}.{suffix}")
        records.write_whole(path, buffer.getvalue())
        paths.append(path)
    return paths


def _without_date(suffix: str) -> dict[str, None]:
    """Metadata that make the file depend on the figure only."""
    return {"CreationDate": None} if suffix == "pdf" else {}
