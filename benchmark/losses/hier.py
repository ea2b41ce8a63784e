"""HIER: Proxy-Anchor on points of a Poincare ball, plus a regulariser that grows a hierarchy over them.

Source: Kim, Jeong and Kwak, "HIER: Metric Learning Beyond Class Labels via Hierarchical Regularization", CVPR 2023,
arXiv 2212.14258, and the authors' code, whose constants these are. Learnable hierarchical proxies are to become
ancestors: of a triplet (i, j, k) with i and j related, the lowest common ancestor of i and j shall be near to i and j
but not to k, that of all three near to k. The samples' triplets and the proxies' own each give one such loss.

Departures from the authors' code:
- the anchor is never its own negative, which theirs lets happen; `allow_self_negative` restores it;
- `topk` is cut to the number of points less 2, where theirs raises once it exceeds that number: the protocol sets the
  batch, and a graph in which all are related leaves no negative. Without any pair that part of the loss is 0;
- neighbours are ranked in float64: in float32, exp(-distance) + 1 merges what is far apart;
- draws come from generators of (seed, step), the triplets' on the CPU, the noise's where the loss is computed, since
  it is as large as triplets x proxies. A batch is first put into an order of its own, so that its order cannot matter;
- points outside of the ball are pulled to its rim. The hyperbolic head makes none.
"""

import math

import torch
from torch import Tensor, nn

from benchmark.losses.proxies import initial_proxies
from benchmark.losses.proxy_anchor import proxy_anchor
from benchmark.protocol.hyperbolic import check_ball, hyperbolic_distance, pull_to_rim, to_ball
from benchmark.protocol.seeds import stable_seed

NOISES = ("gumbel", "none")
CHUNK = 2**19  # entries of triplets x proxies at a time: 2 MiB in float32, of which about ten live at once


class HIER(nn.Module):
    """Proxy-Anchor + lambda (regulariser of the samples + regulariser of the hierarchical proxies).

    `proxies` (C, D) are Proxy-Anchor's, vectors of any length; `lcas` (M, D) are mapped to the ball in every step.

    Args:
        num_classes: C, at least 1.
        embedding_dim: D, at least 1.
        seed: of the parameters' start and of all draws; global generators are not used.
        base_alpha: Proxy-Anchor's scale, above 0.
        base_margin: Proxy-Anchor's margin, at least 0.
        regularizer_weight: lambda, at least 0.
        num_hierarchy_proxies: M, at least 2.
        topk: neighbours that count as related if it is mutual, the point itself included; at least 1.
        margin: of the distances in a triplet, at least 0.
        triplets_per_anchor: at least 1.
        temperature: tau, by which distances are divided to give the ancestors' logits; above 0.
        curvature: c of the ball, the head's.
        clip_radius: longest vector that the map to the ball is given.
        noise: "gumbel" draws ancestors by the Gumbel-softmax trick, "none" takes the nearest.
        allow_self_negative: whether an anchor may be drawn as its own negative.

    Raises:
        ValueError: an argument is out of its range.
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
        _check_whole(num_hierarchy_proxies=(num_hierarchy_proxies, 2), topk=(topk, 1))
        _check_whole(triplets_per_anchor=(triplets_per_anchor, 1))
        _check_real(regularizer_weight=regularizer_weight, margin=margin, temperature=temperature)
        if noise not in NOISES:
            raise ValueError(f"noise={noise!r} of HIER must be one of {', '.join(NOISES)}.")
        self.seed, self.weight, self.topk = seed, regularizer_weight, topk
        self.margin, self.temperature, self.triplets_per_anchor = margin, temperature, triplets_per_anchor
        self.noise, self.allow_self_negative = noise, allow_self_negative
        self.base = {"alpha": base_alpha, "margin": base_margin}
        self.ball = {"curvature": curvature, "clip_radius": clip_radius}
        self.proxies = nn.Parameter(initial_proxies(num_classes, embedding_dim, "kaiming_fan_out", seed))
        spread = 0.9 * clip_radius / math.sqrt(embedding_dim)  # the mean length is nine tenths of the clipped
        generator = torch.Generator().manual_seed(stable_seed(seed, "hier", "lcas"))
        self.lcas = nn.Parameter(torch.randn(num_hierarchy_proxies, embedding_dim, generator=generator) * spread)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._last: dict[str, Tensor] = {}
        with torch.no_grad():  # Proxy-Anchor refuses here what it would refuse in the first step of a training
            proxy_anchor(self.proxies[:1], torch.zeros(1, dtype=torch.long), self.proxies, **self.base)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of points (B, D) of the ball with labels (B,), a scalar."""
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
        """Count an optimiser step: the next one has draws of its own."""
        self.steps += 1

    def diagnostics(self) -> dict[str, float]:
        """Parts of the last loss, and how many triplets the two regularisers drew for it."""
        return {name: float(value) for name, value in self._last.items()}

    def _regularizer(self, name: str, similarities: Tensor, distances: Tensor) -> Tensor:
        """The mean loss of the drawn triplets of N points, related as by (N, N), at (N, M) from the proxies."""
        related = reciprocal_neighbours(similarities, self.topk)
        draws = torch.Generator().manual_seed(stable_seed(self.seed, "hier", name, "triplets", int(self.steps)))
        triplets = draw_triplets(related.cpu(), self.triplets_per_anchor, draws, self.allow_self_negative)
        self._last[f"triplets_{name}"] = torch.tensor(triplets.shape[1])
        noise = None
        if self.noise == "gumbel":
            noise = torch.Generator(distances.device)
            noise.manual_seed(stable_seed(self.seed, "hier", name, "noise", int(self.steps)))
        triplets = triplets.to(distances.device)
        return mean_triplet_loss(distances, triplets, noise, margin=self.margin, temperature=self.temperature)


def in_own_order(points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The batch sorted by first coordinate, then class; equal points of one class share their gradient.

    With that, a loss that draws by position is the same for every order of a batch, and so is its gradient.
    """
    order = labels.argsort(stable=True)
    order = order[points.detach()[order, 0].argsort(stable=True)]
    points, labels = points[order], labels[order]
    differs = (points[1:] != points[:-1]).any(dim=1) | (labels[1:] != labels[:-1])
    kind = torch.cat([differs.new_zeros(1), differs]).cumsum(dim=0)  # (B,) ascends by 1 where a new point comes
    totals = torch.zeros_like(points).index_add(0, kind, points)
    return (totals / torch.zeros_like(points).index_add(0, kind, torch.ones_like(points)).clamp(min=1))[kind], labels


def similarity(distances: Tensor) -> Tensor:
    """exp(-distance), with the digits to tell far from farther."""
    return torch.exp(-distances.double())


def reciprocal_neighbours(similarities: Tensor, topk: int) -> Tensor:
    """Whether each of two points (N, N) is among the k most similar to the other; False for a point and itself.

    Args:
        similarities: (N, N); the point itself takes one of the k places.
        topk: k, cut to N - 2.
    """
    num = len(similarities)
    nearest = similarities.topk(max(1, min(topk, num - 2)), dim=1).indices
    near = torch.zeros_like(similarities, dtype=torch.bool).scatter_(1, nearest, True)
    return (near & near.T).fill_diagonal_(False)


def draw_triplets(related: Tensor, num: int, generator: torch.Generator, allow_self_negative: bool) -> Tensor:
    """Triplets (3, T) of anchor, related and unrelated point: `num` for each anchor with two related ones or more.

    Args:
        related: (N, N) bool, on the device of the generator.
        num: triplets of each anchor, drawn evenly and with replacement.
        generator: of the draws.
        allow_self_negative: whether the anchor counts as unrelated to itself.
    """
    unrelated = ~related
    if not allow_self_negative:
        unrelated.fill_diagonal_(False)
    anchors = ((related.sum(dim=1) >= 2) & unrelated.any(dim=1)).nonzero()[:, 0]
    drawn = [torch.multinomial(mask[anchors].float(), num, True, generator=generator) for mask in (related, unrelated)]
    return torch.stack([anchors.repeat_interleave(num), *(indices.flatten() for indices in drawn)])


def mean_triplet_loss(
    distances: Tensor, triplets: Tensor, generator: torch.Generator | None, *, margin: float, temperature: float
) -> Tensor:
    """Mean over triplets (3, T) of `triplet_losses`, 0 without any; Gumbel noise is drawn if there is a generator.

    Easily got wrong: T x M is 100 times as large as the distances. So chunks of triplets are differentiated at once,
    and only their gradient (N, M) is kept; the last line is 0 but for its gradient, which is that.
    """
    leaf = distances.detach().requires_grad_()
    total = leaf.new_zeros(())
    for chunk in triplets.split(max(1, CHUNK // distances.shape[1]), dim=1):
        shape = (2, chunk.shape[1], distances.shape[1])
        noise = leaf.new_zeros(2, 1, 1) if generator is None else gumbel(shape, leaf.dtype, generator)
        with torch.enable_grad():
            loss = triplet_losses(leaf, chunk, noise, margin=margin, temperature=temperature).sum()
            loss.backward()
        total += loss.detach()
    assert leaf.grad is not None  # no triplets are one empty chunk
    change = (leaf.grad * (distances - leaf.detach())).sum()  # 0
    return (total + change) / max(1, triplets.shape[1])


def triplet_losses(distances: Tensor, triplets: Tensor, noise: Tensor, *, margin: float, temperature: float) -> Tensor:
    """Loss (T,) of each triplet (i, j, k), with a(.) the proxy that is taken as lowest common ancestor.

    [d(i, a(ij)) - d(i, a(ijk)) + margin]+ + [d(j, a(ij)) - d(j, a(ijk)) + margin]+
    + [d(k, a(ijk)) - d(k, a(ij)) + margin]+, or 0 where a(ij) = a(ijk).

    The ancestor of a set is one-hot: the largest of -(largest distance to a member) / temperature + noise. Backward it
    is the softmax of these logits instead (straight-through), so that every proxy learns.

    Args:
        distances: (N, M) of the points from the proxies.
        triplets: (3, T) indices of points.
        noise: (2, T, M) on the logits of a(ij) and of a(ijk), or anything that broadcasts to it.
        margin: at least 0.
        temperature: above 0.
    """
    i, j, k = (distances.index_select(0, indices) for indices in triplets)  # (T, M) each
    farthest_of_two = torch.maximum(i, j)
    farthest = torch.maximum(farthest_of_two, k)
    logits_two, logits_three = noise[0] - farthest_of_two / temperature, noise[1] - farthest / temperature
    two, three = (logits.detach().argmax(dim=1, keepdim=True) for logits in (logits_two, logits_three))  # (T, 1)
    gaps = [d.gather(1, two) - d.gather(1, three) for d in (i, j)] + [k.gather(1, three) - k.gather(1, two)]
    hinges = torch.cat([(gap + margin).relu() * (two != three) for gap in gaps], dim=1)  # (T, 3)
    # Derivative of the loss by the one-hot choice of a(ij), and minus that by the choice of a(ijk).
    active = (hinges.detach() > 0).to(i.dtype)[:, :, None]
    slope = active[:, 0] * i.detach() + active[:, 1] * j.detach() - active[:, 2] * k.detach()
    through = ((logits_two.softmax(dim=1) - logits_three.softmax(dim=1)) * slope).sum(dim=1)
    return hinges.sum(dim=1) + through - through.detach()


def gumbel(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Noise -log(-log u) of uniform u, on the generator's device."""
    uniform = torch.rand(shape, dtype=dtype, device=generator.device, generator=generator)
    return uniform.clamp_(min=torch.finfo(dtype).tiny).log_().neg_().log_().neg_()


def _check_whole(**given: tuple[int, int]) -> None:
    for name, (value, least) in given.items():
        if value < least or value != int(value):
            raise ValueError(f"{name}={value} of HIER must be a whole number of at least {least}.")


def _check_real(*, temperature: float, **given: float) -> None:
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature={temperature} of HIER must be finite and above 0; the authors' is 0.1.")
    for name, value in given.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name}={value} of HIER must be finite and at least 0.")
