"""What one step of each loss costs on a data set of 11,318 classes: memory beside its parameters, and time.

The classes are as many as Stanford Online Products trains on, the largest of the papers; the embeddings are made up.
"""

import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
import yaml
from torch.nn import functional

from benchmark.stopwatch import Row, peak_allocated
from benchmark.study import Study, conf_dir

NUM_CLASSES, NUM_IMAGES = 11_318, 59_551
LIMIT = 400  # MB
STEPS = 3
SETTINGS = {"proxygml": {"proxies_per_class": 1}}  # its authors' choice for this data set


def loss_steps(study: Study) -> Iterator[Row]:
    """A row for each loss in `conf/loss`: MB of temporaries of forward and backward, beside time and parameters.

    Args:
        study: its protocol's batch size and embedding length count; hierarchy and memory start at once.
    """
    at_once = {"hpl": study.raw["dataset"]["hpl"] | {"warmup_iterations": 0}, "xbm": {"start_iteration": 0}}
    for path in sorted((conf_dir() / "loss").glob("*.yaml")):
        loss = yaml.safe_load(path.read_text(encoding="utf-8"))
        one = Study.of(study.raw | {"loss": loss, "dataset": study.raw["dataset"] | at_once}, SETTINGS.get(path.stem))
        yield cost(path.stem, one)


def cost(name: str, study: Study) -> Row:
    """The row of one loss."""
    protocol = study.config.protocol
    labels = np.arange(NUM_IMAGES) % NUM_CLASSES
    loss = study.make_loss(NUM_CLASSES, 0, np.arange(NUM_CLASSES) // 25, NUM_IMAGES)
    sampler = study.make_sampler(labels, seed=0)
    generator = torch.Generator().manual_seed(0)
    megabytes, seconds = [], []
    for number in range(STEPS):
        vectors = torch.randn(protocol.batch_size, protocol.embedding_dim, generator=generator)
        embeddings = functional.normalize(vectors).requires_grad_()
        batch = torch.from_numpy(labels[sampler.batch(number)])
        started = time.perf_counter()
        loss(embeddings, batch).backward()
        seconds.append(time.perf_counter() - started)
        loss.zero_grad(set_to_none=True)
        peak = peak_allocated(lambda: loss(embeddings, batch).backward())  # noqa: B023 - called here
        gradients = sum(p.grad.nbytes for p in loss.parameters() if p.grad is not None)
        megabytes.append((peak - gradients) / 1e6)
    size = sum(p.nbytes for p in loss.parameters()) / 1e6
    each = f"{1000 * statistics.median(seconds):.0f} ms a step, parameters {size:.1f} MB"
    return Row(f"loss step, {name}", ("<=", LIMIT), megabytes, f"beside parameters and gradients; {each}", "MB")
