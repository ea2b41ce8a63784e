"""The training history: one row per evaluated epoch, as stored in the checkpoint, the record and the curves."""

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from benchmark.core.typed import Count, Finite, Fraction


class Scores(TypedDict):
    """Metrics of one evaluation, as fractions in [0, 1]; each requested Recall@K is an additional key.

    Attributes:
        map_at_r: MAP@R.
        r_precision: R-Precision.
        precision_at_1: Precision@1.
    """

    map_at_r: Fraction
    r_precision: Fraction
    precision_at_1: Fraction


class HistoryRow(TypedDict):
    """An evaluated epoch. Validation scores are present only if there are validation images.

    Attributes:
        epoch: 0 for the untrained model.
        loss: mean training loss since the previous evaluation; None for epoch 0.
        map_at_r: MAP@R on the validation images.
        r_precision: R-Precision on the validation images.
        precision_at_1: Precision@1 on the validation images.
        watched: scores of the monitored images, if there are any (`watched` is their name in records).
        diagnostics: numbers of the loss by name; empty for a loss without diagnostics.
    """

    epoch: Count
    loss: Finite | None
    map_at_r: NotRequired[Fraction]
    r_precision: NotRequired[Fraction]
    precision_at_1: NotRequired[Fraction]
    watched: NotRequired[Scores]
    diagnostics: NotRequired[Mapping[str, Finite | bool]]
