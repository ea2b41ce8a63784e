"""TensorBoard: event files below `results/tensorboard/`, which each session writes anew from the records."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.jobs.trackers import About

FILES = "events.out.tfevents.*"  # as TensorBoard names them


class Tracker:
    """Writes a folder of event files for each training, so that TensorBoard draws their curves over each other.

    Args:
        about: what is tracked.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed.
    """

    def __init__(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make: Any = SummaryWriter
        self._folder = about.results_dir / "tensorboard" / about.study / about.command
        self._writers: dict[str, Any] = {}
        for old in self._folder.rglob(FILES):
            old.unlink()
        self.where = f"tensorboard --logdir {about.results_dir / 'tensorboard'}"

    def _writer(self, part: str) -> Any:
        if part not in self._writers:
            self._writers[part] = self._make(str(self._folder / part))
        return self._writers[part]

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        """Add points to curves, and let TensorBoard see them."""
        writer = self._writer(part)
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table as Markdown."""
        writer = self._writer("overview")
        writer.add_text(name, markdown(columns, rows), len(rows))
        writer.flush()

    def end(self, part: str) -> None:
        """Close a training's files."""
        if part in self._writers:
            self._writers.pop(part).close()

    def close(self) -> None:
        """Close all files."""
        for part in [*self._writers]:
            self.end(part)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(markdown(["trial", "MAP@R"], [["1", "44.58"]]))
    | trial | MAP@R |
    |---|---|
    | 1 | 44.58 |
    """

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return "\n".join([line(columns), "|---" * len(columns) + "|", *map(line, rows)])
