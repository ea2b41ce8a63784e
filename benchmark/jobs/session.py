"""The session that `bo`, `final_eval` and `traditional` share: checks, lock, data, study folder, display and jobs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from benchmark.core import records
from benchmark.core.console import Display
from benchmark.core.errors import IncompleteError
from benchmark.jobs.executors import RunUnit
from benchmark.jobs.placement import check_executor
from benchmark.jobs.queue import Jobs
from benchmark.jobs.unit import Answer, LostUnit, Unit
from benchmark.study import layout
from benchmark.study.preflight import check_values
from benchmark.study.prepare import prepare
from benchmark.study.study import Study

Say = Callable[[str], None]


class Session:
    """One command that works on one study; as a context manager, it holds the study's lock.

    Args:
        study: the study to work on.
        command: the make target that starts and resumes this session.
        halves: the halves of the data that will be read: `trainval`, and `test` where test classes are scored.

    Attributes:
        fingerprint: identifies the prepared data.
        display: the progress display, available after `open`.
        lost: units that exhausted their retries in this session, by trial or run number.

    Raises:
        UserError: a value of the configuration is not allowed.
    """

    display: Display

    def __init__(
        self, study: Study, command: Literal["bo", "final-eval", "traditional"], halves: Sequence[str]
    ) -> None:
        check_values(study, "traditional" if command == "traditional" else "search")  # before names become folders
        check_executor(study.config)
        self.study, self.command, self._halves = study, command, halves
        self.fingerprint = ""
        self.lost: dict[int, list[LostUnit]] = {}
        self._kind = "trial" if command == "bo" else "run"
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "Session":
        """Take the lock and prepare the data.

        Raises:
            UserError: another process works on the study, or its data cannot be prepared.
        """
        with contextlib.ExitStack() as held:
            held.enter_context(records.only_one(self.study.directory / "lock", f"Study {self.study.title}"))
            records.remove_unfinished(self.study.directory)
            self.fingerprint = prepare(self.study, *self._halves)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def open(
        self, total: int, finished: Callable[[Say], dict[int, records.Record]], max_epochs: int | None = None
    ) -> dict[int, records.Record]:
        """Open the study's folder, start the display, and return the finished trials or runs.

        Args:
            total: number of trials or runs that the study needs.
            finished: reads the finished records and quarantines damaged ones; it receives a function that prints a
                note.
            max_epochs: length of the longest training, for the display; None for the data set's.

        Raises:
            UserError: the folder holds a study with another configuration.
        """
        notes = layout.open_study(self.study, self.fingerprint)
        found = finished(notes.append)
        config = self.study.config
        epochs = config.dataset.max_epochs if max_epochs is None else max_epochs
        self.display = Display(config.display, self.study.title, self._kind, total, len(found), epochs)
        for note in notes:
            self.display.say(note)
        return found

    @contextlib.contextmanager
    def jobs(self, run: RunUnit, module: list[str]) -> Iterator[Jobs]:
        """Run the study's executor and the live display during the block.

        Args:
            run: runs one unit in this process (`executor=inline`).
            module: serves units as `python -m module` (every other executor).
        """
        with Jobs(self.study, run, module, self.display.report) as jobs, self.display:
            yield jobs

    def answers(self, jobs: Jobs) -> Iterator[tuple[Unit, Answer]]:
        """Yield each unit with its answer, print its notes, and collect lost units in `lost`.

        Raises:
            UserError: a unit failed for a reason that the user can fix.
        """
        for unit, answer in jobs.finished():
            if isinstance(answer, LostUnit):
                self.lost.setdefault(unit.index, []).append(answer)
            else:
                for note in answer.notes:
                    self.display.say(note)
            yield unit, answer

    def check_complete(self) -> None:
        """Check that no unit was lost.

        Raises:
            IncompleteError: units are lost.
        """
        if self.lost:
            raise self.incomplete(self.lost)

    def incomplete(self, lost: Mapping[int, Sequence[LostUnit]]) -> IncompleteError:
        """The error that names all lost units with their logs, and the command that retries them.

        Args:
            lost: the units by trial or run number; at least one.
        """
        units = [(index, unit) for index in sorted(lost) for unit in lost[index]]
        lines = [
            f"  {self._kind} {index + 1}: {unit.unit}: {unit.reason}\n    log: {unit.log}" for index, unit in units
        ]
        tail = units[-1][1].tail
        ends = f"\nThe last log ends:\n{tail}" if tail else ""
        return IncompleteError(
            f"{self.study.title} is incomplete; its hyper-parameters are not the cause:\n" + "\n".join(lines) + ends
            + "\nThe same command retries these units from their checkpoints and repeats nothing finished: "
            f'"{self.study.command(self.command)}"'
        )  # fmt: skip


def describe_warnings(warnings: Sequence[Sequence[str]]) -> str:
    """Format the warnings of losses, each with the folds that it concerns; an empty string if there are none.

    >>> describe_warnings([["idle"], [], ["idle"]])
    '   WARNING: idle (folds 0, 2)'

    Args:
        warnings: one list per fold, in order.
    """
    folds: dict[str, list[str]] = {}
    for fold, texts in enumerate(warnings):
        for text in texts:
            folds.setdefault(text, []).append(str(fold))
    return "".join(
        f"   WARNING: {text} ({'folds' if len(numbers) > 1 else 'fold'} {', '.join(numbers)})"
        for text, numbers in folds.items()
    )
