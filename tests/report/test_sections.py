"""`make tables` over committed studies that are not comparable, and over hostile folder names and labels."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.core import records
from benchmark.report.comparison import parts
from benchmark.study.study import Study
from benchmark.tables import tables
from tests import hostile
from tests.command_line import run
from tests.report.test_comparison import SEARCH, TRADITIONAL, of, row

RESULTS = Path(__file__).parents[2] / "results"
GROUP = "studies/glyphs-small_conv-hpl"
NAME = "glyphs-small_conv-hpl"

pytestmark = pytest.mark.usefixtures("no_fsync")


def copied(folder: Path, *studies: str, name: str = "") -> Path:
    """A results folder with copies of some committed studies, such as `reference/contrastive`."""
    for study in studies:
        group, loss = study.split("/")
        shutil.copytree(RESULTS / group / GROUP / loss, folder / GROUP / (name or loss))
    return folder


def rewritten(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the `study.yaml` of a folder as someone who knows the checksum would."""
    path = directory / "study.yaml"
    body = yaml.safe_load(path.read_text(encoding="utf-8"))
    del body["sha256"]
    change(body)
    path.write_text(yaml.safe_dump({"sha256": records.digest(body)} | body, sort_keys=False), encoding="utf-8")


def made(folder: Path) -> tuple[str, list[dict[str, str]]]:
    """The Markdown and the lines of the CSV that the command writes."""
    ended = run(tables, f"results_dir={folder}")
    assert ended.status == 0, ended
    assert all(char.isprintable() or char in "\n\t\u00a0" for char in ended.out + ended.err)
    text = (folder / "tables" / f"{NAME}.csv").read_text(encoding="utf-8")
    return (folder / "tables" / f"{NAME}.md").read_text(encoding="utf-8"), list(csv.DictReader(text.splitlines()))


def test_studies_with_another_number_of_runs_and_another_search_are_two_tables(tmp_path: Path) -> None:
    folder = copied(tmp_path, "reference/contrastive", "reference/proxy_nca", "one_of_each/hist")
    text, lines = made(folder)
    with_cells = {line["loss"]: line["part"] for line in lines if line["concatenated_map_at_r"]}
    assert with_cells == {"contrastive": "1", "proxy_nca": "1", "hist": "2"}
    main, apart = text.split("Not comparable with the first table: ")
    assert "n = 10 runs" in main and "**33.83**" in main and "HIST" not in main
    assert "n = 3 runs" in apart and "31.62 ±" in apart
    assert apart.startswith(
        "number of runs: 3 here, 10 in the first table; protocol.defaults_first: true here, false in "
    )
    tex = (folder / "tables" / f"{NAME}.tex").read_text(encoding="utf-8")
    assert tex.count(r"\begin{table*}") == tex.count(r"\end{table*}") == 2 + 3  # one of differences, two of efforts
    assert r"\label{tab:glyphs-small_conv-hpl}" in tex and r"\label{tab:glyphs-small_conv-hpl:2}" in tex


def test_a_copied_study_is_one_row(tmp_path: Path) -> None:
    folder = copied(tmp_path, "reference/contrastive")
    copied(folder, "reference/contrastive", name="contrastive-again")
    text, lines = made(folder)
    assert [line["loss"] for line in lines if line["concatenated_map_at_r"]] == ["contrastive"]
    assert (
        "contrastive-again is left out: it is a copy of contrastive, with equal configuration, data and code." in text
    )


def test_hostile_labels_and_folder_names_are_printed_as_text(tmp_path: Path) -> None:
    label = "a|b \x1b[2J\u202e<b>\n\n\\textbf{x} [y](z)"
    folder = copied(tmp_path, "reference/contrastive")
    copied(folder, "reference/proxy_nca", name="=x\x1b]0;t\x07\ny")
    rewritten(folder / GROUP / "contrastive", lambda body: body["config"]["loss"].update(label=label))
    text, lines = made(folder)
    found = {line["loss"]: line["label"] for line in lines if line["concatenated_map_at_r"]}
    shown = r"a|b \x1b[2J\u202e<b> \textbf{x} [y](z)"
    assert found == {"contrastive": shown, r"'=x\x1b]0;t\x07 y": "ProxyNCA"}
    assert r"| a\|b \\x1b[2J\\u202e\<b\> \\textbf{x} [y\](z) <sup>b</sup> | **" in text
    assert r"a$|$b \textbackslash{}x1b{[}2J" in (folder / "tables" / f"{NAME}.tex").read_text(encoding="utf-8")


def test_every_hostile_text_can_be_a_label(tmp_path: Path) -> None:
    folder = copied(tmp_path, "reference/contrastive")
    texts = [text for text in hostile.ALL if text.isprintable() or "\udcff" not in text]
    rewritten(folder / GROUP / "contrastive", lambda body: body["config"]["loss"].update(label=" ".join(texts)))
    assert made(folder)[1][0]["concatenated_map_at_r"]


@pytest.mark.parametrize(
    ("studies", "overrides"),
    [
        (SEARCH, ("dataset=glyphs", "protocol.num_runs=3", "protocol.defaults_first=true", "protocol.failed=null")),
        (TRADITIONAL, ("dataset=glyphs", "protocol=traditional", "protocol.num_runs=3")),
    ],
    ids=["search", "traditional"],
)
def test_a_current_study_may_share_a_table_with_one_of_version_1(
    compose_study: Callable[..., Study], studies: tuple[str, str], overrides: tuple[str, ...]
) -> None:
    old, loss = row(studies[0]), studies[1].rpartition("/")[2]
    former = ["trunk.width=128", "trunk.module.strides=[2,2,2,1,2]"]
    former += [] if "protocol=traditional" in overrides else ["dataset.max_epochs=4"]
    science = compose_study(f"loss={loss}", *overrides, *former).science(old.fingerprint)
    found = parts([old, of(science)])
    assert len(found) == 1, found[-1].differences
