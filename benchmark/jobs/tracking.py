"""What a session sends to the tracker that the user asked for: curves, scores of trials, the best so far, a table."""

import importlib
import math
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.invocation import install
from benchmark.core.records import JsonObject, Record
from benchmark.jobs.trackers import About, Tracker

NONE = "none"  # name of no tracker
SCORES = ("map_at_r", "r_precision", "precision_at_1")


def make_tracker(name: str, about: About) -> Tracker:
    """Start a tracker.

    Args:
        name: a module of `jobs/trackers`.
        about: what is tracked.

    Raises:
        UserError: its library is not installed, or it cannot be started.
    """
    module = importlib.import_module(f"benchmark.jobs.trackers.{name}")
    try:
        tracker: Tracker = module.Tracker(about)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(f"tracker={name} needs the package {name} ({error}): {install(name)}") from error
    except Exception as error:
        raise UserError(
            f"tracker={name} cannot be started ({type(error).__name__}: {error}). Leave it out: results stay the same."
        ) from error
    return tracker


class Tracking:
    """Sends each point once in a session. A tracker that fails is left alone, and a line says so: results go on.

    Args:
        tracker: where to send.
        kind: `trial` or `run`.
        num_folds: number of trainings of a trial or run.
        say: prints a line.
    """

    def __init__(self, tracker: Tracker, kind: str, num_folds: int, say: Callable[[str], None] = write) -> None:
        self._tracker: Tracker | None = tracker
        self._kind, self._num_folds, self._say = kind, num_folds, say
        self._sent: set[tuple[int, int | None, int]] = set()
        self._scores: dict[int, dict[int | None, float | None]] = {}
        self._settings: dict[int, Mapping[str, object]] = {}
        self._cells: dict[int, str] = {}  # scores as in the table
        self._best: float | None = None
        self._lock = threading.Lock()

    def replay(self, finished: Mapping[int, Record]) -> None:
        """Send what earlier sessions finished.

        Args:
            finished: records of trials or runs, by number.
        """
        for index in sorted(finished):
            result = finished[index].result
            for fold in result.get("folds") or [result]:
                self.finished(index, fold.get("fold"), fold, result.get("setting") or {})
            if self._kind == "trial":
                self.concluded(index, result)

    def report(self, message: JsonObject) -> None:
        """Send an evaluated epoch; may be called from any thread.

        Args:
            message: what a unit reports; without a `row`, it is ignored.
        """
        if "row" in message:
            with self._lock:
                self._send(message["index"], message["fold"], [message["row"]])

    def finished(self, index: int, fold: int | None, result: JsonObject, setting: Mapping[str, object]) -> None:
        """Send what is not sent yet of a finished training, and the score of its run if that is complete.

        Args:
            index: number of the trial or run.
            fold: number of the fold; None for a training that is a whole run.
            result: content of its record; without a history, it is ignored.
            setting: hyper-parameters.
        """
        if not isinstance(history := result.get("history"), list):
            return
        with self._lock:
            self._send(index, fold, history)
            self._call(lambda tracker: tracker.end(self._part(index, fold)))
            scores = self._scores.setdefault(index, {})
            scores[fold] = result.get("map_at_r")
            self._settings[index] = setting
            needed = self._num_folds if fold is not None else 1
            if self._kind == "run" and index not in self._cells and len(scores) >= needed:
                known = [score for score in scores.values() if score is not None]
                self._complete(index, statistics.fmean(known) if len(known) == len(scores) else None)

    def concluded(self, index: int, result: JsonObject) -> None:
        """Send the score of a trial.

        Args:
            index: number of the trial.
            result: content of its record.
        """
        with self._lock:
            self._complete(index, result["map_at_r"], "stopped" if result["status"] == "stopped" else "-")

    def close(self) -> None:
        """Close the tracker."""
        with self._lock:
            self._call(lambda tracker: tracker.close())
            self._tracker = None

    def _part(self, index: int, fold: int | None) -> str:
        number = f"{index:03d}" if self._kind == "trial" else f"{index:02d}"  # as in the names of their folders
        return f"{self._kind}_{number}" + (f"/fold_{fold}" if fold is not None else "")

    def _send(self, index: int, fold: int | None, rows: Sequence[JsonObject]) -> None:
        for row in rows:
            if (key := (index, fold, row["epoch"])) in self._sent:
                continue
            self._sent.add(key)
            values = dict(points(row))
            self._call(lambda tracker: tracker.scalars(self._part(index, fold), values, row["epoch"]))  # noqa: B023

    def _complete(self, index: int, mean: float | None, without: str = "-") -> None:
        self._cells[index] = without if mean is None else f"{100 * mean:.2f}"
        self._best = max((score for score in (self._best, mean) if score is not None), default=None)
        values = {"validation_map_at_r": mean, "best_so_far": self._best if self._kind == "trial" else None}
        found = {name: value for name, value in values.items() if value is not None}
        self._call(lambda tracker: tracker.scalars("overview", found, index + 1))
        names = list(dict.fromkeys(name for setting in self._settings.values() for name in setting))
        rows = [
            [str(i + 1), self._cells[i], *(_text(self._settings[i].get(name, "")) for name in names)]
            for i in sorted(self._cells)
        ]
        self._call(lambda tracker: tracker.table(f"{self._kind}s", [self._kind, "validation MAP@R", *names], rows))

    def _call(self, send: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            send(self._tracker)
        except Exception as error:  # whatever a library raises; the records do not depend on it
            self._tracker = None
            self._say(
                f"The tracker failed ({type(error).__name__}: {error}) and gets nothing more of this session. The "
                "records are complete; the same command sends them again."
            )


def points(row: JsonObject) -> Iterator[tuple[str, float]]:
    """Yield the numbers of an evaluated epoch by the name of their curve.

    >>> dict(points({"epoch": 1, "loss": 0.5, "map_at_r": 0.25, "diagnostics": {"owners": 3.0}}))
    {'loss': 0.5, 'validation/map_at_r': 0.25, 'loss_state/owners': 3.0}

    Args:
        row: an entry of a training's history.
    """
    if row["loss"] is not None:
        yield "loss", float(row["loss"])
    for name in SCORES:
        if name in row:
            yield f"validation/{name}", float(row[name])
    for name, value in (row.get("watched") or {}).items():
        yield f"test/{name}", float(value)
    for name, value in row.get("diagnostics", {}).items():
        if math.isfinite(value):
            yield f"loss_state/{name}", float(value)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
