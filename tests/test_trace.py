"""From a cell of a table to its records, and intervals over the test classes, each of which is logged."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark import trace
from benchmark.core import records
from benchmark.protocol.modes import score
from benchmark.protocol.retrieval import retrieval_metrics
from benchmark.report import fold_rows
from benchmark.study import layout
from benchmark.study.stored import read_study
from benchmark.study.study import Study
from tests import fake_results
from tests.command_line import assert_refused, run

Compose = Callable[..., Study]
RUNS = [0.40, 0.42, 0.44, 0.46]
GROUP = "glyphs_small-small_conv-hpl"

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def study(compose_study: Compose) -> Study:
    study = compose_study("dataset=glyphs_small", "loss=hpl_pa", "protocol.num_runs=4")
    fake_results.finish(study, list(RUNS))
    return study


def traced(study: Study, cell: str, *overrides: str):
    return run(trace.trace, f"cell={cell}", f"results_dir={study.config.results_dir}", *overrides)


def test_the_table_s_number_follows_from_the_values_that_are_printed(study: Study) -> None:
    (row,) = fold_rows.rows(read_study(study.directory), study.directory)
    for column in (("concatenated", "map_at_r"), ("separated", "r_precision")):
        ended = traced(study, f"{GROUP}/hpl_pa/{'_'.join(column)}")
        assert ended.status == 0, ended
        values = [float(value) for value in re.findall(r"run \d+ (\d+\.\d{4})", ended.out)]
        assert np.mean(values) == pytest.approx(row.cells[column].mean, abs=1e-4)
        half = 3.182446 * np.std(values, ddof=1) / 2  # Student's t with 3 degrees of freedom, 97.5 %
        assert f"{np.mean(values):.2f} +- {half:.2f} (n = 4)" in ended.out


def test_records_trial_setting_and_origin_are_printed(study: Study) -> None:
    out = traced(study, f"{GROUP}/hpl_pa/concatenated.map_at_r").out
    record = records.read_record(layout.run_path(study.directory, "trial_003", 1))
    row = next(line.split("\t") for line in out.splitlines() if line.startswith("1\t"))
    assert row[1:4] == [str(layout.run_path(study.directory, "trial_003", 1)), "ok", record.provenance["commit"]]
    assert row[4] == record.identity["code"][0][:12] and row[5] == "cpu (a processor)"
    assert "trial 4 of 4, chosen by the rule raw, validation MAP@R 40.00 +- 0.00" in out
    assert "trial_003.json: checksum ok" in out and "  x = 1" in out
    assert f"data {fake_results.examples.FINGERPRINT}" in out and "seed 0" in out
    assert f"torch {record.provenance['versions']['torch']}" in out


def test_a_damaged_record_is_named_and_the_cell_has_no_mean(study: Study) -> None:
    path = layout.run_path(study.directory, "trial_003", 2)
    path.write_bytes(path.read_bytes().replace(b"0.44", b"0.99"))
    out = traced(study, f"{GROUP}/hpl_pa/concatenated.map_at_r").out
    assert re.search(r"^2\t.*\tnot usable", out, re.MULTILINE) and f"\n{path}" in out
    assert "1 of 4 values is missing: 2; the table" in out and "+- half" not in out


def test_errors_name_the_nearest_table_row_and_column(study: Study) -> None:
    assert_refused(traced(study, "glyphs_small-small_conv-hpi/hpl_pa/x"), f"Did you mean {GROUP}?")
    assert_refused(traced(study, f"{GROUP}/hpl_pe/x"), "Did you mean hpl_pa?")
    assert_refused(traced(study, f"{GROUP}/hpl_pa/concatenated.mapr"), "Did you mean concatenated.map_at_r?")
    assert_refused(run(trace.trace), "TABLE/ROW/COLUMN", "STUDY=FOLDER")
    assert_refused(traced(study, str(study.directory)), "is the folder of a study", f"STUDY={study.directory}")
    assert_refused(run(trace.trace, "cell=a/b/c", "study=d"), "TABLE/ROW/COLUMN")


def test_a_folder_shows_every_column(study: Study) -> None:
    out = run(trace.trace, f"study={study.directory}").out
    assert len(re.findall(r"^(?:concatenated|separated)\.\w+, in percent", out, re.MULTILINE)) == 6


def test_repeated_searches_give_the_interval_over_searches(study: Study) -> None:
    again = Path(shutil.copytree(study.directory, study.directory.with_name("hpl_pa-search1")))
    for number, value in enumerate((0.50, 0.52, 0.54, 0.56)):
        path = layout.run_path(again, "trial_003", number)
        record = records.read_record(path)
        result = record.result | {"concatenated": record.result["concatenated"] | {"map_at_r": value}}
        records.write_record(path, records.Record("run", result, record.provenance, record.identity))
    out = traced(study, f"{GROUP}/hpl_pa/concatenated.map_at_r").out
    # Means of the searches 43 and 53: mean 48, s = 7.0711, Student's t with 1 degree of freedom 12.7062, / sqrt(2).
    assert "mean over searches and their runs: 48.00 +- 63.53 (n = 2 searches)" in out
    assert "43.00 +- 4.11 (n = 4)" in out and "search 1: run 0 50.0000, run 1 52.0000" in out


def keep_embeddings(study: Study, run_number: int, seed: int, **more: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Write embeddings beside a run as `final_eval` does, with more arrays."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(12).repeat_interleave(6)
    embeddings = (torch.randn(12, 8, generator=generator)[labels] + torch.randn(4, 72, 8, generator=generator)).half()
    buffer = io.BytesIO()
    np.savez(buffer, embeddings=embeddings.numpy(), labels=labels.numpy(), **more)  # type: ignore[arg-type]
    folder = layout.run_dir(study.directory, "trial_003", run_number)
    folder.mkdir()
    (folder / "embeddings.npz").write_bytes(buffer.getvalue())
    return embeddings.float(), labels


def ledger_of(study: Study) -> list[dict[str, object]]:
    path = study.directory / "test_ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_intervals_over_classes_surround_the_metric_of_the_kept_embeddings_and_are_logged(study: Study) -> None:
    kept = {number: keep_embeddings(study, number, seed=number) for number in (1, 3)}
    ended = traced(study, f"{GROUP}/hpl_pa", "bootstrap=200")
    assert ended.status == 0, ended
    rows = [line.split("\t") for line in ended.out.splitlines() if " to " in line and "\t" in line]
    assert len(rows) == 2 * 6
    for column, number, _, mean, interval, classes in rows:
        mode, _, metric = column.partition(".")
        expected = score(*kept[int(number)], [metric], metric="cosine")[mode][metric]
        low, high = map(float, interval.split(" to "))
        assert float(mean) == pytest.approx(100 * expected, abs=0.006) and low < float(mean) < high
        assert classes == "12"
    assert [(entry["run"], entry["looks"]) for entry in ledger_of(study)] == [
        (1, "bootstrap over classes"), (3, "bootstrap over classes")
    ]  # fmt: skip


def test_a_traditional_run_has_intervals_for_the_epoch_whose_embeddings_it_keeps(compose_study: Compose) -> None:
    study = compose_study("dataset=glyphs_small", "protocol=traditional", "loss=hpl_pa", "protocol.num_runs=1")
    fake_results.finish_traditional(study, [{"best_on_test": 0.5, "last_epoch": 0.4}])
    folder = layout.traditional_path(study.directory, "", 0).with_suffix("")
    folder.mkdir()
    embeddings, labels = torch.randn(1, 40, 4), torch.arange(40) % 8
    np.savez(folder / "embeddings.npz", embeddings=embeddings.numpy(), labels=labels.numpy())
    ended = run(trace.trace, f"study={study.directory}", "bootstrap=50")
    assert ended.status == 0, ended
    rows = {line.split("\t")[0]: line.split("\t") for line in ended.out.splitlines() if " to " in line and "\t" in line}
    assert rows.keys() == {f"best_on_test.{n}" for n in ("recall_at_1", "recall_at_2", "recall_at_4", "recall_at_8",
                                                         "map_at_r", "r_precision")}  # fmt: skip
    expected = retrieval_metrics(embeddings[0], labels, recall_at=(2,))
    assert float(rows["best_on_test.recall_at_2"][3]) == pytest.approx(100 * expected["recall_at_2"], abs=0.006)
    assert_refused(run(trace.trace, f"cell={study.directory.parent.name}/hpl_pa/last_epoch.map_at_r", "bootstrap=50",
                       f"results_dir={study.config.results_dir}"), "best_on_test alone")  # fmt: skip


def map_at_r(x: np.ndarray, labels: np.ndarray, query: int) -> float:
    """MAP@R of one query among the others, by a sort of all."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[query]), kind="stable")
    hits = (labels == labels[query])[order[order != query]][:5]  # R = 5
    return float(sum(hits[i] * hits[: i + 1].mean() for i in range(5)) / 5)


def test_the_classes_with_the_lowest_scores_are_listed_and_the_access_is_logged(study: Study) -> None:
    kept = {number: keep_embeddings(study, number, seed=number) for number in (1, 3)}
    ended = traced(study, f"{GROUP}/hpl_pa/separated.map_at_r", "classes=5")
    rows = [line.split("\t") for line in ended.out.splitlines() if line.startswith("separated.map_at_r\t")]
    expected = []
    for c in range(12):
        own = range(6 * c, 6 * c + 6)
        each = [
            100 * np.mean([[map_at_r(x, labels.numpy(), query) for query in own] for x in models.numpy()])
            for models, labels in kept.values()
        ]
        expected.append((np.mean(each), c, min(each), max(each)))
    assert len(rows) == 5
    for row, (mean, c, low, high) in zip(rows, sorted(expected), strict=False):
        assert row[1:] == [str(c), "-", "6", f"{mean:.2f}", f"{low:.2f} to {high:.2f}"]
    assert [(entry["run"], entry["looks"]) for entry in ledger_of(study)] == [
        (1, "scores of classes"), (3, "scores of classes")
    ]  # fmt: skip


def test_the_classes_are_listed_by_name_where_a_run_kept_them_and_a_name_cannot_break_the_table(study: Study) -> None:
    names = np.array([f"letter {c}\t" for c in range(12)])
    keep_embeddings(study, 1, 1, class_ids=np.arange(12), class_names=names)
    keep_embeddings(study, 3, 3)  # of an older version
    ended = traced(study, f"{GROUP}/hpl_pa/concatenated.map_at_r", "classes=12")
    rows = [line.split("\t") for line in ended.out.splitlines() if line.startswith("concatenated.map_at_r\t")]
    assert len(rows) == 12 and all(len(row) == 6 and row[2].startswith(f"letter {row[1]}") for row in rows)


def test_without_bootstrap_no_test_embedding_is_read_and_nothing_is_logged(study: Study) -> None:
    keep_embeddings(study, 0, seed=0)
    (layout.run_dir(study.directory, "trial_003", 0) / "embeddings.npz").write_bytes(b"unreadable")
    assert traced(study, f"{GROUP}/hpl_pa").status == 0 and ledger_of(study) == []


def test_embeddings_that_are_missing_or_of_another_run_are_refused(study: Study) -> None:
    assert_refused(traced(study, f"{GROUP}/hpl_pa", "bootstrap=10"), "kept its embeddings", "final-eval")
    assert_refused(traced(study, f"{GROUP}/hpl_pa", "bootstrap=1"), "bootstrap=1", "1000")
    assert_refused(traced(study, f"{GROUP}/hpl_pa", "bootstrap=-3"), "bootstrap")
    keep_embeddings(study, 0, seed=0)
    path = layout.run_path(study.directory, "trial_003", 0)
    record = records.read_record(path)
    records.write_record(
        path, records.Record("run", record.result, record.provenance | {"embeddings_sha256": "ab"}, record.identity)
    )
    assert_refused(traced(study, f"{GROUP}/hpl_pa", "bootstrap=10"), "is not the file")


def test_a_ledger_that_cannot_be_written_keeps_the_test_embeddings_closed(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_embeddings(study, 0, seed=0)
    (study.directory / "test_ledger.jsonl").mkdir()
    opened: list[Path] = []
    monkeypatch.setattr("benchmark.report.figures.kept.read", lambda path: opened.append(path))
    assert_refused(traced(study, f"{GROUP}/hpl_pa", "bootstrap=10"), "test_ledger.jsonl")
    assert opened == []


def test_a_repetition_that_the_table_leaves_out_is_left_out(compose_study: Compose) -> None:
    first = compose_study("dataset=glyphs_small", "loss=hpl_pa", "protocol.num_runs=2")
    fake_results.finish(first, [0.4, 0.5])
    more = compose_study("dataset=glyphs_small", "loss=hpl_pa", "protocol.num_runs=3", "search=1")
    fake_results.finish(more, [0.4, 0.5, 0.6])
    out = traced(first, f"{GROUP}/hpl_pa/concatenated.map_at_r").out
    assert "hpl_pa-search1 is left out: it has 3 runs, not 2" in out and "mean over searches" not in out


def test_an_unfinished_search_has_runs_but_no_cell(study: Study, compose_study: Compose) -> None:
    fake_results.start(
        compose_study("dataset=glyphs_small", "loss=hpl_pa", "protocol.num_runs=4", "trials=8"), range(6)
    )
    out = traced(study, f"{GROUP}/hpl_pa/concatenated.map_at_r").out
    assert (
        "the table's cell stays empty: Its search has 6 of 8 trials" in out and "+-" not in out.split("in percent: ")[1]
    )


def test_searches_without_a_score_have_no_mean(compose_study: Compose) -> None:
    studies = [
        compose_study("dataset=glyphs_small", "loss=hpl_pa", "protocol.num_runs=2", f"search={n}") for n in (0, 1)
    ]
    for study in studies:
        fake_results.finish(study, ["diverged", "diverged"])
    ended = traced(studies[0], f"{GROUP}/hpl_pa/concatenated.map_at_r")
    assert (
        ended.status == 0
        and "there is no mean over searches: they have different runs, or none with a score" in ended.out
    )
