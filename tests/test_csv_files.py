"""CSV files with names that a spreadsheet would evaluate as formulas."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.csv_file import write_csv
from benchmark.core.escape import FORMULA
from benchmark.core.paths import PACKAGE_DIR
from benchmark.models.scores import labelled, scored
from benchmark.overlap import report_pairs
from benchmark.report.figures import distributions, hierarchy
from benchmark.report.search_curves import Curve, as_rows
from benchmark.score import Scored, write_scores

NAME = '=HYPERLINK("x")'
# Modules that escape texts themselves, or that write what programs read back unchanged.
OTHERS = {"core/csv_file.py", "report/formats.py", "datasets/listing.py", "models/tables.py"}


def scores(folder: Path) -> None:
    given = labelled(np.eye(4), np.array([NAME, NAME, "-a", "-a"]), np.array([NAME, NAME, "+b", "+b"]), None, "x")
    options = {"mode": "concatenated", "metric": "cosine", "recall_at": (1,), "options": {}, "what": "x"}
    write_scores(folder, Scored("x", "x", given, "cosine", {}, (1,)), {"concatenated": scored(given, **options)})


def pairs(folder: Path) -> None:
    report_pairs(folder / "a.csv", [["test", "images", "near", "0.9000", f"{NAME}/1.png", "@b/2.png"]], "both halves")


def compared(folder: Path) -> None:
    facts = distributions.Compared(np.array([2]), *np.full((4, 1), -0.5))
    distributions.write_csv(folder / "a.csv", [([NAME], facts)])


WRITERS: dict[str, Callable[[Path], object]] = {
    "score": scores,
    "overlap": pairs,
    "distributions": compared,
    "hierarchy": lambda folder: hierarchy.write_csv(folder / "a.csv", [NAME, "b"], np.array([0, 1]), ["+c", "d"]),
    "searches": lambda folder: write_csv(folder / "a.csv", as_rows([Curve("g", "r", NAME, "-l", {0: [1.0]})])),
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_cell_is_a_formula_and_numbers_stay(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    for path in tmp_path.glob("*.csv"):
        with path.open(newline="") as file:
            found = [cell for row in csv.reader(file) for cell in row]
        assert path.name == "scores.csv" or any(cell.startswith(f"'{NAME}") for cell in found)
        assert {cell for cell in found if cell.startswith(FORMULA)} <= {"-0.5"}


def test_every_table_is_written_in_one_place() -> None:
    writers = {path for path in PACKAGE_DIR.rglob("*.py") if "csv.writer(" in (text := path.read_text("utf-8"))
               or "csv.DictWriter(" in text}  # fmt: skip
    assert {path.relative_to(PACKAGE_DIR).as_posix() for path in writers} == OTHERS
