"""Tables from a results folder that was written by hand: the numbers, what is bold, and what stays empty and why."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark import tables
from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.experiment import spec
from benchmark.report import formats
from benchmark.report.table import Published, Table
from benchmark.report.table_layout import Layout, Line
from benchmark.study import opening
from benchmark.study.study import Study
from tests import fake_results
from tests.command_line import run
from tests.report.test_formats import table_of
from tests.study import examples

Compose = Callable[..., Study]
FOUR = ("dataset=glyphs_small", "protocol.num_runs=4")
RUNS = [0.40, 0.42, 0.44, 0.46]

pytestmark = pytest.mark.usefixtures("no_fsync")


def the_table(results_dir: Path, name: str = "glyphs_small-small_conv-hpl", columns: str = ".*") -> pd.DataFrame:
    table = pd.read_csv(results_dir / "tables" / f"{name}.csv", index_col="loss", keep_default_na=False, na_values=[""])
    return table.filter(regex=columns)


def write_tables(study: Study) -> Path:
    tables.tables(study, [])
    return Path(study.config.results_dir)


def made(studies: list[Study], **layout: Any) -> Table:
    return table_of("any", studies, Layout(**layout))


def test_a_cell_is_the_mean_and_the_t_interval_worked_out_by_hand(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_pa", *FOUR)
    fake_results.finish(study, RUNS)
    row = the_table(write_tables(study)).loc["hpl_pa"]
    # In percent 40, 42, 44, 46: mean 172 / 4 = 43. Deviations -3, -1, 1, 3, squares 9 + 1 + 1 + 9 = 20,
    # s = sqrt(20 / 3) = 2.581989, s / sqrt(4) = 1.290994; Student's t with 3 degrees of freedom, 97.5 %: 3.182446;
    # 3.182446 * 1.290994 = 4.108520. P@1 lies 30 points above MAP@R, RP 10; separated 5 below concatenated.
    means = {"map_at_r": 43.0, "precision_at_1": 73.0, "r_precision": 53.0}
    for metric, mean in means.items():
        for mode, lower in (("concatenated", 0.0), ("separated", 5.0)):
            assert row[f"{mode}_{metric}"] == pytest.approx(mean - lower, abs=1e-9)
            assert row[f"{mode}_{metric}_half_width"] == pytest.approx(4.108520, abs=2e-6)
    assert row["num_runs"] == 4 and row["label"] == "HPL-PA" and pd.isna(row["reason"])


def test_the_interval_has_the_protocols_confidence(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_pa", *FOUR, "protocol.confidence=0.9")
    fake_results.finish(study, RUNS)
    table = made([study])
    # 95 % quantile of Student's t with 3 degrees of freedom: 2.353363; * 1.290994 = 3.038179.
    assert table.rows[0].cells["separated", "map_at_r"].half_width == pytest.approx(3.038179, abs=2e-6)
    assert table.sections[0].notes()[0].startswith("Mean +- 90 % t-interval over n = 4 runs, in percent")


def test_the_heads_name_the_two_modes_and_their_dimensions(compose_study: Compose) -> None:
    study = compose_study(*FOUR)
    fake_results.start(study)
    assert made([study]).sections[0].heads() == {"Concatenated (512-d)": 3, "Separated (128-d)": 3}
    other = compose_study(*FOUR, "protocol.embedding_dim=64", "protocol.num_folds=3", "variant=other")
    fake_results.start(other)
    assert made([other]).sections[0].heads() == {"Concatenated (192-d)": 3, "Separated (64-d)": 3}


def markdown_rows(text: str) -> dict[str, list[str]]:
    """The rows of the main table by label; further tables repeat the labels."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("|"):
            label, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows.setdefault(label, cells)
    return rows


def test_a_row_that_is_better_in_every_run_is_bold_alone(compose_study: Compose) -> None:
    high, low = (compose_study(f"loss={loss}", *FOUR) for loss in ("hpl_pa", "proxy_nca"))
    fake_results.finish(low, RUNS)
    fake_results.finish(high, [value + 0.001 for value in RUNS])
    rows = markdown_rows(formats.markdown(made([low, high])))
    assert rows["HPL-PA"] == [
        "**43.10** ± 4.11", "**73.10** ± 4.11", "**53.10** ± 4.11",
        "**38.10** ± 4.11", "**68.10** ± 4.11", "**48.10** ± 4.11",
    ]  # fmt: skip
    assert rows["ProxyNCA"] == [
        "43.00 ± 4.11", "73.00 ± 4.11", "53.00 ± 4.11", "38.00 ± 4.11", "68.00 ± 4.11", "48.00 ± 4.11",
    ]  # fmt: skip


def test_rows_that_cannot_be_told_from_the_best_are_bold_together(compose_study: Compose) -> None:
    studies = [compose_study(f"loss={loss}", *FOUR) for loss in ("hpl_pa", "proxy_nca", "contrastive")]
    # The second is 2, -2, 2 and -3 points above the first, the third 9, 11, 10 and 10 points below it.
    for study, more in zip(studies, ([0] * 4, [2, -2, 2, -3], [-9, -11, -10, -10]), strict=True):
        fake_results.finish(study, [value + extra / 100 for value, extra in zip(RUNS, more, strict=True)])
    table = made(studies)
    rows = markdown_rows(formats.markdown(table))
    assert rows["HPL-PA"][0] == "**43.00** ± 4.11" and rows["ProxyNCA"][0].startswith("**42.75** ± ")
    assert rows["Contrastive"][0].startswith("33.00 ± ")
    assert (
        "Bold: the rows that cannot be told from the best one of a column (paired t-tests"
        in table.sections[0].notes()[0]
    )
    csv_rows = list(csv.DictReader(io.StringIO(formats.as_csv(table))))
    assert [row["concatenated_map_at_r_in_best_group"] for row in csv_rows] == ["1", "1", "0"]


def test_one_run_has_a_mean_no_interval_and_is_never_bold(compose_study: Compose) -> None:
    studies = [compose_study(f"loss={loss}", "protocol.num_runs=1") for loss in ("hpl_pa", "proxy_nca")]
    for study, value in zip(studies, (0.4, 0.1), strict=True):
        fake_results.finish(study, [value])
    table = made(studies)
    rows = markdown_rows(text := formats.markdown(table))
    assert rows["HPL-PA"][0] == "40.00" and r"\textbf" not in formats.latex(table)
    statistic = table.sections[0].notes()[0]
    assert (
        statistic.startswith("Mean over n = 1 run, in percent") and "Bold" not in statistic and "noise" not in statistic
    )
    assert "| HPL-PA | ProxyNCA |" not in text and "| ProxyNCA | HPL-PA | -30.00 |" in text and "t-test" not in text


def check_empty(table: Table, label: str) -> None:
    assert markdown_rows(formats.markdown(table))[label] == [""] * 6
    line = next(line for line in formats.latex(table).splitlines() if line.startswith(f"{label} &"))
    assert re.sub(r"[&\s]", "", line) == re.sub(r"\s", "", label) + r"\\"
    row = pd.read_csv(io.StringIO(formats.as_csv(table)), index_col="label").loc[label]
    assert row.filter(regex="^(concatenated|separated)_").isna().all()


def test_a_row_with_missing_runs_is_empty_and_names_them_and_the_command(compose_study: Compose) -> None:
    study, other = (compose_study(f"loss={loss}", *FOUR) for loss in ("hpl_pa", "proxy_nca"))
    fake_results.finish(study, [0.9, None, 0.9, None])  # the best, had it been there
    fake_results.finish(other, RUNS)
    table = made([study, other])
    check_empty(table, "HPL-PA")
    reason = f"2 of 4 runs are missing: 1, 3; make final-eval STUDY={study.directory}"
    assert table.sections[0].notes()[1] == f"HPL-PA: {reason}"
    assert table.rows[0].reason == reason and table.rows[0].num_runs == 2
    assert markdown_rows(formats.markdown(table))["ProxyNCA"][0] == "43.00 ± 4.11"
    assert "n = 4 runs" in table.sections[0].notes()[0]


def test_a_failed_run_stays_missing_and_says_why(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_pa", *FOUR)
    fake_results.finish(study, [0.9, "fold 2: the training loss is nan in epoch 1", 0.9, None])
    table = made([study])
    check_empty(table, "HPL-PA")
    assert table.rows[0].reason == (
        "run_01 has no score (fold 2: the training loss is nan in epoch 1); "
        f"1 of 4 runs is missing: 3; make final-eval STUDY={study.directory}"
    )
    fake_results.finish(study, {3: 0.9})
    assert made([study]).rows[0].reason == "run_01 has no score (fold 2: the training loss is nan in epoch 1)"
    assert made([study]).sections[0].notes()[0] == "No row is complete yet."


def test_runs_without_a_score_for_the_same_reason_are_named_together(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_pa", "protocol.num_runs=9")
    fake_results.finish(study, ["diverged", 0.9, "diverged", "diverged", "a full moon"])
    assert made([study]).rows[0].reason == (
        "runs 0, 2, 3 have no score (diverged); run_04 has no score (a full moon); 4 of 9 runs are missing: 5-8; "
        f"make final-eval STUDY={study.directory}"
    )


def test_a_damaged_run_is_missing(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_pa", *FOUR)
    fake_results.finish(study, RUNS)
    path = study.directory / "final_eval" / "trial_003" / "run_02.json"
    path.write_text(path.read_text().replace("0.44", "0.94"))
    (row,) = made([study]).rows
    assert row.reason.startswith(f"{path} ") and "1 of 4 runs is missing: 2; make final-eval STUDY=" in row.reason


def test_runs_of_another_trial_than_the_chosen_one_do_not_count(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_pa", *FOUR)
    fake_results.finish(study, RUNS)
    (study.directory / "final_eval" / "trial_003").rename(study.directory / "final_eval" / "trial_004")
    assert made([study]).rows[0].reason.startswith("4 of 4 runs are missing: 0-3")


def test_an_unfinished_search_is_named_with_its_command(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_pa", *FOUR, "protocol=mlrc_2020", "variant=wide")
    fake_results.start(study, trials=range(5))
    table = made([study])
    check_empty(table, "HPL-PA (wide)")
    assert table.rows[0].reason == (
        f"Its search has 5 of 50 trials. Run make bo final-eval STUDY={study.directory} to finish it."
    )


OTHERWISE = (
    "dataset=glyphs_small", "protocol.num_runs=2", "trunk.width=512", "protocol.batch_size=512",
    "dataset.max_epochs=40", "protocol.embedding_dim=512", "seed=7", "training.optimizers.trunk.lr=0.5",
)  # fmt: skip


@pytest.mark.slow
def test_a_row_with_another_configuration_stands_in_a_table_of_its_own(
    compose_study: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/report/test_comparison.py changes one value at a time."""
    alike = [compose_study(f"loss={loss}", *FOUR) for loss in ("proxy_nca", "contrastive")]
    other = compose_study("loss=hpl_pa", *OTHERWISE)
    for study, more in zip(alike, (0.0, 0.01), strict=True):
        fake_results.finish(study, [value + more for value in RUNS])
    monkeypatch.setattr(examples, "FINGERPRINT", "another")
    fake_results.finish(other, [value + 0.2 for value in RUNS[:2]])
    table = made([other, *alike])
    main, apart = table.sections
    assert [row.label for row in main.rows] == ["ProxyNCA", "Contrastive"] and main.differences == []
    assert [row.label for row in apart.rows] == ["HPL-PA"]
    assert apart.differences[0].startswith('data fingerprint: "another" here, ')
    assert apart.differences[1] == "number of runs: 2 here, 4 in the first table"
    assert apart.differences[-1].startswith("and ") and len(apart.differences) == 6
    above, below = formats.markdown(table).split("Not comparable with the first table: ")
    assert "| Contrastive | **44.00** ± 4.11 |" in above and "n = 4 runs" in above and "(2048-d)" not in above
    assert "| HPL-PA | 61.00 ± " in below and "n = 2 runs" in below and "(2048-d)" in below
    lines = list(csv.DictReader(io.StringIO(formats.as_csv(table))))
    assert [(line["part"], line["label"]) for line in lines] == [
        ("1", "ProxyNCA"),
        ("1", "Contrastive"),
        ("2", "HPL-PA"),
    ]


@pytest.mark.slow
def test_another_budget_is_a_footnote_and_a_copied_folder_has_no_row(compose_study: Compose) -> None:
    first, second = (compose_study(f"loss={loss}", *FOUR) for loss in ("proxy_nca", "hpl_pa"))
    for study in (first, second):
        fake_results.finish(study, RUNS)
    more, copy = (Study.of(second.raw | {"variant": variant}) for variant in ("more", "copy"))
    for study in (more, copy):
        fake_results.finish(study, RUNS)
    fake_results.opened(Study.of(more.raw | {"trials": 9}))
    (section,) = made([first, second, more, copy]).sections
    assert [row.name for row in section.rows] == ["proxy_nca", "hpl_pa", "hpl_pa-more"]
    notes = [note for note in section.notes() if note.startswith("Number of trials") or "copy" in note]
    assert len(notes) == 2 and notes[1].startswith("hpl_pa-copy is left out: it is a copy of hpl_pa")
    assert notes[0] == "Number of trials: 4 for ProxyNCA, HPL-PA; 9 for HPL-PA (more)."


@pytest.mark.slow
def test_the_rows_of_an_experiment_come_in_its_order_and_a_loss_that_was_not_run_is_named(
    compose_study: Compose,
) -> None:
    experiment = spec.read("glyphs")
    losses, missing = [entry.loss for entry in experiment.studies], "hpl_nca_eq3"
    for loss in reversed([loss for loss in losses if loss != missing]):
        fake_results.finish(compose_study(f"loss={loss}", "protocol.num_runs=2"), RUNS[:2])
    fake_results.finish(compose_study("loss=hpl_pa", "variant=wide"), RUNS * 2 + RUNS[:2])
    results_dir = write_tables(compose_study())
    table = the_table(results_dir, "glyphs-small_conv-hpl")
    assert table.index.tolist() == [*losses, "hpl_pa-wide"] and table["part"].tolist() == [1] * 9 + [2]
    assert table.loc[missing, "label"] == "HPL-NCA (Eq. 3)"
    options = f"LOSS={missing} DATASET=glyphs TRUNK=small_conv ARGS=results_dir={results_dir}"
    assert table.loc[missing, "reason"] == f"not run; make bo final-eval {options}"
    assert table["concatenated_map_at_r"].isna().tolist() == [loss == missing for loss in table.index]
    text = (results_dir / "tables" / "glyphs-small_conv-hpl.md").read_text()
    assert text.startswith(experiment.title)
    main, other = text.split("Not comparable with the first table: number of runs: 10 here, 2 in the first table")
    assert "n = 2 runs" in main and "n = 10 runs" in other and "| HPL-PA (wide) | 42.60 ± " in other


def test_a_layout_chooses_rows_labels_columns_and_quotes(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_pa", *FOUR)
    fake_results.finish(study, RUNS)
    cell = Published(41.5, None, "T3")
    key = ("concatenated", "map_at_r")
    lines = [
        Line("", "HTL", {key: Published(30.0, 0.5, "T3")}),
        Line("hpl_pa", "Ours", {key: cell}),
        Line("hpl_pa-p48", "Ours, 48", {key: cell}, command="make bo LOSS=hpl_pa ARGS=variant=p48"),
    ]
    table = made([study], lines=lines, columns=[key, ("separated", "r_precision")], caption="Mine.", warning="Not so.")
    assert [(row.label, row.is_quoted) for row in table.rows] == [("HTL", True), ("Ours", False), ("Ours, 48", False)]
    assert [column.key for column in table.sections[0].columns] == [key, ("separated", "r_precision")]
    rows = markdown_rows(text := formats.markdown(table))
    assert rows["*HTL* <sup>q</sup>"] == ["30.00 ± 0.50", ""] and rows["Ours"][0] == "43.00 ± 4.11"
    assert text.startswith("**Not so.**\n\nMine.") and "| Ours | 41.50 (+1.50) |" in text
    assert table.rows[2].reason == "not run; make bo LOSS=hpl_pa ARGS=variant=p48" and "| Ours, 48 | 41.50 |" in text


@pytest.mark.slow
def test_a_row_has_the_base_of_its_loss_its_line_or_its_layout(compose_study: Compose) -> None:
    studies = [compose_study(f"loss={loss}", *FOUR) for loss in ("hpl_pa", "proxy_anchor", "contrastive")]
    for study, more in zip(studies, (0.0, -0.1, 0.1), strict=True):
        fake_results.finish(study, [value + more for value in RUNS])

    def bases(**layout: Any) -> dict[str, str]:
        return {row.name: row.compared.name if row.compared else "" for row in made(studies, **layout).rows}

    assert bases() == {"hpl_pa": "proxy_anchor", "proxy_anchor": "contrastive", "contrastive": ""}
    assert bases(lines=[Line("hpl_pa", base="contrastive")])["hpl_pa"] == "contrastive"
    of_layout = bases(base="proxy_anchor")
    assert of_layout == {"hpl_pa": "proxy_anchor", "proxy_anchor": "contrastive", "contrastive": "proxy_anchor"}
    assert bases(base="not_there") == bases()


def test_a_row_is_compared_with_its_base_in_the_same_batches_or_a_footnote_says_that_they_differ(
    compose_study: Compose,
) -> None:
    def note(table: Table) -> str:
        return next((text for text in table.sections[0].footnotes if "batches" in text), "")

    own, base, other, matched = (
        compose_study(*overrides, *FOUR)
        for overrides in (
            ("loss=tcm_proxy_anchor",),
            ("loss=proxy_anchor",),
            ("loss=proxy_anchor", "variant=soft", "loss.setting.alpha=16.0"),
            ("loss=proxy_anchor", "variant=m4", "loss.sampler.m=4"),
        )
    )
    for study in (own, base, other, matched):
        fake_results.finish(study, RUNS)
    table = made([own, other, base])
    assert table.rows[0].compared and table.rows[0].compared.name == "proxy_anchor"
    assert "Proxy-Anchor + TCM (m=4, Proxy-Anchor 1)." in note(table)
    table = made([own, other, base, matched])
    assert table.rows[0].compared and table.rows[0].compared.name == "proxy_anchor-m4" and note(table) == ""


def test_the_csv_holds_every_digit(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_pa", *FOUR)
    runs = [0.1234567890123456, 0.2, 1 / 3, 0.7071067811865476]
    fake_results.finish(study, runs)
    table = made([study])
    row = next(csv.DictReader(io.StringIO(formats.as_csv(table))))
    for (mode, metric), interval in table.rows[0].cells.items():
        assert float(row[f"{mode}_{metric}"]) == interval.mean
        assert float(row[f"{mode}_{metric}_half_width"]) == interval.half_width
    assert float(row["concatenated_map_at_r"]) == pytest.approx(25 * sum(runs), rel=1e-15)


@pytest.mark.slow
def test_there_is_a_table_for_each_data_set_and_protocol(compose_study: Compose, capsys: Any) -> None:
    for choice in ("dataset=glyphs", "dataset=glyphs_small", "protocol=mlrc_2020"):
        fake_results.finish(compose_study("loss=hpl_pa", choice, "protocol.num_runs=4"), RUNS)
    results_dir = write_tables(compose_study())
    names = ["glyphs-small_conv-hpl", "glyphs-small_conv-mlrc_2020", "glyphs_small-small_conv-hpl"]
    assert sorted(p.name for p in (results_dir / "tables").iterdir()) == [
        f"{name}.{ending}" for name in names for ending in ("csv", "md", "tex")
    ]
    said = capsys.readouterr().out
    assert all(f"wrote {results_dir}/tables/{name}.tex" in said for name in names)
    assert "Glyphs (small), protocol hpl." in said and "| HPL-PA | 43.00 ± 4.11 |" in said


def test_the_same_records_make_the_same_files(compose_study: Compose) -> None:
    fake_results.finish(compose_study("loss=hpl_pa", *FOUR), RUNS)
    folder = write_tables(compose_study()) / "tables"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_tables(compose_study())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_without_a_study_it_says_what_to_run_first(compose_study: Compose) -> None:
    with pytest.raises(UserError, match=r"There are no studies to read in .*results/studies\. Run make bo"):
        tables.tables(compose_study(), [])


def test_the_table_of_a_named_study_does_not_replace_that_of_its_group(
    compose_study: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (compose_study(*FOUR, f"loss={loss}") for loss in ("proxy_nca", "contrastive"))
    for study in (first, second):
        fake_results.finish(study, RUNS)
    results_dir = write_tables(first)
    before = {path: path.read_bytes() for path in (results_dir / "tables").iterdir()}
    capsys.readouterr()
    write_tables(Study.of(first.raw | {"study": str(second.directory)}))
    assert {path: path.read_bytes() for path in (results_dir / "tables").iterdir()} == before
    assert "Contrastive" in (printed := capsys.readouterr().out) and "ProxyNCA" not in printed


def test_tables_of_a_folder_that_cannot_be_written_are_printed(
    compose_study: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = compose_study()
    fake_results.finish(study, [0.5, 0.6])

    def refuse(path: Path, data: bytes) -> None:
        raise records.WriteError(f"Cannot write {path}: the folder cannot be written.")

    monkeypatch.setattr(records, "write_whole", refuse)
    ended = run(tables.tables, f"results_dir={study.config.results_dir}")
    assert ended.status == 2 and "| Loss |" in ended.out and "the folder cannot be written" in ended.err


def test_a_study_that_asks_for_endless_runs_has_a_short_row(compose_study: Compose) -> None:
    study = compose_study("dataset=glyphs_small", "loss=proxy_nca", f"protocol.num_runs={2**53}", "preset=default")
    opening.open_study(study, "final-eval", "0123456789abcdef")
    (row,) = made([study]).rows
    assert row.reason.startswith(f"{2**53:,} of {2**53:,} runs are missing: 0-{2**53 - 1}; make final-eval ")
