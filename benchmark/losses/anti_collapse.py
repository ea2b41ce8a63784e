"""Anti-collapse: a loss of proxies, or of pairs, plus a term that keeps its vectors spread, by their coding rate.

Source: Jiang, Yao, Dai, Shen, Nie and Shen, "Anti-Collapse Loss for Deep Metric Learning Based on Coding Rate Metric",
IEEE TMM 2024, arXiv 2407.03106, and the authors' code (NUST-Machine-Intelligence-Laboratory/Anti-Collapse-Loss, commit
ec1e0bc, criteria/antico.py), which decides what follows. Nothing was found in its tracker.

The coding rate of unit vectors V (m, D) is R = 1/2 log det(I + c V V^T): the more directions they fill, the larger. The
loss is `base_weight` times the base, plus exp(-R). Two readings of c:

- "authors": c = m / (D epsilon) for proxies, and D / (m epsilon) for embeddings, as in the code;
- "mcr2": c = D / (m epsilon) always, the coding rate of Yu et al. (NeurIPS 2020, arXiv 2006.08558), from which the
  paper derives its own; epsilon stands for its square. The code computes it for proxies, too, but only to report it.

With more than a few dozen vectors, exp(-R) and its gradient vanish, as the code's do. `form="rate"` adds -R instead,
which is ours; the paper's abstract says that the loss maximises R.

Departures:
- the base is what it is elsewhere in this project. The authors' Proxy-Anchor averages over the batch's columns, has a
  scale of 64, and proxies drawn from N(0, 1/64);
- the classes of a batch are marked, not collected, so that no shape depends on the labels;
- a Cholesky factor in place of an LU decomposition, on the smaller of both Gram matrices;
- embeddings are normalised here. The authors' network does it before the loss.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.losses.checks import check_choice, check_non_negative, check_positive
from benchmark.losses.numerics import at_least_float32
from benchmark.losses.regularized import Regularized

VECTORS = ("batch_proxies", "all_proxies", "embeddings")
READINGS = ("authors", "mcr2")
FORMS = ("exp", "rate")


def coding_rate(vectors: Tensor, scale: Tensor | float) -> Tensor:
    """Return 1/2 log det(I + scale V V^T), a scalar, for unit vectors V; rows of zeros add nothing.

    >>> coding_rate(torch.eye(3), 1.0)  # 3/2 log 2
    tensor(1.0397)

    Args:
        vectors: (m, D), in float32 or float64.
        scale: c, above 0.
    """
    wide = len(vectors) <= vectors.shape[1]
    gram = vectors @ vectors.mT if wide else vectors.mT @ vectors  # (m, m) or (D, D): equal determinants
    one = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor: Tensor = torch.linalg.cholesky_ex(one + scale * gram).L  # unchecked: a check would wait for the device
    return factor.diagonal().log().sum()


class AntiCollapse(Regularized):
    """A loss times `base_weight`, plus `weight` times exp(-R) or -R, where R is the coding rate of its vectors.

    Easily got wrong: a class that has several samples in the batch counts once.

    Args:
        base: creates the base. Unless `vectors` is "embeddings", it has `proxies`, (C, D) or (C, K, D).
        base_weight: factor of the base, above 0.
        weight: factor of the term, at least 0.
        epsilon: distortion that the code allows, above 0.
        vectors: "batch_proxies" of the classes in the batch, "all_proxies" or "embeddings" of the batch.
        reading: which factor c the rate has, "authors" or "mcr2", see above.
        form: "exp" adds exp(-R), "rate" adds -R.
        arguments: passed to `base`, such as the number of classes.

    Raises:
        UserError: a setting is out of range or unknown, the base refuses its settings, or has no proxies.
    """

    NAME = "anti_collapse"

    def __init__(
        self,
        base: Callable[..., nn.Module],
        *,
        base_weight: float,
        weight: float = 1.0,
        epsilon: float = 0.5,
        vectors: str = "batch_proxies",
        reading: str = "authors",
        form: str = "exp",
        **arguments: object,
    ) -> None:
        check_positive("AntiCollapse", base_weight=base_weight, epsilon=epsilon)
        check_non_negative("AntiCollapse", weight=weight)
        check_choice("AntiCollapse", VECTORS, vectors=vectors)
        check_choice("AntiCollapse", READINGS, reading=reading)
        check_choice("AntiCollapse", FORMS, form=form)
        super().__init__(base, base_weight, **arguments)
        self.weight, self.epsilon = weight, epsilon
        self.vectors, self.reading, self.form = vectors, reading, form
        if vectors != "embeddings" and self._proxies() is None:
            raise UserError(
                f"vectors={vectors!r} of AntiCollapse needs proxies, but its base, {type(self.base).__name__}, has"
                " none. Use vectors='embeddings', or another base."
            )

    def _proxies(self) -> Tensor | None:
        """The base's proxies, (C, D) or (C, K, D); None if it has none."""
        named = self.base.named_parameters()
        return next((found for name, found in named if name.rpartition(".")[2] == "proxies"), None)

    def term(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the added term, a scalar, of embeddings (B, D) with labels (B,)."""
        embeddings = at_least_float32(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            unit, count = self._unit_vectors(embeddings, labels)
            ratio = count / unit.shape[1]
            by_count = self.reading == "authors" and self.vectors != "embeddings"
            rate = coding_rate(unit, (ratio if by_count else 1 / ratio) / self.epsilon)
            return self.weight * (torch.exp(-rate) if self.form == "exp" else -rate)

    def _unit_vectors(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors whose rate counts, as unit vectors or rows of zeros, and the number of the former, a scalar."""
        proxies = self._proxies()
        found = embeddings if self.vectors == "embeddings" or proxies is None else proxies.to(embeddings.dtype)
        counts = torch.ones(len(found), dtype=torch.bool, device=found.device)
        if self.vectors == "batch_proxies":
            found, counts = found[labels], ~(labels[:, None] == labels).tril(-1).any(dim=1)  # first sample of its class
        if found.dim() == 3:
            found, counts = found.flatten(0, 1), counts.repeat_interleave(found.shape[1])
        return functional.normalize(found, dim=1) * counts[:, None], counts.sum().to(found.dtype)
