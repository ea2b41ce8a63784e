"""The table of bad inputs: which test covers which kind of fault in which kind of input.

    python -m tests.bad_inputs            prints the table, which is committed as tests/BAD_INPUTS.md
    python -m tests.bad_inputs --list     prints every single input

A test with `@pytest.mark.bad_input(reader, kind)` is one cell; its parameters are the inputs.
"""

import contextlib
import io
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TABLE = Path(__file__).with_name("BAD_INPUTS.md")
LEAST = 15  # inputs in a cell
HEAD = """\
# Bad inputs, and the tests that cover them

Written by `python -m tests.bad_inputs > tests/BAD_INPUTS.md`; `python -m tests.bad_inputs --list` names every input.

| Reader | Kind of fault | Inputs | Test |
|---|---|---|---|
"""


@dataclass
class Cells:
    """A pytest plug-in that collects the inputs of every cell.

    Attributes:
        inputs: names of the inputs by (reader, kind).
        tests: test files by (reader, kind).
    """

    inputs: defaultdict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    tests: defaultdict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers("bad_input"):
                name = item.nodeid.partition("::")[2]
                self.inputs[mark.args].append(name)
                self.tests[mark.args].add(item.nodeid.partition("::")[0])


def collect() -> Cells:
    """Collect all tests with the marker."""
    cells = Cells()
    tests = TABLE.parent.rglob("test_*.py")
    files = sorted(str(path) for path in tests if "mark.bad_input(" in path.read_text(encoding="utf-8"))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = pytest.main(["--collect-only", "-q", "-m", "bad_input", *files], plugins=[cells])
    if status != pytest.ExitCode.OK:
        raise SystemExit(f"{out.getvalue()}\nThe tests with bad inputs cannot be collected.")
    return cells


def table(cells: Cells) -> str:
    """The table as Markdown."""
    cells_in_order = sorted(cells.inputs.items(), key=lambda cell: [part.casefold() for part in cell[0]])
    rows = [
        f"| {reader} | {kind} | {len(inputs)} | `{'` `'.join(sorted(cells.tests[reader, kind]))}` |"
        for (reader, kind), inputs in cells_in_order
    ]
    total = sum(map(len, cells.inputs.values()))
    return f"{HEAD}{chr(10).join(rows)}\n\n{total:,} inputs in {len(rows)} cells.\n"


if __name__ == "__main__":
    found = collect()
    if "--list" in sys.argv[1:]:
        for (reader, kind), inputs in sorted(found.inputs.items()):
            print(f"{reader}, {kind}: {len(inputs)}", *inputs, sep="\n  ")
    else:
        print(table(found), end="")
