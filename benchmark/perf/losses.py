"""Memory and time of one step of each loss with as many classes as Stanford Online Products has for training.

The embeddings are random.
"""

import statistics
from collections.abc import Iterator
from itertools import islice

import numpy as np

from benchmark.core import conf_files
from benchmark.losses.cost import NUM_CLASSES, NUM_IMAGES, fill_memory, made_up_batches, step_costs
from benchmark.perf.timing import Row
from benchmark.study.study import Study, read_loss

LIMIT = 400  # MB
STEPS = 3


def loss_steps(study: Study) -> Iterator[Row]:
    """Yield a row for each loss in `conf/loss`: MB of temporaries in forward and backward, time and parameter size.

    Args:
        study: the study whose protocol sets the batch size and the embedding length. Each loss has its authors' setting
            for Stanford Online Products, if there is one, and parts of a loss that usually start late start at once.
    """
    for name in conf_files.names("loss"):
        loss = read_loss(name)
        if loss.get("untrained"):
            continue
        presets = loss.get("presets", {}).get("authors", {})
        authors = next(iter(presets.get("trunks", {}).values()), presets).get("sop", {})
        schedule = loss.get("schedule", {})
        at_once = schedule | dict.fromkeys(schedule.get("starts", ()), 0)
        yield cost(name, Study.of(study.raw | {"loss": loss | {"schedule": at_once}}, authors))


def cost(name: str, study: Study) -> Row:
    """The row for one loss."""
    loss = study.make_loss(NUM_CLASSES, 0, np.arange(NUM_CLASSES) // 25, NUM_IMAGES)
    fill_memory(loss, NUM_CLASSES)
    labels = np.arange(NUM_IMAGES) % NUM_CLASSES
    batches = made_up_batches(study.make_sampler(labels, seed=0).batch, labels, study.config.protocol.embedding_dim)
    megabytes, seconds = zip(*step_costs(loss, islice(batches, STEPS)), strict=True)
    size = sum(p.nbytes for p in loss.parameters()) / 1e6
    each = f"{1000 * statistics.median(seconds):.0f} ms per step, parameters {size:.1f} MB"
    return Row(f"loss step, {name}", ("<=", LIMIT), [*megabytes], f"without parameters and gradients; {each}", "MB")
