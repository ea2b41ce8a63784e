"""The training history: one row per evaluated epoch, as stored in the checkpoint, the record and the curves."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

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


def convergence_epoch(
    history: Sequence[Mapping[str, Any]], metric: str = "map_at_r", *, within: float = 0.01, monitored: bool = False
) -> int | None:
    """The first trained epoch whose score is within a share of the best one; None if no trained epoch has a score.

    >>> convergence_epoch([{"epoch": epoch, "map_at_r": score} for epoch, score in enumerate((0.9, 0.5, 0.695, 0.7))])
    2

    Args:
        history: one row per evaluated epoch, as in a record.
        metric: name of the score, which lies in [0, 1].
        within: the share, 0.01 for 1 % of the best score.
        monitored: whether the scores on the monitored images count, in place of those on validation classes.
    """
    rows = [(row["epoch"], row.get("watched", {}) if monitored else row) for row in history if row["epoch"] > 0]
    scores = [(epoch, float(scored[metric])) for epoch, scored in rows if metric in scored]
    best = max((score for _, score in scores), default=0.0)
    return next((epoch for epoch, score in scores if score >= (1 - within) * best), None)
