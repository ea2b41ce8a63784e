"""The file of `make bench`, and the rows that became slower."""

import csv
from pathlib import Path

from benchmark.perf.table_file import path_for, slower, write_table
from benchmark.perf.timing import Row


def rows(speed: float, seconds: float) -> list[Row]:
    return [Row("faster, than theirs", (">=", 1.1), [speed, speed + 1, speed - 1], "ours", wall=[2.0]),
            Row("start", ("<=", 0.5), [seconds], "a process", "s"), Row("all", (">=", 1.0), [], "no room")]  # fmt: skip


def test_the_file_holds_every_row_with_machine_versions_and_commit(tmp_path: Path) -> None:
    path = path_for(tmp_path)
    assert path.parent == tmp_path / "bench" and path.stem.endswith("_cores")
    write_table(rows(2.0, 0.4), path)
    lines = path.read_text().splitlines()
    assert [line[0] for line in lines[:3]] == ["#"] * 3 and "torch" in lines[2] and "commit" in lines[1]
    first, second, third = csv.DictReader(lines[3:])
    assert (first["measured"], first["median"], first["lowest"], first["highest"]) == (
        "faster, than theirs",
        "2",
        "1",
        "3",
    )
    assert (first["better"], first["rounds"], first["wall_clock"], first["verdict"]) == ("higher", "3", "2", "reached")
    assert (second["better"], second["unit"], second["target"]) == ("lower", "s", "0.5")
    assert (third["median"], third["verdict"]) == ("", "not measured")


def test_what_became_worse_by_more_than_a_tenth_is_listed_in_either_direction(tmp_path: Path) -> None:
    path = tmp_path / "bench" / "a.csv"
    assert slower(rows(2.0, 0.4), path) == []
    write_table(rows(2.0, 0.4), path)
    assert slower(rows(1.81, 0.43), path) == []
    assert slower(rows(9.0, 0.1), path) == []
    speed, start = slower(rows(1.79, 0.45), path)
    assert speed.startswith("faster, than theirs: 1.79 x, 2 in ") and speed.endswith("(-10%)")
    assert start.startswith("start: 0.45 s, 0.4 in ") and start.endswith("(+12%)")
