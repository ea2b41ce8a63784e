"""ProxyNCA, in the form of the Reality Check and in the form of the papers' equation.

Source: Movshovitz-Attias, Toshev, Leung, Ioffe and Singh, "No Fuss Distance Metric Learning using Proxies", ICCV 2017,
arXiv 1703.07464, Algorithm 1; Yang et al., "Hierarchical Proxy-based Loss for Deep Metric Learning", WACV 2022,
arXiv 2103.13538, Eq. 3. Form with the positive in the denominator: Musgrave, Belongie and Lim, "A Metric Learning
Reality Check", ECCV 2020, arXiv 2003.08505, whose library is pytorch-metric-learning.

Departures:
- mean over the batch instead of the sum of Eq. 3, so that the learning rate does not depend on the batch size;
- a scale, which is absent from Eq. 3: without one, the softmax cannot separate unit vectors of many classes;
- log-sum-exp, whereas the library multiplies probabilities and drops a sample whose probability underflows. In float32
  that ignores every sample with k (d_own^2 - d_nearest^2) above about 103, which scales in the search space reach.

Scales: a softmax scale k on squared distance is the cosine scale a = 2k, since d^2 = 2 - 2 cos on unit vectors. The
scale sigma of Proxy-NCA++ (Teh, DeVries and Taylor, ECCV 2020, arXiv 2004.01113), which is this loss with "all", has
k = sigma^2, its temperature T has k = 1/T.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.losses.checks import check_choice, check_positive
from benchmark.losses.numerics import cosine_similarity
from benchmark.losses.proxies import initial_proxies

DENOMINATORS = ("all", "others")


def proxy_nca(embeddings: Tensor, labels: Tensor, proxies: Tensor, *, scale: float, denominator: str = "all") -> Tensor:
    """Mean over the batch, a scalar, of log(sum_{j in J_i} exp(a cos_ij)) - a cos_{i, y_i}.

    J_i is every proxy ("all") or every proxy but the sample's own ("others"). Easily got wrong: with "others" the loss
    falls below 0 once the sample's own proxy leads, and its pull never fades.

    Args:
        embeddings: (B, D), of any norm.
        labels: (B,) int64 in 0..P-1.
        proxies: (P, D), of any norm, row j for label j.
        scale: a, factor of the cosines, above 0.
        denominator: "all" or "others".

    Raises:
        UserError: the scale is out of range, the denominator is unknown, or "others" has no other proxy.
        ValueError: embeddings or proxies are not matrices.
    """
    check_positive("ProxyNCA", scale=scale)
    _check_denominator(denominator, len(proxies))
    logits = scale * cosine_similarity(embeddings, proxies)  # (B, P)
    if denominator == "all":
        return functional.cross_entropy(logits, labels)
    own = labels[:, None]
    others = logits.scatter(1, own, -torch.inf)
    return (others.logsumexp(dim=1) - logits.gather(1, own).squeeze(1)).mean()


class ProxyNCA(nn.Module):
    """ProxyNCA with one learnable proxy per class.

    Args:
        num_classes: C, at least 1 (2 with "others").
        embedding_dim: D.
        softmax_scale: k, factor of the squared distances, above 0; the cosine scale is 2k.
        seed: seeds the initial proxies; the global generator is not used.
        denominator: "all" (Reality Check) or "others" (Eq. 3).
        proxy_init: initialisation of the proxies, as in `proxies.py`.
        proxy_std: factor of the initial proxies, above 0; 1 in the Reality Check. The loss depends on
            directions alone, but the shorter a proxy, the farther a step at a given learning rate turns it.

    Raises:
        UserError: a scale is out of range, the denominator is unknown, or "others" has no other proxy.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        softmax_scale: float,
        seed: int,
        denominator: str = "all",
        proxy_init: str = "normal",
        proxy_std: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive("ProxyNCA", softmax_scale=softmax_scale, proxy_std=proxy_std)
        _check_denominator(denominator, num_classes)
        self.scale = 2 * softmax_scale
        self.denominator = denominator
        self.proxies = nn.Parameter(proxy_std * initial_proxies(num_classes, embedding_dim, proxy_init, seed))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        return proxy_nca(embeddings, labels, self.proxies, scale=self.scale, denominator=self.denominator)

    def record_fields(self, history: Sequence[JsonObject], best_epoch: int | None) -> dict[str, float | bool | None]:
        """Return the number of proxies."""
        return {"num_proxies": float(len(self.proxies))}


def _check_denominator(denominator: str, num_proxies: int) -> None:
    check_choice("ProxyNCA", DENOMINATORS, denominator=denominator)
    if denominator == "others" and num_proxies < 2:
        raise UserError(
            f"denominator='others' of ProxyNCA compares with the other proxies, but the total number is {num_proxies};"
            " use at least 2 proxies, or denominator='all'."
        )
