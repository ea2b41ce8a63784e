"""log(1 + sum exp) over some entries, without overflow: a part of Proxy-Anchor and Multi-Similarity."""

import torch
from torch import Tensor


def log_one_plus_sum_exp(values: Tensor, keep: Tensor, dim: int) -> Tensor:
    """log(1 + sum of exp) of a matrix's values along a dimension, over the kept entries; 0 where none is kept.

    >>> log_one_plus_sum_exp(torch.tensor([[900.0, 5.0]]), torch.tensor([[True, False]]), dim=1)
    tensor([900.])
    """
    kept = values.masked_fill(~keep, -torch.inf)
    one = torch.zeros_like(values.narrow(dim, 0, 1))  # its exponential
    return torch.cat([one, kept], dim=dim).logsumexp(dim=dim)
