"""Scores of embeddings whose classes have names or numbers of any kind."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmark.core.errors import UserError
from benchmark.protocol.evaluation import RECALL_AT, Evaluation, evaluation


@dataclass(frozen=True, eq=False)
class Labelled:
    """Embeddings with their classes as numbers.

    Attributes:
        embeddings: (N, D), or (F, N, D) for F models.
        labels: (N,) ids of the classes.
        super_labels: (N,) ids of the super classes; None without any.
        is_query: (N,) bool; None where every image is a query.
        class_names: names of the classes by id.
        super_names: names of the super classes by id.
    """

    embeddings: Tensor
    labels: Tensor
    super_labels: Tensor | None
    is_query: Tensor | None
    class_names: Mapping[int, str]
    super_names: Mapping[int, str]


def labelled(
    embeddings: np.ndarray, labels: np.ndarray, super_labels: np.ndarray | None, is_query: np.ndarray | None, what: str
) -> Labelled:
    """Number the classes and super classes of embeddings in sorted order.

    Args:
        embeddings: (N, D) or (F, N, D) of any floating type.
        labels: (N,) numbers or texts.
        super_labels: (N,) numbers or texts; None without any.
        is_query: (N,) bool, or the numbers 0 and 1; None where every image is a query.
        what: the embeddings in messages.

    Raises:
        UserError: labels are missing, a class has several super classes, `is_query` leaves no query or nothing to
            search among, or shapes or types do not fit.
    """
    if embeddings.ndim not in (2, 3) or embeddings.dtype.kind != "f" or labels.shape != embeddings.shape[-2:-1]:
        raise UserError(
            f"{what}: embeddings are {embeddings.dtype} {embeddings.shape} and labels {labels.shape}; (N, D) or "
            "(F, N, D) numbers with a decimal point, and (N,) labels are needed."
        )
    for name, given in (("super_labels", super_labels), ("is_query", is_query)):
        if given is not None and given.shape != labels.shape:
            raise UserError(f"{what}: {name} has the shape {given.shape}; {labels.shape} is needed.")
    classes, ids = _numbered(labels, f"{what}: labels")
    groups, super_ids = np.array([]), None
    if super_labels is not None:
        groups, super_ids = _numbered(super_labels, f"{what}: super_labels")
        pairs = np.unique(np.stack([ids, super_ids]), axis=1)
        if len(pairs[0]) != len(classes):
            twice = classes[np.bincount(pairs[0]) > 1][0]
            raise UserError(f"{what}: the class {twice} has several super classes; give it one.")
    return Labelled(
        embeddings=torch.from_numpy(_native(embeddings)), labels=torch.from_numpy(ids),
        super_labels=None if super_ids is None else torch.from_numpy(super_ids),
        is_query=None if is_query is None else torch.from_numpy(_mask(is_query, f"{what}: is_query")),
        class_names=dict(enumerate(map(str, classes.tolist()))), super_names=dict(enumerate(map(str, groups.tolist()))),
    )  # fmt: skip


def _native(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings of any floating type and byte order as float32, or as float64 where they have more digits."""
    return np.ascontiguousarray(embeddings, np.float32 if embeddings.dtype.itemsize <= 4 else np.float64)


def _numbered(labels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The classes (C,) that occur, sorted, and for each label (N,) the place of its class.

    Args:
        labels: (N,) numbers or texts.
        name: the labels in messages.

    Raises:
        UserError: labels are missing.
    """
    import pandas as pd

    if missing := int(pd.isna(labels).sum()):
        raise UserError(f"{name}: {missing:,} of {len(labels):,} are missing (None or NaN). Give each image one.")
    try:
        classes, ids = np.unique(labels, return_inverse=True)
    except TypeError:  # numbers and texts have no order
        classes, ids = np.unique(labels.astype(str), return_inverse=True)
    return classes, ids


def _mask(is_query: np.ndarray, name: str) -> np.ndarray:
    """Which images (N,) are queries, as bool.

    Args:
        is_query: (N,) bool, or the numbers 0 and 1.
        name: the mask in messages.

    Raises:
        UserError: it has other values, or the same for each image.
    """
    found = np.array(is_query.tolist())  # of objects, their own type
    if found.dtype.kind not in "biuf" or not np.isin(found, (0, 1)).all():
        wrong = next((str(one) for one in found.tolist() if one not in (0, 1)), str(found.dtype))
        raise UserError(f"{name} must be true or false, or 1 or 0, for each image; it has {wrong!r}.")
    if found.all():
        raise UserError(f"{name} is true for each image, so there is none to search among. Leave it out: each image is "
                        "then searched among all others.")  # fmt: skip
    if not found.any():
        raise UserError(f"{name} is false for each image, so there is no query. Make it true for those to search for.")
    return found.astype(bool)


def scored(
    given: Labelled, *, mode: str, metric: str, recall_at: tuple[int, ...] = RECALL_AT,
    options: Mapping[str, float] | None = None, what: str,
) -> Evaluation:  # fmt: skip
    """Score embeddings.

    Args:
        given: the embeddings.
        mode: `concatenated` or `separated`, see `protocol.evaluation`.
        metric: distance of the search.
        recall_at: each K of Recall@K.
        options: options of that distance.
        what: the embeddings in messages.

    Raises:
        UserError: they cannot be scored.
    """
    try:
        return evaluation(
            given.embeddings, given.labels, super_labels=given.super_labels, is_query=given.is_query, metric=metric,
            recall_at=recall_at, mode=mode, **(options or {}),
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"{what} cannot be scored: {error}") from error
