"""One batch of training and one of evaluation on copies, to find out at the start whether a GPU has the memory."""

import contextlib
import copy
import dataclasses

import numpy as np

from benchmark.images.batches import embed
from benchmark.training.components import Schedule, TrainingComponents
from benchmark.training.loop import set_train_mode, train_epoch


def try_batch(parts: TrainingComponents, schedule: Schedule) -> None:
    """Train for an iteration on copies of the modules and optimisers, and embed a batch of images to evaluate.

    Nothing that the training depends on changes: batches and augmentation depend on seed and iteration only. The copies
    also have the optimisers' state, which does not exist before the first step.

    Args:
        parts: freshly initialised components.
        schedule: their schedule.

    Raises:
        torch.cuda.OutOfMemoryError: there is not enough memory on the GPU.
    """
    copied = copy.deepcopy((parts.trunk, parts.head, parts.loss, parts.optimizers))  # at once: they fit together
    trunk, head, loss, optimizers = copied
    trial = dataclasses.replace(parts, trunk=trunk, head=head, loss=loss, optimizers=optimizers)
    set_train_mode(trial, schedule.freeze_batchnorm)
    with contextlib.suppress(FloatingPointError):  # a training that diverges is for the training to report
        train_epoch(trial, dataclasses.replace(schedule, warmup_epochs=0), range(1))
    for evaluated in (parts.validation, parts.monitored):
        if evaluated is not None:
            images = evaluated.images
            rows = np.arange(min(len(images), images.eval_batch_size))
            embed(trial.embedder, images.part(rows), trial.trunk, trial.head)
