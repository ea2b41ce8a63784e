"""Seeds for the random numbers of layers, such as dropout and stochastic depth, which draw from torch's generators.

These generators belong to the process: without a seed for each iteration, what a layer draws would depend on the units
that the worker has run before, and on where a killed training was resumed.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch


@contextlib.contextmanager
def seeded_draws(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Yield a function that seeds torch's generators of the CPU and of a device, whose states are restored at the end.

    `torch.manual_seed` would take a hundred times as long, and would change the generators of all other devices.

    Args:
        device: where the layers compute.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators += torch.cuda.default_generators[(index := device.index or 0) : index + 1]  # none without a GPU
    states = [generator.get_state() for generator in generators]

    def seed(value: int) -> None:
        for generator in generators:
            generator.manual_seed(value)

    try:
        yield seed
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
