"""HAPPIER: an upper bound of 1 - H-AP, average precision on classes in super classes, plus a classification loss.

Source: Ramzi, Audebert, Thome, Rambour and Bitot, "Hierarchical Average Precision Training for Pertinent Image
Retrieval", ECCV 2022, arXiv 2207.04873, and the authors' code (elias-ramzi/HAPPIER, commit 4d7c054,
`happier/losses/hap_loss.py` and `cluster_loss.py`), which fixes what the paper leaves open:

- a query is one of its own references, of its own class, and counts in the size of that class;
- the bound of a rank jumps at `delta`, from 1.49 to 1.44, and is the same on both sides only for `offset=None`, the
  default of the authors' later project (elias-ramzi/SupRank). On iNaturalist, the code has offset 1 and start 0, as has
  conf/loss/happier/inaturalist2019.yaml. Its first release multiplied the whole lead, so that the bound jumped to 6.44;
- H-rank is computed with steps, without a gradient, in all published settings but one (SOP with lambda 0.5), which
  rewards a lead of more relevant references too: `smooth_h_rank=True`.

Departures: two references whose cosines differ by at most 1e-6 are tied where a step counts them, since rounding would
decide; weights are drawn by a generator of their own; batches are not limited to two super classes, as on SOP there.
The code needs PyTorch 1.8.1, because later versions differentiate its step. No issue about the loss was found.

Easily got wrong: a rank grows smoothly only with the lead of less relevant references. All others are counted, and the
levels decide what is less relevant, not rel, which may be larger for a reference of another class.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.losses.checks import check_non_negative, check_positive
from benchmark.losses.normalized_softmax import normalized_softmax
from benchmark.losses.numerics import cosine_similarity
from benchmark.losses.ranks import TIE, mean_over_queries

LEAK, SLOPE, START = 10.0, 25.0, 0.5  # of the smooth H-rank, authors' code


def sup_h_ap(
    embeddings: Tensor,
    labels: Tensor,
    super_labels: Tensor,
    *,
    temperature: float,
    slope: float,
    delta: float,
    offset: float | None,
    start: float = 0.5,
    alpha: float = 1.0,
    smooth_h_rank: bool = False,
) -> Tensor:
    """Mean over the batch of an upper bound of 1 - H-AP, a scalar.

    A sample j has level l = 2 for a query of its class, 1 for one of its super class alone, else 0, and
    rel(j) = (l / 2)^alpha / (number of samples of that level). With t_kj = s_qj - s_qk, the lead of j over k in cosine:

        rank(k)   = 1 + sum over j of a lower level of B(t_kj) + number of the other j with t_kj >= 0
        H-rank(k) = rel(k) + sum over j of min(rel(j), rel(k)) [t_kj >= 0]
        H-AP      = sum over k of H-rank(k) / rank(k), divided by the sum over k of rel(k)
        B(t)      = G(t) up to 0, G(t) + start up to delta, slope (t - delta) + offset beyond it

    where G(t) = 1 / (1 + exp(-t / temperature)). The smooth H-rank replaces the step, for j of a higher level than k,
    by 10 t up to 0 and min(25 t + 0.5, 1) above it.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        super_labels: (B,), super class of each.
        temperature: tau of the sigmoid G, above 0; the smaller, the closer G is to a step.
        slope: rho, slope of the bound beyond delta, above 0.
        delta: lead from which the bound is linear, at least 0.
        offset: value of the bound at delta; None: the value that it reaches there, G(delta) + start.
        start: what the bound adds to G for a lead above 0; at least 0.
        alpha: exponent of the relevance; 0 makes a super class as relevant as the class.
        smooth_h_rank: whether H-rank has a gradient.
    """
    at_delta = 1 / (1 + math.exp(-delta / temperature)) + start if offset is None else offset

    def loss(lead: Tensor, exists: Tensor, related: Tensor, alike: Tensor) -> Tensor:
        level = related.to(torch.uint8) + alike  # (Q, R)
        level_of = torch.where(lead == -torch.inf, level[:, None, :], 0).amax(dim=2)  # (Q, P): k itself has no lead
        relevance = torch.zeros_like(level, dtype=lead.dtype)
        relevance_of = torch.zeros_like(level_of, dtype=lead.dtype)
        for value in (1, 2):
            each = (value / 2) ** alpha / (level == value).sum(dim=1, keepdim=True).clamp(min=1).to(lead.dtype)
            relevance, relevance_of = (
                torch.where(of == value, each, found) for of, found in ((level, relevance), (level_of, relevance_of))
            )

        step = (lead.detach() >= -TIE).to(lead.dtype)
        smooth = torch.sigmoid(lead / temperature) + start * (lead > 0)
        bound = torch.where(lead > delta, slope * (lead - delta) + at_delta, smooth)
        lower = level[:, None, :] < level_of[:, :, None]
        rank = 1 + torch.where(lower, bound, step).sum(dim=2)

        ahead = step
        if smooth_h_rank:
            higher = level[:, None, :] > level_of[:, :, None]
            ahead = torch.where(higher, torch.where(lead > 0, (SLOPE * lead + START).clamp(max=1), LEAK * lead), step)
        common = torch.minimum(relevance[:, None, :], relevance_of[:, :, None])
        h_rank = relevance_of + (common * ahead).sum(dim=2)
        return 1 - (h_rank / rank * exists).sum(dim=1) / relevance.sum(dim=1)

    with torch.autocast(embeddings.device.type, enabled=False):
        scores = cosine_similarity(embeddings, embeddings)  # (B, B)
        related, alike = super_labels[:, None] == super_labels, labels[:, None] == labels
        return mean_over_queries(scores, related, alike, torch.ones_like(labels, dtype=torch.bool), loss)


class HAPPIER(nn.Module):
    """(1 - lambda) `sup_h_ap` + lambda `normalized_softmax`, with a learnable vector for each class.

    Args:
        num_classes: C.
        embedding_dim: D.
        class_to_super: (C,) super class of each class, any integers, at least two different ones.
        seed: seeds the initial vectors, uniform within 1 / sqrt(D); the global generator is not used.
        cluster_weight: lambda, 0 to 1.
        cluster_temperature: temperature of the classification, above 0.
        temperature: tau of the bound's sigmoid, above 0.
        slope: rho, slope of the bound beyond delta, above 0.
        delta: lead from which the bound is linear, at least 0.
        offset: value of the bound at delta; None: without a jump.
        start: what the bound adds to the sigmoid for a lead above 0, at least 0.
        alpha: exponent of the relevance, at least 0.
        smooth_h_rank: whether H-rank has a gradient.

    Raises:
        UserError: an argument is out of range, or all classes have one super class.
    """

    super_of: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        class_to_super: np.ndarray | Sequence[int],
        seed: int,
        *,
        cluster_weight: float,
        cluster_temperature: float,
        temperature: float,
        slope: float,
        delta: float,
        offset: float | None,
        start: float = 0.5,
        alpha: float = 1.0,
        smooth_h_rank: bool = False,
    ) -> None:
        super().__init__()
        check_positive("HAPPIER", cluster_temperature=cluster_temperature, temperature=temperature, slope=slope)
        check_non_negative("HAPPIER", cluster_weight=cluster_weight, delta=delta, start=start, alpha=alpha)
        if cluster_weight > 1:
            raise UserError(f"cluster_weight={cluster_weight} of HAPPIER must be a number from 0 to 1.")
        self.cluster_weight, self.cluster_temperature = cluster_weight, cluster_temperature
        self.ranking = functools.partial(
            sup_h_ap, temperature=temperature, slope=slope, delta=delta, offset=offset, start=start, alpha=alpha,
            smooth_h_rank=smooth_h_rank,
        )  # fmt: skip
        groups = np.unique(np.asarray(class_to_super), return_inverse=True)[1]
        if groups.max() == 0:
            raise UserError(
                "HAPPIER needs super classes, and these data have one for all classes. Use a loss without them, such "
                "as loss=roadmap, or data with super classes."
            )
        self.register_buffer("super_of", torch.from_numpy(groups), persistent=False)
        drawn = torch.empty(num_classes, embedding_dim)
        bound = 1 / math.sqrt(embedding_dim)
        drawn.uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
        self.proxies = nn.Parameter(drawn)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        ranking = self.ranking(embeddings, labels, self.super_of[labels])
        clusters = normalized_softmax(embeddings, labels, self.proxies, temperature=self.cluster_temperature)
        return (1 - self.cluster_weight) * ranking + self.cluster_weight * clusters

    def record_fields(self, history: Sequence[JsonObject], best_epoch: int | None) -> dict[str, float | bool | None]:
        """Return the number of proxies."""
        return {"num_proxies": float(len(self.proxies))}
