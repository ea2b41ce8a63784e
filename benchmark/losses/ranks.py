"""What the ranking losses share: by how much samples are ahead of a query's positives, and the mean over queries.

Each sample of a batch is a query, and the batch is ranked by its similarity to the query. On a GPU, no shape depends on
the labels up to batches of 256, so the host never waits for it; in a larger batch, it reads the largest number of
positives, since B^3 differences in place of B^2 P cost more than to wait.
"""

from collections.abc import Callable

import torch
from torch import Tensor

TIE = 1e-6  # largest difference of two cosines that counts as a tie, since rounding would decide
READ_ABOVE = 2**24  # numbers (Q, R, R) above which a GPU is asked for P; they take 16 chunks of some 30 operations each
CHUNK = 2**20  # numbers (Q, P, R) that are computed at a time: 4 MB, which a cache of the CPU holds

# From leads (Q, P, R), whether each of the P exists (Q, P), and masks (Q, R) of positives and others to losses (Q,).
LossOfQueries = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def mean_over_queries(scores: Tensor, positive: Tensor, others: Tensor, ranked: Tensor, loss: LossOfQueries) -> Tensor:
    """Mean of a loss over the queries that count, a scalar; 0 if there are none.

    The loss gets leads (Q, P, R): by how much sample j is ahead of the query's positive i, s_qj - s_qi, -inf where they
    are the same sample. P is the largest number of positives if it is read: on the CPU, where that costs nothing, and
    in a large batch; else R.

    Easily got wrong: the leads take P times the memory of the scores, so each chunk of queries is differentiated
    immediately and only the gradient (Q, R) is kept; `change` has the value 0 and that gradient.

    Args:
        scores: s (Q, R), similarity of each query to each sample.
        positive: (Q, R) bool, the samples of the query's class that are ranked.
        others: (Q, R) bool, a further set of each query, which is passed on.
        ranked: (Q,) bool, the queries that count.
        loss: takes the leads, whether a positive exists (Q, P), and rows of `positive` and `others`, and returns the
            loss of each of these queries.
    """
    total, slopes = scores.new_zeros(()), []
    read = scores.device.type == "cpu" or scores.numel() * scores.shape[1] > READ_ABOVE
    most = max(1, int(positive.sum(dim=1).max())) if read else scores.shape[1]
    rows = max(1, CHUNK // (most * scores.shape[1]))
    places = torch.arange(scores.shape[1], device=scores.device)
    parts = (tensor.split(rows) for tensor in (scores.detach(), positive, others, ranked))
    for some, own, rest, counted in zip(*parts, strict=True):
        columns = own.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]  # (Q, P), positives first
        with torch.enable_grad():
            leaf = some.requires_grad_()
            lead = leaf[:, None, :] - leaf.gather(1, columns)[:, :, None]
            lead = lead.masked_fill(columns[:, :, None] == places, -torch.inf)
            part = (loss(lead, own.gather(1, columns), own, rest) * counted).sum()
            slopes.append(torch.autograd.grad(part, leaf)[0])
        total += part.detach()
    change = (torch.cat(slopes) * (scores - scores.detach())).sum()  # 0
    return (total + change) / ranked.sum().clamp(min=1)


def count(values: Tensor, members: Tensor) -> Tensor:
    """Sums (Q, P) of values (Q, P, R) over the members (Q, R), bool, of a set of each query."""
    return (values * members[:, None, :]).sum(dim=2)


def mean_precision(ahead_own: Tensor, ahead_others: Tensor, exists: Tensor) -> Tensor:
    """Average precision (Q,) of rankings: the mean over a query's positives of rank among the positives / rank.

    Args:
        ahead_own: (Q, P), how many positives are ahead of each positive, a smooth number.
        ahead_others: (Q, P), how many other samples are.
        exists: (Q, P) bool, the positives that count.
    """
    rank = 1 + ahead_own
    return (rank / (rank + ahead_others) * exists).sum(dim=1) / exists.sum(dim=1).clamp(min=1)
