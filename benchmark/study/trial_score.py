"""The score of a trial: the mean over its folds."""

from benchmark.core.records import JsonObject
from benchmark.protocol.statistics import standard_error
from benchmark.searchers import Setting


def trial_result(index: int, setting: Setting, folds: list[JsonObject]) -> JsonObject:
    """The result of a trial: the mean score of its folds, or no score and the reason.

    Args:
        index: number of the trial.
        setting: its hyper-parameters.
        folds: the result of each fold, in order.
    """
    scores = [fold["map_at_r"] for fold in folds]
    missing = [f"fold {fold['fold']}: {fold['reason']}" for fold in folds if fold["map_at_r"] is None]
    done = not missing
    return {
        "index": index,
        "setting": setting,
        "status": "completed" if done else "failed",
        "reason": None if done else "; ".join(missing),
        "map_at_r": sum(scores) / len(scores) if done else None,
        "standard_error": standard_error(scores) if done else None,
        "folds": folds,
    }
