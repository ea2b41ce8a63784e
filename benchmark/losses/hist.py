"""HIST: a Gaussian per class, and a network on the hypergraph that the Gaussians define over the batch.

Source: Lim, Yun, Park and Choi, "Hypergraph-Induced Semantic Tuplet Loss for Deep Metric Learning", CVPR 2022, pages
212-222: the distribution loss, the semantic tuplets, and their classification by a hypergraph neural network, with the
settings of the supplement and the additions of the authors' code. The distribution loss uses unit vectors, the network
the raw embeddings; the embedding layer should end in a layer norm without parameters (`conf/loss/hist.yaml`).

Additions of the authors' code to the paper that this file keeps:
- log-variances are clamped to [0, 6], so that no variance is below 1. About half of them start below 0, where the
  gradient vanishes; `logvar_clamp=None` removes the bounds;
- the loss has no determinant term, so it is not the likelihood of a Gaussian.

Departures from the authors' code:
- log-softmax. Their code drops a sample whose probability underflows (in float32, one whose own class is about 103 /
  tau farther away than the nearest), so their mean ignores the worst samples, and is NaN if it ignores all;
- distances by matrix products instead of (B, C, D) differences; rounding below 0 is clamped;
- hyperedges of absent classes are columns of zeros, whereas they select the present classes: no shape depends on the
  data, so the host never waits for the device. Sums are matrix products, which are deterministic on a GPU;
- a batch of one sample has no tuplet and does not suit batch normalisation, so it gets the distribution loss alone;
- `one_hot`: their scikit-learn helper returns one column for two classes, which silently gives a loss of 0;
- float32 throughout under mixed precision.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.losses.checks import check_non_negative, check_positive, check_whole
from benchmark.losses.numerics import at_least_float32


class HIST(nn.Module):
    """L_D + lambda_s L_CE, with learnable means and log-variances per class and a hypergraph network.

    L_D is the cross-entropy of the softmax over -tau D_ic, D the distance of `squared_distances`; L_CE is that of the
    network's scores on the graph of `incidence` and `propagation`. Gradients reach the distributions through both.

    Easily got wrong: the network's batch normalisation always uses the batch's own statistics, even if the trunk's are
    frozen, and keeps no running ones: after training only the embedding is used.

    Args:
        num_classes: C, at least 1.
        embedding_dim: D, at least 1.
        tau: factor of the distances in L_D, above 0.
        alpha: how fast a sample's weight in the hyperedge of another class decays with its distance, above 0.
        hidden: width of the hypergraph network, at least 1.
        semantic_weight: lambda_s, at least 0.
        logvar_clamp: bounds to which log-variances are clamped; None for no bounds.
        seed: seeds every initial value; the global generator is not used.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        tau: float,
        alpha: float,
        hidden: int,
        semantic_weight: float,
        logvar_clamp: tuple[float, float] | None,
        seed: int,
    ) -> None:
        super().__init__()
        check_whole("HIST", at_least=1, num_classes=num_classes, embedding_dim=embedding_dim, hidden=hidden)
        check_positive("HIST", tau=tau, alpha=alpha)
        check_non_negative("HIST", semantic_weight=semantic_weight)
        if logvar_clamp is not None and not (len(logvar_clamp) == 2 and logvar_clamp[0] < logvar_clamp[1]):
            raise UserError(
                f"logvar_clamp={logvar_clamp} of HIST must be two numbers, the smaller one first, or null for no"
                " bounds; the authors' are [0, 6]."
            )
        self.tau, self.alpha, self.semantic_weight, self.logvar_clamp = tau, alpha, semantic_weight, logvar_clamp
        generator = torch.Generator().manual_seed(seed)
        self.means = nn.Parameter(_kaiming_fan_out(num_classes, embedding_dim, generator))
        self.log_vars = nn.Parameter(_kaiming_fan_out(num_classes, embedding_dim, generator))
        self.hgnn = HypergraphNetwork(embedding_dim, hidden, num_classes, generator)
        self._last_losses: dict[str, Tensor] = {}

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            nodes = at_least_float32(embeddings)
            means, log_vars = self.means.to(nodes.dtype), self.log_vars.to(nodes.dtype)
            distance = squared_distances(nodes, means, log_vars, self.logvar_clamp)  # (B, C)
            losses = {"loss_distribution": functional.cross_entropy(-self.tau * distance, labels)}
            total = losses["loss_distribution"]
            if len(labels) > 1:
                scores = self.hgnn(nodes, propagation(incidence(distance, labels, self.alpha)))  # (B, C)
                losses["loss_semantic"] = functional.cross_entropy(scores, labels)
                total = total + self.semantic_weight * losses["loss_semantic"]
        self._last_losses = {name: loss.detach() for name, loss in losses.items()}
        return total

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """Return both terms of the last batch's loss, and the fraction of log-variances that receive a gradient."""
        low, high = self.logvar_clamp or (-math.inf, math.inf)
        free = (self.log_vars > low) & (self.log_vars < high)
        parts = {name: float(loss) for name, loss in self._last_losses.items()}
        return parts | {"free_logvar_share": float(free.float().mean())}


class HypergraphNetwork(nn.Module):
    """G theta2(leaky_relu(batch_norm(G theta1(z)))): two linear layers, each followed by a pass over the graph.

    The linear layers are initialised as in PyTorch, uniformly in +-1 / sqrt(inputs), but by the given generator.

    Easily got wrong: if the rows of G are equal, as for a batch of one class, the normalisation divides rounding
    errors by sqrt(1e-5), so its input is computed in float64.

    Args:
        in_features: D.
        hidden: width of the hidden layer.
        out_features: C.
        generator: draws the initial weights and biases.
    """

    def __init__(self, in_features: int, hidden: int, out_features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.theta1 = nn.utils.skip_init(nn.Linear, in_features, hidden)
        self.bn1 = nn.BatchNorm1d(hidden, track_running_stats=False)
        self.theta2 = nn.utils.skip_init(nn.Linear, hidden, out_features)
        for layer in (self.theta1, self.theta2):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator)

    def forward(self, nodes: Tensor, graph: Tensor) -> Tensor:
        """Return scores (B, C) of nodes (B, D), B at least 2, on the propagation matrix `graph` (B, B)."""
        features = graph.double() @ _linear(self.theta1, nodes.double())  # (B, hidden)
        scale, shift = self.bn1.weight.double(), self.bn1.bias.double()
        features = functional.batch_norm(features, None, None, scale, shift, training=True, eps=self.bn1.eps)
        return graph @ _linear(self.theta2, functional.leaky_relu(features, 0.1).to(nodes.dtype))


def _linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """Apply a layer in the dtype of its inputs: (B, F) -> (B, G)."""
    return functional.linear(inputs, layer.weight.to(inputs.dtype), layer.bias.to(inputs.dtype))


def squared_distances(
    embeddings: Tensor, means: Tensor, log_vars: Tensor, logvar_clamp: tuple[float, float] | None
) -> Tensor:
    """Squared Mahalanobis distances (B, C): D_ic = sum_d (z_id - mu_cd)^2 exp(-v_cd) of unit vectors z_i and mu_c.

    Args:
        embeddings: (B, D), of any norm.
        means: (C, D), of any norm.
        log_vars: (C, D), v before clamping.
        logvar_clamp: bounds of v, or None.
    """
    z, mu = functional.normalize(embeddings, dim=1), functional.normalize(means, dim=1)
    if logvar_clamp is not None:  # hardtanh has no gradient at its bounds, as in ReLU6
        log_vars = functional.hardtanh(log_vars, *logvar_clamp)
    precision = torch.exp(-log_vars)
    distance = z.square() @ precision.T - 2 * z @ (mu * precision).T + (mu.square() * precision).sum(dim=1)
    return distance.clamp(min=0)


def incidence(distance: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """H (B, C): 1 for a sample in its own class's hyperedge, exp(-alpha D_ic) in another's, 0 for an absent class.

    Args:
        distance: D (B, C), at least 0.
        labels: (B,) int64 in 0..C-1.
        alpha: decay rate of the weights, above 0.
    """
    own = functional.one_hot(labels, distance.shape[1]).bool()  # (B, C)
    return torch.exp(-alpha * distance).masked_fill(own, 1) * own.any(dim=0)


def propagation(incidence: Tensor) -> Tensor:
    """G = Dv^-1/2 H De^-1 H^T Dv^-1/2 (B, B), with Dv and De the sums of the rows and the columns of H.

    Args:
        incidence: H (B, C) with a 1 in every row and in every column that is not 0.
    """
    edge_degree = incidence.sum(dim=0).clamp(min=1)  # already at least 1, except for absent classes
    half = incidence / incidence.sum(dim=1, keepdim=True).sqrt()
    return (half / edge_degree) @ half.T


def _kaiming_fan_out(num_classes: int, embedding_dim: int, generator: torch.Generator) -> Tensor:
    """Draw (C, D) from a normal distribution of variance 2 / C."""
    return nn.init.kaiming_normal_(torch.empty(num_classes, embedding_dim), mode="fan_out", generator=generator)
