"""Lists and tables of the docs name exactly what there is, and numbers in the README are those of committed tables."""

import csv
import re

import matplotlib
import pytest

from benchmark.__main__ import VERBS, about
from benchmark.core import invocation
from benchmark.core.conf_files import content
from benchmark.core.plain_yaml import read_mapping
from benchmark.report.table import MARKS
from docs.images.draw import PICTURE, SHOWN, drawn
from tests.docs.pages import DOCS, README, ROOT, spans, text_of

# Folders of tests/golden that are not named after the module.
GOLDEN_OF = {"multi_similarity": "ms", "hist": "hist_full", "proxy_nca": "proxy_nca_pml"}
ORACLE = re.compile(r"def test_\w*(in_loops|of_the_authors_code)")
PAGES_OF = {"trunk": "trunks", "training": "trunks", "dataset": "data_sets", "protocol": "protocol",
            "recipe": "traditional", "executor": "clusters"}  # fmt: skip
ELSEWHERE = {"customary", "traditional"}  # a former name, and what the command `traditional` selects


def names(group: str) -> set[str]:
    return {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}


def rows(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading."""
    section = text_of(DOCS / page).split(f"{heading}\n", 1)[1]
    found = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert found
    return [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in found[0].splitlines()[2:]]


def code(text: str) -> list[str]:
    return re.findall(r"`(\w[\w-]*)`", text)


def modules_of(name: str) -> list[str]:
    """The modules that compute a loss, without what only holds proxies, a regulariser or a method over a base."""
    text = (ROOT / "conf" / "loss" / f"{name}.yaml").read_text(encoding="utf-8")
    return [found for found in re.findall(r"benchmark\.losses\.(\w+)\.", text) if found not in ("proxies", "hpl")]


def test_the_losses_without_golden_values_are_those_that_the_page_names_and_are_compared_with_loops() -> None:
    page = text_of(DOCS / "losses.md").partition("Without such values: ")[2].partition("Their tests")[0]
    named = {
        name
        for mark in re.findall(r"`([\w*]+)`", page)
        for name in names("loss")
        if re.fullmatch(mark.replace("*", ".*"), name)
    }
    lacking = {
        (name, module) for name in names("loss") - {"none", "none_pca"} for module in modules_of(name)
        if not (ROOT / "tests" / "golden" / GOLDEN_OF.get(module, module)).is_dir()
    }  # fmt: skip
    assert {name for name, _ in lacking if not name.startswith("hpl_")} == named
    for _, module in lacking:
        assert ORACLE.search((ROOT / "tests" / "losses" / f"test_{module}.py").read_text(encoding="utf-8")), module


def test_the_table_of_losses_has_every_loss_once() -> None:
    assert sorted(name for _, cell in rows("losses.md", "# The losses") for name in code(cell)) == sorted(names("loss"))


def test_the_sources_of_losses_are_those_of_their_modules() -> None:
    sections = text_of(DOCS / "losses.md").split("\n### ")[1:]
    found = {}
    for section in sections:
        (module,) = re.findall(r"^::: benchmark\.losses\.(\w+)$", section, re.MULTILINE)
        found |= dict.fromkeys(code(section.split("\n\n")[1].removeprefix("`LOSS=`")), module)
    assert found.keys() == names("loss")
    for name, module in found.items():
        assert f"benchmark.losses.{module}." in str(content("loss", name)["module"]), name


@pytest.mark.parametrize(("group", "page"), PAGES_OF.items())
def test_a_page_names_every_choice_of_its_group(group: str, page: str) -> None:
    named = {word for span in spans(DOCS / f"{page}.md") for word in re.findall(r"[\w.]+", span)}
    assert names(group) - ELSEWHERE - named == set()


def test_the_table_of_commands_is_that_of_the_command_line() -> None:
    found = {command.strip("`"): (group, text) for group, command, text in rows("options.md", "## Commands")}
    assert found == {name: (verb.group, about(name, "make")) for name, verb in VERBS.items()}


def test_the_table_of_marks_is_that_of_the_tables() -> None:
    assert dict(map(tuple, rows("reading_a_table.md", "# Reading a table"))) == MARKS


def test_the_table_of_options_is_that_of_make() -> None:
    found = {option.strip("`"): key.strip("`") for option, key in rows("options.md", "## Options")}
    assert found == invocation.VARIABLES


def test_the_table_of_experiments_has_each_file_with_its_data_sets() -> None:
    label = {"cars196": "Cars196", "cub": "CUB", "glyphs": "glyphs", "grocery": "Grocery",
             "grocery_finetuned": "Grocery, fine-tuned", "inshop": "In-Shop", "inaturalist2019": "iNaturalist",
             "sop": "SOP"}  # fmt: skip
    found = {name.strip("`"): data for _, name, _, data, _ in rows("experiments.md", "## All experiments")}
    files = {path.stem: read_mapping(path) for path in (ROOT / "experiments").glob("*.yaml")}
    assert found == {name: ", ".join(label[data] for data in node["datasets"]) for name, node in files.items()}


def test_an_experiment_has_results_where_the_docs_say_so() -> None:
    states = {name.strip("`"): state for _, name, _, _, state in rows("experiments.md", "## All experiments")}
    folders = {name: re.findall(r"`(results/\w+)/`", state) for name, state in states.items()}
    assert {path for found in folders.values() for path in found} == {
        f"results/{path.parent.name}" for path in (ROOT / "results").glob("*/tables")
    }
    assert all(state == "not run yet" for name, state in states.items() if not folders[name])


def test_the_table_of_the_readme_is_that_of_the_committed_records() -> None:
    path = ROOT / "results" / "grocery" / "tables" / "grocery-efficientnet_lite0-hpl.md"
    tables = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]
              for block in re.findall(r"(?:^\|.*\n)+", path.read_text(encoding="utf-8"), re.MULTILINE)]  # fmt: skip
    scores = {row[0].partition(" <sup>")[0]: (row[8], row[9]) for row in tables[0] if "±" in row[8]}
    differences = next(table for table in tables[1:] if len(table[0]) == 10)
    bases = {row[0]: (row[1], row[2]) if row[1] in scores else ("", "") for row in differences}
    expected = {label: (*means, *bases[label]) for label, means in scores.items()}
    section = text_of(README).split("\n## One table\n")[1].split("\n## ")[0]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "±" in line]
    assert {row[0]: tuple(row[1:]) for row in shown} == expected and len(shown) == 8


@pytest.mark.slow
@pytest.mark.skipif(
    f"Matplotlib v{matplotlib.__version__}," not in PICTURE.read_text(encoding="utf-8"), reason="another matplotlib"
)
def test_the_picture_of_the_readme_is_drawn_from_the_committed_records() -> None:
    assert f"({PICTURE.relative_to(ROOT).as_posix()})" in text_of(README)
    assert drawn() == PICTURE.read_bytes()


def test_the_picture_shows_the_losses_that_the_readme_counts() -> None:
    table = ROOT / "results" / "grocery" / "tables" / "grocery-efficientnet_lite0-hpl.csv"
    with table.open(encoding="utf-8") as file:
        rows = {row["loss"]: row for row in csv.DictReader(file)}
    picture, hours = PICTURE.read_text(encoding="utf-8"), [row["compute_hours"] for row in rows.values()]
    assert len(SHOWN) == 17 + 1 and "Seventeen of 52 losses" in text_of(README)
    assert [name for name in SHOWN if f">{rows[name]['label']}<" not in picture] == []
    taken = f"{len(rows)} rows, took {sum(map(float, hours)):.0f} compute hours"
    assert taken in " ".join(text_of(README).split())
