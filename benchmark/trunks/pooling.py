"""Global pooling of the last map of a trunk.

Source: average pooling is MLRC's (Musgrave, Belongie, Lim, ECCV 2020, arXiv:2003.08505); the sum of average and maximum
is HPL's (Yang et al., WACV 2022, section 4.2), as in the published code of Proxy-Anchor (Kim et al., CVPR 2020).
"""

from torch import Tensor

from benchmark.core.errors import UserError

POOLS = ("avg+max", "avg", "max")


def check_pool(trunk: str, pool: str) -> None:
    """Check the name of a pooling.

    Args:
        trunk: name of the trunk, for the message.
        pool: `avg`, `max` or `avg+max`.

    Raises:
        UserError: `pool` is unknown.
    """
    if pool not in POOLS:
        raise UserError(f"{trunk} has pool={pool!r}; choose avg+max, avg or max.")


def global_pool(maps: Tensor, pool: str) -> Tensor:
    """Pool maps (B, F, h, w) to features (B, F): average, maximum, or their sum.

    Args:
        maps: (B, F, h, w).
        pool: `avg`, `max` or `avg+max`.

    >>> import torch
    >>> global_pool(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]), "avg+max")
    tensor([[9.]])
    """
    if pool == "avg":
        return maps.mean((2, 3))
    if pool == "max":
        return maps.amax((2, 3))
    return maps.mean((2, 3)) + maps.amax((2, 3))
