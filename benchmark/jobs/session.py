"""The session that `bo`, `final_eval` and `traditional` share: checks, lock, data, study folder, display and jobs."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from benchmark.core import process, records
from benchmark.core.console import Display
from benchmark.core.errors import IncompleteError, UserError
from benchmark.core.provenance import UNKNOWN, kinds_of
from benchmark.core.records import JsonObject
from benchmark.core.wording import ranges
from benchmark.jobs.executors import RunUnit
from benchmark.jobs.placement import check_executor, trains_here
from benchmark.jobs.queue import LOGS, Jobs
from benchmark.jobs.trackers import About
from benchmark.jobs.tracking import NONE, Tracking, make_tracker
from benchmark.jobs.unit import Answer, FinishedUnit, LostUnit, Unit
from benchmark.study.code import training_code
from benchmark.study.identity import StudyIdentity
from benchmark.study.layout import Found
from benchmark.study.opening import Command, Opened, open_study
from benchmark.study.preflight import check_values
from benchmark.study.prepare import fill_features, prepare
from benchmark.study.stored import NAME, is_study
from benchmark.study.study import Study
from benchmark.training.precision import check_precision


class UnitFields(TypedDict):
    """The fields that all units of a session share, see `Unit`."""

    study: Study
    fingerprint: str
    study_identity: str
    code: str
    accepted: Sequence[str]


class Session:
    """One command that works on one study; as a context manager, it holds the study's lock.

    Args:
        study: the study to work on.
        command: the make target that starts and resumes this session.
        halves: the halves of the data that will be read: `trainval`, and `test` where test classes are scored.

    Attributes:
        fingerprint: identifies the prepared data.
        test_contents: SHA-256 of the test images; None without image files, or if the test half is not read.
        opened: what the study's folder was found to hold, available after `open`.
        display: the progress display, available after `open`.
        lost: units that exhausted their retries in this session, by trial or run number.

    Raises:
        UserError: a value of the configuration is not allowed, or this machine trains and cannot compute in the
            configured precision.
    """

    display: Display
    opened: Opened

    def __init__(self, study: Study, command: Command, halves: Sequence[str]) -> None:
        check_values(study, "traditional" if command == "traditional" else "search")  # before names become folders
        check_executor(study.config)
        self._device = study.make_device() if trains_here(study.config) else None
        if self._device is not None:
            check_precision(study.config.precision, self._device)
        self.study, self.command, self._halves = study, command, halves
        self.fingerprint = ""
        self.test_contents: str | None = None
        self._code = training_code(study).digest  # of the modules that this process has just imported
        self.lost: dict[int, list[LostUnit]] = {}
        self._kind = "trial" if command == "bo" else "run"
        self._kinds: set[str] = set()  # of the devices that computed the results so far
        self._is_new = False  # whether this session has begun the study
        self._held = contextlib.ExitStack()
        self._tracking: Tracking | None = None

    def __enter__(self) -> "Session":
        """Take the lock and prepare the data.

        Raises:
            UserError: another process works on the study, or its data cannot be prepared.
        """
        with contextlib.ExitStack() as held:
            held.enter_context(records.only_one(self.study.directory / "lock", f"Study {self.study.title}"))
            records.remove_unfinished(self.study.directory)
            self.fingerprint = prepare(self.study, *self._halves)
            if "test" in self._halves:
                self.test_contents = self.study.make_dataset().test_contents
            self._held = held.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._is_new and isinstance(error[1], UserError):
            self._withdraw()
        self._held.__exit__(*error)  # the lock is told of the error, and removes itself if nothing was written

    def _withdraw(self) -> None:
        """Delete the description of a study that this session has begun, if nothing else is in its folder."""
        with contextlib.suppress(OSError):
            found = {path.name for path in self.study.directory.iterdir()}
            if found <= {"lock", LOGS, NAME}:
                if LOGS in found:
                    (self.study.directory / LOGS).rmdir()  # which fails if a worker has written there
                (self.study.directory / NAME).unlink()

    def open(
        self, total: int, finished: Callable[[StudyIdentity], Found], max_epochs: int | None = None,
        earlier: Iterable[records.Record] = (),
    ) -> dict[int, records.Record]:  # fmt: skip
        """Open the study's folder, start the display, and return the finished trials or runs.

        Records that are damaged or do not belong to the study are quarantined, so that their units are repeated.

        Args:
            total: number of trials or runs that the study needs.
            finished: reads the records of trials or runs, and compares them with the study's identity.
            max_epochs: maximum number of epochs of a training, for the display; None for the data set's.
            earlier: records of earlier steps of the study, whose device is compared with this session's.

        Raises:
            UserError: the folder holds results of another configuration or other code, or a file of a newer version.
            WriteError: the folder cannot be written.
        """
        if training_code(self.study).digest != self._code:
            raise UserError("The code was edited while the data were prepared. Run the same command again.")
        self._is_new = not is_study(self.study.directory)
        self.opened = open_study(self.study, self.command, self.fingerprint)
        notes = self.opened.notes
        found = finished(self.opened.identity).quarantine(notes.append)
        self._check_test_images(found)
        config = self.study.config
        epochs = config.dataset.max_epochs if max_epochs is None else max_epochs
        each = 1 if self.command == "traditional" else config.protocol.num_folds
        self.display = Display(config.display, self.study.title, self._kind, total, len(found), epochs, each)
        for note in notes:
            self.display.say(note)
        self._kinds = kinds_of([*found.values(), *earlier]) - {UNKNOWN}
        self._track(found)
        if self._device is not None and len(found) < total:
            self._compare_device(self._device.type, f"this session runs on {self._device.type}")
        return found

    def _check_test_images(self, found: Mapping[int, records.Record]) -> None:
        """Check that the finished runs were scored on the test images of this session.

        Raises:
            UserError: some were scored on others.
        """
        known = {run: record.provenance.get("test_contents") for run, record in found.items()}
        if other := [run for run, contents in known.items() if contents not in (None, self.test_contents)]:
            raise UserError(
                f"The test images of {self.study.title} changed: their SHA-256 is {self.test_contents}, but run "
                f"{ranges(other)} {'was' if len(other) == 1 else 'were'} scored on images with {known[other[0]]}. "
                "Restore them, or start another study: variant=NAME."
            )

    @property
    def device_kind(self) -> str:
        """Kind of the device of this machine that trains; empty where other machines do."""
        return self._device.type if self._device is not None else ""

    def _track(self, found: dict[int, records.Record]) -> None:
        """Start the tracker, if the user asked for one, and send it what is finished."""
        config = self.study.config
        if config.tracker == NONE:
            return
        folder = self.study.directory
        about = About(
            f"{folder.parent.name}/{folder.name}", self.command, self.opened.identity.study, Path(config.results_dir)
        )
        tracker = make_tracker(config.tracker, about)
        self._tracking = Tracking(tracker, self._kind, config.protocol.num_folds, self.display.say)
        self._held.callback(self._tracking.close)
        self.display.say(f"Curves: {tracker.where}")
        self._tracking.replay(found)

    def _report(self, message: JsonObject) -> None:
        self.display.report(message)
        if self._tracking is not None:
            self._tracking.report(message)

    def unit_fields(self) -> UnitFields:
        """The fields that all units of this session share."""
        return {
            "study": self.study, "fingerprint": self.fingerprint, "study_identity": self.opened.identity.study,
            "code": self.opened.code, "accepted": sorted(self.opened.identity.code),
        }  # fmt: skip

    @contextlib.contextmanager
    def jobs(self, run: RunUnit, module: list[str], most_units: int) -> Iterator[Jobs]:
        """Run the study's executor and the live display during the block, which a signal ends by an exception.

        Args:
            run: runs one unit in this process (`executor=inline`).
            module: serves units as `python -m module` (every other executor).
            most_units: how many units can run at the same time.

        Raises:
            UserError: the features of a frozen trunk cannot be computed.
        """
        if self._device is not None:
            fill_features(self.study)
        with (
            process.stopped_by_exception(),
            Jobs(self.study, run, module, self._report, most_units) as jobs,
            self.display,
        ):
            yield jobs

    def answers(self, jobs: Jobs) -> Iterator[tuple[Unit, Answer]]:
        """Yield each unit with its answer, print its notes, and collect lost units in `lost`.

        Raises:
            UserError: a unit failed for a reason that the user can fix.
        """
        for unit, answer in jobs.finished():
            self._check_folder()
            if isinstance(answer, LostUnit):
                self.lost.setdefault(unit.index, []).append(answer)
            else:
                if self._tracking is not None:
                    self._tracking.finished(unit.index, unit.fold, answer.result, unit.setting)
                for note in answer.notes:
                    self.display.say(note)
                if device := answer.provenance.get("device"):
                    for kind in (*device["earlier"], device["kind"]):
                        self._compare_device(kind, f"{unit.name} ran on {kind}")
            yield unit, answer

    def concluded(self, index: int, result: JsonObject) -> None:
        """Send the score of a trial to the tracker.

        Args:
            index: number of the trial.
            result: content of its record.
        """
        if self._tracking is not None:
            self._tracking.concluded(index, result)

    def check_records(self, paths: Iterable[Path]) -> None:
        """Check that the records from which a result is about to be computed are still on disk.

        Args:
            paths: the records of finished trials or runs.

        Raises:
            UserError: some were deleted while this command ran.
        """
        if gone := [path for path in paths if not path.exists()]:
            raise UserError(
                f"{len(gone)} finished {self._kind}s were deleted or moved while this command ran, such as {gone[0]}. "
                f'The same command repeats them: "{self.study.command(self.command)}"'
            )

    def _check_folder(self) -> None:
        """Check that the study was not deleted meanwhile, so that what is left is not taken for the whole of it.

        Raises:
            UserError: its description is gone.
        """
        if not (path := self.study.directory / "study.yaml").exists():
            raise UserError(
                f"{path} was deleted or moved while this command ran, perhaps with finished results. The same command "
                f'goes on with what is left: "{self.study.command(self.command)}"'
            )

    def _compare_device(self, kind: str, what_runs: str) -> None:
        """Warn, once per kind of device, that earlier results of the study are from another kind.

        Args:
            kind: kind of the device.
            what_runs: clause for the message that says what runs on it.
        """
        if self._kinds and kind not in self._kinds:
            self.display.say(
                f"This study has results from {', '.join(sorted(self._kinds))}, but {what_runs}. Results differ in the "
                "last digits between kinds of device; the tables mark these rows."
            )
        self._kinds.add(kind)

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


def run_each(studies: Sequence[Study], run: Callable[[Study], None]) -> None:
    """Run a command on several studies, one after the other; one that fails does not stop the others.

    Args:
        studies: the studies.
        run: runs the command on one of them.

    Raises:
        WriteError: a file cannot be written; the studies that follow are not run, since it would happen to them too.
        UserError: a study cannot be run.
        IncompleteError: results of a study are missing.
    """
    faults: list[UserError | IncompleteError] = []
    for study in studies:
        try:
            run(study)
        except records.WriteError:
            raise
        except (UserError, IncompleteError) as error:
            if len(studies) == 1:
                raise
            faults.append(error)
    if faults:
        kind = next((type(error) for error in faults if isinstance(error, IncompleteError)), UserError)
        raise kind("\n\n".join(dict.fromkeys(map(str, faults))))


def code_of_all(answers: Sequence[FinishedUnit]) -> list[str]:
    """Digests of the code that computed some units, sorted; more than one only if an edit was accepted."""
    return sorted({digest for answer in answers if answer.identity for digest in answer.identity["code"]})


def describe_warnings(warnings: Sequence[Sequence[str]]) -> str:
    """Format the warnings of losses, each with the folds that it concerns; an empty string if there are none.

    >>> describe_warnings([["idle"], [], ["idle"]])
    '   WARNING: idle (folds 0, 2)'

    Args:
        warnings: one list per fold, in order.
    """
    folds: dict[str, list[int]] = {}
    for fold, texts in enumerate(warnings):
        for text in texts:
            folds.setdefault(text, []).append(fold)
    return "".join(
        f"   WARNING: {text} ({'folds' if len(numbers) > 1 else 'fold'} {ranges(numbers)})"
        for text, numbers in folds.items()
    )
