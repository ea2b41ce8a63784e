"""What the user sees: lines of text, and while a study runs a live table on a terminal or plain lines elsewhere.

All output of the commands goes through this module, which prints control characters as visible escapes.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Container, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from benchmark.core.errors import GO_ON, UserError
from benchmark.core.escape import terminal, visible
from benchmark.core.records import JsonObject
from benchmark.core.wording import human_time

if TYPE_CHECKING:  # rich is imported only once something is displayed
    from rich.console import Console, Group
    from rich.live import Live

PLAIN_EPOCH_SECONDS = 10.0  # plain output reports epochs at most this often


class OutputError(UserError):
    """Standard output cannot be written, for example because it is a file on a full disk."""


def write(text: str, end: str = "\n", error: bool = False) -> None:
    """Print a text at once.

    Args:
        text: may contain newlines and tabs; other control characters are shown as escapes.
        end: printed after the text, as it is.
        error: whether to use standard error instead of standard output; a failure to write there is ignored, since
            there is nowhere left to report it.

    Raises:
        BrokenPipeError: the reader of standard output, such as `head`, has ended.
        OutputError: standard output cannot be written for another reason.
    """
    if not error:
        with _printing():
            print(terminal(text), end=end, flush=True)
        return
    try:
        print(terminal(text), end=end, file=sys.stderr, flush=True)
    except OSError:
        drop_output(2)


@contextlib.contextmanager
def _printing() -> Iterator[None]:
    """Convert a failure to write standard output within the block, unless its reader has ended."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output(1)
        raise OutputError(f"Standard output cannot be written: {error.strerror or error}. {GO_ON}") from error


def drop_output(descriptor: int) -> None:
    """Send the rest of an output to the null device, so that Python does not fail when it flushes it at exit.

    Args:
        descriptor: 1 for standard output, 2 for standard error.
    """
    with contextlib.suppress(OSError, ValueError):  # ValueError: a stream in its place has no descriptor
        if (sys.stdout, sys.stderr)[descriptor - 1].fileno() == descriptor:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def is_terminal() -> bool:
    """Whether standard output is a terminal, which people read, and no pipe or file, which programs read."""
    return _console().is_terminal


def width() -> int:
    """Number of characters on a line of the terminal; 80 where it is not known."""
    return _console().width


def write_table(columns: Sequence[str], rows: Sequence[Sequence[str]], cut: Container[str] = ()) -> None:
    """Print a table on a terminal, and tab-separated lines for other programs elsewhere.

    On a terminal, cells that do not fit go on below, the first column last.

    Args:
        columns: headings.
        rows: the cells of each row, in the order of the headings.
        cut: headings of columns whose cells end with an ellipsis where a terminal is too narrow, in place of going on.
    """
    lines = [[visible(cell) for cell in row] for row in (columns, *rows)]
    console = _console()
    with _printing():
        if not console.is_terminal:
            for line in lines:
                print("\t".join(line))
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        widest = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        room = _room(widest, [number for number, head in enumerate(columns) if head in cut], console.width)
        for number, head in enumerate(lines[0]):
            whole = number in room or (number == 0 and widest[0] <= console.width // 2)
            table.add_column(
                head, overflow="ellipsis" if number in room else "fold", no_wrap=whole, max_width=room.get(number)
            )
        for line in lines[1:]:
            table.add_row(*line)
        console.print(table, soft_wrap=False)


def _room(widest: Sequence[int], cut: Sequence[int], width: int) -> dict[int, int]:
    """The widths of columns that may be cut: they share what the others leave, and what a narrow one leaves too.

    >>> _room([10, 5, 90, 40], cut=[1, 2, 3], width=80)
    {1: 5, 3: 28, 2: 29}

    Args:
        widest: characters in the widest cell of each column.
        cut: the columns that may be cut.
        width: characters on a line of the terminal.
    """
    left = width - sum(count + 2 for number, count in enumerate(widest) if number not in cut)
    room: dict[int, int] = {}
    for done, number in enumerate(sorted(cut, key=widest.__getitem__)):
        room[number] = max(1, min(widest[number], left // (len(cut) - done) - 2))
        left -= room[number] + 2
    return room


def write_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a defect; for `sys.excepthook`.

    Args:
        kind: class of the exception.
        error: the exception.
        trace: where it was raised.
    """
    write("".join(traceback.format_exception(kind, error, trace)), end="", error=True)


def _console() -> "Console":
    """A console that prints text as it is: no markup, no emoji codes, no colours for numbers."""
    from rich.console import Console

    class Raising(Console):
        def on_broken_pipe(self) -> None:
            raise  # the error that is being handled; rich would call sys.exit

    return Raising(file=sys.stdout, markup=False, emoji=False, highlight=False, soft_wrap=True)


class Display:
    """Progress of trials (or runs), each of several folds.

    Args:
        mode: `auto` (live on a terminal, else plain), `live`, `plain` or `quiet`.
        title: the study's name, shown at the top of the live view.
        kind: what `total` and `done` count, `trial` or `run`.
        total: total number of trials (or runs).
        done: number of trials (or runs) that were finished before this command started.
        max_epochs: maximum number of epochs of a training.
        units_each: number of trainings of a trial or run.
    """

    def __init__(
        self, mode: str, title: str, kind: str, total: int, done: int, max_epochs: int, units_each: int = 1
    ) -> None:
        self.console = _console()
        live = mode == "live" or (mode == "auto" and self.console.is_terminal)
        self.mode = "live" if live else "plain" if mode == "auto" else mode
        self.title, self.kind, self.total, self.max_epochs = visible(title), kind, total, max_epochs
        self._done, self._done_here, self._started = done, 0, time.monotonic()
        self._best: tuple[float, int] | None = None
        self._units_each = units_each
        self._rows: dict[tuple[int, int | None], JsonObject] = {}
        self._first: dict[tuple[int, int | None], int] = {}  # epoch of each training at which it was first heard of
        self._ended: set[int] = set()
        self._last_line = 0.0
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> "Display":
        self._started = time.monotonic()  # what was prepared before, such as features, comes once
        if self.mode == "live":
            from rich.live import Live

            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the live part."""
        if self.mode != "quiet":
            with _printing():
                self.console.print(terminal(text))

    def report(self, message: JsonObject) -> None:
        """Show a message about a unit: an evaluated epoch, or a failure. May be called from any thread.

        If it cannot be printed, the unit continues; the command learns it when it prints the next line itself.

        Args:
            message: `trouble`, a sentence; or `index`, `fold` and `row`, an entry of the training history. Any other
                message is ignored.
        """
        with contextlib.suppress(BrokenPipeError, OutputError):
            self._show(message)

    def _show(self, message: JsonObject) -> None:
        if "trouble" in message:
            self.say(message["trouble"])
        if "row" not in message:
            return
        with self._lock:
            key = message["index"], message["fold"]
            if key[0] in self._ended:
                return
            self._rows[key] = message["row"]
            self._first.setdefault(key, message["row"]["epoch"])
            now = time.monotonic()
            if self.mode == "plain" and now - self._last_line >= PLAIN_EPOCH_SECONDS:
                self._last_line = now
                left = self._left_by_epochs()
                cells = [*self._cells(*key, message["row"]), *([f"{left} left"] if left else [])]
                self.say("  " + "  ".join(cells))

    def best_so_far(self, score: float, index: int) -> None:
        """Remember the score of a finished trial if it is the highest so far.

        Args:
            score: a fraction in [0, 1].
            index: the trial, counted from 0.
        """
        if self._best is None or score > self._best[0]:
            self._best = (score, index)

    def finished(self, index: int, text: str) -> None:
        """Report that a trial (or run) ended, remove its folds from the view, and estimate the remaining time.

        Args:
            index: the trial or run, counted from 0.
            text: how it ended.
        """
        with self._lock:
            self._rows = {key: row for key, row in self._rows.items() if key[0] != index}
            self._ended.add(index)  # folds of a stopped trial may still report
        self._done += 1
        self._done_here += 1
        self._last_line = time.monotonic()
        left = [f"{self.time_left()} left"] * (self._done < self.total)
        self.say("   ".join([f"{self.kind} {index + 1} of {self.total}: {text}", *self._best_text(), *left]))

    def time_left(self) -> str:
        """The remaining time, estimated from what this command has finished so far.

        Before it has finished a trial or run, the epochs give an upper bound, since a training may stop early.
        """
        if not self._done_here:
            return self._left_by_epochs() or "unknown time"
        seconds = (time.monotonic() - self._started) / self._done_here * (self.total - self._done)
        return human_time(seconds)

    def _left_by_epochs(self) -> str:
        """The longest remaining time by the epochs of the first trials; empty if none is trained, or later."""
        epochs = {key: row["epoch"] for key, row in self._rows.items()}
        trained = sum(epoch - self._first[key] for key, epoch in epochs.items())
        if self._done_here or trained <= 0:
            return ""
        missing = (self.total - self._done) * self._units_each * self.max_epochs - sum(epochs.values())
        return f"at most {human_time((time.monotonic() - self._started) / trained * max(0, missing))}"

    def _best_text(self) -> list[str]:
        """The highest score and its trial; empty without a score, as for final runs."""
        return [f"best so far {100 * self._best[0]:.2f} ({self.kind} {self._best[1] + 1})"] if self._best else []

    def _cells(self, index: int, fold: int | None, row: JsonObject) -> tuple[str, ...]:
        """The parts of a training's line: the trial or run, the fold, and an entry of its history."""
        loss = "-" if row["loss"] is None else f"{row['loss']:.4g}"
        cells = [f"{self.kind} {index + 1} of {self.total}", *([f"fold {fold}"] if fold is not None else [])]
        cells += [f"epoch {row['epoch']} of {self.max_epochs}", f"loss {loss}"]
        if "map_at_r" in row:
            cells.append(f"validation MAP@R {100 * row['map_at_r']:.2f}")
        if "watched" in row:
            cells.append(f"test R@1 {100 * row['watched']['precision_at_1']:.2f}")
        return tuple(cells)

    def _render(self) -> "Group":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        done = f"{self._done} of {self.total} {self.kind}s"
        head = Text("   ".join([self.title, done, *self._best_text(), f"{self.time_left()} left"]))
        bar, table = Table.grid(), Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=self.total, completed=self._done, width=60))  # a bare bar has no newline
        with self._lock:
            rows = sorted(self._rows.items())
        for (index, fold), row in rows:
            table.add_row(*self._cells(index, fold, row))
        return Group(head, bar, table)


def counting(what: str, mode: str = "auto") -> Callable[[int, int], None]:
    """Return a function `show(done, total)` that reports the progress of a long preparation.

    On a terminal it updates a single line; elsewhere it prints a line every ten seconds.

    Args:
        what: the task, printed at the start of the line.
        mode: the study's `display`; `quiet` shows nothing.
    """
    if mode == "quiet":
        return lambda done, total: None
    started = last = time.monotonic()
    moving = sys.stdout.isatty()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < (0.2 if moving else PLAIN_EPOCH_SECONDS) and (done < total or last == started):
            return
        last = now
        left = f"{human_time((now - started) / done * (total - done))} left" if done < total else "done"
        line = f"{visible(what)}: {done:,} of {total:,}, {left}"
        with _printing():
            print(f"\r{line:<70}" if moving else line, end="\n" if done == total or not moving else "", flush=True)

    return show
