"""The unseen classes, and the line that every look at them leaves. For `final_eval` and `traditional` only."""

import functools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmark.core import records
from benchmark.images import Images
from benchmark.study.study import Study


class Unseen(NamedTuple):
    """The test half: images, class ids (N,), which are queries (N,) where some are, SHA-256 of the picture files."""

    images: Images
    labels: Tensor
    is_query: Tensor | None
    contents: str | None


def open_test(study_json: str, directory: Path, look: dict[str, Any]) -> Unseen:
    """Write the look down, then return the unseen classes."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    records.append_line(directory / "test_ledger.jsonl", {"when": when} | look)
    return _test_split(study_json)


@functools.lru_cache(maxsize=1)
def _test_split(study_json: str) -> Unseen:
    study = Study.of(json.loads(study_json))
    dataset = study.make_dataset()
    split = dataset.test()
    images = study.make_images(split.images)
    labels, device = torch.from_numpy(split.labels), images.device
    is_query = None if split.is_query is None else torch.from_numpy(split.is_query).to(device)
    return Unseen(images, labels.to(device), is_query, getattr(dataset, "test_contents", None))
