"""The studies that are part of the repository still load, and still give the tables next to them."""

import shutil
from pathlib import Path

import pytest

from benchmark.core import records
from benchmark.study import layout
from benchmark.study.study import Study
from benchmark.tables import tables
from tests.command_line import run

RESULTS = Path(__file__).parents[1] / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/studies"))
STUDIES = [directory for folder in FOLDERS for directory in layout.all_studies(folder)]


# Keys that came after the oldest studies, in the days when a new key changed every identity.
OLDEST = [
    "  dataset.xbm: None there, {} now",
    "  loss.head: None there, {} now",
    "  loss.retrieval_options: None there, {} now",
    "  protocol.loss_optimizer: None there, searched now",
]


def test_there_are_committed_studies() -> None:
    assert {folder.name for folder in FOLDERS} >= {"reference", "one_of_each", "traditional"}
    assert all(layout.all_studies(folder) for folder in FOLDERS)


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_records_give_the_committed_tables_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder / "studies", copy / "studies")
    assert run(tables, f"results_dir={copy}").status == 0
    committed = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    assert {path.name: path.read_bytes() for path in (copy / "tables").iterdir()} == committed


def test_a_changed_record_changes_the_table(tmp_path: Path) -> None:
    copy = tmp_path / "traditional"
    shutil.copytree(RESULTS / "traditional" / "studies", copy / "studies")
    path = sorted(copy.rglob("run_00.json"))[0]
    record = records.read_record(path)
    record.result["selected"]["last_epoch"]["recall_at_1"] += 1e-9
    records.write_record(path, record)
    assert run(tables, f"results_dir={copy}").status == 0
    name = "glyphs-small_conv-traditional.csv"
    assert (copy / "tables" / name).read_bytes() != (RESULTS / "traditional" / "tables" / name).read_bytes()


@pytest.mark.parametrize("directory", STUDIES, ids=lambda path: "-".join((path.parts[-4], path.name)))
def test_a_stored_study_is_what_it_was_when_it_ran(directory: Path) -> None:
    stored = layout.read_study(directory)
    study = Study.of(stored.config)
    known = OLDEST if directory.is_relative_to(RESULTS / "reference") else []
    assert layout.difference(stored.science, study.science(stored.fingerprint)) == known
    assert known or study.identity(stored.fingerprint) == stored.identity
