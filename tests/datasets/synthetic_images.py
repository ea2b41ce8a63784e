"""Synthetic images that resemble photographs, for tests that learn from image files.

A class is an outline with a texture in two colours; its super class is the family of the outline. Every image has its
own pose, lighting, background and noise, drawn from (seed, class, number), so images do not depend on the number of
classes or images.
"""

import colorsys
import csv
import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

FAMILIES = ("bar", "cog", "drop", "ellipse", "flower", "polygon", "ring", "star")
TURN = 256  # number of directions in which an outline is sampled
GOLDEN = 0.6180339887  # any number of its multiples modulo 1 stay far apart


class Look(NamedTuple):
    """The appearance that all images of a class share."""

    outline: np.ndarray  # (TURN,), distance of the edge from the centre by direction, at most 1
    hole: float  # distance of the inner edge
    colours: np.ndarray  # (2, 3) in 0..255
    texture: int
    pitch: float


def write_small_images(
    folder: Path, num_classes: int = 8, per_class: int = 6, size: tuple[int, int] = (48, 40), seed: int = 0
) -> Path:
    """Write a few small images; see `write_synthetic_images`."""
    return write_synthetic_images(folder, num_classes, per_class, size, seed)


def write_synthetic_images(
    folder: Path, num_classes: int, per_class: int, size: tuple[int, int] = (160, 120), seed: int = 0
) -> Path:
    """Write JPEGs as SUPER_CLASS/CLASS/NUMBER.jpg and `manifest.csv` next to them; return the path of the latter.

    Families alternate, so both halves of the classes contain all of them.

    Args:
        folder: folder to write to; created if it does not exist.
        num_classes: number of classes, at least 1.
        per_class: number of images per class.
        size: width and height in pixels.
        seed: seed of everything that differs between the images of a class.
    """
    rows = [("path", "label", "super_label")]
    for label, family in enumerate(families(num_classes)):
        name, group = f"class_{label:04}", FAMILIES[family]
        (folder / group / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            rows.append((f"{group}/{name}/{number:03}.jpg", name, group))
            synthetic_image(label, family, number, size, seed).save(folder / rows[-1][0], quality=85)
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / "manifest.csv"


def families(num_classes: int) -> list[int]:
    """Return the family of each class: as many families as possible, each with at least two classes."""
    return [label % min(len(FAMILIES), max(1, num_classes // 2)) for label in range(num_classes)]


def synthetic_image(label: int, family: int, number: int, size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Draw one RGB image of a class."""
    random = np.random.default_rng([seed, label, number])
    thing, (width, height) = look(label, family), size
    angle, scale, squash = random.uniform(-0.6, 0.6), random.uniform(0.6, 0.95), random.uniform(0.75, 1.0)
    left, up = random.uniform(-0.25, 0.25, 2).tolist()
    cos, sin = math.cos(angle), math.sin(angle)
    short = min(size) / 2
    x = ((np.arange(width, dtype=np.float32) - width / 2) / short - left)[None, :]
    y = ((np.arange(height, dtype=np.float32) - height / 2) / short - up)[:, None]
    u = (x * cos + y * sin) / scale  # axes of the object
    v = (y * cos - x * sin) / (scale * squash)
    rho, theta = np.sqrt(u * u + v * v), np.arctan2(v, u)
    edge = thing.outline[((theta + np.pi) * (TURN / (2 * np.pi))).astype(np.int32) % TURN]
    inside = np.clip(np.minimum(edge - rho, rho - thing.hole) * (short * scale) + 0.5, 0, 1)[..., None]
    pattern = np.clip(1.5 * _wave(thing, u, v, rho, theta) + 0.5, 0, 1)[..., None]
    first, second = thing.colours
    shade = (1.1 - 0.35 * rho * rho)[..., None]  # darker towards the rim, like a round object
    backdrop = random.integers(30, 200, (4, 5, 3), dtype=np.uint8)
    behind = np.asarray(Image.fromarray(backdrop).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    scene = behind + inside * ((second + (first - second) * pattern) * shade - behind)
    slope = random.uniform(-0.25, 0.25, 2).astype(np.float32)
    light = random.uniform(0.65, 1.2) * (1 + slope[0] * x + slope[1] * y)[..., None]
    cast = random.uniform(0.92, 1.08, 3).astype(np.float32)
    noise = random.integers(-14, 15, scene.shape, dtype=np.int8)
    return Image.fromarray(np.clip(scene * (light * cast) + noise, 0, 255).astype(np.uint8))


@lru_cache(maxsize=4096)
def look(label: int, family: int) -> Look:
    """Return the look of a class, independent of all other classes."""
    random = np.random.default_rng([label, 77])
    points, depth = int(random.integers(3, 9)), float(random.uniform())
    hues = (label * GOLDEN) % 1, (label * GOLDEN + random.uniform(0.2, 0.8)) % 1
    colours = [colorsys.hsv_to_rgb(hue, random.uniform(0.6, 1), v) for hue, v in zip(hues, (1, 0.6), strict=True)]
    hole = 0.35 + 0.35 * depth if FAMILIES[family] == "ring" else -1.0
    return Look(
        _outline(FAMILIES[family], points, depth),
        hole,
        255 * np.array(colours, dtype=np.float32),
        int(random.integers(5)),
        float(random.uniform(5, 14)),
    )


def _outline(family: str, points: int, depth: float) -> np.ndarray:
    """Return the distance of the edge by direction, starting at -pi."""
    t = np.linspace(-np.pi, np.pi, TURN, endpoint=False) + 1e-4
    tooth = (points * t / (2 * np.pi)) % 1  # 0..1 within each of the points
    if family == "bar":
        edge = np.minimum(1 / np.abs(np.cos(t)), (0.15 + 0.3 * depth) / np.abs(np.sin(t)))
    elif family == "cog":
        edge = np.where(tooth < 0.5, 1.0, 0.5 + 0.3 * depth)
    elif family == "drop":
        edge = np.abs(np.cos(t / 2)) ** (0.6 + 2 * depth)
    elif family == "ellipse":
        edge = 1 / np.sqrt(np.cos(t) ** 2 + (np.sin(t) / (0.45 + 0.45 * depth)) ** 2)
    elif family == "flower":
        edge = 0.75 + 0.25 * np.cos(points * t)
    elif family == "polygon":
        edge = np.cos(np.pi / points) / np.cos((tooth - 0.5) * 2 * np.pi / points)
    elif family == "star":
        edge = 1 - (0.35 + 0.35 * depth) * (1 - np.abs(2 * tooth - 1))
    else:  # ring
        edge = np.ones(TURN)
    return np.minimum(edge, 1).astype(np.float32)


def _wave(thing: Look, u: np.ndarray, v: np.ndarray, rho: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Return the texture, in -1..1, on the axes of the object."""
    if thing.texture == 0:
        return np.sin(thing.pitch * u)
    if thing.texture == 1:
        return np.sin(thing.pitch * v)
    if thing.texture == 2:
        return np.sin(thing.pitch * u) * np.sin(thing.pitch * v)
    if thing.texture == 3:
        return np.sin(thing.pitch * rho)
    return np.sin(round(thing.pitch) * theta)
