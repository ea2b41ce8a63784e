"""Smooth-AP: average precision of each sample's ranking of the batch, with sigmoids in place of steps.

Source: Brown, Xie, Kalogeiton and Zisserman, "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval", ECCV
2020, arXiv 2007.12163, Section 4, and the authors' code (Andrew-Brown1/Smooth_AP, commit 96f3625, `src/losses.py`). Its
documentation says that a query ranks the rest of the batch; the code ranks the query too, as its own first positive,
which is the default here.

The authors write in their issue tracker that larger batches gave better results, and that the code needs batches in
which all classes are different and have the same number of samples. They did not answer what they used on SOP.

Departures from the authors' code:
- any number of samples per class; a sample that is alone in its class is a candidate in the rankings of others, and has
  none of its own;
- the argument of the sigmoid is not clamped to 50 in absolute value, since PyTorch's sigmoid does not overflow.
"""

import torch
from torch import Tensor, nn

from benchmark.losses.checks import check_positive
from benchmark.losses.numerics import cosine_similarity
from benchmark.losses.pairs import pairs_of
from benchmark.losses.ranks import count, mean_over_queries, mean_precision


def smooth_ap(embeddings: Tensor, labels: Tensor, *, temperature: float, rank_query: bool = True) -> Tensor:
    """Mean over the samples with another one of their class of 1 - AP, a scalar; 0 if there are none.

    With s the cosine, G(x) = 1 / (1 + exp(-x / temperature)), P_q the positives of query q and N_q its negatives:
    AP_q = mean_{i in P_q} (1 + A_i) / (1 + A_i + B_i), A_i the sum of G(s_qj - s_qi) over the j in P_q but i, and B_i
    that over the j in N_q.

    Easily got wrong: the positives that are ahead are in both ranks.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,).
        temperature: scale of the differences of cosines, above 0.
        rank_query: whether a query is one of its own positives.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        scores = cosine_similarity(embeddings, embeddings)  # (B, B)
        others, negative = pairs_of(labels)

        def loss(lead: Tensor, exists: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
            ahead = torch.sigmoid(lead / temperature)  # (Q, P, B)
            return 1 - mean_precision(count(ahead, positive), count(ahead, negative), exists)

        return mean_over_queries(scores, ~negative if rank_query else others, negative, others.any(dim=1), loss)


class SmoothAP(nn.Module):
    """`smooth_ap` with its settings.

    Args:
        temperature: scale of the differences of cosines, above 0.
        rank_query: whether a query is one of its own positives.

    Raises:
        UserError: the temperature is not a finite number above 0.
    """

    def __init__(self, *, temperature: float, rank_query: bool = True) -> None:
        super().__init__()
        check_positive("Smooth-AP", temperature=temperature)
        self.temperature = temperature
        self.rank_query = rank_query

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        return smooth_ap(embeddings, labels, temperature=self.temperature, rank_query=self.rank_query)
