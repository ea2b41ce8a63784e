"""How fast this machine trains and evaluates: a few timed batches of a study, whose parts are really built.

Nothing is written but the caches that the study itself would fill. Images in files are decoded as they are read, so the
time of a data set that is in the cache is shorter.
"""

import copy
import dataclasses
import time
from dataclasses import dataclass

import numpy as np

from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.threads import use_threads
from benchmark.images import Images
from benchmark.images.batches import embed
from benchmark.images.features import FeatureImages
from benchmark.study.assemble import make_parts, make_schedule
from benchmark.study.study import Study
from benchmark.training.components import TrainingComponents
from benchmark.training.loop import set_train_mode, train_epoch
from benchmark.training.precision import use_precision

WARM_UP, TIMED = 2, 5  # batches
EVALUATED = 4  # batches of images


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes:
        trained: images per second in training.
        evaluated: images per second that are embedded; the search for neighbours is not included.
        images_of_classes: number of images of each class of the training half, by ascending id of the class.
        num_weights: number of parameters of trunk, head and loss.
        device: where it was measured.
        batch_size: images per batch.
    """

    trained: float
    evaluated: float
    images_of_classes: tuple[int, ...]
    num_weights: int
    device: str
    batch_size: int

    @property
    def num_images(self) -> int:
        """Number of images in the training half."""
        return sum(self.images_of_classes)


def measure(study: Study) -> Speed:
    """Time a few batches of a study on all its training images, after a line that says so.

    Args:
        study: the study.

    Raises:
        UserError: the data, the weights or the features of a frozen trunk are not here, or a component refuses its
            configuration.
    """
    config, raw = study.config, copy.deepcopy(study.raw)
    batch_size = config.training.batch_size or config.protocol.batch_size
    if config.display != "quiet":
        write(f"Measuring {config.trunk.name} on {study.make_device()}, batches of {batch_size} ...")
    raw["protocol"]["batch_size"], raw["decode"] = batch_size, "always"
    study = Study.of(raw)
    use_threads(config.threads)
    use_precision(config.precision, study.make_device(), config.deterministic)
    split = study.make_dataset().trainval()
    images = study.make_images(split.images)
    if isinstance(images, FeatureImages) and images.views.missing():
        raise UserError("the features of the frozen trunk are not in the cache yet; the first search computes them")
    parts = make_parts(study, split, images, split.labels, (config.seed, config.dataset.name, "measure"))
    schedule = dataclasses.replace(make_schedule(study, seed=0), warmup_epochs=0)
    set_train_mode(parts, schedule.freeze_batchnorm)
    train_epoch(parts, schedule, range(WARM_UP))
    started = time.perf_counter()
    train_epoch(parts, schedule, range(WARM_UP, WARM_UP + TIMED))  # which ends by reading the loss from the device
    seconds = time.perf_counter() - started
    weights = sum(weight.numel() for module in parts.modules.values() for weight in module.parameters())
    evaluated = _evaluation_speed(parts, images, EVALUATED * batch_size)
    sizes = tuple(np.unique(split.labels, return_counts=True)[1].tolist())
    return Speed(TIMED * batch_size / seconds, evaluated, sizes, weights, str(images.device), batch_size)


def _evaluation_speed(parts: TrainingComponents, images: Images, count: int) -> float:
    """Images per second that the model embeds, after a first pass that is not timed."""
    rows = np.arange(min(count, len(parts.labels)))
    some = images.part(rows)
    embed(parts.embedder, some, parts.trunk, parts.head)
    started = time.perf_counter()
    embeddings = embed(parts.embedder, some, parts.trunk, parts.head)
    float(embeddings[0, 0])  # waits for the device
    return len(rows) / (time.perf_counter() - started)
