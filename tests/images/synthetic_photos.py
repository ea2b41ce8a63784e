"""Synthetic photographs: smooth at large scales and grainy at small ones."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def synthetic_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw a photograph, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    layers = [
        (rng.integers(0, 256, (h, w, 3), dtype=np.uint8), weight) for h, w, weight in ((4, 5, 0.6), (19, 23, 0.4))
    ]
    smooth = sum(
        weight * np.asarray(Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC), dtype=float)
        for layer, weight in layers
    )
    return (smooth + rng.normal(0, 4, (height, width, 3))).clip(0, 255).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Encode an image as the bytes of a file."""
    opened = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    stream = io.BytesIO()
    opened.save(stream, kind, **options)
    return stream.getvalue()


def write_photos(folder: Path, sizes: list[tuple[int, int]]) -> list[str]:
    """Write JPEGs of the given heights and widths, and return their names."""
    names = [f"class_{i % 3}/image_{i}.jpg" for i in range(len(sizes))]
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(synthetic_photo(*size, seed=i), quality=90))
    return names
