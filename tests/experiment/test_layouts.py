"""The layout that an experiment gives its table, and which experiment describes a group of studies."""

from pathlib import Path

import pytest

from benchmark.experiment import spec
from benchmark.experiment.layouts import describing, layout_of
from benchmark.report.table_layout import Layout
from tests.experiment.test_spec import parsed

GLYPHS = "glyphs-small_conv-hpl"


def test_a_table_has_the_quoted_methods_and_then_the_studies_with_their_published_numbers(tmp_path: Path) -> None:
    layout = layout_of(parsed(tmp_path), "cars196", warning="Not for reporting.")
    quoted, base, first, _ = layout.lines
    assert (quoted.study, quoted.label, quoted.published[("recall_at_1",)].value) == ("", "Proxy-NCA", 82.8)
    assert (base.study, first.study) == ("proxy_nca-recipe_hpl", "hpl_nca-p10_t10")
    assert first.published[("recall_at_1",)].source == "HPL_supp_Fig2" and layout.warning == "Not for reporting."
    assert layout.caption == "Cars"


def test_a_missing_variant_is_named_with_all_its_options(tmp_path: Path) -> None:
    line = layout_of(parsed(tmp_path), "cars196").lines[2]
    assert line.command.startswith("make traditional ")
    words = set(line.command.replace('"', " ").replace("'", " ").split())
    assert {"DATASET=cars196", "LOSS=hpl_nca", "loss.setting.num_coarse=10", "loss.setting.update_every=10"} <= words
    assert layout_of(spec.read("glyphs"), "glyphs").lines[0].command == ""


def test_columns_are_keys_of_metrics() -> None:
    layout = layout_of(spec.read("hpl_table_4_sop"), "sop")
    assert layout.columns[0] == ("recall_at_1",)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("results", "glyphs"), ("anything", "glyphs"), ("reference", "glyphs"), ("one_of_each", "glyphs_one_of_each"),
     ("glyphs_one_of_each", "glyphs_one_of_each")],
)  # fmt: skip
def test_the_folder_decides_which_experiment_describes_a_group(folder: str, expected: str) -> None:
    layout = describing(GLYPHS, Path("somewhere") / folder, ["proxy_nca"])
    assert layout == layout_of(spec.read(expected), "glyphs")


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
