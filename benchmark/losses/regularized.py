"""Base class of losses that add a term to any other loss, be it of pairs, proxies, a hierarchy or a memory."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from benchmark.core.records import JsonObject
from benchmark.losses import HasAfterStep, HasDiagnostics, HasRecordFields, HasWarnings


class Regularized(nn.Module):
    """base_weight base(embeddings, labels) + term(embeddings, labels).

    The base keeps its schedule, diagnostics, record fields and warnings: they are passed on, and those that a base does
    not have are empty. A memory or distributions are not: whoever needs them looks for them in `modules()`.

    Subclasses define `NAME` and `term`.

    Args:
        base: creates the base; a node with `_partial_: true` in YAML.
        base_weight: factor of the base, above 0.
        arguments: passed to `base`, such as the number of classes.
    """

    NAME: str

    def __init__(self, base: Callable[..., nn.Module], base_weight: float, **arguments: object) -> None:
        super().__init__()
        self.base, self.base_weight = base(**arguments), base_weight
        self._last_term: Tensor | None = None

    @abstractmethod
    def term(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the added term, a scalar, of embeddings (B, D) with labels (B,)."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        loss: Tensor = self.base(embeddings, labels)
        term = self.term(embeddings, labels)
        self._last_term = term.detach()
        return self.base_weight * loss + term

    def after_step(self) -> None:
        """Let the base follow its schedule."""
        if isinstance(self.base, HasAfterStep):
            self.base.after_step()

    def diagnostics(self) -> dict[str, float]:
        """Return the base's numbers, and the term of the last batch as `loss_NAME`."""
        own = {} if self._last_term is None else {f"loss_{self.NAME}": float(self._last_term)}
        return (self.base.diagnostics() if isinstance(self.base, HasDiagnostics) else {}) | own

    def record_fields(self, history: Sequence[JsonObject], best_epoch: int | None) -> dict[str, float | bool | None]:
        """Return the base's fields.

        Args:
            history: one row per evaluation with `epoch` and `diagnostics`.
            best_epoch: the epoch that gives the fold its score; None without a score.
        """
        return self.base.record_fields(history, best_epoch) if isinstance(self.base, HasRecordFields) else {}

    def warnings(self) -> list[str]:
        """Return the base's warnings."""
        return self.base.warnings() if isinstance(self.base, HasWarnings) else []
