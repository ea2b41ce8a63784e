"""The command robustness: kept models on corrupted test images; its records, ledger, table and errors."""

import csv
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark import robustness as command
from benchmark.core import records
from benchmark.final_eval import final_eval
from benchmark.images.corruptions import PAPER, corrupted
from benchmark.report import corruption_rows, formats
from benchmark.report.group_table import corruption_table, read_entry
from benchmark.report.table_layout import Layout, Line
from benchmark.robustness import robustness
from benchmark.study import kept_models
from benchmark.study.scoring import load_model
from benchmark.study.stored import read_study
from benchmark.study.study import Study
from benchmark.traditional import traditional
from tests.command_line import Ended, assert_refused, run, study_dir, tiny

GROUP = Path("studies") / "glyphs_small-small_conv-traditional"
SHORT = ("training.batch_size=256", "training.epochs=1", "protocol.num_runs=2")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_fsync")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study under the traditional protocol, two runs with kept weights."""
    folder = tmp_path_factory.mktemp("trained")
    assert tiny(traditional, folder, *SHORT, "keep=best", protocol="traditional").status == 0
    return folder / GROUP / "proxy_nca"


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect the corruptions that are scored, without embedding an image."""
    names: list[str] = []

    def scores(study: Study, weights: Any, test: Any, images: Any) -> dict[str, dict[str, float]]:
        names.append(getattr(images, "name", "none"))
        value = 0.5 + 0.01 * len(names)
        found = {"map_at_r": value / 2, "precision_at_1": value, "r_precision": value / 2}
        return {"separated": found, "concatenated": found, "separated_folds": [found]}  # type: ignore[dict-item]

    monkeypatch.setattr(command, "score_images", scores)
    yield names


def robust(folder: Path, *overrides: str) -> Ended:
    return run(robustness, f"study={folder}", "executor=inline", "display=quiet", *overrides)


def ledger(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "test_ledger.jsonl").read_text().splitlines()]


def record_of(folder: Path, name: str, run: int = 0, chosen: str = "setting") -> dict[str, Any]:
    return records.read_record(folder / "robustness" / chosen / f"run_{run:02d}" / f"{name}.json").result


def test_scores_agree_with_a_model_that_is_applied_by_hand_and_those_without_corruption_with_the_run(
    study: Path,
) -> None:
    ended = robust(study, "corruptions=[rotation]")
    assert ended.status == 0, ended
    selected = records.read_record(study / "traditional/setting/run_01.json").result["selected"]
    clean, turned = (record_of(study, name, run=1)["concatenated"] for name in ("none", "rotation"))
    for key, value in clean.items():  # the embeddings are normalised once more here, which breaks near ties otherwise
        assert value == pytest.approx(selected["best_on_test"][key], rel=0.01)

    stored = read_study(study)
    made = Study.of(stored.config | {"study": str(study)})
    split = made.make_dataset().test()
    trunk, head = load_model(made, *kept_models.find(made, stored).runs[1].weights[0], made.make_images(split.images))
    pixels = np.stack([corrupted(image[..., None], "rotation", 0, i) for i, image in enumerate(split.images)])
    batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - trunk.mean[0]) / trunk.std[0]
    with torch.inference_mode():
        z = torch.cat([torch.nn.functional.normalize(head.eval()(trunk.eval()(part))) for part in batch.split(256)])
    nearest = (z @ z.T).fill_diagonal_(-2).argmax(dim=1).numpy()
    hits = (split.labels[nearest] == split.labels).mean()
    assert turned["precision_at_1"] == pytest.approx(hits, abs=2e-3)  # but for ties within rounding
    assert turned != clean


def test_every_look_is_logged_before_it_happens_and_nothing_is_scored_twice(study: Path, scored: list[str]) -> None:
    before = len(ledger(study))
    shutil.rmtree(study / "traditional" / "setting" / "run_01")
    assert robust(study).status == 0
    assert scored == ["none", *PAPER]  # all nine, without being asked
    looks = ledger(study)[before:]
    assert [(look["run"], look["corruption"]) for look in looks[:-1]] == [(0, name) for name in ("none", *PAPER)]
    assert all(look["story"] == "robustness" and look["identity"]["kind"] == "robustness" for look in looks[:-1])
    assert looks[-1]["looks"] == "examples of corrupted images"
    assert robust(study).status == 0 and len(scored) == 10 and len(ledger(study)) == before + 11


def test_training_classes_are_scored_without_a_look_and_their_gap_is_paired_by_run(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, set[int]]] = []

    def scores(study: Study, weights: Any, test: Any, images: Any) -> dict[str, dict[str, float]]:
        seen.append((len(images), set(test.labels.tolist())))
        value = (0.5, 0.7, 0.9, 0.92)[len(seen) - 1]  # run 0: test, training; run 1: the same
        found = {"map_at_r": value / 2, "precision_at_1": value, "r_precision": value / 2}
        return {"separated": found, "concatenated": found}

    monkeypatch.setattr(command, "score_images", scores)
    before = len(ledger(study))
    ended = robust(study, "corruptions=[training]")
    assert ended.status == 0, ended
    dataset = Study.of(read_study(study).config | {"study": str(study)}).make_dataset()
    halves = [(len(half.labels), set(half.labels.tolist())) for half in (dataset.test(), dataset.trainval())]
    assert seen == [*halves, *halves]
    assert [look.get("corruption") for look in ledger(study)[before:]] == ["none", "none", None], "and the examples"
    # Gaps of R@1 20 and 2 points: mean 11, s = 12.728, Student's t with 1 degree of freedom 12.706, / sqrt(2): 114.36.
    assert "training minus test classes: R@1 +11.00 +- 114.36, MAP@R +5.50 +- 57.18" in ended.out
    assert "None, training classes" in (study / "robustness" / "setting" / "robustness.md").read_text()


def test_a_look_that_fails_is_logged_too(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(ledger(study))

    def fails(*_: Any) -> None:
        assert ledger(study)[before]["corruption"] == "none"
        raise ZeroDivisionError

    monkeypatch.setattr(command, "score_images", fails)
    with pytest.raises(ZeroDivisionError):
        robust(study)
    assert len(ledger(study)) == before + 1 and not list((study / "robustness").rglob("*.json"))


def test_it_resumes_where_it_stopped_and_scores_again_what_is_damaged_or_of_other_code(
    study: Path, scored: list[str]
) -> None:
    assert robust(study, "corruptions=[blur,jpeg]").status == 0
    scored.clear()
    folder = study / "robustness" / "setting" / "run_01"
    (folder / "blur.json").unlink()
    (folder / "jpeg.json").write_text("{")
    other = json.loads((folder / "none.json").read_text())
    record = records.read_record(folder / "none.json")
    records.write_record(folder / "none.json", replace(record, identity=other["identity"] | {"code": ["0" * 16]}))
    ended = robust(study, "corruptions=[blur,jpeg]")
    assert ended.status == 0 and scored == ["none", "blur", "jpeg"], ended
    assert ended.out.count("It is kept as") == 2 and "other models or other code" in ended.out
    assert record_of(study, "blur", run=1)["corruption"] == "blur"
    assert robust(study, "corruptions=[blur,jpeg,cutout]").status == 0
    assert scored[3:] == ["cutout", "cutout"]


def test_the_table_has_a_row_for_each_corruption_with_the_mean_of_the_runs(study: Path, scored: list[str]) -> None:
    ended = robust(study, "corruptions=[rotation,blur]")
    folder = study / "robustness" / "setting"
    with (folder / "robustness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["corruption"] for row in rows] == ["None", "Rotation", "Blur"]
    # scored in the order none, rotation, blur of run 0 and of run 1, with 51, 52, ..., 56 percent
    assert [float(row["concatenated_precision_at_1"]) for row in rows] == pytest.approx([52.5, 53.5, 54.5])
    half = 12.706 * math.sqrt(2) * 1.5 / math.sqrt(2)  # t with one degree of freedom, deviation 1.5 sqrt(2)
    assert float(rows[0]["concatenated_precision_at_1_half_width"]) == pytest.approx(half, rel=1e-3)
    assert "| ProxyNCA | Blur | " in (folder / "robustness.md").read_text()
    assert "Rotation" in (folder / "robustness.tex").read_text()
    assert "Blur                 R@1  54.50   MAP@R  27.25" in ended.out
    with Image.open(folder / "examples_rotation_blur.png") as sheet:
        assert sheet.width > 2 * sheet.height > 200  # three rows of eight images


def test_final_runs_are_scored_like_after_their_training(tmp_path: Path) -> None:
    options = ("preset=default", "protocol.num_runs=1", "keep=best")
    assert tiny(final_eval, tmp_path, *options).status == 0
    folder = study_dir(tmp_path, "proxy_nca-default")
    ended = robust(folder, "corruptions=[blur]")
    assert ended.status == 0, ended
    trained = records.read_record(folder / "final_eval" / "default" / "run_00.json")
    found = trained.result
    assert trained.provenance["seconds_per_iteration"] > 0 and trained.provenance["peak_memory_bytes"] > 1e7
    for mode in ("concatenated", "separated"):
        assert record_of(folder, "none", chosen="default")[mode] == found[mode]
        assert record_of(folder, "blur", chosen="default")[mode] != found[mode]
    text = (folder / "robustness" / "default" / "robustness.md").read_text()
    assert "| Concatenated R@1 | Concatenated MAP@R | Separated R@1 | Separated MAP@R |" in text


# -- several losses ---------------------------------------------------------------------------------------------------


def test_a_loss_has_one_row_with_a_column_for_each_corruption_and_their_mean(study: Path, scored: list[str]) -> None:
    assert robust(study).status == 0
    (row,) = corruption_rows.rows(read_study(study), study)
    # run 0 has 51 percent without corruption and 52, ..., 60 with the nine; run 1 has 61 and 62, ..., 70
    assert row.values["recall_at_1", "none"] == pytest.approx({0: 51, 1: 61})
    assert row.values["recall_at_1", "gaussian_noise"] == pytest.approx({0: 52, 1: 62})
    assert row.values["recall_at_1", "mean"] == pytest.approx({0: 56, 1: 66})
    assert row.cells["recall_at_1", "mean"].mean == pytest.approx(61) and row.num_runs == 2 and not row.reason
    assert [column.key for column in corruption_rows.columns(read_study(study))] == [*row.values]


def test_a_row_is_empty_unless_every_run_has_scores_that_belong_to_it(study: Path, scored: list[str]) -> None:
    (row,) = corruption_rows.rows(read_study(study), study)
    assert not row.cells and "of 2 runs, 0 are scored" in row.reason and f"make robustness STUDY={study}" in row.reason
    assert robust(study).status == 0
    path = study / "robustness" / "setting" / "run_01" / "blur.json"
    record = records.read_record(path)
    assert record.identity is not None
    for wrong in (
        replace(record, result=record.result | {"seed": 7}),
        replace(record, identity=record.identity | {"code": ["0" * 16]}),
        replace(record, identity=record.identity | {"study": "0" * 16}),
    ):
        records.write_record(path, wrong)
        (row,) = corruption_rows.rows(read_study(study), study)
        assert not row.cells and "of 2 runs, 1 are scored" in row.reason
    records.write_record(path, record)
    assert corruption_rows.rows(read_study(study), study)[0].cells
    path.write_text("{")
    assert not corruption_rows.rows(read_study(study), study)[0].cells


def test_several_losses_are_joined_in_a_table_with_their_differences(study: Path, scored: list[str]) -> None:
    other = Path(shutil.copytree(study, study.with_name("other")))
    assert [robust(folder).status for folder in (study, other)] == [0, 0]
    entries = [read_entry(folder, [folder]) for folder in (study, other)]
    depends = entries[1].depends
    loss = depends.science["loss"] | {"name": "other"}  # a copy of a study is left out
    entries[1] = replace(entries[1], depends=replace(depends, science=depends.science | {"loss": loss}))
    lines = [Line(study.name, "First"), Line("hist", command="make traditional LOSS=hist"), Line("other", "Second")]
    layout = Layout("Three losses.", lines, [("recall_at_1",)])
    table = corruption_table("joined", entries, layout, accept_code=False)
    assert table.caption == "Three losses: corrupted test images."
    with (study / "joined.csv").open("w+") as file:
        file.write(formats.as_csv(table))
        file.seek(0)
        rows = {row["loss"]: row for row in csv.DictReader(file)}
    assert float(rows["other"]["recall_at_1_mean"]) == pytest.approx(81)  # 20 more than the first
    assert float(rows["copy"]["recall_at_1_mean_difference"]) == pytest.approx(-20)
    assert rows["hist"]["reason"] == "not run; make traditional LOSS=hist" and not rows["hist"]["recall_at_1_mean"]
    text = formats.markdown(table)
    assert text.index("First") < text.index("HIST") < text.index("Second")
    assert "| None | Gaussian noise | Salt and pepper |" in text and "| JPEG | Mean |" in text


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_study_without_kept_weights_gets_the_command_that_keeps_them(study: Path) -> None:
    for file in study.rglob("weights.safetensors"):
        file.unlink()
    assert_refused(
        robust(study), "No run in", "traditional/setting has kept its weights", "keep=best", f"STUDY={study}"
    )
    shutil.rmtree(study / "traditional")
    assert_refused(robust(study), "no finished run", "keep=best")
    assert not (study / "robustness").exists()


def test_runs_without_weights_are_left_out_by_name(study: Path, scored: list[str]) -> None:
    (study / "traditional" / "setting" / "run_00" / "weights.safetensors").unlink()
    ended = robust(study, "corruptions=[blur]")
    assert ended.status == 0 and "runs without kept weights are left out: 0" in ended.out
    assert scored == ["none", "blur"] and "n = 1 run," in ended.out


def test_weights_of_another_run_are_refused(study: Path) -> None:
    folder = study / "traditional" / "setting"
    for name in ("weights.safetensors", "weights.safetensors.sha256"):
        shutil.copy(folder / "run_01" / name, folder / "run_00" / name)
    assert_refused(robust(study), "run_00/weights.safetensors", "index is 1, not 0")


def test_an_unfinished_search_an_unnamed_study_and_an_unknown_corruption_are_refused(
    results: Path, study: Path
) -> None:
    assert_refused(run(robustness, "executor=inline"), "Name the study whose models to score", "STUDY=FOLDER")
    assert_refused(robust(study, "corruptions=[blurr]"), "blurr", "Allowed: gaussian_noise, salt_and_pepper")
    folder = study_dir(results)
    assert_refused(robust(folder, "corruptions=[training]"), "each fold", "protocol=traditional")
    assert_refused(robust(folder), "final_eval/trial_00", "keep=best")
    (folder / "bo" / "best.yaml").unlink()
    assert_refused(robust(folder), "the search is not finished", "keep=best")
    assert_refused(robust(results / "nowhere"), "There is no study in")
