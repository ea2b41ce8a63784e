"""Cross-batch memory (XBM): a pair loss that also compares a batch with the embeddings of earlier batches.

Source: Wang, Zhang, Huang and Scott, "Cross-Batch Memory for Embedding Learning", CVPR 2020, arXiv 1912.06798, Section
3, in two versions that share only the idea:

- "authors", their code: `contrastive` within the batch plus `weight` times `contrastive` with the memory, which is
  written from step `start_iteration` + 1 on. The batch itself is written first, so the memory term repeats it;
- "pml", CrossBatchMemory of pytorch-metric-learning 2.9: from the first step on, a pair loss with the memory alone,
  which includes the batch, but without a sample's pair with its own copy. The loss is `averaged_contrastive`, or one of
  that library.

Departures:
- the memory is a ring in which new rows replace the oldest. In the authors' code, a write that would pass the end goes
  to the last rows, which are the newest, and the next write starts at row 0; and if the last row is of class 0, a full
  memory is taken to end at the position of the next write. `replicate_quirks=True` does both;
- raw embeddings are stored, and normalised on use. The authors' network normalises before the loss;
- margins are distances between unit vectors, as in the Reality Check: m is the cosine 1 - m^2/2, the authors' negative
  threshold of 0.5 is the margin 1;
- the whole queue is in the state_dict. The library does not store the position of the next write there;
- a batch longer than the memory leaves its last rows there, whereas the library refuses it; and "pml" excludes the pair
  of a lone sample with itself, whereas version 2 keeps it. A miner sees a sample's own copy, whose pairs are left out
  afterwards; version 3 leaves them out before.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.losses.checks import check_choice, check_non_negative, check_whole
from benchmark.losses.counters import CountingLoss
from benchmark.losses.numerics import at_least_float32, cosine_similarity
from benchmark.losses.pairs import mean_above_zero, unit_distances

FLAVOURS = ("authors", "pml")


def contrastive(
    embeddings: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    *,
    pos_margin: float = 0.0,
    neg_margin: float = 1.0,
    pos_epsilon: float = 1e-5,
) -> Tensor:
    """The authors' contrastive loss, a scalar: sum over pairs of 1 - cos (same class) or cos (two classes), over B.

    A pair of one class counts while it is farther apart than `pos_margin` and cos < 1 - pos_epsilon, which excludes a
    sample's pair with itself, and exact duplicates; a pair of two classes while it is closer than `neg_margin`.

    Easily got wrong: margins select pairs and are not subtracted; nothing is averaged over pairs, so the loss grows
    with R.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        others: (R, D), of any norm; R may be 0.
        other_labels: (R,).
        pos_margin: least distance between unit vectors of one class that counts.
        neg_margin: largest distance between unit vectors of two classes that counts.
        pos_epsilon: gap below a cosine of 1 from which a pair of one class counts.

    Raises:
        ValueError: embeddings or others are not matrices.
    """
    cosine = cosine_similarity(embeddings, others)  # (B, R)
    same = labels[:, None] == other_labels
    most, least = min(1 - pos_epsilon, 1 - pos_margin**2 / 2), 1 - neg_margin**2 / 2
    done = torch.where(same, cosine >= most, cosine <= least)  # false for NaN, which must not be hidden
    return torch.where(same, 1 - cosine, cosine).masked_fill(done, 0).sum() / len(labels)


def averaged_contrastive(
    embeddings: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    copies: Tensor,
    *,
    pos_margin: float = 0.0,
    neg_margin: float = 1.0,
) -> Tensor:
    """Return the scalar loss of `losses.contrastive` over the pairs of a batch and other vectors.

    It is the mean of [d - pos_margin]+ over positive pairs plus that of [neg_margin - d]+ over negative pairs, each
    over the pairs whose term is above 0.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        others: (R, D), of any norm; R may be 0.
        other_labels: (R,).
        copies: (B,) row of `others` that is a copy of the sample, -1 for none; the two are no pair.
        pos_margin: distance of unit vectors below which a positive pair adds nothing.
        neg_margin: distance above which a negative pair adds nothing.
    """
    distance = unit_distances(embeddings, others)  # (B, R)
    negative = labels[:, None] != other_labels
    copy = copies[:, None] == torch.arange(len(others), device=copies.device)
    pull = mean_above_zero(distance - pos_margin, ~(negative | copy))
    return pull + mean_above_zero(neg_margin - distance, negative)


class XBM(CountingLoss):
    """A pair loss with a memory of embeddings, which only forward passes in training mode write.

    `counters` holds the number of steps, the position of the next write, which grows beyond the M rows of the ring, and
    the number of rows filled.

    Args:
        embedding_dim: D.
        num_images: training images of the fold.
        memory_fraction: rows of the memory as a fraction of the images, in (0, 1].
        flavour: "authors" or "pml".
        pos_margin: distance, in 0..2, up to which a positive pair adds nothing; None: 0, or that of `loss`.
        neg_margin: distance, in 0..2, from which on a negative pair adds nothing; None: 1, or that of `loss`.
        weight: factor of the memory term, at least 0 ("authors" only, as the next three).
        start_iteration: steps before the memory is written, at least 0.
        pos_epsilon: gap below a cosine of 1 from which a positive pair counts.
        replicate_quirks: whether the queue is written and read as in the authors' code.
        loss: a pair loss of pytorch-metric-learning in place of `averaged_contrastive` ("pml" only).
        miner: one of its miners, which selects the pairs of `loss`; None for all pairs.

    Raises:
        UserError: an argument is out of range, or there is a miner without a loss, or a margin that `loss` lacks.
    """

    memory: Tensor
    memory_labels: Tensor

    def __init__(
        self,
        embedding_dim: int,
        num_images: int,
        *,
        memory_fraction: float,
        flavour: str = "authors",
        pos_margin: float | None = None,
        neg_margin: float | None = None,
        weight: float = 1.0,
        start_iteration: int = 0,
        pos_epsilon: float = 1e-5,
        replicate_quirks: bool = False,
        loss: nn.Module | None = None,
        miner: nn.Module | None = None,
    ) -> None:
        super().__init__(num_counters=3)
        check_choice("XBM", FLAVOURS, flavour=flavour)
        if miner is not None and loss is None:
            raise UserError(
                "XBM has a miner, but loss=None: a miner selects pairs for a loss of its library. Give both."
            )
        if not 0 < memory_fraction <= 1:
            raise UserError(f"memory_fraction={memory_fraction} of XBM is a share of the images; set it within (0, 1].")
        given = {"pos_margin": pos_margin, "neg_margin": neg_margin}
        margins = {name: value for name, value in given.items() if value is not None}
        unread = margins if flavour == "pml" and loss is not None else {}
        for name, value in unread.items():
            if getattr(loss, name, None) == value:  # both have it from the same setting
                continue
            raise UserError(
                f"{name}={value} of XBM has no effect: {type(loss).__name__} replaces the loss that reads it. Give the "
                "margin to that loss, and add loss.module.pos_margin=null loss.module.neg_margin=null "
                "~loss.space.pos_margin ~loss.space.neg_margin, or remove these keys from the loss's file."
            )
        for name, value in margins.items():
            if not 0 <= value <= 2:
                raise UserError(f"{name}={value} of XBM is a distance between unit vectors; set it within 0..2.")
        check_non_negative("XBM", weight=weight)
        check_whole("XBM", at_least=0, start_iteration=start_iteration)
        self.flavour, self.loss, self.miner = flavour, loss, miner
        self.margins = {"pos_margin": 0.0, "neg_margin": 1.0} | margins
        self.weight, self.pos_epsilon = weight, pos_epsilon
        self.start_iteration = start_iteration if flavour == "authors" else 0
        self.replicate_quirks = replicate_quirks and flavour == "authors"
        rows = max(1, round(memory_fraction * num_images))
        self.register_buffer("memory", torch.zeros(rows, embedding_dim))
        self.register_buffer("memory_labels", torch.zeros(rows, dtype=torch.long))
        self._terms: dict[str, Tensor] = {}

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of embeddings (B, D) with labels (B,); in training mode the batch is written first."""
        slots = self.remember(embeddings, labels) if self.training else torch.full_like(labels, -1)
        embeddings = at_least_float32(embeddings)
        rows = self._rows()
        memory, memory_labels = self.memory[:rows].to(embeddings.dtype), self.memory_labels[:rows]
        if self.flavour == "pml" and self.loss is None:
            return averaged_contrastive(embeddings, labels, memory, memory_labels, slots, **self.margins)
        if self.flavour == "pml":
            with torch.autocast(embeddings.device.type, enabled=False):
                return self._library_loss(embeddings, labels, memory, memory_labels, slots)
        options = self.margins | {"pos_epsilon": self.pos_epsilon}
        batch_term = contrastive(embeddings, labels, embeddings, labels, **options)
        memory_term = contrastive(embeddings, labels, memory, memory_labels, **options)
        self._terms = {"loss_batch": batch_term.detach(), "loss_memory": memory_term.detach()}
        return batch_term + self.weight * memory_term

    def memory_shape(self) -> tuple[int, int]:
        """Return (M, D): the rows of the memory, filled or not, and their length."""
        return len(self.memory), self.memory.shape[1]

    def diagnostics(self) -> dict[str, float]:
        """Return the rows of the memory in use and, for "authors", the two terms of the last batch's loss."""
        return {"memory_rows": float(self._rows())} | {name: float(term) for name, term in self._terms.items()}

    def record_fields(self, history: Sequence[JsonObject], best_epoch: int | None) -> dict[str, float | bool | None]:
        """Return whether the memory was still empty at the best epoch; None without one.

        Args:
            history: one row per evaluation with `epoch` and `diagnostics`.
            best_epoch: the epoch that gives the fold its score; None without a score.
        """
        best = next((row["diagnostics"] for row in history if row["epoch"] == best_epoch), None)
        return {"best_epoch_in_warmup": None if best is None else best["memory_rows"] == 0}

    def warnings(self) -> list[str]:
        """Warn if the memory is still empty."""
        filled = self._counters[2]
        if filled > 0:
            return []
        return [f"the memory never came on: it starts after start_iteration={self.start_iteration} steps"]

    @torch.no_grad()
    def remember(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Count the step and write embeddings (B, D) with labels (B,); the last M of them if B is above M.

        Returns:
            The slot (B,) of each row, -1 for rows that were not written.
        """
        steps, place, filled = self._counters
        slots, size, batch = torch.full_like(labels, -1), len(self.memory), min(len(labels), len(self.memory))
        changes = [1, 0, 0]
        if steps >= self.start_iteration:
            back = self.replicate_quirks and place + batch > size  # to the last rows instead of wrapping around
            start = size - batch if back else place
            first = self.counters[1] + (start - place)  # read on the device, so that a CUDA graph can replay the step
            slots[-batch:] = (first + torch.arange(batch, device=labels.device)) % size
            self.memory[slots[-batch:]] = embeddings[-batch:].to(self.memory.dtype)
            self.memory_labels[slots[-batch:]] = labels[-batch:]
            changes = [1, (0 if back else start + batch) - place, min(filled + batch, size) - filled]
        self.count(changes)
        return slots

    def _rows(self) -> int:
        """Return the number of leading rows with which a batch is compared."""
        _, place, filled = self._counters
        if self.replicate_quirks:
            return len(self.memory) if int(self.memory_labels[-1]) != 0 else place
        return filled

    def _library_loss(
        self, embeddings: Tensor, labels: Tensor, memory: Tensor, memory_labels: Tensor, slots: Tensor
    ) -> Tensor:
        """Return the library's loss with the memory, a scalar, without the pairs of a sample and its own slot.

        Args:
            embeddings: (B, D).
            labels: (B,).
            memory: (R, D).
            memory_labels: (R,).
            slots: (B,) row of the memory that holds each sample, -1 for none.
        """
        assert self.loss is not None
        if self.miner is None:
            same = labels[:, None] == memory_labels
            indices: tuple[Tensor, ...] = (*torch.where(same), *torch.where(~same))
        else:
            indices = self.miner(embeddings, labels, memory, memory_labels)
        num_with_positives = 2 if len(indices) == 4 else 3  # anchors, positives | anchors, negatives; or triplets
        is_other = slots[indices[0]] != indices[1]
        indices = (*(part[is_other] for part in indices[:num_with_positives]), *indices[num_with_positives:])
        loss: Tensor = self.loss(embeddings, labels, indices, memory, memory_labels)
        return loss
