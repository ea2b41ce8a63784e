"""Hyp: a softmax over all other samples of the batch, by distances in a Poincare ball, for each positive pair.

Source: Ermolov, Mirvakhabova, Khrulkov, Sebe and Oseledets, "Hyperbolic Vision Transformers: Combining Improvements in
Metric Learning", CVPR 2022, arXiv 2203.10833, Section 3.2, and the authors' code (htdt/hyp_metric, the version of
`train.py` with t = 0.2 and clip_r = 2.3). Its early commits, such as 8dd5bef, have the same loss with t = 0.3, no
clipping of features, and a linear map of default initial weights. A batch has two images of each of its classes. Points
come from a hyperbolic head: a linear map with orthogonal initial weights, clipping and the exponential map, without the
layer norm and the Riemannian gradient of HIER's head.

Departures:
- a mean over ordered positive pairs. The code adds up the means of the two directions, which is twice as much. Its
  option for more images per class leaves out of the denominator of a pair all images that have neither its own position
  nor its positive's within their class, whereas all other samples are in the paper's; the two agree for two images;
- a batch without positive pairs has a loss of 0; points outside the ball are pulled to its rim.

Nothing about the loss was found in the tracker of the code.
"""

import torch
from torch import Tensor, nn

from benchmark.losses.checks import check_positive
from benchmark.losses.pairs import pairs_of
from benchmark.protocol.hyperbolic import check_ball, hyperbolic_distance, pull_to_rim


class Hyp(nn.Module):
    """Mean over ordered positive pairs (i, j) of -log(e^{-d_ij/T} / sum_{k != i} e^{-d_ik/T}).

    d is the hyperbolic distance. Easily got wrong: the denominator includes j and every other sample of the batch.

    Args:
        temperature: T, above 0.
        curvature: c of the ball, equal to the head's.

    Raises:
        UserError: an argument is not a finite number above 0.
    """

    def __init__(self, *, temperature: float = 0.2, curvature: float = 0.1) -> None:
        super().__init__()
        check_positive("Hyp", temperature=temperature)
        check_ball(curvature)
        self.temperature, self.curvature = temperature, curvature

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of points (B, D) of the ball with labels (B,)."""
        points = pull_to_rim(embeddings, curvature=self.curvature)
        logits = -hyperbolic_distance(points, points, curvature=self.curvature) / self.temperature  # (B, B)
        positive, _ = pairs_of(labels)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        of_all = logits.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)  # (B, 1)
        return (of_all - logits).where(positive, 0).sum() / positive.sum().clamp(min=1)
