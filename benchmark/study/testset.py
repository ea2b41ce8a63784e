"""Access to the test classes; `test_ledger.jsonl` logs every access."""

import functools
import platform
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmark.core.records import JsonObject
from benchmark.datasets import Dataset, Split
from benchmark.images import Images
from benchmark.study.assemble import OtherDataError, same_dataset
from benchmark.study.ledger import log_access
from benchmark.study.study import Study


class OpenedTestSet(NamedTuple):
    """The test half, on the study's device.

    Attributes:
        images: N images, or the features of a frozen trunk.
        pixels: the N images.
        labels: (N,) int64, global class ids.
        super_labels: (N,) int64, global super class ids.
        is_query: (N,) bool, which images are queries; None where every image is.
        contents: SHA-256 of the image files; None where there are no files.
        class_names: name of each class, by its id.
    """

    images: Images
    pixels: Images
    labels: Tensor
    super_labels: Tensor
    is_query: Tensor | None
    contents: str | None
    class_names: dict[int, str]


class Expected(NamedTuple):
    """The data that a machine must have.

    Attributes:
        fingerprint: identifies the list of images, and the images of the training half.
        test_contents: SHA-256 of the test images' files; None where there are no files, or where it is not known.
    """

    fingerprint: str
    test_contents: str | None


def open_test_set(study: Study, entry: JsonObject, expected: Expected | None = None) -> OpenedTestSet:
    """Log the access in the study's `test_ledger.jsonl`, then return the test classes.

    Args:
        study: the study whose test classes are read and whose folder holds the ledger.
        entry: the fields of the logged line, in addition to the time.
        expected: the data that belong to the result; None: any.

    Raises:
        OSError: the line cannot be written; the test classes stay closed.
        OtherDataError: this machine has other data than those expected.
    """
    log_access(study.directory, entry)
    return _test_set(study, expected)


def opened_test_set(study: Study, expected: Expected | None = None) -> OpenedTestSet:
    """The test classes for further results of the same access, which `open_test_set` has logged in this process."""
    return _test_set(study, expected)


@functools.lru_cache(maxsize=1)
def _test_set(study: Study, expected: Expected | None) -> OpenedTestSet:
    """The test classes, cached for the units of a long-lived worker."""
    dataset: Dataset = same_dataset(study, expected.fingerprint) if expected else study.make_dataset()
    split = dataset.test()
    if expected and expected.test_contents not in (None, contents := dataset.test_contents):
        raise OtherDataError(
            f"The test images of {study.config.dataset.name} on {platform.node()} have the SHA-256 {contents}, those "
            f"of the study {expected.test_contents}. Run {study.command('data')} on both machines and compare."
        )
    images, pixels = study.make_images(split.images), study.make_pixels(split.images)
    labels, device = torch.from_numpy(split.labels), images.device
    super_labels = torch.from_numpy(super_labels_of(split)).to(device)
    is_query = None if split.is_query is None else torch.from_numpy(split.is_query).to(device)
    names = dict(zip(split.class_ids.tolist(), split.class_names, strict=True))
    return OpenedTestSet(images, pixels, labels.to(device), super_labels, is_query, dataset.test_contents, names)


def super_labels_of(split: Split) -> np.ndarray:
    """Return the super class id, int64 (N,), of each image of a half."""
    return split.super_labels[np.searchsorted(np.asarray(split.class_ids), split.labels)].astype(np.int64)
