"""What a person reads while a study runs, on a terminal and in a log file."""

import ast
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark.core import console as display
from benchmark.core.console import Display


class Clock:
    """Stands in for the module's `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(display, "time", clock)
    return clock


def a_display(mode: str, kind: str = "trial", done: int = 1) -> Display:
    return Display(mode, "hpl_pa on glyphs", kind, total=4, done=done, max_epochs=5)


def epoch(index: int, fold: int, number: int, loss: float | None, map_at_r: float) -> dict[str, Any]:
    row = {"epoch": number, "loss": loss, "map_at_r": map_at_r, "r_precision": 0.0, "precision_at_1": 0.0}
    return {"kind": "trial", "index": index, "fold": fold, "row": row}


def one_trial(shown: Display, clock: Clock) -> None:
    """The second of four trials, 30 seconds long; the first one was done before."""
    shown.best_so_far(0.4321, 0)
    shown.report(epoch(1, 3, 0, None, 0.12))
    clock.now += 15
    shown.report(epoch(1, 3, 1, 2.34567, 0.3456))
    clock.now += 15
    shown.best_so_far(0.35, 1)
    shown.finished(1, "MAP@R 35.00 +- 1.00   proxy_lr=0.1")


def test_plain_lines_say_where_it_stands_what_is_best_and_how_long_it_takes(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_display("plain") as shown:
        one_trial(shown, clock)
    assert capsys.readouterr().out.splitlines() == [
        "  trial 2 of 4  fold 3  epoch 0 of 5  loss -  validation MAP@R 12.00",
        "  trial 2 of 4  fold 3  epoch 1 of 5  loss 2.346  validation MAP@R 34.56  at most 3.5 min left",
        # One trial of this command took 30 s and two are left.
        "trial 2 of 4: MAP@R 35.00 +- 1.00   proxy_lr=0.1   best so far 43.21 (trial 1)   60 s left",
    ]


def test_plain_lines_about_epochs_come_at_most_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_display("plain") as shown:
        for number in range(25):
            shown.report(epoch(1, number % 4, number, 1.0, 0.5))
            clock.now += 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("epoch ")[1].split()[0] for line in lines] == ["0", "10", "20"]


def test_a_higher_score_becomes_the_best_and_an_equal_one_does_not(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = a_display("plain", done=0)
    for index, score in enumerate([0.2, 0.3, 0.3, 0.1]):
        shown.best_so_far(score, index)
        shown.finished(index, "done")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("(trial ")[1][0] for line in lines] == ["1", "2", "2", "2"]
    assert "left" in lines[2] and "left" not in lines[3]


def test_a_run_has_no_best_because_none_is_chosen(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    a_display("plain", kind="run").finished(2, "concatenated MAP@R 40.00")
    assert capsys.readouterr().out == "run 3 of 4: concatenated MAP@R 40.00   0 s left\n"


def recorded(shown: Display) -> Console:
    shown.console = Console(record=True, file=io.StringIO(), force_terminal=True, width=120)
    return shown.console


def test_the_live_view_holds_the_same(clock: Clock) -> None:
    shown = a_display("live")
    console = recorded(shown)
    with shown:
        one_trial(shown, clock)
        shown.report(epoch(2, 0, 4, 1.5, 0.2222))
        shown.report(epoch(2, 1, 5, 1.25, 0.3333))
    text = console.export_text()
    assert "trial 2 of 4: MAP@R 35.00 +- 1.00   proxy_lr=0.1   best so far 43.21 (trial 1)   60 s left" in text
    last = text[text.rindex("hpl_pa on glyphs") :].splitlines()
    assert last[0].rstrip() == "hpl_pa on glyphs   2 of 4 trials   best so far 43.21 (trial 1)   60 s left"
    rows = [line.rstrip() for line in last if line.startswith("trial")]
    assert rows == [
        "trial 3 of 4  fold 0  epoch 4 of 5  loss 1.5   validation MAP@R 22.22",
        "trial 3 of 4  fold 1  epoch 5 of 5  loss 1.25  validation MAP@R 33.33",
    ]


def test_the_live_view_drops_the_folds_of_a_finished_trial(clock: Clock) -> None:
    shown = a_display("live")
    console = recorded(shown)
    with shown:
        one_trial(shown, clock)
    text = console.export_text()
    assert "fold" not in text[text.rindex("hpl_pa on glyphs") :]


def test_text_in_square_brackets_is_text_and_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    a_display("plain").say("loss.space.proxy_lr.bounds=[1e-6, 1] [bold]x[/bold]")
    assert capsys.readouterr().out == "loss.space.proxy_lr.bounds=[1e-6, 1] [bold]x[/bold]\n"


def test_a_long_line_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    a_display("plain").say("word " * 100)
    assert capsys.readouterr().out == "word " * 100 + "\n"


def test_quiet_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with a_display("quiet") as shown:
        one_trial(shown, clock)
        shown.say("a note")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


def test_a_pipe_gets_plain_lines_and_a_terminal_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    assert a_display("auto").mode == "plain"
    monkeypatch.setattr(Console, "is_terminal", True)
    assert a_display("auto").mode == "live"
    assert [a_display(mode).mode for mode in ("plain", "quiet", "live")] == ["plain", "quiet", "live"]


def test_a_message_about_something_else_is_not_shown(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with a_display("plain") as shown:
        shown.report({"kind": "started", "index": 1, "fold": 0})
    assert capsys.readouterr().out == ""


def test_time_left_is_unknown_until_a_piece_of_this_command_is_done(clock: Clock) -> None:
    shown = a_display("quiet", done=2)
    assert shown.time_left() == "unknown time"
    clock.now += 3600
    shown.finished(2, "done")
    assert shown.time_left() == "60.0 min"


def test_the_first_trial_has_a_time_left_at_most_by_its_epochs(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Display("plain", "hpl_pa on glyphs", "trial", total=4, done=1, max_epochs=5, units_each=2)
    shown.report(epoch(1, 0, 2, None, 0.1))  # it resumes from its checkpoint of epoch 2
    assert shown.time_left() == "unknown time"
    clock.now += 60
    shown.report(epoch(1, 0, 3, 1.0, 0.1))
    assert shown.time_left() == "at most 27.0 min"  # 3 trials x 2 folds x 5 epochs, of which 3 are trained: 27 x 60 s
    assert capsys.readouterr().out.splitlines()[-1].endswith("validation MAP@R 10.00  at most 27.0 min left")
    clock.now += 540
    shown.finished(1, "done")
    assert shown.time_left() == "20.0 min"


def test_the_time_of_a_preparation_counts_for_no_trial(clock: Clock) -> None:
    shown = a_display("quiet", done=2)
    clock.now += 600
    with shown:
        clock.now += 3600
        shown.finished(2, "done")
    assert shown.time_left() == "60.0 min"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_long_preparation_shows_how_far_it_is_and_a_short_one_says_nothing(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    show = display.counting("decoding")
    for done in range(1, 11):
        clock[0] += 0.01
        show(done, 10)
    assert capsys.readouterr().out == ""
    show = display.counting("decoding")
    for done in range(1, 5):
        clock[0] += 15.0
        show(done, 4)
    lines = [line.strip() for line in capsys.readouterr().out.replace("\r", "\n").splitlines() if line.strip()]
    assert lines[0] == "decoding: 1 of 4, 45 s left" and lines[-1] == "decoding: 4 of 4, done" and len(lines) == 4
    display.counting("decoding", "quiet")(4, 4)
    assert capsys.readouterr().out == ""


def test_a_run_that_is_watched_on_the_unseen_classes_says_so_and_has_no_folds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"epoch": 2, "loss": 0.5, "watched": {"precision_at_1": 0.625}}
    a_display("plain", kind="run").report({"index": 1, "fold": None, "row": row})
    assert capsys.readouterr().out == "  run 2 of 4  epoch 2 of 5  loss 0.5  test R@1 62.50\n"


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal in the place of standard output."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return stream


HOSTILE = "a\x1b[2J\x9b31m\u202eb [red]x[/nothing] :smile:"
SHOWN = "a\\x1b[2J\\x9b31m\\u202eb [red]x[/nothing] :smile:"


def test_control_characters_and_markup_are_shown_as_text(capsys: Any) -> None:
    display.write(f"{HOSTILE}\n\tnext")
    display.write(HOSTILE, error=True)
    captured = capsys.readouterr()
    assert captured.out == f"{SHOWN}\n\tnext\n" and captured.err == f"{SHOWN}\n"
    with a_display("plain") as shown:
        shown.say(HOSTILE)
        shown.report({"trouble": HOSTILE})
    assert capsys.readouterr().out == f"{SHOWN}\n{SHOWN}\n"


def test_a_live_view_shows_a_hostile_title_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    with Display("live", HOSTILE, "trial", total=4, done=1, max_epochs=5) as shown:
        shown.say(HOSTILE)
    text = terminal.getvalue()
    assert text.count(SHOWN) >= 2 and "\x1b[2J" not in text and "\x9b" not in text


def test_a_table_of_hostile_cells_keeps_its_lines_and_cells(capsys: Any) -> None:
    display.write_table(("study", "part"), [(f"{HOSTILE}\t\n", "b")])
    assert capsys.readouterr().out == f"study\tpart\n{SHOWN}\\t\\n\tb\n"


def test_a_table_on_a_terminal_shows_hostile_cells_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    display.write_table(("study", "part"), [(HOSTILE, "[/nothing]")])
    text = terminal.getvalue()
    assert SHOWN in text and "[/nothing]" in text and "\x1b[2J" not in text


def test_a_row_of_a_table_that_may_be_cut_takes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "60")
    rows = [("one", "4 of 5", "cub", "w" * 50, "t" * 90), ("another", "1 of 5", "sop", "-", "short")]
    display.write_table(("name", "done", "data", "missing", "title"), rows, cut=("data", "missing", "title"))
    _, first, second = terminal.getvalue().splitlines()
    shown = [cell for cell in re.split(r" {2,}", first.strip()) if cell]
    assert shown[:3] == ["one", "4 of 5", "cub"] and len(first) <= 60
    assert re.fullmatch(r"w{13,}…", shown[3]) and re.fullmatch(r"t{13,}…", shown[4])
    assert second.split() == ["another", "1", "of", "5", "sop", "-", "short"]


def test_a_traceback_is_shown_without_control_characters(capsys: Any) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        display.write_traceback(type(error), error, error.__traceback__)
    assert f"ValueError: {SHOWN}\n" in capsys.readouterr().err


OUTPUT = re.compile(r"print|(\w+\.)*(stdout|stderr)\.write|(\w+\.)*console\.print")


def test_every_output_of_a_command_goes_through_this_module() -> None:
    root = Path(display.__file__).parents[1]
    paths = (path for path in sorted(root.rglob("*.py")) if path.relative_to(root).parts[0] != "perf")
    texts = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths}
    found = {
        name
        for name, text in texts.items()
        if re.search(rf"({OUTPUT.pattern})\(", text)  # parsing all files takes a second
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and OUTPUT.fullmatch(ast.unparse(node.func))
    }
    assert found == {"core/console.py", "datasets/mat_file.py"}, "the latter prints JSON for its parent process"


def test_what_a_fold_of_a_finished_trial_still_reports_is_not_shown(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = a_display("plain")
    shown.finished(1, "stopped")
    clock.now += 3600
    shown.report(epoch(1, 2, 3, 1.0, 0.1))
    assert len(capsys.readouterr().out.splitlines()) == 1 and not shown._rows
