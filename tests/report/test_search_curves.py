"""Best score against trials, from records: rows that pool the repetitions of a search, as CSV and as a figure."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.core.csv_file import as_csv
from benchmark.report.search_curves import Curve, as_rows, drawn, pooled, read_search
from benchmark.searches import row_of, searches
from benchmark.study.study import Study
from tests import fake_results
from tests.command_line import run

Compose = Callable[..., Study]
TWO = Curve("g", "row", "hpl_pa", "HPL-PA", {0: [1.0, None, 3.0], 1: [2.0, 7.0]})


def test_the_csv_has_any_number_of_trials_and_each_search_in_its_order() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(as_rows([TWO])))))
    assert [row["trials"] for row in rows] == ["1", "2", "3", "4", "5"]
    # Of the five trials, four have a score: 1, 2, 3, 7. One trial: their mean, 13 / 4. Two trials, without the pairs of
    # which none has a score (there is none): 1 is the best of {1, -}, 2 of two pairs, 3 of three, 7 of four.
    assert float(rows[0]["mean"]) == 3.25
    assert float(rows[1]["mean"]) == pytest.approx((1 + 2 * 2 + 3 * 3 + 4 * 7) / 10)
    assert (float(rows[4]["mean"]), float(rows[4]["deviation"])) == (7.0, 0.0)
    assert [row["search0"] for row in rows] == ["1.0", "1.0", "3.0", "", ""]
    assert [row["search1"] for row in rows] == ["2.0", "7.0", "", "", ""]


def test_a_row_says_where_its_best_trial_is_and_what_one_search_would_give() -> None:
    assert row_of(TWO)[:6] == ("HPL-PA", "2", "5", "7.00", "2 of search 1", "3")
    alone = Curve("g", "row", "hpl_pa", "HPL-PA", {0: [1.0, 5.0, 5.0]})
    # Two of three trials, at least one of which is a 5.
    assert row_of(alone) == ("HPL-PA", "1", "3", "5.00", "2", "2", "5.00", "0.00", "5.00 to 5.00")


def test_repetitions_of_a_search_are_one_row_and_other_variants_another(compose_study: Compose) -> None:
    for overrides in (["search=1"], ["variant=wide"], []):
        fake_results.start(compose_study(*overrides), range(fake_results.TRIAL + 1))
    fake_results.start(compose_study("search=2"))  # without a trial
    found = [read_search(path) for path in sorted(compose_study().directory.parent.iterdir())]
    curves = pooled([curve for curve in found if curve])
    assert [(curve.name, curve.label, list(curve.scores)) for curve in curves] == [
        ("hpl_pa", "HPL-PA", [0, 1]), ("hpl_pa-wide", "HPL-PA (wide)", [0])
    ]  # fmt: skip
    assert curves[0].scores[1] == pytest.approx([30.0, 30.0, 30.0, 40.0])


def test_a_figure_has_a_panel_per_row_with_a_band_and_a_line_per_search() -> None:
    axes = drawn([TWO, TWO]).axes
    assert [panel.get_title() for panel in axes] == ["HPL-PA", "HPL-PA"]
    assert len(axes[0].collections) == 1 and len(axes[0].lines) == 3


@pytest.mark.slow
def test_the_command_writes_a_group_and_a_named_study_and_refuses_nothing(compose_study: Compose) -> None:
    study = compose_study()
    root = Path(study.config.results_dir)
    ended = run(searches, f"results_dir={root}")
    assert ended.status == 2 and "no search with a finished trial" in ended.err
    fake_results.start(study, range(2))
    ended = run(searches, f"results_dir={root}")
    assert ended.status == 0 and "HPL-PA\t1\t2\t30.00\t1\t1\t30.00\t0.00\t30.00 to 30.00" in ended.out, ended
    assert {path.name for path in (root / "searches").iterdir()} == {
        f"glyphs-small_conv-hpl.{suffix}" for suffix in ("csv", "pdf", "png")
    }
    assert run(searches, f"study={study.directory}").status == 0
    assert (study.directory / "figures" / "search.csv").exists()
