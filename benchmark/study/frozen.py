"""A study with a frozen trunk: its features are computed once, and what is trained is the head on them."""

from __future__ import annotations

import functools
import hashlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core import records
from benchmark.core.cache_dir import user_cache_dir
from benchmark.core.code import code_of
from benchmark.core.console import counting, write
from benchmark.core.escape import visible
from benchmark.core.pulse import beat
from benchmark.core.threads import usable_cores
from benchmark.core.wording import human_size
from benchmark.images import Images, shards
from benchmark.images.cache import Cache
from benchmark.images.decode import AS_PUBLISHED
from benchmark.images.decoded_on_read import DecodedOnRead
from benchmark.images.features import FeatureImages, Views
from benchmark.protocol.seeds import stable_seed
from benchmark.study.data import ImageSource
from benchmark.training.precision import forward, use_precision

if TYPE_CHECKING:
    from benchmark.study.config import Node
    from benchmark.study.study import Study
    from benchmark.training.components import TrunkModule

CODE = tuple(f"benchmark.images.{name}" for name in ("features", "cropped", "in_memory", "resident"))


def feature_images(study: Study, images: ImageSource) -> FeatureImages:
    """The features of a half in place of its images; what is not on disk is computed when it is needed.

    Args:
        study: a study with `training.views`.
        images: uint8 pixels, or image files.

    Raises:
        UserError: weights that are identified by their content cannot be found or downloaded.
    """
    resolved = study.science(fingerprint="")
    used = [*CODE, *_modules(study.config.trunk.module)]
    facts = {
        "images": _digest(images) if isinstance(images, np.ndarray) else images.contents,
        "seed": study.config.seed,
        "crops": resolved["dataset"].get("images", study.config.protocol.images),
        "shift": study.config.training.shift,
        "trunk": resolved["trunk"],
        "precision": study.config.precision,
        "device": study.make_device().type,
        "code": code_of(used, ("benchmark.trunks", "benchmark.images", *study.config.plugins)).digest,
    }
    facts |= _reading_facts(images) | _trunk_facts(study.config.trunk.module)
    name = f"{study.config.dataset.name}-{study.config.trunk.name}-{records.digest(facts)[:12]}"
    return FeatureImages(_views(_Half(study, images, user_cache_dir() / "features" / name)), np.arange(len(images)))


class _Half:
    """A half's images with the folder of their features, by which it is compared."""

    def __init__(self, study: Study, images: ImageSource, folder: Path) -> None:
        self.study, self.images, self.folder = study, images, folder
        self.number = 1 if study.config.loss.untrained else study.config.training.views or 1
        self.key = folder, self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Half) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@functools.lru_cache(maxsize=2)  # both halves: the trials of a long-lived worker share them
def _views(half: _Half) -> Views:
    study, pixels = half.study, half.study.make_pixels(half.images)
    seed = stable_seed(study.config.seed, study.config.dataset.name, "views")
    return Views(pixels, functools.partial(_Frozen, study, pixels), half.folder, number=half.number, seed=seed)


class _Frozen(nn.Module):
    """The trunk in the study's precision, in evaluation mode on the device of the images."""

    def __init__(self, study: Study, pixels: Images) -> None:
        super().__init__()
        use_precision(study.config.precision, pixels.device, study.config.deterministic)
        self.trunk = frozen_trunk(study, pixels.channels).to(pixels.device)
        self.precision = study.config.precision
        self.mean, self.std = self.trunk.mean, self.trunk.std

    def forward(self, images: Tensor) -> Tensor:
        beat()
        return forward(self.trunk, nn.Identity(), images, self.precision)


def frozen_trunk(study: Study, in_channels: int) -> TrunkModule:
    """The trunk whose features the study trains on; one without weights is random.

    Args:
        study: a study with `training.views`.
        in_channels: channels of the images.
    """
    return study.make_trunk(in_channels, stable_seed(study.config.seed, study.config.dataset.name, "frozen trunk"))


def prepare_features(study: Study, images: ImageSource) -> None:
    """Compute the features of a half that are not on disk, with all cores of this process, and show progress.

    Args:
        study: a study with `training.views`.
        images: uint8 pixels, or image files.
    """
    views, before = feature_images(study, images).views, torch.get_num_threads()
    if (missing := views.missing()) and study.config.display != "quiet":
        width = frozen_trunk(study, views.images.channels).out_features
        size = human_size(2 * width * len(views.images) * len(missing))
        write(f"{study.config.trunk.name}: {width:,} features of {len(missing)} views of {len(views.images):,} images, "
              f"{size}, in {visible(str(views.folder))}")  # fmt: skip
    torch.set_num_threads(usable_cores())
    try:
        for place, number in enumerate(missing):
            what = f"{study.config.trunk.name}: view {place + 1} of {len(missing)}"
            views.view(number, None if study.config.display == "quiet" else counting(what))
    finally:
        torch.set_num_threads(before)


def _reading_facts(images: ImageSource) -> dict[str, object]:
    """What else the pixels of image files depend on: the decoder, and what becomes white in grey images.

    The latter, which both halves determine, is left out for the usual 16 bits; the rest of a `Reading` is among the
    options of `dataset.images`.
    """
    if isinstance(images, np.ndarray):
        return {}
    found: dict[str, object] = {"decoder": shards.decoder()}
    reading = images.reading if isinstance(images, Cache | DecodedOnRead) else AS_PUBLISHED
    return found | ({"grey_bits": reading.grey_bits} if reading.grey_bits != AS_PUBLISHED.grey_bits else {})


def _trunk_facts(node: Node) -> dict[str, str]:
    """What else identifies the trunk's features, as its module's `facts` says; empty for a module without one.

    Raises:
        UserError: the weights cannot be found or downloaded.
    """
    (name,) = _modules(node)
    module = importlib.import_module(name) if name.startswith("benchmark.trunks.") else None
    found: dict[str, str] = module.facts(node) if module and hasattr(module, "facts") else {}
    return found


def _digest(images: np.ndarray) -> str:
    found = hashlib.sha256(str(images.shape).encode())
    found.update(np.ascontiguousarray(images).data)
    return found.hexdigest()


def _modules(node: Node) -> list[str]:
    return [str(node["_target_"]).rpartition(".")[0]]
