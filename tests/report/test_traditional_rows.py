"""Tables of the traditional protocol from records written by hand: labelled rows, no comparison between kinds."""

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark import tables
from benchmark.core import invocation, records
from benchmark.report import formats
from benchmark.report.table import Table
from benchmark.report.table_layout import Layout, Line
from benchmark.study.study import Study
from tests import fake_results
from tests.report.test_formats import PAPERS, check_log, compiled, table_of

Compose = Callable[..., Study]
INSHOP = ("protocol=traditional", "dataset=inshop", "trunk=resnet50")
BEST, LAST, HELD_OUT = "best epoch on test (as papers report)", "last epoch", "epoch chosen on held-out classes"
RUN = {"best_on_test": 0.60, "last_epoch": 0.50, "held_out": None}

pytestmark = pytest.mark.usefixtures("no_fsync")


def made(*studies: Study, **layout: Any) -> Table:
    return table_of("any", studies, Layout(**layout))


def markdown_rows(table: Table) -> dict[str, list[str]]:
    """The rows of the main table by label; further tables repeat the labels."""
    rows: dict[str, list[str]] = {}
    for line in formats.markdown(table).splitlines():
        if line.startswith("|"):
            label, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows.setdefault(label, cells)
    return rows


def test_both_numbers_stand_beside_each_other_under_their_names(compose_study: Compose) -> None:
    study = compose_study(*INSHOP, "loss=hpl_pa")
    fake_results.finish_traditional(study, [RUN])
    table = made(study)
    rows = markdown_rows(table)
    assert rows["Loss"] == ["R@1", "R@10", "R@20", "R@30", "R@40", "R@50", "MAP@R", "RP"]
    # MAP@R 60 of the best epoch; R@1 lies 0.5 above it, R@10 5, R@20 10, ...; RP 10.
    best = ["60.50", "65.00", "70.00", "75.00", "80.00", "85.00", "60.00", "70.00"]
    assert rows[f"HPL-PA, {BEST}"] == best
    assert rows[f"HPL-PA, {LAST}"][-2:] == ["50.00", "60.00"]
    assert list(rows)[2:4] == [f"HPL-PA, {BEST}", f"HPL-PA, {LAST}"]
    assert "chosen by looking at the answer" in table.sections[0].notes()[0]
    assert table.sections[0].notes()[0].startswith("Mean over n = 1 run, in percent, on unseen classes")


def test_the_best_rows_are_bold_within_their_own_kind_of_row_only(compose_study: Compose) -> None:
    choices = (*INSHOP, "protocol.num_runs=3")
    first, second = (compose_study(*choices, f"loss={loss}") for loss in ("hpl_pa", "proxy_anchor"))
    noise = (0.0, 0.001, 0.003)
    fake_results.finish_traditional(first, [{"best_on_test": 0.6, "last_epoch": 0.3 + x} for x in noise])
    fake_results.finish_traditional(second, [{"best_on_test": 0.5 + x, "last_epoch": 0.4} for x in noise])
    table = made(first, second)
    rows = {label: cells[8] for label, cells in markdown_rows(table).items() if len(cells) > 8}  # epochs, batch, 6 R@K
    assert rows[f"HPL-PA, {BEST}"] == "**60.00** ± 0.00" and rows[f"Proxy-Anchor, {BEST}"].startswith("50.13 ± ")
    assert rows[f"HPL-PA, {LAST}"].startswith("30.13 ± ") and rows[f"Proxy-Anchor, {LAST}"] == "**40.00** ± 0.00"
    assert "a column, each kind of row by itself (paired t-tests" in table.sections[0].notes()[0]


def test_several_runs_have_the_t_interval_worked_out_by_hand(compose_study: Compose) -> None:
    study = compose_study(*INSHOP, "loss=hpl_pa", "protocol.num_runs=2")
    fake_results.finish_traditional(
        study, [{"best_on_test": 0.40, "last_epoch": 0.3}, {"best_on_test": 0.42, "last_epoch": 0.3}]
    )
    interval = made(study).rows[0].cells[("map_at_r",)]
    # 40 and 42: mean 41, s = sqrt(2), s / sqrt(2) = 1; Student's t with 1 degree of freedom, 97.5 %: 12.7062.
    assert interval.mean == pytest.approx(41.0) and interval.half_width == pytest.approx(12.7062, abs=1e-4)


def test_an_honestly_chosen_epoch_has_a_row_where_classes_were_held_out(compose_study: Compose) -> None:
    study = compose_study(*INSHOP, "loss=hpl_pa", "protocol.held_out=0.1")
    fake_results.finish_traditional(study, [RUN | {"held_out": 0.55}])
    assert markdown_rows(made(study))[f"HPL-PA, {HELD_OUT}"][6] == "55.00"
    without = compose_study(*INSHOP, "loss=hpl_pa", "variant=without")
    fake_results.finish_traditional(without, [RUN])
    assert [row.kind for row in made(without).rows] == [BEST, LAST]


def test_the_kinds_of_device_of_a_row_are_those_of_its_runs(
    compose_study: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = fake_results.DEVICE_FACTS | {"kind": "cuda", "earlier": ["cpu"]}
    monkeypatch.setattr(fake_results, "DEVICE_FACTS", moved)
    study = compose_study(*INSHOP, "loss=hpl_pa")
    fake_results.finish_traditional(study, [RUN])
    assert made(study).sections[0].notes()[-1] == "Kinds of device: cpu and cuda for all rows."


@pytest.mark.slow
def test_missing_runs_leave_both_rows_empty_and_are_named_once(compose_study: Compose) -> None:
    study = compose_study(*INSHOP, "loss=hpl_pa", "protocol.num_runs=3")
    fake_results.finish_traditional(study, [RUN, None, RUN])
    table = made(study)
    assert all(not any(cells) for label, cells in markdown_rows(table).items() if label.startswith("HPL-PA, "))
    assert table.sections[0].notes()[0] == "No row is complete yet."
    assert sum("HPL-PA:" in note for note in table.sections[0].notes()) == 1
    missing = f"HPL-PA: 1 of 3 runs is missing: 1; make traditional STUDY={study.directory}"
    assert table.sections[0].notes()[1] == missing


def test_a_run_that_diverged_keeps_its_best_epoch_has_no_last_one_and_says_why(compose_study: Compose) -> None:
    study = compose_study(*INSHOP, "loss=hpl_pa")
    fake_results.finish_traditional(study, [RUN | {"last_epoch": None}], reason="the training loss is nan in epoch 7")
    rows = markdown_rows(table := made(study))
    assert rows[f"HPL-PA, {BEST}"][6] == "60.00" and rows[f"HPL-PA, {LAST}"] == [""] * 8
    assert table.sections[0].notes()[1] == "HPL-PA: run_00 ended early (the training loss is nan in epoch 7)"


def test_a_run_without_a_metric_of_the_table_leaves_its_row_empty_and_says_so(compose_study: Compose) -> None:
    study = compose_study(*INSHOP, "loss=hpl_pa")
    fake_results.finish_traditional(study, [RUN])
    (path,) = study.directory.rglob("run_00.json")
    record = records.read_record(path)
    for scores in (*(row["watched"] for row in record.result["history"]), *record.result["selected"].values()):
        (scores or {}).pop("recall_at_10", None)
    records.write_record(path, record)
    rows = markdown_rows(table := made(study))
    assert rows[f"HPL-PA, {BEST}"] == [""] * 8 and "HPL-PA: run_00 has no recall_at_10" in table.sections[0].notes()


def test_a_loss_that_was_not_run_is_named_with_its_command(compose_study: Compose) -> None:
    study = compose_study(*INSHOP, "loss=hpl_pa")
    with invocation.overridden([*INSHOP, "loss=hpl_pa"]):
        fake_results.finish_traditional(study, [RUN])
    table = made(study, lines=[Line("hist"), Line("hpl_pa")], caption="In-Shop.")
    assert [row.label for row in table.rows] == ["HIST", "HIST", "HPL-PA", "HPL-PA"]
    assert table.rows[0].reason.startswith("not run; make traditional ")
    assert set(table.rows[0].reason.split()) >= {"DATASET=inshop", "LOSS=hist", "TRUNK=resnet50"}


def test_the_csv_says_how_the_epoch_was_chosen(compose_study: Compose) -> None:
    study = compose_study(*INSHOP, "loss=hpl_pa")
    fake_results.finish_traditional(study, [RUN])
    frame = pd.read_csv(io.StringIO(formats.as_csv(made(study))))
    assert frame["kind"].tolist() == [BEST, LAST] and frame["map_at_r"].tolist() == [60.0, 50.0]
    assert frame["recall_at_50"].tolist() == pytest.approx([85.0, 75.0]) and frame["num_runs"].tolist() == [1, 1]


def test_make_tables_writes_them_beside_those_of_the_other_protocols(compose_study: Compose) -> None:
    study = compose_study(*INSHOP, "loss=hpl_pa")
    fake_results.finish_traditional(study, [RUN])
    fake_results.finish(compose_study("loss=hpl_pa", "protocol.num_runs=1"), [0.4])
    tables.tables(study, [])
    folder = Path(study.config.results_dir) / "tables"
    assert {path.stem for path in folder.iterdir()} == {"inshop-resnet50-traditional", "glyphs-small_conv-hpl"}
    assert "| R@1 | R@10 |" in (folder / "inshop-resnet50-traditional.md").read_text()


@pytest.fixture(scope="module")
def eight_columns(compose_study_in: Compose, tmp_path_factory: pytest.TempPathFactory) -> Table:
    """In-Shop's eight columns with intervals: the widest table there is."""
    results_dir, studies = tmp_path_factory.mktemp("eight"), []
    for number, loss in enumerate(("hpl_pa", "proxy_anchor", "hist")):
        choices = (*INSHOP, f"loss={loss}", "protocol.num_runs=2", "protocol.held_out=0.1")
        studies.append(compose_study_in(results_dir, *choices))
        lower = {kind: value - number / 100 for kind, value in (RUN | {"held_out": 0.55}).items() if value}
        higher = {kind: value + 0.001 for kind, value in lower.items()}
        fake_results.finish_traditional(studies[-1], [lower, higher])
    return table_of("any", studies)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("where", PAPERS)
def test_the_widest_table_fits_the_page_and_says_what_its_rows_are(
    eight_columns: Table, tmp_path: Path, where: str
) -> None:
    log, text = compiled(tmp_path, formats.latex(eight_columns), PAPERS[where])
    check_log(log)
    if text is None:
        return
    plain = " ".join(text.split())
    assert plain.index(BEST.capitalize()) < plain.index(LAST.capitalize()) < plain.index(HELD_OUT.capitalize())
    # Two runs 0.1 apart: mean in the middle, s / sqrt(2) = 0.05, times 12.7062.
    lines = [line for line in text.splitlines() if re.match(r"\s*HPL-PA\s+\d", line)]
    assert [line.split()[13:15] for line in lines] == [["60.05", "±0.64"], ["50.05", "±0.64"], ["55.05", "±0.64"]]


def test_the_bold_of_latex_is_that_of_each_kind(eight_columns: Table) -> None:
    main, *_ = formats.latex(eight_columns).split(r"\end{table*}")
    lines = main.splitlines()
    assert [line.count(r"\textbf") for line in lines if line.startswith("HPL-PA &")] == [8, 8, 8]
    assert sum(line.count(r"\textbf") for line in lines) == 24
