"""Schedules of losses: numbers that depend on the data set, such as the iteration at which a part of a loss starts.

A loss with a schedule names a file of `conf/loss/schedule/` in its `defaults`, and refers to the values as
`${loss.schedule.NAME}`. A value that depends on the data set or on the protocol is in turn a reference to
`${loss.schedule.usual.NAME}`, so that a value given on the command line replaces the reference and is used as it is.
The file may hold four keys about its values:

- `usual`: the values themselves, which `in_passes` converts;
- `starts`: names of the values that give the iteration after which a part of the loss starts;
- `counts`: names of the values that count iterations but represent epochs, so that they scale with the length of a
    pass;
- `traditional`: values that replace those of `usual` under the traditional protocol.
"""

from benchmark.study.config import Config, Node


def in_passes(schedule: Node, batches: int, iterations_per_epoch: int) -> Node:
    """The `usual` values of a schedule for epochs that are passes over the training images.

    >>> usual, traditional = {"warmup": 300, "groups": 20}, {"groups": 500}
    >>> in_passes({"usual": usual, "counts": ["warmup"], "traditional": traditional}, 46, 100)
    {'warmup': 138, 'groups': 500}

    Args:
        schedule: a loss's schedule.
        batches: batches in a pass.
        iterations_per_epoch: iterations per epoch for which the schedule was written.
    """
    values: Node = dict(schedule.get("usual", {})) | schedule.get("traditional", {})
    counts = [name for name in schedule.get("counts", []) if name in values]
    return values | {name: max(1, round(values[name] * batches / iterations_per_epoch)) for name in counts}


def starts_late(config: Config) -> list[str]:
    """Return warnings about parts of a loss that start when the training of a fold may be over.

    Patience ends a training that never improves at the first evaluation after `patience` epochs; a part that starts
    later than that can be missing in the trainings that are scored.
    """
    dataset, each = config.dataset, config.protocol.iterations_per_epoch
    longest = dataset.max_epochs * each
    shortest = min(longest, (dataset.patience // dataset.evaluate_every + 1) * dataset.evaluate_every * each)
    found = []
    for name in config.loss.schedule.get("starts", []):
        if (start := config.loss.schedule[name]) >= longest:
            found.append(
                f"loss.schedule.{name}={start} is never reached: a fold trains for at most {longest:,} iterations "
                f"(dataset.max_epochs={dataset.max_epochs}), so this part of {config.loss.name} stays off."
            )
        elif start > shortest:
            found.append(
                f"loss.schedule.{name}={start} is late: patience may end the training of a fold after {shortest:,} "
                f"iterations (dataset.patience={dataset.patience}), with this part of {config.loss.name} still off."
            )
    return found
