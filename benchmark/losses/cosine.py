"""Cosines that keep float32 precision under mixed precision: a part of every proxy loss of this package.

Departure from plain `torch.autocast`: the product runs in float32. Around 1, bfloat16 tells cosines apart in steps of
2^-8, and a scale of 100 turns such a step into 0.4 of a logit.
"""

import torch
from torch import Tensor
from torch.nn import functional


def cosine_similarity(embeddings: Tensor, proxies: Tensor) -> Tensor:
    """Cosine of every embedding with every proxy, (B, P), in float32, or in float64 where the embeddings are float64.

    Args:
        embeddings: (B, D), of any length and floating type.
        proxies: (P, D), of any length; their own precision is left alone.
    """
    dtype = torch.promote_types(embeddings.dtype, torch.float32)
    with torch.autocast(embeddings.device.type, enabled=False):
        return functional.normalize(embeddings.to(dtype), dim=1) @ functional.normalize(proxies.to(dtype), dim=1).mT
