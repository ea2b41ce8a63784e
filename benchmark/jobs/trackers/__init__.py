"""Trackers: programs that show curves while a study runs, each an extra of this package.

A tracker only shows what the records hold, and is written by the driver alone: from the histories that workers report,
and at the start of a session from the finished records. So it works with every executor and after a kill, and a study
is the same study with any tracker or none.

To add one, write `NAME.py` in this folder with a class `Tracker` that satisfies the protocol below, and allow its name
in `study.preflight`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class About:
    """What is tracked.

    Attributes:
        study: the study's folder below `studies/`, such as `glyphs-small_conv-hpl/hpl_pa`.
        command: the command, such as `bo`.
        identity: digest that no other study has.
        results_dir: the results folder.
    """

    study: str
    command: str
    identity: str
    results_dir: Path


class Tracker(Protocol):
    """Shows a session; its constructor takes an `About`, and imports its library.

    A session that resumes sends what is finished once more, with the same names and steps.
    """

    where: str  # what the user opens to see it

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        """Add points to curves.

        Args:
            part: what they belong to, such as `trial_003/fold_1`.
            values: numbers by the name of the curve.
            step: the epoch or the number of the trial.
        """
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table in place of the one of this name before."""
        ...

    def end(self, part: str) -> None:
        """Called when no more points of a part follow."""
        ...

    def close(self) -> None:
        """Called at the end of the session."""
        ...
