"""Losses: what a loss must offer to be trained, and what it may offer beside that."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


class Loss(Protocol):
    """A loss on a batch of embeddings, as a module; whatever is in its `state_dict` survives a kill.

    Its parameters, if any, are optimised by an optimiser of their own. Everything else is optional: `HasAfterStep`,
    `HasDiagnostics`, `HasRecordFields`, `HasWarnings`.
    """

    def __call__(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of embeddings (B, D) with labels (B,), int64 in 0..C-1."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Learnable vectors of the loss itself, such as proxies (C, D)."""
        ...


@runtime_checkable
class HasAfterStep(Protocol):
    """A loss with a schedule of its own."""

    def after_step(self) -> None:
        """Called after each optimiser step."""
        ...


@runtime_checkable
class HasDiagnostics(Protocol):
    """A loss that reports numbers about its own state."""

    def diagnostics(self) -> dict[str, Any]:
        """Numbers for the history of a fold's record, called at each evaluation."""
        ...


@runtime_checkable
class HasRecordFields(Protocol):
    """A loss that adds fields to the record of a fold."""

    def record_fields(
        self, history: Sequence[Mapping[str, Any]], best_epoch: int | None
    ) -> dict[str, int | float | bool | None]:
        """Fields by name, derived from a finished training.

        Args:
            history: one row per evaluation, each with `epoch` and, of a loss with diagnostics, `diagnostics`.
            best_epoch: the epoch that gives the fold its score; None where it has none.
        """
        ...


@runtime_checkable
class HasWarnings(Protocol):
    """A loss that can tell when a training did not exercise it."""

    def warnings(self) -> list[str]:
        """Sentences for the user about a finished training, such as a hierarchy that was never updated."""
        ...
