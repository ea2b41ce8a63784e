"""MLflow: an experiment for each study and a run for each command, which a resumed session continues.

Where it writes is for its own settings to say, such as `MLFLOW_TRACKING_URI`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.jobs.trackers import About
from benchmark.jobs.trackers.tensorboard import markdown


class Tracker:
    """Logs the curves of all trainings of a session to one run, which it names at each call.

    MLflow's active run belongs to a thread: points that came from another would start a run without a name.

    Args:
        about: what is tracked.

    Raises:
        ModuleNotFoundError: MLflow is not installed.
    """

    def __init__(self, about: About) -> None:
        import mlflow

        self._library: Any = mlflow
        self._library.set_experiment(about.study)
        tags = {"identity": about.identity, "command": about.command}
        query = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
        earlier = self._library.search_runs(filter_string=query, output_format="list", max_results=1)
        named = {"run_id": earlier[0].info.run_id} if earlier else {"run_name": about.command, "tags": tags}
        self._run_id: str = self._library.start_run(**named).info.run_id
        self.where = f"experiment {about.study} of MLflow at {self._library.get_tracking_uri()}"

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        """Log points of curves."""
        points = {f"{part}/{name}": value for name, value in values.items()}
        self._library.log_metrics(points, step=step, run_id=self._run_id)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Log a table as Markdown."""
        self._library.log_text(markdown(columns, rows), f"{name}.md", run_id=self._run_id)

    def end(self, part: str) -> None:
        """Do nothing: all trainings share a run."""

    def close(self) -> None:
        """End the run."""
        self._library.end_run()
