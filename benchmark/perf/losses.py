"""Memory and time of one step of each loss with 11,318 classes.

That is the number of training classes of Stanford Online Products, the most in the papers. The embeddings are random.
"""

import statistics
import time
from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmark.core.paths import conf_dir
from benchmark.losses import HasMemory
from benchmark.perf.timing import Row, peak_allocated
from benchmark.study.study import Study, read_loss

NUM_CLASSES, NUM_IMAGES = 11_318, 59_551
LIMIT = 400  # MB
STEPS = 3


def loss_steps(study: Study) -> Iterator[Row]:
    """Yield a row for each loss in `conf/loss`: MB of temporaries in forward and backward, time and parameter size.

    Args:
        study: the study whose protocol sets the batch size and the embedding length. Each loss has its authors' setting
            for Stanford Online Products, if there is one, and parts of a loss that usually start late start at once.
    """
    for path in sorted((conf_dir() / "loss").glob("*.yaml")):
        loss = read_loss(path.stem)
        if loss.get("untrained"):
            continue
        presets = loss.get("presets", {}).get("authors", {})
        authors = next(iter(presets.get("trunks", {}).values()), presets).get("sop", {})
        schedule = loss.get("schedule", {})
        at_once = schedule | dict.fromkeys(schedule.get("starts", ()), 0)
        yield cost(path.stem, Study.of(study.raw | {"loss": loss | {"schedule": at_once}}, authors))


def cost(name: str, study: Study) -> Row:
    """The row for one loss."""
    loss = study.make_loss(NUM_CLASSES, 0, np.arange(NUM_CLASSES) // 25, NUM_IMAGES)
    fill_memory(loss)
    megabytes, seconds = [], []
    for embeddings, labels in islice(made_up_batches(study), STEPS):
        embeddings.requires_grad_()
        started = time.perf_counter()
        loss(embeddings, labels).backward()
        seconds.append(time.perf_counter() - started)
        loss.zero_grad(set_to_none=True)
        peak = peak_allocated(lambda: loss(embeddings, labels).backward())  # noqa: B023 - called here
        gradients = sum(p.grad.nbytes for p in loss.parameters() if p.grad is not None)
        megabytes.append((peak - gradients) / 1e6)
    size = sum(p.nbytes for p in loss.parameters()) / 1e6
    each = f"{1000 * statistics.median(seconds):.0f} ms per step, parameters {size:.1f} MB"
    return Row(f"loss step, {name}", ("<=", LIMIT), megabytes, f"without parameters and gradients; {each}", "MB")


def made_up_batches(study: Study) -> Iterator[tuple[Tensor, Tensor]]:
    """An endless stream of unit vectors (B, D) and labels (B,), drawn by the loss's sampler."""
    protocol, labels = study.config.protocol, np.arange(NUM_IMAGES) % NUM_CLASSES
    sampler, generator = study.make_sampler(labels, seed=0), torch.Generator().manual_seed(0)
    for number in count():
        vectors = torch.randn(protocol.batch_size, protocol.embedding_dim, generator=generator)
        yield functional.normalize(vectors), torch.from_numpy(labels[sampler.batch(number)])


def fill_memory(loss: torch.nn.Module) -> None:
    """Fill the memory of a loss, or of a part of it, as after an epoch; other losses stay as they are."""
    for part in loss.modules():
        if isinstance(part, HasMemory):
            memory = torch.randn(part.memory_shape(), generator=torch.Generator().manual_seed(1))
            part.remember(memory, torch.arange(len(memory)) % NUM_CLASSES)
