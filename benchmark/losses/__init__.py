"""Losses: the contract of every loss, and the optional interfaces that it may implement."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from benchmark.core.records import JsonObject


class Loss(Protocol):
    """A loss on a batch of embeddings: an `nn.Module` whose `state_dict` holds everything that training changes.

    Its parameters, if any, get an optimiser of their own. Everything else is optional: `HasAfterStep`,
    `HasDiagnostics`, `HasDistributions`, `HasMemory`, `HasRecordFields`, `HasWarnings`.
    """

    def __call__(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D), of any norm, with labels (B,), int64 in 0..C-1."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Learnable tensors of the loss itself, such as proxies (C, D)."""
        ...


@runtime_checkable
class HasAfterStep(Protocol):
    """A loss with its own schedule, such as a hierarchy that is updated every few steps."""

    def after_step(self) -> None:
        """Called after each optimiser step.

        Raises:
            FloatingPointError: the loss has diverged; training of the fold stops.
        """
        ...


@runtime_checkable
class HasDiagnostics(Protocol):
    """A loss that reports numbers about its own state."""

    def diagnostics(self) -> dict[str, float]:
        """Return numbers by name for the history of a fold's record; called at each evaluation."""
        ...


@runtime_checkable
class HasDistributions(Protocol):
    """A loss that learns a Gaussian with a diagonal covariance for each class."""

    def distributions(self) -> tuple[Tensor, Tensor]:
        """Return the means (C, D), unit vectors, and the variances (C, D), above 0, without gradients."""
        ...


@runtime_checkable
class HasMemory(Protocol):
    """A loss that compares a batch with the embeddings of earlier ones; its cost is measured with a full memory."""

    def memory_shape(self) -> tuple[int, int]:
        """Return (M, D): the most embeddings that the memory can hold, and their dimension."""
        ...

    def remember(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Write embeddings (B, D) with labels (B,), as a training step does; B may be M.

        Returns:
            The row (B,) of the memory that holds each embedding, -1 for one that was not written.
        """
        ...


@runtime_checkable
class HasRecordFields(Protocol):
    """A loss that adds fields to the record of a fold."""

    def record_fields(self, history: Sequence[JsonObject], best_epoch: int | None) -> dict[str, float | bool | None]:
        """Return fields by name, derived from the history of a finished fold.

        Args:
            history: one row per evaluation with `epoch`, its metrics and `diagnostics`, the numbers of `diagnostics()`.
            best_epoch: the epoch that gives the fold its score; None without a score.
        """
        ...


@runtime_checkable
class HasWarnings(Protocol):
    """A loss that can detect that training did not exercise it."""

    def warnings(self) -> list[str]:
        """Return warnings about the training so far, such as "the hierarchy was never updated"; usually none.

        Each is a clause without a full stop. Two folds with the same problem give identical warnings, so that the
        caller can list their folds. Warnings depend on the `state_dict` alone, so resuming does not change them.
        """
        ...
