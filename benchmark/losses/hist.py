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

The ablations of the supplement are switches, whose defaults are the full method. Table 4 names its rows in a few words
and the authors published no code for them, so the readings are this project's: relations other than semantic tuples
replace only the matrix G of the network, and the layers, the loss and the initial weights stay as they are.
- Table 4: `relations`, and `distribution_weight=0` for the row without L_D. "Baseline", "TF-like" and "H-Pos" have no
  use for the distributions, so they are read as rows without L_D too.
- Table 5, "with proxies": `variances="unit"`.
- Table 6, balanced batches: the sampler, see `conf/loss/hist.yaml`.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.losses.checks import check_choice, check_non_negative, check_positive, check_whole
from benchmark.losses.numerics import at_least_float32

Relations = Literal["semantic", "positive", "attention", "none"]
Variances = Literal["learned", "unit"]


class HIST(nn.Module):
    """lambda_d L_D + lambda_s L_CE, with learnable means and log-variances per class and a hypergraph network.

    L_D is the cross-entropy of the softmax over -tau D_ic, D the distance of `squared_distances`; L_CE is that of the
    network's scores on the graph of `incidence` and `propagation`. Gradients reach the distributions through both.

    A switch changes no initial weight of the parts that remain, so ablations are paired with the full method.

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
        distribution_weight: lambda_d, at least 0; the method has 1, table 4 of the supplement also 0.
        relations: those along which the network passes features (supplement, table 4): `semantic`, the hypergraph
            of the method; `positive`, its hyperedges without the samples of other classes; `attention`, see
            `HypergraphNetwork.attention`; `none`: each sample is classified by itself.
        variances: `learned`, or `unit`: all 1, so that a class is represented by a proxy (supplement, table 5).

    Raises:
        UserError: an argument is out of range, or both weights are 0.
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
        distribution_weight: float = 1.0,
        relations: Relations = "semantic",
        variances: Variances = "learned",
    ) -> None:
        super().__init__()
        check_whole("HIST", at_least=1, num_classes=num_classes, embedding_dim=embedding_dim, hidden=hidden)
        check_positive("HIST", tau=tau, alpha=alpha)
        check_non_negative("HIST", semantic_weight=semantic_weight, distribution_weight=distribution_weight)
        check_choice("HIST", get_args(Relations), relations=relations)
        check_choice("HIST", get_args(Variances), variances=variances)
        if semantic_weight == distribution_weight == 0:
            raise UserError(
                "semantic_weight=0.0 and distribution_weight=0.0 of HIST leave no loss; one must be above 0."
            )
        if logvar_clamp is not None and not (len(logvar_clamp) == 2 and logvar_clamp[0] < logvar_clamp[1]):
            raise UserError(
                f"logvar_clamp={logvar_clamp} of HIST must be two numbers, the smaller one first, or null for no"
                " bounds; the authors' are [0, 6]."
            )
        self.tau, self.alpha, self.logvar_clamp, self.relations = tau, alpha, logvar_clamp, relations
        self.semantic_weight, self.distribution_weight = semantic_weight, distribution_weight
        generator = torch.Generator().manual_seed(seed)
        self.means = nn.Parameter(_kaiming_fan_out(num_classes, embedding_dim, generator))
        log_vars = _kaiming_fan_out(num_classes, embedding_dim, generator)  # always drawn, see the class's docstring
        self.log_vars = nn.Parameter(log_vars) if variances == "learned" else None
        self.hgnn = HypergraphNetwork(embedding_dim, hidden, num_classes, generator, attends=relations == "attention")
        self._last_losses: dict[str, Tensor] = {}

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,).

        Raises:
            UserError: a batch of one sample has no tuple, and `distribution_weight` is 0.
        """
        losses: dict[str, Tensor] = {}
        with torch.autocast(embeddings.device.type, enabled=False):
            nodes = at_least_float32(embeddings)
            distance = self._distances(nodes)  # (B, C)
            if self.distribution_weight:
                losses["loss_distribution"] = functional.cross_entropy(-self.tau * distance, labels)
            if len(labels) > 1:
                scores = self.hgnn(nodes, self._graph(nodes, distance, labels))  # (B, C)
                losses["loss_semantic"] = functional.cross_entropy(scores, labels)
            if not losses:
                raise UserError(
                    "distribution_weight=0.0 of HIST leaves no loss for a batch of one image; it needs two."
                )
            weights = {"loss_distribution": self.distribution_weight, "loss_semantic": self.semantic_weight}
            total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        self._last_losses = {name: loss.detach() for name, loss in losses.items()}
        return total

    def _distances(self, nodes: Tensor) -> Tensor:
        """Distances (B, C) of `squared_distances` to the classes."""
        log_vars = None if self.log_vars is None else self.log_vars.to(nodes.dtype)
        return squared_distances(nodes, self.means.to(nodes.dtype), log_vars, self.logvar_clamp)

    @torch.no_grad()
    def distributions(self) -> tuple[Tensor, Tensor]:
        """Return the unit means (C, D) and the variances (C, D) of the classes, clamped as in the loss."""
        means = functional.normalize(self.means, dim=1)
        if self.log_vars is None:
            return means, torch.ones_like(means)
        low, high = self.logvar_clamp or (-math.inf, math.inf)
        return means, self.log_vars.clamp(low, high).exp()

    def _graph(self, nodes: Tensor, distance: Tensor, labels: Tensor) -> Tensor:
        """The matrix (B, B) along whose rows the network gathers features."""
        if self.relations == "attention":
            return self.hgnn.attention(nodes)
        if self.relations == "none":
            return torch.eye(len(nodes), dtype=nodes.dtype, device=nodes.device)
        edges = incidence(distance, labels, self.alpha)
        if self.relations == "positive":
            edges = functional.one_hot(labels, distance.shape[1]).to(edges.dtype)
        return propagation(edges)

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """Return the terms of the last batch's loss, and the fraction of log-variances that receive a gradient."""
        parts = {name: float(loss) for name, loss in self._last_losses.items()}
        if self.log_vars is None:
            return parts
        low, high = self.logvar_clamp or (-math.inf, math.inf)
        free = (self.log_vars > low) & (self.log_vars < high)
        return parts | {"free_logvar_share": float(free.float().mean())}

    def record_fields(self, history: Sequence[JsonObject], best_epoch: int | None) -> dict[str, float | bool | None]:
        """Return the number of means, one per class, as the number of proxies."""
        return {"num_proxies": float(len(self.means))}


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
        attends: whether it has the layers of `attention`.
    """

    def __init__(
        self, in_features: int, hidden: int, out_features: int, generator: torch.Generator, *, attends: bool = False
    ) -> None:
        super().__init__()
        self.theta1 = nn.utils.skip_init(nn.Linear, in_features, hidden)
        self.bn1 = nn.BatchNorm1d(hidden, track_running_stats=False)
        self.theta2 = nn.utils.skip_init(nn.Linear, hidden, out_features)
        layers = [self.theta1, self.theta2]
        if attends:  # drawn last, so that the other layers start as without it
            self.query = nn.utils.skip_init(nn.Linear, in_features, hidden)
            self.key = nn.utils.skip_init(nn.Linear, in_features, hidden)
            layers += [self.query, self.key]
        for layer in layers:
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator)

    def forward(self, nodes: Tensor, graph: Tensor) -> Tensor:
        """Return scores (B, C) of nodes (B, D), B at least 2, on the propagation matrix `graph` (B, B)."""
        features = graph.double() @ _linear(self.theta1, nodes.double())  # (B, hidden)
        scale, shift = self.bn1.weight.double(), self.bn1.bias.double()
        features = functional.batch_norm(features, None, None, scale, shift, training=True, eps=self.bn1.eps)
        return graph @ _linear(self.theta2, functional.leaky_relu(features, 0.1).to(nodes.dtype))

    def attention(self, nodes: Tensor) -> Tensor:
        """Return softmax(Q K^T / sqrt(hidden)) (B, B), one head of a transformer's self-attention over nodes (B, D).

        Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, equation 1.
        """
        query, key = _linear(self.query, nodes), _linear(self.key, nodes)
        return functional.softmax(query @ key.T / query.shape[1] ** 0.5, dim=1)


def _linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """Apply a layer in the dtype of its inputs: (B, F) -> (B, G)."""
    return functional.linear(inputs, layer.weight.to(inputs.dtype), layer.bias.to(inputs.dtype))


def squared_distances(
    embeddings: Tensor, means: Tensor, log_vars: Tensor | None, logvar_clamp: tuple[float, float] | None
) -> Tensor:
    """Squared Mahalanobis distances (B, C): D_ic = sum_d (z_id - mu_cd)^2 exp(-v_cd) of unit vectors z_i and mu_c.

    Args:
        embeddings: (B, D), of any norm.
        means: (C, D), of any norm.
        log_vars: (C, D), v before clamping; None for variances of 1.
        logvar_clamp: bounds of v, or None.
    """
    z, mu = functional.normalize(embeddings, dim=1), functional.normalize(means, dim=1)
    if log_vars is None:
        distance = z.square().sum(dim=1, keepdim=True) - 2 * z @ mu.T + mu.square().sum(dim=1)
        return distance.clamp(min=0)
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
