"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

PLAIN_EPOCH_SECONDS = 10.0  # plain output says how training goes at most this often


class Display:
    """Progress of trials (or runs), each of several folds.

    Args:
        mode: `auto`, `live`, `plain` or `quiet`.
        title: the study.
        piece: `trial` or `run`.
        total: pieces in all.
        done: pieces finished in an earlier sitting.
        max_epochs: of a training.
    """

    def __init__(self, mode: str, title: str, piece: str, total: int, done: int, max_epochs: int) -> None:
        from rich.console import Console

        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        live = mode == "live" or (mode == "auto" and self.console.is_terminal)
        self.mode = "live" if live else "plain" if mode == "auto" else mode
        self.title, self.piece, self.total, self.max_epochs = title, piece, total, max_epochs
        self._done, self._done_here, self._started = done, 0, time.monotonic()
        self._best: tuple[float, int] | None = None
        self._rows: dict[tuple[int, int | None], dict[str, Any]] = {}
        self._last_line = 0.0
        self._lock = threading.Lock()
        self._live: Any = None

    def __enter__(self) -> "Display":
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
            self.console.print(text, markup=False)

    def report(self, message: dict[str, Any]) -> None:
        """Take a message about a unit: an epoch of a fold, or a trouble. Called from any thread."""
        if "trouble" in message:
            self.say(message["trouble"])
        if "row" not in message:
            return
        with self._lock:
            self._rows[message["index"], message["fold"]] = message["row"]
            now = time.monotonic()
            if self.mode == "plain" and now - self._last_line >= PLAIN_EPOCH_SECONDS:
                self._last_line = now
                self.say("  " + "  ".join(self._cells(message["index"], message["fold"], message["row"])))

    def best_so_far(self, score: float, index: int) -> None:
        """A finished piece's score; the display remembers the highest."""
        if self._best is None or score > self._best[0]:
            self._best = (score, index)

    def finished(self, index: int, text: str) -> None:
        """A piece is done: drop its folds, say how it ended and how long the rest will take."""
        with self._lock:
            self._rows = {key: row for key, row in self._rows.items() if key[0] != index}
        self._done += 1
        self._done_here += 1
        self._last_line = time.monotonic()
        left = [f"{self.time_left()} left"] * (self._done < self.total)
        self.say("   ".join([f"{self.piece} {index + 1} of {self.total}: {text}", *self._best_text(), *left]))

    def time_left(self) -> str:
        """An estimate from the pieces of this sitting."""
        if not self._done_here:
            return "unknown time"
        seconds = (time.monotonic() - self._started) / self._done_here * (self.total - self._done)
        return human_time(seconds)

    def _best_text(self) -> list[str]:
        """The highest score and whose it is; nothing where no piece has told a score, as final runs do not."""
        return [f"best so far {100 * self._best[0]:.2f} ({self.piece} {self._best[1] + 1})"] if self._best else []

    def _cells(self, index: int, fold: int | None, row: dict[str, Any]) -> tuple[str, ...]:
        loss = "-" if row["loss"] is None else f"{row['loss']:.4g}"
        cells = [f"{self.piece} {index + 1} of {self.total}", *([f"fold {fold}"] if fold is not None else [])]
        cells += [f"epoch {row['epoch']} of {self.max_epochs}", f"loss {loss}"]
        if "map_at_r" in row:
            cells.append(f"validation MAP@R {100 * row['map_at_r']:.2f}")
        if "watched" in row:
            cells.append(f"test R@1 {100 * row['watched']['precision_at_1']:.2f}")
        return tuple(cells)

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        done = f"{self._done} of {self.total} {self.piece}s"
        head = Text("   ".join([self.title, done, *self._best_text(), f"{self.time_left()} left"]))
        bar, table = Table.grid(), Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=self.total, completed=self._done, width=60))  # alone it ends without a new line
        with self._lock:
            rows = sorted(self._rows.items())
        for (index, fold), row in rows:
            table.add_row(*self._cells(index, fold, row))
        return Group(head, bar, table)


def human_time(seconds: float) -> str:
    """Seconds as people say them.

    >>> human_time(42), human_time(150), human_time(7300)
    ('42 s', '2.5 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counting(what: str) -> Callable[[int, int], None]:
    """What to call with (done, in all), to show how far a long preparation is: one moving line, or some plain ones."""
    started = last = time.monotonic()
    moving = sys.stdout.isatty()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < (0.2 if moving else PLAIN_EPOCH_SECONDS) and (done < total or last == started):
            return
        last = now
        left = f"{human_time((now - started) / done * (total - done))} left" if done < total else "done"
        line = f"{what}: {done:,} of {total:,}, {left}"
        print(f"\r{line:<70}" if moving else line, end="\n" if done == total or not moving else "", flush=True)

    return show
