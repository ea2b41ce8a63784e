"""Lifted structure: each positive pair against all negatives of both its samples.

Source: Oh Song, Xiang, Jegelka and Savarese, "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016,
arXiv 1511.06452, Eq. 4 (the smooth bound, which the paper trains), and its port `lifted_struct_loss` in TensorFlow
(contrib, commit a11ea71). The generalised form, with all positives of an anchor in one term, is L_LG of Hermans, Beyer
and Leibe, "In Defense of the Triplet Loss for Person Re-Identification", arXiv 1703.07737, whose authors corrected it
after the first version (VisualComputingInstitute/triplet-reid, issue 20).

Embeddings are not normalised, as in both papers (see also tensorflow/addons, issue 699); `normalize: true` scales them
to norm 1, as pytorch-metric-learning does by default. Distances are Euclidean; the comment "squared" in TensorFlow's
port is wrong.

Departures: the generalised form is a mean over the batch instead of a sum over it, as in the library, where an anchor
without a positive has the term of its negatives; here it has none. A batch without negatives or positives has a loss of
0. The paper also adds hard negatives to its batches, which is the sampler's part.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.losses.checks import check_choice
from benchmark.losses.numerics import at_least_float32, euclidean
from benchmark.losses.pairs import pairs_of

FORMS = ("original", "generalized")


def lifted_structure(distances: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """1/(2|P|) sum over positive pairs P of [d_ij + log(sum_k e^{m - d_ik} + sum_l e^{m - d_jl})]+^2, a scalar.

    k and l are the negatives of i and of j. Easily got wrong: the square is of the term cut at 0, and each unordered
    pair counts once, or each ordered one in both sums.

    Args:
        distances: d (B, B).
        labels: (B,).
        margin: m.
    """
    positive, negative = pairs_of(labels)
    of_negatives = (margin - distances).masked_fill(~negative, -torch.inf).logsumexp(dim=1)  # (B,)
    terms = distances + torch.logaddexp(of_negatives[:, None], of_negatives)  # (B, B)
    return terms.relu().square().where(positive, 0).sum() / (2 * positive.sum().clamp(min=1))


def generalized_lifted_structure(distances: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """Mean over the anchors a of [log sum_p e^{d_ap} + log sum_n e^{m - d_an}]+, a scalar.

    Args:
        distances: d (B, B).
        labels: (B,).
        margin: m.
    """
    positive, negative = pairs_of(labels)
    of_positives = distances.masked_fill(~positive, -torch.inf).logsumexp(dim=1)  # (B,)
    of_negatives = (margin - distances).masked_fill(~negative, -torch.inf).logsumexp(dim=1)
    return (of_positives + of_negatives).relu().mean()


class LiftedStructure(nn.Module):
    """Lifted structure on Euclidean distances.

    Args:
        margin: m, a distance.
        form: "original" or "generalized".
        normalize: whether embeddings are scaled to norm 1.

    Raises:
        UserError: `form` is unknown.
    """

    def __init__(self, *, margin: float = 1.0, form: str = "original", normalize: bool = False) -> None:
        super().__init__()
        check_choice("lifted structure", FORMS, form=form)
        self.margin, self.form, self.normalize = margin, form, normalize

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of embeddings (B, D) with labels (B,)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            vectors = at_least_float32(embeddings)
            if self.normalize:
                vectors = functional.normalize(vectors, dim=1)
            distances = euclidean(vectors, vectors)
            loss = lifted_structure if self.form == "original" else generalized_lifted_structure
            return loss(distances, labels, margin=self.margin)
