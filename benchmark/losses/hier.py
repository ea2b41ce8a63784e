"""HIER: Proxy-Anchor on points of a Poincare ball, plus a regulariser that grows a hierarchy over them.

Source: Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical Regularization", CVPR 2023,
arXiv 2212.14258, and the authors' code, whose constants these are. Learnable hierarchical proxies become ancestors:
for a triplet (i, j, k) with i and j related, the lowest common ancestor of i and j should be near i and j but not k,
and that of all three should be near k. Triplets of samples and triplets of proxies each give one such loss.

Departures from the authors' code:
- the anchor is never its own negative, which their code allows; `allow_self_negative` restores that;
- `topk` is capped at the number of points minus 2; theirs raises once it exceeds the number of points. The protocol
  sets the batch size, and a graph in which all points are related has no negative. Without pairs, that term of the loss
  is 0;
- neighbours are ranked in float64: in float32, exp(-distance) + 1 cannot tell distant points apart;
- random draws use generators seeded by (seed, step): on the CPU for triplets, on the device of the loss for noise,
  which has triplets x proxies entries. The batch is sorted first, so that its order does not matter;
- numbers for the triplets of every point go to the device, where the anchors take the first of them, so that the host
  never waits to know how many anchors there are;
- points outside the ball are pulled to its rim. The hyperbolic head produces none.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmark.core.records import JsonObject
from benchmark.losses.checks import check_choice, check_non_negative, check_positive, check_whole
from benchmark.losses.draws import in_own_order
from benchmark.losses.proxies import initial_proxies
from benchmark.losses.proxy_anchor import proxy_anchor
from benchmark.protocol.hyperbolic import check_ball, hyperbolic_distance, pull_to_rim, to_ball
from benchmark.protocol.seeds import stable_seed

NOISES = ("gumbel", "none")
CHUNK = 2**19  # entries of a chunk of triplets x proxies: 2 MiB in float32, about ten such tensors at a time


class HIER(nn.Module):
    """Proxy-Anchor + lambda (regulariser of the samples + regulariser of the hierarchical proxies).

    `proxies` (C, D) are Proxy-Anchor's, of any norm; `lcas` (M, D) are mapped to the ball in every step.

    Args:
        num_classes: C, at least 1.
        embedding_dim: D, at least 1.
        seed: seeds the initial parameters and all draws; global generators are not used.
        base_alpha: Proxy-Anchor's scale, above 0.
        base_margin: Proxy-Anchor's margin, at least 0.
        regularizer_weight: lambda, at least 0.
        num_hierarchy_proxies: M, at least 2.
        topk: number of nearest points, the point itself included, that can be its relatives; the relation must be
            mutual. At least 1.
        margin: margin on the distances in a triplet, at least 0.
        triplets_per_anchor: triplets drawn for each anchor in each step, at least 1.
        temperature: tau, by which distances are divided to give the logits of ancestors; above 0.
        curvature: c of the ball, equal to the head's.
        clip_radius: norm to which vectors are clipped before they are mapped to the ball, above 0.
        noise: "gumbel" draws ancestors by the Gumbel-softmax trick, "none" takes the nearest.
        allow_self_negative: whether an anchor may be drawn as its own negative.

    Raises:
        UserError: an argument is out of range.
    """

    steps: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        seed: int,
        base_alpha: float = 32.0,
        base_margin: float = 0.1,
        regularizer_weight: float = 0.5,
        num_hierarchy_proxies: int = 512,
        topk: int = 20,
        margin: float = 0.1,
        triplets_per_anchor: int = 50,
        temperature: float = 0.1,
        curvature: float = 0.1,
        clip_radius: float = 2.3,
        noise: str = "gumbel",
        allow_self_negative: bool = False,
    ) -> None:
        super().__init__()
        check_ball(curvature, clip_radius)
        check_whole("HIER", at_least=2, num_hierarchy_proxies=num_hierarchy_proxies)
        check_whole("HIER", at_least=1, topk=topk, triplets_per_anchor=triplets_per_anchor)
        check_positive("HIER", temperature=temperature)
        check_non_negative("HIER", regularizer_weight=regularizer_weight, margin=margin)
        check_choice("HIER", NOISES, noise=noise)
        self.seed, self.weight, self.topk = seed, regularizer_weight, topk
        self.margin, self.temperature, self.triplets_per_anchor = margin, temperature, triplets_per_anchor
        self.noise, self.allow_self_negative = noise, allow_self_negative
        self.base = {"alpha": base_alpha, "margin": base_margin}
        self.ball = {"curvature": curvature, "clip_radius": clip_radius}
        self.proxies = nn.Parameter(initial_proxies(num_classes, embedding_dim, "kaiming_fan_out", seed))
        spread = 0.9 * clip_radius / math.sqrt(embedding_dim)  # makes the mean norm nine tenths of the radius
        generator = torch.Generator().manual_seed(stable_seed(seed, "hier", "lcas"))
        self.lcas = nn.Parameter(torch.randn(num_hierarchy_proxies, embedding_dim, generator=generator) * spread)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._steps = 0  # the same number on the host, which need not wait for it
        self.register_load_state_dict_post_hook(_read_steps)
        self._last: dict[str, Tensor] = {}
        with torch.no_grad():  # rejects bad settings now, not in the first training step
            proxy_anchor(self.proxies[:1], torch.zeros(1, dtype=torch.long), self.proxies, **self.base)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of points (B, D) of the ball with labels (B,)."""
        points, labels = in_own_order(pull_to_rim(embeddings, curvature=self.ball["curvature"]), labels)
        base = proxy_anchor(points, labels, self.proxies, **self.base)
        nodes = to_ball(self.lcas.to(points.dtype), **self.ball)  # (M, D)
        distances = hyperbolic_distance(torch.cat([points, nodes]), nodes, curvature=self.ball["curvature"])
        to_samples, to_nodes = distances.split([len(points), len(nodes)])  # (B, M), (M, M)
        apart = hyperbolic_distance(points.detach(), points.detach(), curvature=self.ball["curvature"])
        same_class = labels[:, None] == labels
        samples = self._regularizer("samples", similarity(apart) + same_class, to_samples)
        hierarchy = self._regularizer("hierarchy", similarity(to_nodes.detach()), to_nodes)
        parts = {"base": base, "samples": samples, "hierarchy": hierarchy}
        self._last |= {f"loss_{name}": part.detach() for name, part in parts.items()}
        return base + self.weight * (samples + hierarchy)

    @torch.no_grad()
    def after_step(self) -> None:
        """Count an optimiser step; the count seeds the draws of the next step."""
        self.steps += 1
        self._steps += 1

    def record_fields(self, history: Sequence[JsonObject], best_epoch: int | None) -> dict[str, float | bool | None]:
        """Return the number of proxies, those of the classes and those of the hierarchy, as table 2 counts them."""
        return {"num_proxies": float(len(self.proxies) + len(self.lcas))}

    def diagnostics(self) -> dict[str, float]:
        """Return the terms of the last loss, and the number of triplets drawn for each regulariser."""
        return {name: float(value) for name, value in self._last.items()}

    def _regularizer(self, name: str, similarities: Tensor, distances: Tensor) -> Tensor:
        """Mean triplet loss, a scalar, of points with similarities (N, N) and distances to the proxies (N, M)."""
        related = reciprocal_neighbours(similarities, self.topk)
        draws = torch.Generator().manual_seed(stable_seed(self.seed, "hier", name, "triplets", self._steps))
        triplets, count = draw_triplets(related, self.triplets_per_anchor, draws, self.allow_self_negative)
        self._last[f"triplets_{name}"] = count
        noise = None
        if self.noise == "gumbel":
            noise = torch.Generator(distances.device)
            noise.manual_seed(stable_seed(self.seed, "hier", name, "noise", self._steps))
        return mean_triplet_loss(distances, triplets, count, noise, margin=self.margin, temperature=self.temperature)


def _read_steps(module: HIER, _: object) -> None:
    module._steps = int(module.steps)


def similarity(distances: Tensor) -> Tensor:
    """Return exp(-distance) (N, M) of distances (N, M), in float64 so that large distances stay distinct."""
    return torch.exp(-distances.double())


def reciprocal_neighbours(similarities: Tensor, topk: int) -> Tensor:
    """Mask (N, N) of the pairs in which each is among the k points most similar to the other; False on the diagonal.

    Args:
        similarities: (N, N); the point itself counts as one of the k.
        topk: k, capped at N - 2.
    """
    num = len(similarities)
    nearest = similarities.topk(max(1, min(topk, num - 2)), dim=1).indices
    near = torch.zeros_like(similarities, dtype=torch.bool).scatter_(1, nearest, True)
    return (near & near.T).fill_diagonal_(False)


def draw_triplets(
    related: Tensor, num: int, generator: torch.Generator, allow_self_negative: bool
) -> tuple[Tensor, Tensor]:
    """Draw `num` triplets of anchor, related and unrelated point for each anchor with at least two relatives.

    The draws are those of `torch.multinomial` on the CPU, up to rounding: uniform numbers in the order of the anchors,
    first for the related points of all of them, then for the unrelated ones.

    Args:
        related: (N, N) bool.
        num: triplets per anchor, drawn uniformly and with replacement.
        generator: a generator of the CPU, which draws the related and the unrelated points.
        allow_self_negative: whether the anchor may be drawn as its own unrelated point.

    Returns:
        Triplets (3, N num), of which the first T count, and T, a scalar; on the CPU, where T is known, (3, T).
    """
    unrelated = ~related
    if not allow_self_negative:
        unrelated.fill_diagonal_(False)
    usable = (related.sum(dim=1) >= 2) & unrelated.any(dim=1)  # (N,)
    count = usable.sum()
    anchors = usable.long().argsort(descending=True, stable=True)  # usable ones first
    if related.device.type == "cpu":
        anchors = anchors[: int(count)]
    numbers = torch.rand(
        2 * len(related) * num, dtype=torch.float64, generator=generator, pin_memory=related.device.type == "cuda"
    ).to(related.device, non_blocking=related.device.type == "cuda")
    place = torch.arange(len(anchors) * num, device=related.device).view(-1, num)
    positives, negatives = (
        _chosen(mask[anchors], numbers[place + start]) for mask, start in ((related, 0), (unrelated, count * num))
    )
    triplets = torch.stack([anchors[:, None].expand_as(positives), positives, negatives])
    return triplets.flatten(1), count * num


def _chosen(mask: Tensor, numbers: Tensor) -> Tensor:
    """Indices (A, T) of true entries in each row of a mask (A, N), chosen by numbers (A, T) uniform in [0, 1)."""
    so_far = mask.cumsum(dim=1)  # (A, N)
    rank = (numbers * so_far[:, -1:]).long() + 1
    return torch.searchsorted(so_far, rank).clamp(max=mask.shape[1] - 1)  # a row without true entries has no meaning


def mean_triplet_loss(
    distances: Tensor,
    triplets: Tensor,
    count: Tensor,
    generator: torch.Generator | None,
    *,
    margin: float,
    temperature: float,
) -> Tensor:
    """Mean loss of the triplets (i, j, k) that count, a scalar; 0 without triplets.

    The loss of a triplet, where a(.) is the proxy chosen as lowest common ancestor, is
    [d(i, a(ij)) - d(i, a(ijk)) + margin]+ + [d(j, a(ij)) - d(j, a(ijk)) + margin]+
    + [d(k, a(ijk)) - d(k, a(ij)) + margin]+, or 0 where a(ij) = a(ijk).

    The ancestor of a set is one-hot: the largest of -(largest distance to a member) / temperature + noise. In the
    backward pass it is the softmax of these logits instead (straight-through), so that every proxy learns.

    Easily got wrong: T x M is 100 times as large as the distances, so each chunk of triplets is differentiated
    immediately and only the sum of the gradients (N, M) is kept; `change` has the value 0 and that gradient.

    Args:
        distances: (N, M) from the points to the proxies.
        triplets: (3, S) indices of points.
        count: T, a scalar, the number of triplets at the start that count.
        generator: draws Gumbel noise; None for no noise.
        margin: at least 0.
        temperature: above 0.
    """
    values = distances.detach()
    gradient, total = torch.zeros_like(values), values.new_zeros(())
    counts = torch.arange(triplets.shape[1], device=triplets.device) < count
    rows = max(1, CHUNK // values.shape[1])
    for chunk, counted in zip(triplets.split(rows, dim=1), counts.split(rows), strict=True):
        shape = (2, chunk.shape[1], values.shape[1])
        noise = values.new_zeros(2, 1, 1) if generator is None else gumbel(shape, values.dtype, generator)
        losses, choices = _losses_and_choices(values, chunk, noise, margin, temperature)
        total += (losses * counted).sum()
        _add_gradient(gradient, values, chunk, choices, counted.to(values.dtype), temperature)
    change = (gradient * (distances - values)).sum()  # 0
    return (total + change) / count.clamp(min=1)


class Choices(NamedTuple):
    """Ancestors of triplets, by which their losses are differentiated."""

    logits_two: Tensor  # (T, M) of a(ij)
    logits_three: Tensor  # (T, M) of a(ijk)
    two: Tensor  # (T,) index of a(ij)
    three: Tensor  # (T,) index of a(ijk)
    active: Tensor  # (T, 3) whether each hinge is above 0


def _losses_and_choices(
    distances: Tensor, triplets: Tensor, noise: Tensor, margin: float, temperature: float
) -> tuple[Tensor, Choices]:
    """Losses (T,) of triplets (3, T), see `mean_triplet_loss`, and their ancestors.

    Args:
        distances: (N, M) from the points to the proxies.
        triplets: (3, T) indices of points.
        noise: (2, T, M), added to the logits of a(ij) and of a(ijk), or anything that broadcasts to it.
        margin: at least 0.
        temperature: above 0.
    """
    scaled = distances / temperature
    i, j, k = (scaled.index_select(0, points) for points in triplets)  # (T, M) each
    farthest_of_two = torch.maximum(i, j, out=j)
    farthest = torch.maximum(farthest_of_two, k, out=k)
    for_two, for_three = noise.expand(2, *i.shape)
    logits_two = torch.sub(for_two, farthest_of_two, out=farthest_of_two)
    logits_three = torch.sub(for_three, farthest, out=farthest)
    two, three = _first_largest(logits_two), _first_largest(logits_three)  # (T,) each
    to_two, to_three = distances[triplets, two], distances[triplets, three]  # (3, T) each
    gaps = torch.cat([to_two[:2] - to_three[:2], to_three[2:] - to_two[2:]])
    hinges = ((gaps + margin).relu() * (two != three)).T.contiguous()  # (T, 3)
    return hinges.sum(dim=1), Choices(logits_two, logits_three, two, three, hinges > 0)


def _add_gradient(
    total: Tensor, distances: Tensor, triplets: Tensor, choices: Choices, weights: Tensor, temperature: float
) -> None:
    """Add to `total` the gradient of the weighted sum of the losses of triplets by the distances.

    Automatic differentiation finds it too, through tens of (T, M) tensors and masks, which are slow on a CPU.

    Args:
        total: (N, M).
        distances: (N, M).
        triplets: (3, T).
        choices: the ancestors of the triplets.
        weights: (T,) of the losses.
        temperature: above 0.
    """
    *logits, two, three, active = choices
    of_hinges = active * weights[:, None]  # (T, 3)
    if distances.device.type == "cpu":  # the host of another device would wait for the number of triplets kept
        kept = of_hinges.any(dim=1).nonzero()[:, 0]
        triplets, two, three, of_hinges = triplets[:, kept], two[kept], three[kept], of_hinges[kept]
        logits = [of_set.index_select(0, kept) for of_set in logits]
    of_i, of_j, of_k = of_hinges.T[:, :, None]  # (T, 1) each
    i, j, k = (distances.index_select(0, points) for points in triplets)  # (T, M) each
    # Derivative of the losses with respect to the one-hot choice of a(ij); that of a(ijk) is its negative.
    slope = (of_i * i).addcmul_(of_j, j).addcmul_(of_k, k, value=-1)
    with torch.enable_grad():
        leaves = [of_set.detach().requires_grad_() for of_set in logits]
        soft = [leaf.softmax(dim=1) for leaf in leaves]
    on_two, on_three = torch.autograd.grad(soft, leaves, [slope, slope])
    # With respect to the largest distances, then to those distances of i, j and k that are the largest.
    on_two, on_three = on_two.div_(-temperature), on_three.div_(temperature)
    on_k = on_three * _share_in_maximum(k, torch.maximum(i, j))
    on_two += on_three.sub_(on_k)
    on_i = on_two * _share_in_maximum(i, j)
    on_j = on_two.sub_(on_i)
    for points, gradient, weight in zip(triplets, (on_i, on_j, on_k), (of_i, of_j, -of_k), strict=True):
        gradient.scatter_add_(1, two[:, None], weight).scatter_add_(1, three[:, None], -weight)  # to the ancestors
        total.index_add_(0, points, gradient)


def _first_largest(values: Tensor) -> Tensor:
    """Index (T,) of the largest value in each row of (T, M), the first among equals."""
    if values.device.type == "cpu":
        return torch.from_numpy(values.numpy().argmax(axis=1))  # a tenth of the time of PyTorch's
    return values.argmax(dim=1)


def _share_in_maximum(values: Tensor, others: Tensor) -> Tensor:
    """Derivative (T, M) of max(values, others) by the values: 1 where they are larger, 1/2 where equal, 0 elsewhere."""
    return (values - others).sign_().add_(1).mul_(0.5)


def gumbel(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Gumbel noise -log(-log u) of any shape, from uniform u.

    Args:
        shape: shape of the noise.
        dtype: floating type of the noise.
        generator: draws u; the noise is on its device.
    """
    uniform = torch.rand(shape, dtype=dtype, device=generator.device, generator=generator)
    return uniform.clamp_(min=torch.finfo(dtype).tiny).log_().neg_().log_().neg_()
