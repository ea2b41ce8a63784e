"""The thin module under a loss that is a pure function of embeddings, labels and learnable vectors per class.

How the vectors start is the sources' choice. Direction alone reaches a loss of cosines, but the gradient falls with the
length, so that the start sets how far a step of a given learning rate turns a vector:

- "normal": N(0, 1), the Reality Check's (arXiv 2003.08505) for ProxyNCA, Normalized Softmax, CosFace and ArcFace;
- "kaiming_fan_out": N(0, 2/C), as Proxy-Anchor (arXiv 2003.13911);
- "kaiming_uniform": uniform within 1/sqrt(C K), which is PyTorch's rule with a = sqrt(5) on the (D, C K) matrix of
  SoftTriple (arXiv 1909.05235).

Departure from all of them: the draw comes from a generator of its own, not from the global one.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

INITS = ("normal", "kaiming_fan_out", "kaiming_uniform")


class ProxyLoss(nn.Module):
    """base(embeddings, labels, proxies) with learnable proxies, one or several per class.

    Args:
        num_classes: C, at least 1.
        embedding_dim: D, at least 1.
        base: `f(embeddings, labels, proxies) -> scalar`, its settings bound.
        proxy_init: one of `INITS`.
        seed: of the proxies' start; the global generator is not used.
        centres_per_class: K, at least 1; proxies are (C, D) for 1 and (C, K, D) above.

    Raises:
        ValueError: an argument is out of its range, or the base refuses its settings or the shape of the proxies.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        base: Callable[[Tensor, Tensor, Tensor], Tensor],
        proxy_init: str,
        seed: int,
        centres_per_class: int = 1,
    ) -> None:
        super().__init__()
        self.base = base
        self.proxies = nn.Parameter(initial_proxies(num_classes, embedding_dim, proxy_init, seed, centres_per_class))
        self._try_base(embedding_dim)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (B, D) with labels (B,), a scalar."""
        return self.base(embeddings, labels, self.proxies)

    @torch.no_grad()
    def _try_base(self, embedding_dim: int) -> None:
        """One call, so that the base refuses here what it would refuse in the first step of a training."""
        try:
            self(torch.ones(1, embedding_dim), torch.zeros(1, dtype=torch.long))
        except (TypeError, ValueError, RuntimeError) as error:
            shape = tuple(self.proxies.shape)
            raise ValueError(f"The base of ProxyLoss does not work with proxies of shape {shape}: {error}") from error


def initial_proxies(
    num_classes: int, embedding_dim: int, proxy_init: str, seed: int, centres_per_class: int = 1
) -> Tensor:
    """Start of the proxies, (C, D), or (C, K, D) for K above 1; `ProxyLoss` describes the arguments and errors."""
    counts = {"num_classes": num_classes, "embedding_dim": embedding_dim, "centres_per_class": centres_per_class}
    for name, value in counts.items():
        if value < 1 or value != int(value):
            raise ValueError(f"{name}={value} of ProxyLoss must be a whole number of at least 1.")
    if proxy_init not in INITS:
        raise ValueError(f"proxy_init={proxy_init!r} of ProxyLoss must be one of {', '.join(INITS)}.")
    generator = torch.Generator().manual_seed(seed)
    proxies = torch.empty(num_classes, *([centres_per_class] if centres_per_class > 1 else []), embedding_dim)
    if proxy_init == "kaiming_uniform":
        bound = 1 / math.sqrt(num_classes * centres_per_class)
        return proxies.uniform_(-bound, bound, generator=generator)
    std = 1.0 if proxy_init == "normal" else math.sqrt(2) / math.sqrt(num_classes)
    return proxies.normal_(0, std, generator=generator)
