"""Which weights a final evaluation keeps, and how they are read, those of earlier versions too."""

import contextlib
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import final_eval as evaluation
from benchmark.core import records
from benchmark.final_eval import final_eval
from benchmark.models.loaded import load
from benchmark.robustness import robustness
from benchmark.score import score
from benchmark.study import model_files
from benchmark.study.model_files import read_weights
from benchmark.study.stored import read_study, write_study
from benchmark.traditional import traditional
from benchmark.training.checkpoint import write_state
from tests.command_line import Ended, assert_refused, results_of, run, study_dir, tiny, trainings

pytestmark = pytest.mark.slow
OPTIONS = ("preset=default", "protocol.embedding_dim=16")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The folder of a study with two final runs that was evaluated without further options."""
    folder = tmp_path_factory.mktemp("evaluated")
    return study_dir(folder, "proxy_nca-default"), tiny(final_eval, folder, *OPTIONS)


@pytest.fixture
def study(evaluated: tuple[Path, Ended], tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated[0], tmp_path / "copy"))


def run_folder(study: Path, number: int) -> Path:
    return study / "final_eval" / "default" / f"run_{number:02d}"


def kept_files(study: Path, number: int) -> set[str]:
    folder = run_folder(study, number)
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".pt", ".safetensors", ".yaml")
    }


ALL = {"model.yaml", "fold_0/weights.safetensors", "fold_1/weights.safetensors"}


def again(study: Path, *options: str) -> Ended:
    return run(final_eval, f"study={study}", "executor=inline", "display=plain", *options)


def test_the_first_run_keeps_its_weights_and_the_disk_is_named_before(evaluated: tuple[Path, Ended]) -> None:
    folder, ended = evaluated
    assert ended.status == 0 and kept_files(folder, 0) == ALL and not kept_files(folder, 1), ended
    said = ended.out.index("The weights of the first run are kept: about")
    assert said < ended.out.index("run 1 of 2") and "free" in ended.out[said : said + 120]


def test_best_trains_what_is_missing_once_more_and_leaves_the_records(study: Path) -> None:
    before = results_of(study / "final_eval")
    ledger = (study / "test_ledger.jsonl").read_bytes()
    with trainings() as trained:
        ended = again(study, "keep=best")
        assert again(study, "keep=best").status == 0
    assert trained == ["run_01/fold_0", "run_01/fold_1"], "once, and only the run without weights"
    assert ended.status == 0 and kept_files(study, 0) == kept_files(study, 1) == ALL
    assert "1 finished run has no weights and is trained once more" in ended.out
    assert "run 1: weights kept, with the validation scores of its record" in ended.out
    assert results_of(study / "final_eval") == before and (study / "test_ledger.jsonl").read_bytes() == ledger
    assert model_files.read_description(run_folder(study, 1)).reproduces


def test_weights_that_do_not_reproduce_the_record_say_so(study: Path) -> None:
    def otherwise(number: int, parts: Any) -> None:  # as another kind of device would, only more
        torch.nn.init.normal_(parts.head.linear.weight, generator=torch.Generator().manual_seed(number))

    with trainings(otherwise):
        ended = again(study, "keep=best")
    assert ended.status == 0 and "their validation scores differ" in ended.out, ended
    assert not model_files.read_description(run_folder(study, 1)).reproduces


def test_none_keeps_nothing_and_first_leaves_finished_runs_alone(study: Path, tmp_path: Path) -> None:
    with trainings() as trained:
        assert again(study).status == 0 and again(study, "keep=none").status == 0
    assert not trained and kept_files(study, 0) == ALL
    ended = tiny(final_eval, tmp_path / "none", *OPTIONS, "keep=none", "protocol.num_runs=1")
    assert ended.status == 0 and "weights" not in ended.out, ended
    assert not kept_files(study_dir(tmp_path / "none", "proxy_nca-default"), 0)


def test_a_run_that_was_killed_between_its_record_and_its_description_can_be_used(study: Path) -> None:
    as_earlier_versions(study)
    assert load_of(study).described.run == 0
    assert run(robustness, f"study={study}", "corruptions=[blur]", "display=quiet").status == 0


def test_a_run_that_is_scored_already_is_not_scored_again_when_its_answer_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(body: Any, report: Any) -> Any:  # as when a worker dies between its last write and its answer
        train_or_score(body, report)
        return train_or_score(body, report)

    train_or_score = evaluation.run_unit
    monkeypatch.setattr(evaluation, "run_unit", twice)
    ended = tiny(final_eval, tmp_path, *OPTIONS)
    study = study_dir(tmp_path, "proxy_nca-default")
    assert ended.status == 0 and kept_files(study, 0) == ALL and not kept_files(study, 1), ended
    assert len((study / "test_ledger.jsonl").read_text().splitlines()) == 2, "one look for each run"


@pytest.mark.parametrize(("step", "number"), [("keep_models", 0), ("drop_weights", 0), ("drop_weights", 1)])
def test_weights_are_kept_or_deleted_after_a_kill_between_the_record_and_that_step(
    step: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(what: Any, **options: Any) -> None:
        if f"run_{number:02d}" in str(what):
            raise KeyboardInterrupt
        done(what, **options)

    study, done = study_dir(tmp_path, "proxy_nca-default"), getattr(evaluation, step)
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(evaluation, step, killed)
        tiny(final_eval, tmp_path, *OPTIONS)
    assert run_folder(study, number).with_suffix(".json").exists()
    with trainings() as trained:
        ended = again(study)
    assert ended.status == 0 and not any(f"run_{number:02d}" in name for name in trained), ended
    assert kept_files(study, 0) == ALL and not kept_files(study, 1)
    assert model_files.read_description(run_folder(study, 0)).reproduces


def as_earlier_versions(study: Path) -> None:
    """Replace the files of a kept run by those of an earlier version."""
    folder = run_folder(study, 0)
    for fold in (0, 1):
        path = folder / f"fold_{fold}" / "weights.safetensors"
        identity: dict[str, Any] = {}
        state = read_weights(path, torch.device("cpu"), lambda found, own=identity: str(own.update(found or {}) or ""))
        write_state(path.with_name("best.pt"), state, identity)
        path.unlink()
        model_files.checksum_path(path).unlink()
    (folder / "model.yaml").unlink()


def load_of(study: Path) -> Any:
    from benchmark.study.cli import study_of

    return load(str(study), study_of([]))


def test_models_of_earlier_versions_have_the_same_embeddings(study: Path) -> None:
    images = torch.randint(0, 256, (4, 1, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    new = load_of(study).embed(images)
    as_earlier_versions(study)
    for place in (study, run_folder(study, 0)):
        assert torch.equal(load_of(place).embed(images), new)


def test_a_model_in_its_study_scores_what_the_record_says_and_is_logged_first(study: Path, tmp_path: Path) -> None:
    before = len((study / "test_ledger.jsonl").read_text().splitlines())
    ended = run(score, f"model={study}", f"output={tmp_path / 'scores'}", "display=quiet")
    assert ended.status == 0, ended
    lines = [json.loads(line) for line in (study / "test_ledger.jsonl").read_text().splitlines()[before:]]
    assert [(line["story"], line["run"]) for line in lines] == [("score", 0)]
    recorded = records.read_record(run_folder(study, 0).with_suffix(".json")).result
    text = (tmp_path / "scores" / "scores.csv").read_text().splitlines()[1:]
    found = {tuple(line.split(",")[:2]): float(line.split(",")[2]) for line in text}
    for mode in ("concatenated", "separated"):
        levels = dict(recorded["levels"][mode])
        by_class = levels.pop("class_map_at_r")  # in the record from the search of the levels, which rounds near ties
        assert found[mode, "class_map_at_r"] == pytest.approx(by_class, abs=1e-3)  # in another way
        for name, value in (recorded[mode] | levels).items():
            assert found[mode, name] == pytest.approx(value, rel=1e-14, abs=0)  # their queries are added in any order


def test_a_model_of_one_network_scores_what_the_record_says(tmp_path: Path) -> None:
    assert tiny(traditional, tmp_path, "protocol=traditional", "training.epochs=1", "protocol.num_runs=1").status == 0
    (record,) = tmp_path.rglob("run_00.json")
    ended = run(score, f"model={record.with_suffix('')}", f"output={tmp_path / 'scores'}", "display=quiet")
    assert ended.status == 0, ended
    recorded = records.read_record(record).result["selected"]["best_on_test"]
    lines = (line.split(",") for line in (tmp_path / "scores" / "scores.csv").read_text().splitlines()[1:])
    found = {name: float(value) for _, name, value in lines}
    for name in ("map_at_r", "precision_at_1", "r_precision"):
        assert found[name] == pytest.approx(recorded[name], rel=1e-14, abs=0)


def printed_ranks(ended: Ended) -> list[str]:
    assert ended.status == 0, ended
    return re.findall(r"^R@(\d+)\t", ended.out, re.MULTILINE)


def test_recall_is_that_of_the_data_set_that_is_scored_unless_the_command_line_has_another(
    study: Path, tmp_path: Path
) -> None:
    stored = read_study(study)
    config = stored.config | {"dataset": stored.config["dataset"] | {"recall_at": [1, 10]}}
    write_study(study, dataclasses.replace(stored, config=config))
    options = (f"model={study}", f"output={tmp_path / 'scores'}", "display=quiet")
    assert printed_ranks(run(score, *options)) == ["1", "10"]
    ended = run(score, *options, "dataset.recall_at=[3]")
    assert printed_ranks(ended) == ["3"] and "test classes of glyphs_small" in ended.out
    assert printed_ranks(run(score, *options, "dataset=glyphs_small")) == ["1", "2", "4", "8"]


def test_kept_embeddings_are_scored_only_after_a_line_in_the_ledger_of_their_study(study: Path, tmp_path: Path) -> None:
    before = (study / "test_ledger.jsonl").read_text().splitlines()
    path = run_folder(study, 0) / "embeddings.npz"
    assert run(score, f"embeddings={path}", f"results_dir={tmp_path}").status == 0
    assert (tmp_path / "scores" / f"{tmp_path.name}-copy-run_00-embeddings" / "scores.csv").is_file()
    assert len((study / "test_ledger.jsonl").read_text().splitlines()) == len(before) + 1
    (study / "test_ledger.jsonl").unlink()
    (study / "test_ledger.jsonl").mkdir()  # it cannot be written
    assert_refused(run(score, f"embeddings={path}", f"output={tmp_path / 'other'}"), "test_ledger.jsonl")
    assert not (tmp_path / "other").exists()


def test_weights_of_another_run_in_a_study_are_refused(study: Path) -> None:
    for name in ("weights.safetensors", "weights.safetensors.sha256"):
        shutil.copy(run_folder(study, 0) / "fold_1" / name, run_folder(study, 0) / "fold_0" / name)
    ended = run(score, f"model={study}", "display=quiet")
    assert_refused(ended, "fold_0/weights.safetensors")


def test_a_run_without_weights_is_named_with_those_that_have_them(study: Path) -> None:
    assert_refused(run(score, f"model={study}", "run=1"), "Run 1", "Runs that have: 0")
    assert np.array_equal(load_of(study).described.weights[0].not_trained_on, range(67)), "the first fold's classes"
