"""What became of HPL's groups, in numbers for the log. A part of `hpl.py`, which cites; nothing here trains."""

from collections.abc import Sequence

import torch
from torch import Tensor


def describe_groups(
    owners: Sequence[Tensor], sizes: Sequence[int], changed: Tensor, true_groups: Tensor | None
) -> dict[str, float]:
    """For every coarse level, by name: owner_changes, empty_clusters, cluster_entropy (nats) and, if known, purity.

    Args:
        owners: for each level but the coarsest, the proxy above each of its proxies: (C,), (n_1,), ...
        sizes: proxies of each coarse level, n_1, n_2, ...
        changed: (levels,) shares of the proxies below that changed their owner at the last update.
        true_groups: (C,) groups made by people, 0..G-1, or None.
    """
    report: dict[str, float] = {}
    of_class: Tensor | None = None
    for level, (above, size) in enumerate(zip(owners, sizes, strict=True), start=1):
        of_class = above if of_class is None else above[of_class]  # (C,)
        share = torch.bincount(above, minlength=size).double() / len(above)
        report[f"owner_changes_level_{level}"] = float(changed[level - 1])
        report[f"empty_clusters_level_{level}"] = float((share == 0).sum())
        report[f"cluster_entropy_level_{level}"] = float(torch.special.entr(share).sum())
        if true_groups is not None:
            report[f"purity_level_{level}"] = purity(of_class, true_groups)
    return report


def purity(clusters: Tensor, true_groups: Tensor) -> float:
    """Share of the classes whose true group (C,) is the most frequent one in their cluster (C,); of a tie, one counts.

    >>> purity(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([2, 2, 1, 0, 1]))
    0.6
    """
    num_clusters, num_groups = int(clusters.max()) + 1, int(true_groups.max()) + 1
    table = torch.bincount(clusters * num_groups + true_groups, minlength=num_clusters * num_groups)
    return float(table.view(num_clusters, num_groups).amax(dim=1).sum()) / len(clusters)
