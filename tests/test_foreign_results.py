"""No result is used for another: files on disk must have the identity of the study's configuration, setting and code.

Each test replaces a result by another one with a correct checksum, and runs the real commands in-process.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmark.bo import bo
from benchmark.core import records
from benchmark.core.code import Code
from benchmark.final_eval import final_eval
from benchmark.jobs import train_unit, unit
from benchmark.report.group_table import comparable, records_of
from benchmark.status import status
from benchmark.study import opening
from benchmark.study.model_files import WEIGHTS, read_weights
from benchmark.study.stored import read_study
from benchmark.tables import tables
from benchmark.traditional import traditional
from benchmark.training.checkpoint import write_state
from tests.command_line import assert_refused, results_of, run, study_dir, tiny, trainings

pytestmark = pytest.mark.usefixtures("no_fsync")
slow = pytest.mark.slow  # the fast tests have one of each kind
OTHER_SCALE = {"proxy_lr": 0.01, "softmax_scale": 26.0}


def propose(folder: Path, setting: dict[str, float]) -> None:
    """Replace the proposal of trial 0, as a search does that proposes it anew, and leave everything else."""
    path = folder / "bo" / "trial_000" / "ask.json"
    old = records.read_record(path)
    assert old.identity is not None
    identity = old.identity | {"setting": records.digest(setting)[:16]}
    records.write_record(path, replace(old, result={"index": 0, "setting": setting}, identity=identity))


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the code of every study differ from what it was, in one module."""

    def edit(module: str, digest: str = "0123456789ab") -> None:
        for place, name in ((opening, "training_code"), (opening, "search_code"), (unit, "training_code")):
            found = getattr(place, name)

            def changed(study: Any, found: Callable[[Any], Code] = found) -> Code:
                modules = found(study).modules
                return Code(modules | {module: digest} if module in modules else modules)

            monkeypatch.setattr(place, name, changed)

    return edit


# -- another setting ---------------------------------------------------------------------------------------------------


@slow
def test_folds_and_runs_of_another_setting_are_quarantined_and_trained_again(results: Path) -> None:
    folder = study_dir(results)
    one = ("trials=1",)
    assert tiny(bo, results, *one).status == 0 and tiny(final_eval, results, *one).status == 0
    before = results_of(folder / "final_eval")
    propose(folder, OTHER_SCALE)
    with trainings() as trained:
        searched = tiny(bo, results, *one)
        evaluated = tiny(final_eval, results, *one)
    assert (searched.status, evaluated.status) == (0, 0), (searched, evaluated)
    assert trained == ["trial_000/fold_0", "trial_000/fold_1", *(f"run_0{r}/fold_{f}" for r in (0, 1) for f in (0, 1))]
    runs = {name: result for name, result in results_of(folder / "final_eval").items() if name.count("/") == 1}
    assert len(runs) == 2 and all(result["setting"] == OTHER_SCALE for result in runs.values())
    assert all(result != before[name] for name, result in runs.items())
    for name in ("trial_000.json", "fold_0/record.json"):
        assert f"{name} does not belong to this" in searched.out and "setting is" in searched.out
    assert "run_00.json does not belong to this study: setting is" in evaluated.out
    assert len(list(folder.rglob("*.other-*"))) == 3 + 2 + 4


@slow
def test_a_record_in_the_place_of_another_one_is_not_taken_for_it(results: Path) -> None:
    """The record of fold 1 is copied to fold 0; a run's record to the next run."""
    folder = study_dir(results)
    assert tiny(final_eval, results).status == 0
    (chosen,) = (folder / "final_eval").iterdir()
    before = results_of(folder)
    (folder / "bo" / "trial_001.json").unlink()
    for old, new in ((folder / "bo/trial_001/fold_1/record.json", folder / "bo/trial_001/fold_0/record.json"),
                     (chosen / "run_00.json", chosen / "run_01.json")):  # fmt: skip
        shutil.copy(old, new)
    with trainings() as trained:
        assert tiny(bo, results).status == 0 and tiny(final_eval, results).status == 0
    assert trained == ["trial_001/fold_0", "run_01/fold_0", "run_01/fold_1"]
    assert {name: found for name, found in results_of(folder).items() if name in before} == before


@slow
@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt"])
def test_weights_of_another_training_are_not_continued_or_scored(name: str, results: Path) -> None:
    folder = study_dir(results)
    assert tiny(final_eval, results, "keep=best").status == 0
    before = results_of(folder)
    (chosen,) = (folder / "final_eval").iterdir()
    mine, theirs = chosen / "run_00" / "fold_0", chosen / "run_01" / "fold_0"
    (chosen / "run_00.json").unlink()
    if name == "checkpoint.pt":
        (mine / "record.json").unlink()
    state = read_weights(theirs / WEIGHTS, torch.device("cpu"), lambda _: "")
    write_state(mine / name, state, records.read_record(theirs / "record.json").identity or {})
    with trainings() as trained:
        ended = tiny(final_eval, results, "keep=best")
    assert ended.status == 0 and set(trained) == {"run_00/fold_0", "run_00/fold_1"}  # the latter's are kept elsewhere
    assert results_of(folder) == before


@slow
def test_a_checkpoint_that_does_not_fit_is_quarantined_once(results: Path) -> None:
    """It is intact and belongs to this training, but holds a key more than the components have."""
    folder = study_dir(results)
    before, unit_folder = results_of(folder), folder / "bo" / "trial_001" / "fold_0"
    identity = records.read_record(unit_folder / "record.json").identity or {}
    (folder / "bo" / "trial_001.json").unlink()
    (unit_folder / "record.json").unlink()
    progress = {"epoch": 0, "incumbent": 0, "best_epoch": None, "history": [], "train_seconds": 0.0,
                "evaluate_seconds": 0.0}  # fmt: skip
    state = {"progress": progress, "best": None, "modules": {"trunk": {}, "head": {}, "loss": {}}, "optimizers": {}}
    write_state(unit_folder / "checkpoint.pt", state, identity)
    with trainings() as trained:
        ended = tiny(bo, results)
    assert ended.status == 0 and set(trained) == {"trial_001/fold_0"}
    assert "checkpoint.pt does not fit this training" in ended.out
    assert results_of(folder) == before


# -- a missing study.yaml ----------------------------------------------------------------------------------------------

CHANGES = ["seed=5", *(pytest.param(change, marks=slow) for change in (
    "dataset.max_epochs=2", "trunk.width=16", "protocol.batch_size=8", "precision=bf16"))]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("command", [bo, pytest.param(final_eval, marks=slow)])
def test_without_study_yaml_nothing_is_adopted_by_another_configuration(
    command: Callable[..., None], change: str, results: Path
) -> None:
    folder = study_dir(results)
    (folder / "study.yaml").unlink()
    before = results_of(folder)
    with trainings() as trained:
        ended = tiny(command, results, change)
    assert ended.status == 2 and not trained and results_of(folder) == before
    assert not (folder / "study.yaml").exists()
    if command is bo:
        assert_refused(
            ended, "study.yaml is missing or damaged", "trial_000.json was made with another", "variant=NAME"
        )


@slow
def test_without_study_yaml_the_same_configuration_writes_it_anew(results: Path) -> None:
    folder = study_dir(results)
    before = read_study(folder)
    (folder / "study.yaml").unlink()
    with trainings() as trained:
        assert tiny(bo, results).status == 0
    assert not trained and replace(read_study(folder), config=before.config, overrides=before.overrides) == before


@pytest.mark.parametrize(("module", "path"), [
    pytest.param("benchmark.training.loop", "trial_000.json", marks=slow),
    ("benchmark.searchers.sobol", "trial_000/ask.json"),
])  # fmt: skip
def test_without_study_yaml_results_of_other_code_are_not_adopted(
    results: Path, edited: Callable[[str], None], module: str, path: str
) -> None:
    (study_dir(results) / "study.yaml").unlink()
    edited(module)
    assert_refused(tiny(bo, results), f"{path} was computed by other code")


# -- other code --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [bo, pytest.param(final_eval, marks=slow)])
def test_an_edit_of_code_that_computes_is_refused_between_two_sessions(
    command: Callable[..., None], results: Path, edited: Callable[[str], None]
) -> None:
    edited("benchmark.losses.proxy_nca")
    with trainings() as trained:
        ended = tiny(command, results, "trials=3" if command is bo else "keep=none")
    assert_refused(ended, "code that computes proxy_nca on glyphs_small differs", "benchmark.losses.proxy_nca",
                   f"STUDY={study_dir(results)}", "accept_code=true", "variant=NAME")  # fmt: skip
    assert not trained


@slow
def test_an_edit_of_the_searcher_is_refused_by_the_search_alone(results: Path, edited: Callable[[str], None]) -> None:
    edited("benchmark.searchers.sobol")
    assert_refused(tiny(bo, results, "trials=3"), "code that searches", "benchmark.searchers.sobol")
    assert tiny(final_eval, results).status == 0
    ended = tiny(bo, results, "trials=3", "accept_code=true")
    assert ended.status == 0 and "accepted the difference: benchmark.searchers.sobol" in ended.out
    assert "accept_code=true accepted: all rows (2 versions)" in run(tables, f"results_dir={results}").out


@slow
def test_code_can_be_corrected_before_anything_is_trained(tmp_path: Path, edited: Callable[[str], None]) -> None:
    """A first trial that is lost leaves its proposal, and no result."""
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(train_unit, "train_fold", lambda *_: 1 / 0)
        assert tiny(bo, tmp_path, "trials=1", "executor.retries=0").status != 0
    edited("benchmark.losses.proxy_nca")
    ended = tiny(bo, tmp_path, "trials=1")
    assert ended.status == 0 and "WARNING" not in ended.out, ended


@slow
def test_an_edit_of_code_that_computes_nothing_changes_nothing(results: Path, edited: Callable[[str], None]) -> None:
    edited("benchmark.report.formats")
    with trainings() as trained:
        assert tiny(bo, results).status == 0 and not trained


@slow
def test_an_accepted_edit_is_announced_recorded_and_printed_below_the_table(
    results: Path, edited: Callable[[str], None]
) -> None:
    folder = study_dir(results)
    edited("benchmark.losses.proxy_nca")
    ended = tiny(bo, results, "trials=3", "accept_code=true")
    assert ended.status == 0 and "WARNING: this study contains results of 2 versions of the code" in ended.out
    code = [record.identity["code"] for index in range(3)
            if (record := records.read_record(folder / "bo" / f"trial_00{index}.json")).identity]  # fmt: skip
    assert code[0] == code[1] != code[2]
    with trainings() as trained:
        again = tiny(bo, results, "trials=3")  # the difference is accepted once and for all
    assert again.status == 0 and not trained and "contains results of 2 versions" in again.out
    assert tiny(final_eval, results, "trials=3").status == 0
    assert "accept_code=true accepted: all rows (2 versions)" in run(tables, f"results_dir={results}").out


@pytest.mark.slow
def test_an_accepted_edit_of_the_searcher_is_said_aloud_and_printed_below_the_table(
    results: Path, edited: Callable[[str], None]
) -> None:
    edited("benchmark.searchers.sobol")
    ended = tiny(bo, results, "accept_code=true")
    assert ended.status == 0 and "results of 2 versions of the code" in ended.out, ended
    stored = read_study(study_dir(results))
    used = records_of(stored, study_dir(results))
    compared = comparable(stored, used, "row").code or {}  # other searches may differ in it
    assert compared["benchmark.searchers.sobol"] == "0123456789ab" and "benchmark.training.loop" in compared
    assert "accept_code=true accepted: all rows (2 versions)" in run(tables, f"results_dir={results}").out


@slow
def test_an_accepted_edit_does_not_continue_a_checkpoint_of_the_old_code(
    results: Path, edited: Callable[[str], None]
) -> None:
    folder = study_dir(results)
    fold = folder / "bo" / "trial_001" / "fold_0"
    identity = records.read_record(fold / "record.json").identity or {}
    (folder / "bo" / "trial_001.json").unlink()
    (fold / "record.json").unlink()
    write_state(fold / "checkpoint.pt", {}, identity)
    edited("benchmark.losses.proxy_nca")
    with trainings() as trained:
        ended = tiny(bo, results, "accept_code=true")
    assert ended.status == 0 and set(trained) == {"trial_001/fold_0"}
    assert "checkpoint.pt does not belong here: code is" in ended.out
    trial = records.read_record(folder / "bo" / "trial_001.json").identity or {}
    assert len(trial["code"]) == 2


@slow
def test_the_traditional_protocol_refuses_other_code_too(tmp_path: Path, edited: Callable[[str], None]) -> None:
    again = ("protocol.num_runs=1", "training.epochs=1", "training.batch_size=64")
    assert tiny(traditional, tmp_path, *again, protocol="traditional").status == 0
    edited("benchmark.study.passes")
    assert_refused(tiny(traditional, tmp_path, *again, protocol="traditional"), "benchmark.study.passes")


# -- an unfinished search ----------------------------------------------------------------------------------------------


def test_final_runs_need_the_whole_search(results: Path) -> None:
    folder = study_dir(results)
    with trainings() as trained:
        ended = tiny(final_eval, results, "trials=50")
    assert_refused(ended, "run with trials=2", "trials=50", f"make bo STUDY={folder}", "TRIALS=50")
    assert not trained
    (folder / "bo" / "trial_001.json").unlink()
    shutil.rmtree(folder / "bo" / "trial_001")
    for overrides in (("trials=2",), ()):
        assert_refused(tiny(final_eval, results, *overrides), "has 1 of 2 trials")
    assert "Skipped" in run(final_eval, f"results_dir={results}", "executor=inline").out


@slow
def test_a_command_without_trials_takes_those_of_the_stored_study(results: Path) -> None:
    assert tiny(bo, results, "trials=3").status == 0
    with trainings() as trained:
        ended = run(final_eval, f"study={study_dir(results)}", "executor=inline", "protocol.num_runs=1")
    assert ended.status == 0 and len(trained) == 2
    assert yaml.safe_load((study_dir(results) / "study.yaml").read_text())["trials"] == 3


@slow
def test_a_shorter_search_chooses_among_its_own_trials_only(results: Path) -> None:
    best = yaml.safe_load((study_dir(results) / "bo" / "best.yaml").read_text())["trial"]
    assert tiny(bo, results, "trials=1").status == 0
    choice = yaml.safe_load((study_dir(results) / "bo" / "best.yaml").read_text())
    assert (choice["trial"], choice["num_trials"]) == (0, 1)
    assert tiny(final_eval, results, "trials=1").status == 0
    assert_refused(tiny(final_eval, results, "trials=2"), "run with trials=1", "TRIALS=2")
    assert tiny(bo, results, "trials=2").status == 0
    assert yaml.safe_load((study_dir(results) / "bo" / "best.yaml").read_text())["trial"] == best


@slow
def test_the_number_of_runs_can_be_changed_later(results: Path) -> None:
    with trainings() as trained:
        for runs in (1, 2, 1):
            assert tiny(final_eval, results, f"protocol.num_runs={runs}").status == 0
    assert trained == [f"run_0{run}/fold_{fold}" for run in (0, 1) for fold in (0, 1)]
    assert "n = 1 run" in run(tables, f"results_dir={results}").out


# -- another choice ----------------------------------------------------------------------------------------------------


def rewrite(path: Path, **changes: object) -> None:
    """Change a YAML file that carries its own checksum, and give it the right one."""
    body = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "sha256"} | changes
    path.write_text(yaml.safe_dump({"sha256": records.digest(body)} | body, sort_keys=False))


@slow
def test_a_choice_that_its_records_contradict_is_refused(results: Path) -> None:
    path = study_dir(results) / "bo" / "best.yaml"
    best = yaml.safe_load(path.read_text())
    for trial in (0, 1):
        result = records.read_record(path.with_name(f"trial_00{trial}.json")).result
        wrong = [{"setting": OTHER_SCALE}, {"validation_map_at_r": 0.9}, {"num_trials": 7}, {"identity": "0" * 16}]
        if trial != best["trial"]:
            wrong = [{"trial": trial, "setting": result["setting"], "validation_map_at_r": result["map_at_r"]}]
        for change in wrong:
            rewrite(path, **change)
            assert_refused(tiny(final_eval, results), str(path), "make bo STUDY=")
            rewrite(path, **best)
    assert tiny(final_eval, results).status == 0


# -- readers -----------------------------------------------------------------------------------------------------------


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_schema(number: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": number}))

    return change


def to_another_kind(path: Path) -> None:
    records.write_record(path, replace(records.read_record(path), kind="trial"))


def to_an_impossible_score(path: Path) -> None:
    record = records.read_record(path)
    record.result["concatenated"]["map_at_r"] = -500
    records.write_record(path, record)


def to_another_study(path: Path) -> None:
    record = records.read_record(path)
    records.write_record(path, replace(record, identity=(record.identity or {}) | {"study": "0" * 16}))


@pytest.fixture(scope="session")
def evaluated(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a finished tiny study, for tests to copy."""
    folder = Path(shutil.copytree(searched, tmp_path_factory.mktemp("evaluated") / "results"))
    assert tiny(final_eval, folder).status == 0
    return folder


@slow
@pytest.mark.parametrize(
    ("change", "phrase"),
    [(with_schema(9), "has schema 9"), (to_another_kind, 'kind is "trial"'), (to_an_impossible_score, "-500"),
     (to_another_study, "does not belong to this study")],
)  # fmt: skip
def test_readers_name_a_record_that_cannot_be_used_and_leave_it_where_it_is(
    change: Callable[[Path], None], phrase: str, evaluated: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(evaluated, results)
    (path,) = study_dir(results).glob("final_eval/*/run_01.json")
    change(path)
    before = contents_of(results / "studies")
    shown = [run(command, f"results_dir={results}") for command in (tables, status)]
    assert all(ended.status == 0 for ended in shown), shown
    assert phrase in shown[0].out and path.name in shown[0].out and "±" not in shown[0].out
    assert contents_of(results / "studies") == before


@slow
@pytest.mark.parametrize("text", ["{", "sha256: 1\n", "a: &a [1]\nb: *a\n"])
def test_an_unreadable_study_is_reported_in_one_line_and_the_others_are_shown(
    text: str, evaluated: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(evaluated, results)
    shutil.copytree(study_dir(results), study_dir(results, "other"))
    (study_dir(results, "other") / "study.yaml").write_text(text)
    for command in (tables, status, final_eval):
        ended = run(command, f"results_dir={results}", "executor=inline")
        assert ended.status == 0, ended
        (line,) = [line for line in ended.out.splitlines() if "other/study.yaml" in line]
        assert "ProxyNCA" in ended.out or "proxy_nca" in ended.out, line


@slow
def test_a_study_can_be_renamed_moved_and_mounted_read_only(evaluated: Path, tmp_path: Path) -> None:
    moved = tmp_path / "theirs" / "studies" / "any group" / "any name"
    shutil.copytree(study_dir(evaluated), moved)
    with trainings() as trained:
        for command in (bo, final_eval):
            assert run(command, f'study="{moved}"', "executor=inline").status == 0
    assert not trained and not study_dir(tmp_path / "theirs").exists()
    for path in (moved, *moved.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    shown = run(tables, f"results_dir={tmp_path / 'theirs'}")
    assert shown.status == 0 and "± " in shown.out
    assert "2 of 2 runs" in run(status, f'study="{moved}"').out
