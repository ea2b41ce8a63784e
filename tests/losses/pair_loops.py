"""Helpers for oracles of pair losses, in plain Python over floats, without code of the package."""

import math

import torch


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def distances(embeddings):
    """Return the Euclidean distances of unit vectors, as a list of rows."""
    units = [unit(row) for row in embeddings.tolist()]
    return [[math.dist(a, b) for b in units] for a in units]


def cosines(embeddings):
    units = [unit(row) for row in embeddings.tolist()]
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in units] for a in units]


def pairs(labels):
    """Return the ordered pairs of one class, without self-pairs, and those of two classes."""
    y = labels.tolist()
    both = [(i, j) for i in range(len(y)) for j in range(len(y)) if i != j]
    return [(i, j) for i, j in both if y[i] == y[j]], [(i, j) for i, j in both if y[i] != y[j]]


def triplets(labels):
    positive, negative = pairs(labels)
    return [(a, p, n) for a, p in positive for b, n in negative if a == b]


def with_duplicates():
    """Return float32 rows (32, 8) of 8 classes: in each, two are equal and two 1e-3 apart; two classes share a row."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(32, 8, generator=generator)
    rows[1::4], rows[10] = rows[::4], rows[4]
    rows[3::4] = rows[2::4] + 1e-3 * torch.randn(8, 8, generator=generator)
    return rows, torch.arange(32) // 4


def mean_above_zero(values):
    active = [v for v in values if v > 0]
    return sum(active) / len(active) if active else 0.0
