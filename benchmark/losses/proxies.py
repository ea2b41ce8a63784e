"""A thin module around a loss that is a pure function of embeddings, labels and learnable vectors per class.

The initial vectors follow the sources. A loss of cosines depends on directions alone, but its gradient shrinks as a
vector grows, so the initial norm determines how far a step at a given learning rate turns a vector:

- "normal": N(0, 1), the Reality Check's (arXiv 2003.08505) for ProxyNCA, Normalized Softmax, CosFace and ArcFace;
- "unit": the directions of "normal" with norm 1, as ProxyNCA's paper (arXiv 1703.07464) constrains its proxies;
- "kaiming_fan_out": N(0, 2/C), as Proxy-Anchor (arXiv 2003.13911);
- "kaiming_uniform": uniform within 1/sqrt(C K), PyTorch's rule with a = sqrt(5) on the (D, C K) matrix of
  SoftTriple (arXiv 1909.05235).

Departure from all of them: a dedicated generator draws the vectors, not the global one.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.losses.checks import check_choice, check_whole

INITS = ("normal", "unit", "kaiming_fan_out", "kaiming_uniform")


class ProxyLoss(nn.Module):
    """base(embeddings, labels, proxies) with learnable proxies, one or several per class.

    Args:
        num_classes: C, at least 1.
        embedding_dim: D, at least 1.
        base: `f(embeddings, labels, proxies) -> scalar`, with its settings bound.
        proxy_init: one of `INITS`.
        seed: seeds the initial proxies; the global generator is not used.
        centres_per_class: K, at least 1; proxies are (C, D) for K = 1 and (C, K, D) above.

    Raises:
        UserError: an argument is out of range, or the base rejects its settings or takes other arguments.
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
        try_base(base, self.proxies, {}, f"ProxyLoss with proxies of shape {tuple(self.proxies.shape)}")

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        return self.base(embeddings, labels, self.proxies)

    def record_fields(self, history: Sequence[JsonObject], best_epoch: int | None) -> dict[str, float | bool | None]:
        """Return the number of proxies, over all classes."""
        return {"num_proxies": float(math.prod(self.proxies.shape[:-1]))}


def initial_proxies(
    num_classes: int, embedding_dim: int, proxy_init: str, seed: int, centres_per_class: int = 1
) -> Tensor:
    """Initial proxies (C, D), or (C, K, D) for K above 1.

    Args:
        num_classes: C, at least 1.
        embedding_dim: D, at least 1.
        proxy_init: one of `INITS`.
        seed: seeds the draw; the global generator is not used.
        centres_per_class: K, at least 1.

    Raises:
        UserError: an argument is out of range.
    """
    check_whole("the loss", at_least=1, num_classes=num_classes, embedding_dim=embedding_dim)
    check_whole("the loss", at_least=1, centres_per_class=centres_per_class)
    check_choice("the loss", INITS, proxy_init=proxy_init)
    generator = torch.Generator().manual_seed(seed)
    proxies = torch.empty(num_classes, *([centres_per_class] if centres_per_class > 1 else []), embedding_dim)
    if proxy_init == "kaiming_uniform":
        bound = 1 / math.sqrt(num_classes * centres_per_class)
        return proxies.uniform_(-bound, bound, generator=generator)
    std = math.sqrt(2) / math.sqrt(num_classes) if proxy_init == "kaiming_fan_out" else 1.0
    drawn = proxies.normal_(0, std, generator=generator)
    return functional.normalize(drawn, dim=-1) if proxy_init == "unit" else drawn


@torch.no_grad()
def try_base(base: Callable[..., Tensor], proxies: Tensor, settings: Mapping[str, float | str], owner: str) -> None:
    """Call a base once, so that it rejects bad settings now and not in the first training step.

    Any other error is a bug in the base. It propagates with the base's own file and line, and with a note added.

    Args:
        base: `f(embeddings, labels, proxies, **settings) -> scalar`.
        proxies: (C, D) or (C, K, D).
        settings: keyword arguments of the base.
        owner: name of the loss, for the message.

    Raises:
        UserError: the base rejects a setting, or its signature does not accept these arguments.
    """
    arguments = torch.ones(1, proxies.shape[-1]), torch.zeros(1, dtype=torch.long), proxies
    _check_signature(base, arguments, settings, owner)
    try:
        base(*arguments, **settings)
    except UserError as error:
        raise UserError(f"{owner}: {error}") from error
    except Exception as error:
        error.add_note(f"Raised when {owner} tried its base once.")
        raise


def _check_signature(
    base: Callable[..., Tensor], arguments: tuple[Tensor, ...], settings: Mapping[str, float | str], owner: str
) -> None:
    while isinstance(base, functools.partial):
        arguments, settings, base = (*base.args, *arguments), base.keywords | dict(settings), base.func
    try:
        signature = inspect.signature(base)
    except ValueError:  # a compiled function without a signature: only the call itself shows whether the settings fit
        return
    try:
        signature.bind(*arguments, **settings)
    except TypeError as error:
        name = getattr(base, "__name__", type(base).__name__)
        given = ", ".join(["embeddings", "labels", "proxies", *settings])
        raise UserError(
            f"{owner} cannot call its base {name}: {error}. It is called with {given}; it takes"
            f" {', '.join(signature.parameters)}."
        ) from error
