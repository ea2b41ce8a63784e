"""Base class of losses with counters: a buffer for checkpoints, mirrored in a list on the host."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class CountingLoss(nn.Module):
    """A loss whose `counters` (N,) are saved with a checkpoint, and mirrored in `_counters` on the host.

    Every step reads the counters, and reading a tensor would wait for the device. `count` changes both; loading a
    checkpoint restores the list from the buffer.

    Args:
        num_counters: N; all start at 0.
    """

    counters: Tensor

    def __init__(self, num_counters: int) -> None:
        super().__init__()
        self.register_buffer("counters", torch.zeros(num_counters, dtype=torch.long))
        self._counters = [0] * num_counters
        self.register_load_state_dict_post_hook(_read_counters)

    def count(self, changes: Sequence[int]) -> None:
        """Add to each of the N counters."""
        for which, change in enumerate(changes):
            if change:
                self.counters[which].add_(change)
                self._counters[which] += change


def _read_counters(module: CountingLoss, _: object) -> None:
    module._counters = module.counters.tolist()
