"""The layout of version 1, in which committed records and identities are written."""


def record_defaults(has_best: bool) -> dict[str, bool | None]:
    """Fields that the record of every fold holds, with the values of a loss that has no such thing.

    A hierarchical loss replaces them (`HasRecordFields`).

    Args:
        has_best: whether a trained epoch gave the fold its score.
    """
    return {"best_epoch_in_warmup": False if has_best else None, "coarse_updates": None}
