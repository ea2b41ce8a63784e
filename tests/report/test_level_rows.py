"""Scores on the levels of a hierarchy in tables, and in the commands that show columns of a study."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmark import tables, trace
from benchmark.compare import compare
from benchmark.core import records
from benchmark.report.formats import as_csv, latex, markdown
from benchmark.report.runs import read_runs
from benchmark.study import layout
from benchmark.study.study import Study
from tests import fake_results
from tests.command_line import assert_refused, run
from tests.report.test_formats import table_of
from tests.study import examples

RUNS = [0.60, 0.62, 0.64, 0.66]

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def study(compose_study: Callable[..., Study]) -> Study:
    study = compose_study("dataset=glyphs_small", "loss=hpl_pa", "protocol.num_runs=4")
    fake_results.finish(study, [0.40, 0.42, 0.44, 0.46])
    for run_number, h_ap in enumerate(RUNS):
        change(study, run_number, examples.levels(h_ap, study.config.protocol.num_folds))
    return study


def change(study: Study, run_number: int, levels: object) -> None:
    """Replace a run's scores on the levels; None removes them."""
    path = layout.run_path(study.directory, "trial_003", run_number)
    record = records.read_record(path)
    result = {key: value for key, value in record.result.items() if key != "levels"}
    result |= {"levels": levels} if levels else {}
    records.write_record(path, records.Record("run", result, record.provenance, record.identity))


def test_a_further_table_has_means_and_intervals_by_mode(study: Study) -> None:
    table = table_of("any", [study])
    (block,) = [block for block in table.sections[0].blocks if block.name == "levels"]
    # In percent 60, 62, 64, 66: mean 63; half width as for 40, 42, 44, 46, 4.108520. NDCG is half of it, ASI a third.
    assert block.groups == {
        "Concatenated": [["HPL-PA", "63.00 ± 4.11", "31.50 ± 2.05", "21.00 ± 1.37", "37.00 ± 4.11", "63.00 ± 4.11"]],
        "Separated": [["HPL-PA", "58.00 ± 4.11", "29.00 ± 2.05", "19.33 ± 1.37", "42.00 ± 4.11", "58.00 ± 4.11"]],
    }
    assert [head.title for head in block.heads][1:4] == ["H-AP", "NDCG", "ASI"]
    assert "| HPL-PA, Concatenated | 63.00 ± 4.11 |" in markdown(table) and "Levels of the hierarchy" in latex(table)
    assert len(table.sections[0].columns) == 6, "the main table stays narrow"


def test_the_csv_has_them_with_full_precision(study: Study, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(as_csv(table_of("any", [study])))
    row = pd.read_csv(tmp_path / "t.csv", index_col="loss").loc["hpl_pa"]
    assert row["concatenated_asi"] == pytest.approx(21.0, abs=1e-9)
    assert row["separated_h_ap_half_width"] == pytest.approx(4.108520, abs=2e-6)


def test_a_data_set_without_a_hierarchy_has_the_mean_over_classes_alone(study: Study) -> None:
    scores = {"class_map_at_r": 0.5}
    for number in range(4):
        change(study, number, {"separated": scores, "concatenated": scores, "separated_folds": [scores] * 4})
    (block,) = [block for block in table_of("any", [study]).sections[0].blocks if block.name == "levels"]
    assert [head.title for head in block.heads] == ["Loss", "Class mean MAP@R"]
    assert "H-AP" not in block.notes[0]


def test_runs_that_lack_them_leave_the_row_out_of_the_table(study: Study) -> None:
    change(study, 2, None)
    table = table_of("any", [study])
    assert "levels" not in [block.name for block in table.sections[0].blocks]
    assert table.rows[0].cells["concatenated", "map_at_r"].mean == pytest.approx(43.0)
    assert "concatenated_h_ap" not in as_csv(table)
    assert read_runs(study.directory).columns[-1] == "separated.r_precision"


def test_compare_and_trace_show_them(study: Study) -> None:
    out = run(compare, f"a={study.directory}", f"b={study.directory}").out
    assert "concatenated.h_ap\t63.00 +- 4.11\t63.00 +- 4.11\t+0.00 +- 0.00" in out
    cell = f"{study.directory.parent.name}/hpl_pa/separated_ndcg"
    ended = run(trace.trace, f"cell={cell}", f"results_dir={study.config.results_dir}")
    assert "run 0 27.5000" in ended.out and "29.00 +- 2.05 (n = 4)" in ended.out, ended
    refused = run(trace.trace, f"cell={cell}", f"results_dir={study.config.results_dir}", "bootstrap=10")
    assert_refused(refused, "Classes are scored by a metric of the main table")


def test_the_command_prints_them(study: Study) -> None:
    assert "Levels of the hierarchy." in run(tables.tables, f"results_dir={study.config.results_dir}").out
