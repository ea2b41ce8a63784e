"""Group Loss: a classifier's beliefs about a batch, refined by similarity to a few labelled samples of each class.

Source: Elezi, Vascon, Torcinovich, Pelillo and Leal-Taixe, "The Group Loss for Deep Metric Learning", ECCV 2020, arXiv
1912.00385, and the authors' code (dvl-tum/group_loss, commit 9874c31, `gtg.py`, `dynamics.py` and `train.py`), which
decides what follows: one step of the replicator dynamics, similarities of a sample with itself that count, anchors that
count in the mean, and the classifier's own cross entropy added with weight 1. The paper's loss is without the latter,
which its author says is worth about a point of recall (issue 4 of the tracker): `classification_weight: 0`.

Departures:
- anchors are drawn in each step, with a generator seeded by (seed, step), so that the order of the batch does not
  matter. The code takes the first samples of each class in the batch, whose order its sampler draws;
- a sample has similarity 1 with itself, also where all its coordinates are equal and the code divides by 0;
- the authors start from a network that they have trained to classify the same images, which is not a part of the loss.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.records import JsonObject
from benchmark.losses.checks import check_non_negative, check_positive, check_whole
from benchmark.losses.counters import CountingLoss
from benchmark.losses.draws import in_own_order, places_in_class, random_ranks
from benchmark.losses.numerics import at_least_float32

EPSILON = 1e-12  # added to each probability before the logarithm, authors' code


def correlations(embeddings: Tensor) -> Tensor:
    """Pearson's correlation (B, B) of the coordinates of each two samples, 0 where it is negative; 1 on the diagonal.

    Args:
        embeddings: (B, D), of any norm, in float32 or float64.
    """
    unit = functional.normalize(embeddings - embeddings.mean(dim=1, keepdim=True), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (unit @ unit.mT).relu().masked_fill(itself, 1)


def replicator(similarity: Tensor, beliefs: Tensor, *, num_iterations: int) -> Tensor:
    """Probabilities (B, C) after steps x_c <- x_c s_c / (sum of x_k s_k over all classes k), with s = similarity x.

    Args:
        similarity: (B, B), non-negative, with a positive diagonal.
        beliefs: x (B, C), rows of probabilities.
        num_iterations: number of steps.
    """
    for _ in range(num_iterations):
        supported = beliefs * (similarity @ beliefs)
        beliefs = supported / supported.sum(dim=1, keepdim=True)
    return beliefs


def group(
    embeddings: Tensor, labels: Tensor, logits: Tensor, anchors: Tensor, *, temperature: float, num_iterations: int
) -> Tensor:
    """Mean over the batch, a scalar, of -log(probability of the own class + 1e-12) after `replicator`.

    An anchor starts, and stays, certain of its class; another sample starts with softmax(logits / temperature). Easily
    got wrong: the probabilities are over all classes of the data, not over those of the batch.

    Args:
        embeddings: (B, D), of any norm, in float32 or float64.
        labels: (B,) int64 in 0..C-1.
        logits: (B, C).
        anchors: (B,) bool.
        temperature: above 0; the larger, the less is believed before the refinement.
        num_iterations: steps of the dynamics, at least 1.
    """
    known = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    beliefs = torch.where(anchors[:, None], known, (logits / temperature).softmax(dim=1))  # (B, C)
    refined = replicator(correlations(embeddings), beliefs, num_iterations=num_iterations)
    return -(refined.gather(1, labels[:, None]) + EPSILON).log().mean()


class GroupLoss(CountingLoss):
    """`group` with a linear classifier and anchors drawn in each step, plus the classifier's cross entropy.

    Args:
        num_classes: C.
        embedding_dim: D.
        seed: seeds the classifier, uniform within 1 / sqrt(D), and the draws; the global generator is not used.
        temperature: above 0, see `group`; the cross entropy has none.
        num_anchors: samples of each class that are anchors, at least 1; a class with no more than these adds nothing.
        num_iterations: steps of the dynamics, at least 1.
        classification_weight: factor of the cross entropy, at least 0.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        seed: int,
        *,
        temperature: float,
        num_anchors: int,
        num_iterations: int = 1,
        classification_weight: float = 1.0,
    ) -> None:
        super().__init__(1)  # steps
        check_positive("Group Loss", temperature=temperature)
        check_whole("Group Loss", at_least=1, num_anchors=num_anchors, num_iterations=num_iterations)
        check_non_negative("Group Loss", classification_weight=classification_weight)
        self.seed, self.temperature = seed, temperature
        self.num_anchors, self.num_iterations = int(num_anchors), int(num_iterations)
        self.classification_weight = classification_weight
        generator, bound = torch.Generator().manual_seed(seed), 1 / math.sqrt(embedding_dim)
        drawn = torch.empty(num_classes, embedding_dim + 1).uniform_(-bound, bound, generator=generator)
        self.proxies, self.bias = nn.Parameter(drawn[:, 1:].clone()), nn.Parameter(drawn[:, 0].clone())

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        embeddings, labels = in_own_order(at_least_float32(embeddings), labels)
        ranks = random_ranks(labels, self.seed, "group", self._counters[0])
        anchors = places_in_class(labels, ranks) < self.num_anchors
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = functional.linear(embeddings, self.proxies.to(embeddings.dtype), self.bias.to(embeddings.dtype))
            loss = group(
                embeddings, labels, logits, anchors, temperature=self.temperature, num_iterations=self.num_iterations
            )
            return loss + self.classification_weight * functional.cross_entropy(logits, labels)

    def after_step(self) -> None:
        """Count an optimiser step; the count seeds the draw of the next step."""
        self.count([1])

    def record_fields(self, history: Sequence[JsonObject], best_epoch: int | None) -> dict[str, float | bool | None]:
        """Return the number of proxies, the vectors of the classifier."""
        return {"num_proxies": float(len(self.proxies))}
