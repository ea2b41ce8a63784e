"""No loss: the embeddings of a model that is not trained, the row that every other one has to beat."""

from torch import Tensor, nn


class NoTraining(nn.Module):
    """Stands in for a loss where nothing is trained; it is never minimised."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return 0 for embeddings (B, D) with labels (B,)."""
        return 0 * embeddings.sum()
