"""Recall@k surrogate: the recall within the first k of each sample's ranking, with sigmoids in place of both steps.

Source: Patel, Tolias and Matas, "Recall@k Surrogate Loss with Large Batches and Similarity Mixup", CVPR 2022, arXiv
2108.11179, and the authors' code (yash0307/RecallatK_surrogate, commit 416ea27, `src/losses.py`, `src/mixup.py`). Its
large batches are a matter of the training: `gradient_chunk`.

The temperature of the outer sigmoid is 1 for every k, as in the paper and in the run that reproduced its results on
Cars in the authors' issue tracker, with one learning rate for trunk and embedding layer. The script multiplies it by k,
see `temperature_grows`. The code ranks the query too, ahead of all its positives, so that the rank of the first one is
about 2; `rank_query=False` does not. A question there about how SiMix is implemented has no answer.

Similarity mixup (SiMix): virtual samples a x + (1 - a) z of pairs of one class, a uniform in [0, 1], rank and are
ranked like real ones. As similarities are linear in them, the paper mixes similarities and the code, as here,
embeddings; mixtures are not normalised again.

Departures from the authors' code:
- any number of samples per class; a sample that is alone in its class has no ranking of its own;
- SiMix takes any number of images per class, not 3, 4 or 6. Of a class with more than `mix_per_class`, it mixes the
  samples that are fewer places apart than that in the batch;
- random numbers are drawn by a generator seeded by (seed, step), on the device of the embeddings;
- the arguments of the sigmoids are not clamped to 50 in absolute value, since PyTorch's sigmoid does not overflow.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.losses.checks import check_positive, check_whole
from benchmark.losses.counters import CountingLoss
from benchmark.losses.numerics import at_least_float32
from benchmark.losses.ranks import count, mean_over_queries
from benchmark.protocol.seeds import stable_seed


def recall_at_k(
    vectors: Tensor,
    labels: Tensor,
    valid: Tensor,
    *,
    ks: Sequence[int],
    temperature: float,
    cut_temperatures: Sequence[float],
    rank_query: bool = True,
) -> Tensor:
    """Mean over the samples with another one of their class, and over k, of 1 - recall@k, a scalar; 0 without any.

    With s the dot product, G_T(x) = 1 / (1 + exp(-x / T)), P_q the others of the query's class, r_i = 1 + the sum of
    G_temperature(s_qj - s_qi) over all j but i: recall@k is the sum over i in P_q of G_cut(k - r_i), at most k, over
    min(k, |P_q|).

    Args:
        vectors: (T, D), unit vectors, or mixtures of them.
        labels: (T,).
        valid: (T,) bool; other rows do not exist.
        ks: every k, at least 1.
        temperature: tau_2, scale of the differences of similarities, above 0.
        cut_temperatures: tau_1, scale of the differences of ranks, above 0, one for each k.
        rank_query: whether the query is among the j.
    """
    scores = vectors @ vectors.mT  # (T, T)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == labels) & valid & valid[:, None] & ~itself
    competing = valid.expand_as(positive)

    def loss(lead: Tensor, exists: Tensor, positive: Tensor, competing: Tensor) -> Tensor:
        rank = 1 + count(torch.sigmoid(lead / temperature), competing)  # (Q, P)
        possible, recalls = exists.sum(dim=1), []
        for k, cut in zip(ks, cut_temperatures, strict=True):
            found = (torch.sigmoid((k - rank) / cut) * exists).sum(dim=1).clamp(max=k)
            recalls.append(found / possible.clamp(min=1, max=k))
        return 1 - torch.stack(recalls).mean(dim=0)

    competing = competing if rank_query else competing & ~itself
    return mean_over_queries(scores, positive, competing, positive.any(dim=1), loss)


def mixed(vectors: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The batch, sorted by label, and a mixture of each sample with each of the M - 1 after it, where of its class.

    Args:
        vectors: (B, D).
        labels: (B,).
        weights: (M - 1, B), in [0, 1]; row d - 1 holds the weights of the first of two samples that are d apart.

    Returns:
        Vectors (M B, D), their labels, and whether they exist: true for the B first and where both are of one class.
    """
    order = labels.argsort(stable=True)
    first, own = vectors.index_select(0, order), labels[order]
    vectors_found, exists = [first], [torch.ones_like(own, dtype=torch.bool)]
    places = torch.arange(len(own), device=own.device)
    for distance, weight in enumerate(weights, start=1):
        second = first.roll(-distance, dims=0)
        vectors_found.append(weight[:, None] * first + (1 - weight[:, None]) * second)
        exists.append((own == own.roll(-distance)) & (places < len(own) - distance))
    return torch.cat(vectors_found), own.repeat(len(exists)), torch.cat(exists)


class RecallAtK(CountingLoss):
    """`recall_at_k` of the batch, optionally with similarity mixup. `counters` holds the number of mixed batches.

    Args:
        seed: seeds the weights of the mixtures.
        temperature: tau_2, scale of the differences of cosines, above 0.
        cut_temperature: tau_1, scale of the differences of ranks, above 0.
        ks: every k, at least 1; a k above the size of the batch counts as that.
        temperature_grows: whether tau_1 is multiplied by k, as in the authors' script.
        rank_query: whether the query is ranked too, as in the authors' code.
        mix_per_class: images per class whose pairs are mixed, the sampler's m; 0 for no mixup.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        seed: int,
        *,
        temperature: float,
        cut_temperature: float,
        ks: Sequence[int] = (1, 2, 4, 8, 16),
        temperature_grows: bool = False,
        rank_query: bool = True,
        mix_per_class: int = 0,
    ) -> None:
        super().__init__(num_counters=1)
        check_positive("Recall@k", temperature=temperature, cut_temperature=cut_temperature)
        if not ks:
            raise UserError("ks=[] of Recall@k: give at least one number, such as [1,2,4,8,16].")
        for k in ks:
            check_whole("Recall@k", at_least=1, ks=k)
        check_whole("Recall@k", at_least=0, mix_per_class=mix_per_class)
        self.seed, self.temperature, self.ks = seed, temperature, tuple(int(k) for k in ks)
        self.cut_temperatures = [cut_temperature * (k if temperature_grows else 1) for k in self.ks]
        self.rank_query, self.mix_per_class = rank_query, int(mix_per_class)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            vectors = functional.normalize(at_least_float32(embeddings), dim=1)
            valid, size = torch.ones_like(labels, dtype=torch.bool), len(labels)
            if self.mix_per_class > 1:
                vectors, labels, valid = mixed(vectors, labels, self._weights(vectors))
            return recall_at_k(
                vectors,
                labels,
                valid,
                ks=[min(k, size) for k in self.ks],
                temperature=self.temperature,
                cut_temperatures=self.cut_temperatures,
                rank_query=self.rank_query,
            )

    def _weights(self, vectors: Tensor) -> Tensor:
        """Draw the weights (M - 1, B) of a batch, and count it."""
        generator = torch.Generator(vectors.device)
        generator.manual_seed(stable_seed(self.seed, "simix", self._counters[0]))
        self.count([1])
        shape = self.mix_per_class - 1, len(vectors)
        return torch.rand(shape, dtype=vectors.dtype, device=vectors.device, generator=generator)
