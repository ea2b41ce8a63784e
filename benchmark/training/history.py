"""The history of a training: one row per evaluated epoch, as the checkpoint, the record and the curves hold it."""

from collections.abc import Mapping
from typing import NotRequired, TypedDict


class Scores(TypedDict):
    """Metrics of one evaluation as fractions in [0, 1]; each Recall@K that was asked for stands in addition.

    Attributes:
        map_at_r: MAP@R.
        r_precision: R-Precision.
        precision_at_1: Precision@1.
    """

    map_at_r: float
    r_precision: float
    precision_at_1: float


class HistoryRow(TypedDict):
    """An evaluated epoch. The scores of the validation images are there if a training has any.

    Attributes:
        epoch: 0 for the untrained model.
        loss: mean training loss since the previous evaluation; None for epoch 0.
        map_at_r: MAP@R on the validation images.
        r_precision: R-Precision on the validation images.
        precision_at_1: Precision@1 on the validation images.
        watched: scores of the monitored images (the records' name for them), if a training has any.
        diagnostics: numbers of the loss by name; empty for a loss without diagnostics.
    """

    epoch: int
    loss: float | None
    map_at_r: NotRequired[float]
    r_precision: NotRequired[float]
    precision_at_1: NotRequired[float]
    watched: NotRequired[Scores]
    diagnostics: NotRequired[Mapping[str, float]]
