"""The curve files, read with pandas and sqlite3."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from benchmark.core.errors import UserError
from benchmark.training.curves import write_curves
from benchmark.training.history import HistoryRow

GROUPS = ["loss_state", "training", "validation"]


def a_history(num_rows: int) -> list[HistoryRow]:
    """Return rows of even epochs, without a loss in epoch 0; numbers have no short decimal form."""
    return [
        {
            "epoch": 2 * n, "loss": None if n == 0 else 1 / (3 * n), "map_at_r": n / 7, "r_precision": n / 9,
            "precision_at_1": n / 11, "diagnostics": {"coarse_updates": n},
        }
        for n in range(num_rows)
    ]  # fmt: skip


def read_csv(folder: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}


def read_sqlite(folder: Path) -> dict[str, pd.DataFrame]:
    with closing(sqlite3.connect(folder / "logs.db")) as connection:
        return {name: pd.read_sql(f"SELECT * FROM {name}", connection).drop(columns="id") for name in GROUPS}


def check(folder: Path, history: list[HistoryRow]) -> None:
    """Check that both formats hold each epoch of the history exactly once, in order, to the last digit."""
    epochs = [row["epoch"] for row in history]
    for found in (read_csv(folder), read_sqlite(folder)):
        assert sorted(found) == GROUPS
        assert found["validation"]["~iteration~"].tolist() == epochs
        assert found["training"]["~iteration~"].tolist() == epochs[1:]
        assert found["training"]["loss"].tolist() == [row["loss"] for row in history[1:]]
        for key in ("map_at_r", "r_precision", "precision_at_1"):
            assert found["validation"][key].tolist() == [row[key] for row in history]
        assert found["loss_state"]["coarse_updates"].tolist() == list(range(len(history)))


def test_each_epoch_is_written_once_and_to_the_last_digit(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves", a_history(5))
    check(tmp_path / "curves", a_history(5))


def test_rewriting_the_curves_of_a_killed_and_resumed_fold_leaves_each_epoch_once(tmp_path: Path) -> None:
    for length in (1, 3, 4, 2, 3, 5):  # killed after the fourth row; the checkpoint held two
        write_curves(tmp_path / "curves", a_history(length))
    check(tmp_path / "curves", a_history(5))


def test_a_shorter_history_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves", a_history(5))
    write_curves(tmp_path / "curves", a_history(2))
    check(tmp_path / "curves", a_history(2))


def test_a_loss_without_diagnostics_has_no_diagnostic_curves(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves", [row | {"diagnostics": {}} for row in a_history(3)])
    assert sorted(read_csv(tmp_path / "curves")) == ["training", "validation"]


def test_a_diagnostic_that_starts_late_is_empty_before(tmp_path: Path) -> None:
    history = a_history(3)
    history[2]["diagnostics"]["moved"] = 7
    write_curves(tmp_path / "curves", history)
    for found in (read_csv(tmp_path / "curves"), read_sqlite(tmp_path / "curves")):
        assert found["loss_state"]["coarse_updates"].tolist() == [0, 1, 2]
        assert found["loss_state"]["moved"].isna().tolist() == [True, True, False]
        assert found["loss_state"]["moved"][2] == 7


def test_a_fold_without_a_finite_evaluation_has_no_curves(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves", [])
    assert read_csv(tmp_path / "curves") == {}


def test_monitored_images_have_separate_curves(tmp_path: Path) -> None:
    scores = [{"map_at_r": n / 7, "recall_at_10": n / 3} for n in range(3)]
    history = [{"epoch": n, "loss": None, "watched": row, "diagnostics": {}} for n, row in enumerate(scores)]
    write_curves(tmp_path / "curves", history)
    found = read_csv(tmp_path / "curves")
    assert sorted(found) == ["test"]
    assert found["test"]["recall_at_10"].tolist() == [row["recall_at_10"] for row in scores]


def test_unwritable_curves_are_reported_with_folder_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "curves").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"Cannot write .*curves: .*run the same command again"):
        write_curves(tmp_path / "curves", a_history(2))
