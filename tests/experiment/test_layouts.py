"""The layout that an experiment gives its table, and which experiment describes a group of studies."""

import csv
import dataclasses
import functools
import io
from pathlib import Path

import msgspec
import pytest
import yaml

from benchmark.core.paths import experiments_dir
from benchmark.experiment import published, spec
from benchmark.experiment.layouts import describing, layout_of
from benchmark.experiment.selected import selected
from benchmark.report.formats import as_csv
from benchmark.report.group_table import Entry, make_table, read_entry
from benchmark.report.table_layout import Layout
from tests.cases import slow_except
from tests.experiment.test_spec import parsed

GLYPHS = "glyphs-small_conv-hpl"
RESULTS = Path(__file__).parents[2] / "results"
STUDIES = {
    "search": RESULTS / "reference/studies/glyphs-small_conv-hpl/hpl_pa",
    "traditional": RESULTS / "traditional/studies/glyphs-small_conv-traditional/hpl_pa",
}


def test_a_table_has_the_quoted_methods_and_then_the_studies_with_their_published_numbers(tmp_path: Path) -> None:
    layout = layout_of(parsed(tmp_path), "cars196", warning="Not for reporting.")
    quoted, base, first, _ = layout.lines
    assert (quoted.study, quoted.label, quoted.published[("recall_at_1",)].value) == ("", "Proxy-NCA", 82.8)
    assert (base.study, first.study) == ("proxy_nca-recipe_hpl", "hpl_nca-p10_t10")
    assert first.published[("recall_at_1",)].source == "HPL_supp_Fig2" and layout.warning == "Not for reporting."
    assert layout.caption == "Cars-196, Cars", "one of several data sets is named"
    assert layout_of(spec.read("hpl_table_3"), "cub").caption == spec.read("hpl_table_3").title


def test_what_differs_from_the_paper_is_captioned_by_what_is_run() -> None:
    own = selected("hist_table_7", [])
    assert own.caption("cars196") == own.experiment.title
    origin = "the studies of Lim et al., CVPR 2022, supplement, table 7."
    small = selected("hist_table_7", ["dataset=glyphs", "budget=small"])
    on_glyphs = f"Glyphs, trunk small_conv, protocol traditional: {origin[:-1]}, on a small budget."
    assert small.caption("glyphs") == on_glyphs
    other = selected("hist_table_7", ["trunk=bn_inception"])
    assert other.caption("cars196") == f"Cars-196, trunk bn_inception, protocol traditional: {origin}"
    named = selected("glyphs", ["dataset=csv", "dataset.label='My birds'"]).caption("csv")
    assert named == "My birds, trunk bn_inception, protocol hpl: the studies of the experiment glyphs."


def test_a_missing_variant_is_named_with_all_its_options(tmp_path: Path) -> None:
    line = layout_of(parsed(tmp_path), "cars196").lines[2]
    assert line.command.startswith("make traditional ")
    words = set(line.command.replace('"', " ").replace("'", " ").split())
    assert {"DATASET=cars196", "LOSS=hpl_nca", "loss.setting.num_coarse=10", "loss.setting.update_every=10"} <= words
    assert layout_of(spec.read("glyphs"), "glyphs").lines[0].command == ""


@pytest.mark.parametrize("folder", ["results/classes", "/any/classes"])
def test_the_command_of_a_missing_variant_leads_to_the_folder_that_is_tabulated(folder: str) -> None:
    for place in (Path(folder), Path(folder).absolute()):
        line = describing("glyphs-small_conv-traditional", place, []).lines[0]
        assert line.command.endswith(f" protocol.held_out=0.0 results_dir={folder}'")
    assert "results_dir" not in layout_of(spec.read("glyphs_classes"), "glyphs").lines[0].command


def test_columns_are_keys_of_metrics() -> None:
    layout = layout_of(spec.read("hpl_table_4_sop"), "sop")
    assert layout.columns[0] == ("recall_at_1",)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("results", "glyphs"), ("anything", "glyphs"), ("reference", "glyphs"), ("one_of_each", "glyphs_one_of_each"),
     ("glyphs_one_of_each", "glyphs_one_of_each")],
)  # fmt: skip
def test_the_folder_decides_which_experiment_describes_a_group(folder: str, expected: str) -> None:
    results_dir = Path("somewhere") / folder
    layout = describing(GLYPHS, results_dir, ["proxy_nca"])
    assert layout == layout_of(spec.read(expected), "glyphs", results_dir=results_dir)


def test_of_several_experiments_the_one_with_most_studies_there_describes_the_group() -> None:
    group, names = "sop-resnet50-traditional", {}
    for name in spec.names():
        experiment = spec.read(name)
        if "sop" in experiment.datasets and experiment.group("sop") == group:
            names[name] = {member.folder_name for member in experiment.members("sop")}
    most = max(names, key=lambda name: len(names[name] - set.union(*(o for n, o in names.items() if n != name))))
    assert describing(group, Path("results"), names[most]) == layout_of(spec.read(most), "sop") and len(names) > 1


def test_a_group_that_no_experiment_describes_has_an_empty_layout() -> None:
    assert describing("cub-resnet50-mine", Path("results"), []) == Layout()


@functools.cache
def any_study(story: str) -> Entry:
    """A committed study, under a name that no experiment uses and with every Recall@K that a paper prints."""
    entry = read_entry(STUDIES[story], [STUDIES[story]])
    facts = msgspec.structs.replace if isinstance(entry.stored.facts, msgspec.Struct) else dataclasses.replace
    recall_at = [1, 2, 4, 8, 10, 20, 30, 40, 50, 100, 1000]
    entry.stored.__dict__["facts"] = facts(entry.stored.facts, recall_at=recall_at)
    rows = [dataclasses.replace(row, name="other") for row in entry.rows]
    return dataclasses.replace(entry, rows=rows, depends=dataclasses.replace(entry.depends, name="other"))


PUBLISHED = [name for name in spec.names() if spec.read(name).published]
# One of each paper.
FAST = ("hier_table_2", "hist_table_10", "hpl_table_3", "mlrc_cub", "proxygml_table_1", "since_2020")


@pytest.mark.parametrize("name", slow_except(FAST, PUBLISHED))
def test_every_published_number_stands_in_the_row_and_column_of_its_method(name: str) -> None:
    """The table's CSV is joined with the file of published numbers by the names in the experiment's YAML alone."""
    with published.PATH.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    body = yaml.safe_load((experiments_dir() / f"{name}.yaml").read_text(encoding="utf-8"))
    swept = {
        loss for sweep in body.get("sweep", []) for loss in sweep.get("losses", [s["loss"] for s in body["studies"]])
    }
    methods = {method: f"quoted {method}" for method in body.get("quoted", [])}
    for study in body["studies"]:
        if study["loss"] not in swept and "published" in study:
            folder = "-".join(filter(None, (study["loss"], study.get("preset"), study.get("variant"))))
            methods[study["published"]] = folder
    entry, shown = any_study(spec.read(name).story), 0
    wanted = {column.replace(".", "_") for column in body.get("columns", [])}
    for dataset in body["datasets"]:
        table = make_table(name, [entry], layout_of(spec.read(name), dataset))
        rows = {row["loss"] or f"quoted {row['label']}": row for row in csv.DictReader(io.StringIO(as_csv(table)))
                if row.get("kind") in (None, "", "best epoch on test (as papers report)")}  # fmt: skip
        expected: dict[tuple[str, str], tuple[float, float | None]] = {}
        for source in body["published"]:
            for line in lines:
                method = ", ".join(filter(None, (line["method"], line["variant"])))
                column = "_".join(filter(None, (line["mode"], line["metric"])))
                here = (line["source"], line["dataset"]) == (source, dataset) and column in (wanted or {column})
                if here and method in methods:
                    half_width = float(line["half_width"]) if line["half_width"] else None
                    expected.setdefault((methods[method], column), (float(line["value"]), half_width))
        for (row, column), (value, half_width) in expected.items():
            printed = rows[row][f"{column}_published"], rows[row][f"{column}_published_half_width"]
            assert printed == (str(value), "" if half_width is None else str(half_width)), f"{dataset} {row} {column}"
        found = sum(bool(row[key]) for row in rows.values() for key in row if key.endswith("_published"))
        others = sum(bool(row[key]) for place, row in rows.items() if place.split("-")[0] in swept
                     for key in row if key.endswith("_published"))  # fmt: skip
        assert found - others == len(expected), "nothing else stands there"
        shown += found
    assert shown
