"""The amount of work in a stored study, read without building the study.

A status line needs five of some two hundred values; `Study.of`, which checks them all, takes ten times as long.
"""

from dataclasses import dataclass

from omegaconf import OmegaConf

from benchmark.core.records import JsonObject


@dataclass(frozen=True)
class Workload:
    """The values of a study's configuration that determine its number of trainings.

    Attributes:
        story: `search` (with final runs) or `traditional`.
        preset: the published setting that needs no search; empty for a study that searches.
        trials: number of trials in the search.
        num_runs: final runs, or runs under the traditional protocol.
        num_folds: trainings of each trial and final run.
    """

    story: str
    preset: str
    trials: int
    num_runs: int
    num_folds: int


def workload(stored: JsonObject) -> Workload:
    """Read the numbers from the configuration in a `study.yaml`; interpolations are resolved.

    Args:
        stored: the configuration, as in `layout.read_study(directory).config`.
    """
    needed = ("trials", "preset", "protocol", "dataset")  # trials may refer to the last two
    node = OmegaConf.create({key: stored[key] for key in needed if key in stored})
    return Workload(
        story=str(OmegaConf.select(node, "protocol.story", default="search")),
        preset=str(OmegaConf.select(node, "preset", default="")),
        trials=int(node.trials),
        num_runs=int(node.protocol.num_runs),
        num_folds=int(node.protocol.num_folds),
    )
