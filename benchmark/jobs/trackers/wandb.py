"""Weights & Biases: one run for each study and command, which a resumed session continues.

Where it sends is for its own settings to say, such as `WANDB_MODE=offline`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.jobs.trackers import About

PROJECT = "metric-learning-benchmark"


class Tracker:
    """Logs the curves of all trainings of a session to one run.

    Args:
        about: what is tracked.

    Raises:
        ModuleNotFoundError: wandb is not installed.
    """

    def __init__(self, about: About) -> None:
        import wandb

        self._library: Any = wandb
        self._run = self._library.init(
            project=PROJECT, id=f"{about.identity}-{about.command}", name=f"{about.study} {about.command}",
            resume="allow", config={"study": about.study, "command": about.command},
        )  # fmt: skip
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.where = str(getattr(self._run, "url", None) or f"project {PROJECT} of Weights & Biases")

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        """Log points of curves."""
        self._run.log({f"{part}/{name}": value for name, value in values.items()} | {"step": step})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Log a table."""
        self._run.log({name: self._library.Table(columns=[*columns], data=[[*row] for row in rows])})

    def end(self, part: str) -> None:
        """Do nothing: all trainings share a run."""

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
