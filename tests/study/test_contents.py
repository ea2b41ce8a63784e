"""Schemas of records: a wrong field is refused by name, even if the checksum is right."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from benchmark.core import records
from benchmark.core.typed import convert
from benchmark.study import contents
from benchmark.study.identity import Identity
from tests.study.examples import CHOICE, SETTING, fold_result, good, levels, trial_result
from tests.study.mutations import Mutation, mutations, not_covered

GOOD = [(kind, *example) for kind, examples in good().items() for example in examples]
KINDS = pytest.mark.parametrize(("kind", "path", "record"), GOOD, ids=lambda value: getattr(value, "kind", ""))


def body(record: records.Record) -> dict[str, Any]:
    return {"result": record.result, "provenance": record.provenance}


def test_the_examples_use_every_field() -> None:
    for kind, examples in good().items():
        assert not_covered(kind, [body(record) for _, record in examples]) == set()
    assert not_covered(contents.Choice, [CHOICE]) == set()


@KINDS
def test_a_good_record_gives_its_dataclass(kind: Any, path: Path, record: records.Record) -> None:
    content = contents.check(record, kind, path)
    assert isinstance(content, kind)
    if kind is not contents.Lost:
        assert content.result.setting == SETTING


def refusal(check: Callable[..., object], *arguments: object) -> str:
    """The message with which a content is refused; empty if it is accepted."""
    try:
        check(*arguments)
    except records.CorruptFileError as error:
        return str(error)
    return ""


def unnamed(mutation: Mutation, message: str) -> list[str]:
    """The mutation, if the message does not name its field as the first thing after the file."""
    named = message.split(": ", 1)[-1].startswith(f"{mutation.field} is ") and message.endswith(".")
    return [] if named and len(message) < 400 else [f"{mutation.field}, {mutation.what}: {message or 'accepted'}"]


@KINDS
def test_each_wrong_field_of_a_record_is_named(kind: Any, path: Path, record: records.Record) -> None:
    cases = [mutation for mutation in mutations(kind, body(record)) if mutation.value.keys() == body(record).keys()]
    found = []
    for mutation in cases:
        wrong = dataclasses.replace(record, **mutation.value)
        found += unnamed(mutation, refusal(contents.check, wrong, kind, path))
    assert found == [] and len(cases) > 100


def test_each_wrong_field_of_a_choice_is_named() -> None:
    cases, path = list(mutations(contents.Choice, CHOICE)), Path("best.yaml")
    assert convert(CHOICE, contents.Choice, path).trial == 7
    found = []
    for mutation in cases:
        found += unnamed(mutation, refusal(convert, mutation.value, contents.Choice, path))
    assert found == [] and len(cases) > 50


def test_each_wrong_field_of_an_identity_is_a_mismatch_that_names_it() -> None:
    code = ["ef" * 6, "01" * 6]
    identity = Identity(study="ab" * 8, kind="fold", index=3, fold=1, setting="cd" * 8, precision="ieee", code=code)
    good_one = identity.to_json()
    assert identity.mismatch(good_one) == "" and not_covered(Identity, [good_one]) == set()
    for mutation in mutations(Identity, good_one):
        assert mutation.field.partition("[")[0] in identity.mismatch(mutation.value), mutation


@pytest.mark.parametrize("content", [None, [], 3, "text", {}])
def test_content_that_is_not_an_object_is_refused(content: Any) -> None:
    record = records.Record("trial", content, content)
    assert "trial_007.json: result" in refusal(contents.check, record, contents.Trial, Path("trial_007.json"))
    with pytest.raises(records.CorruptFileError, match="file: "):
        convert(content, contents.Choice, Path("file"))


def changed(value: Any, place: str, new: Any) -> Any:
    """A deep copy with a new value at a place such as `folds.1.map_at_r`."""
    value = json.loads(json.dumps(value))
    *steps, last = [int(step) if step.isdecimal() else step for step in place.split(".")]
    inner = value
    for step in steps:
        inner = inner[step]
    inner[last] = new
    return value


CONTRADICTIONS = {
    "result.map_at_r is 0.4, but it is 0.45 as the mean of its folds": (contents.Trial, 0, "map_at_r", 0.4),
    "result.standard_error is 0.06, but": (contents.Trial, 0, "standard_error", 0.06),
    "result.status is failed, but it is completed": (contents.Trial, 0, "status", "failed"),
    "result.reason does not fit status": (contents.Trial, 0, "reason", "no reason"),
    "result.status is completed, but it is failed": (contents.Trial, 1, "status", "completed"),
    "result.reason does not fit status, which is failed": (contents.Trial, 1, "reason", None),
    "result.map_at_r is 0.3, but it is None as the mean": (contents.Trial, 1, "map_at_r", 0.3),
    "result.status is completed, but it is stopped": (contents.Trial, 2, "status", "completed"),
    "result.reason does not fit status, which is stopped": (contents.Trial, 2, "reason", None),
    "result.estimate does not fit folds, map_at_r": (contents.Trial, 2, "map_at_r", 0.4),
    "result.estimate does not fit folds, map_at_r or standard_error": (contents.Trial, 2, "standard_error", None),
    "result.status is stopped, but it is completed": (contents.Trial, 0, "status", "stopped"),
    "result.status is stopped, but it is failed": (contents.Trial, 2, "folds.0", fold_result(0, None)),
    "result.folds[1].fold is 2, but it is 1": (contents.Trial, 0, "folds.1.fold", 2),
    "result.folds[1].setting differs from setting": (contents.Trial, 0, "folds.1.setting.scale", 6.0),
    "result.best_epoch is 3, but it is 2": (contents.Fold, 0, "best_epoch", 3),
    "result.map_at_r is 0.5, but it is 0.4 in": (contents.Fold, 0, "map_at_r", 0.5),
    "result.precision_at_1 is None, but it is 0.7": (contents.Fold, 0, "precision_at_1", None),
    "result.last_epoch is 2, but the history has epoch 3": (contents.Fold, 0, "last_epoch", 2),
    "result.reason does not fit stopped": (contents.Fold, 0, "stopped", "diverged"),
    "result.history must begin with epoch 0": (contents.Fold, 0, "history.1.epoch", 4),
    "result.history[1].loss is None in epoch 1": (contents.Fold, 0, "history.1.loss", None),
    "result.reason does not fit stopped, which is diverged": (contents.Fold, 1, "reason", None),
    "result.best_epoch is 1, but it is None": (contents.Fold, 1, "best_epoch", 1),
    "result.separated does not fit status, which is completed": (contents.Run, 0, "separated", None),
    "result.concatenated does not fit status, which is completed": (contents.Run, 0, "concatenated", None),
    "result.separated.map_at_r is 0.2, but it is 0.25": (contents.Run, 0, "separated.map_at_r", 0.2),
    "result.separated_folds has 0 entries, but the run is completed": (contents.Run, 0, "separated_folds", []),
    "result.levels.separated.ndcg is 0.2, but it is 0.2": (contents.Run, 0, "levels.separated.ndcg", 0.2),
    "result.levels.separated_folds has 1 entries, but 2 models": (
        contents.Run, 0, "levels.separated_folds", levels(0.6, 1)["separated_folds"],
    ),
    "result.levels.separated_folds is empty, or only some scores have h_ap": (
        contents.Run, 0, "levels.concatenated", {"class_map_at_r": 0.6},
    ),
    "result.levels.concatenated.h_ap, or another of h_ap, ndcg": (
        contents.Run, 0, "levels.concatenated", {"class_map_at_r": 0.6, "h_ap": 0.6},
    ),
    "result.folds[0].setting differs": (contents.Run, 0, "setting.scale", 6.0),
    "result.status is completed, but it is failed by": (contents.Run, 1, "status", "completed"),
    "result.concatenated does not fit status, which is failed": (
        contents.Run, 1, "concatenated", {"map_at_r": 0.3, "precision_at_1": 0.6, "r_precision": 0.4},
    ),
    "result.selected.best_on_test.epoch is 3, but it is 2": (contents.Traditional, 0, "selected.best_on_test.epoch", 3),
    "result.selected.last_epoch.epoch is None, but it is 3": (contents.Traditional, 0, "selected.last_epoch", None),
    "result.selected.held_out.map_at_r is 0.5, but": (contents.Traditional, 0, "selected.held_out.map_at_r", 0.5),
    "result.selected.held_out differs from the scores of epoch 1": (
        contents.Traditional, 0, "selected.held_out.recall_at_10", 0.9,
    ),
    "result.selected.best_on_test.epoch is 2, but it is 1": (
        contents.Traditional, 0, "history.1.watched.precision_at_1", 0.75,
    ),
    "result.history must begin with epoch 0, and": (contents.Traditional, 0, "history.1.epoch", 3),
    "result.reason does not fit status, which is completed": (contents.Traditional, 0, "reason", "a reason"),
    "result.history[2].loss is 0.5 in epoch 0": (contents.Traditional, 0, "history.2", {
        "epoch": 0, "loss": 0.5, "diagnostics": {}, "watched": {"map_at_r": 0, "precision_at_1": 0, "r_precision": 0},
    }),
    "result.history[2].map_at_r, or another of": (contents.Traditional, 0, "history.2", {
        "epoch": 2, "loss": 0.5, "diagnostics": {}, "watched": {"map_at_r": 0, "precision_at_1": 0, "r_precision": 0},
        "map_at_r": 0.1,
    }),
    "result.reason differs from provenance.units[0].reason": (contents.Lost, 0, "reason", "other"),
}  # fmt: skip


@pytest.mark.parametrize("message", CONTRADICTIONS)
def test_fields_that_contradict_each_other_are_named(message: str) -> None:
    kind, number, place, new = CONTRADICTIONS[message]
    path, record = good()[kind][number]
    wrong = dataclasses.replace(record, result=changed(record.result, place, new))
    assert refusal(contents.check, wrong, kind, path).startswith(f"{path}: {message}")


@pytest.mark.parametrize("found", [None, {mode: {"class_map_at_r": 0.5} for mode in ("separated", "concatenated")}])
def test_a_run_may_lack_scores_on_levels_or_those_of_a_hierarchy(found: Any) -> None:
    path, record = good()[contents.Run][0]
    result = {key: value for key, value in record.result.items() if key != "levels"}
    if found:
        result["levels"] = found | {"separated_folds": [found["separated"]] * 2}
    content = contents.check(dataclasses.replace(record, result=result), contents.Run, path)
    assert (content.result.levels is UNSET) == (found is None)


def test_a_fold_that_ended_as_planned_has_a_score() -> None:
    path, record = good()[contents.Fold][1]
    wrong = dataclasses.replace(record, result=record.result | {"stopped": "patience", "reason": None})
    assert "result.reason does not fit stopped, which is patience" in refusal(
        contents.check, wrong, contents.Fold, path
    )


@pytest.mark.parametrize("kind", [contents.Trial, contents.Run])
@pytest.mark.parametrize(("name", "of_one"), [("warnings", ["idle"]), ("devices", None)])
def test_warnings_and_devices_are_those_of_all_folds(kind: Any, name: str, of_one: Any) -> None:
    path, record = good()[kind][0]
    wrong = dataclasses.replace(record, provenance=record.provenance | {name: [of_one]})
    assert f"provenance.{name} has 1 entries for 2 folds" in refusal(contents.check, wrong, kind, path)


@pytest.mark.parametrize(("error", "refused"), [(1e-15, False), (1e-8, True)])
def test_the_last_digits_of_a_mean_may_differ_between_versions_of_python(error: float, refused: bool) -> None:
    path, record = good()[contents.Trial][0]
    nearly = dataclasses.replace(record, result=record.result | {"map_at_r": 0.45 + error})
    assert bool(refusal(contents.check, nearly, contents.Trial, path)) is refused


@KINDS
def test_another_kind_of_record_is_refused(kind: Any, path: Path, record: records.Record) -> None:
    for other in {other.kind for other, _, _ in GOOD} - {kind.kind} | {"", "other"}:
        message = refusal(contents.check, dataclasses.replace(record, kind=other), kind, path)
        assert message == f'{path}: kind is "{other}"; it must be "{kind.kind}".'


@pytest.mark.parametrize(
    ("kind", "path", "field"),
    [
        (contents.Fold, "trial_007/fold_1/record.json", "result.fold"),
        (contents.Trial, "bo/trial_006.json", "result.index"),
        (contents.Run, "trial_007/run_04.json", "result.run"),
        (contents.Run, "trial_006/run_03.json", "result.trial"),
        (contents.Traditional, "setting/run_04.json", "result.run"),
        (contents.Ask, "trial_006/ask.json", "result.index"),
        (contents.Lost, "trial_006/lost.json", "result.index"),
    ],
)
def test_a_record_in_the_place_of_another_is_refused(kind: Any, path: str, field: str) -> None:
    _, record = good()[kind][0]
    assert refusal(contents.check, record, kind, Path(path)).startswith(f"{path}: {field} says that the record")


def test_a_record_on_disk_is_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "trial_007" / "run_03.json"
    _, record = good()[contents.Run][0]
    records.write_record(path, record)
    assert contents.read(path, contents.Run) == record
    record = dataclasses.replace(record, result=changed(record.result, "concatenated.map_at_r", -500))
    records.write_record(path, record)
    message = refusal(contents.read, path, contents.Run)
    assert message == f"{path}: result.concatenated.map_at_r is -500; it must be a number between 0 and 1."
    with pytest.raises(FileNotFoundError):
        contents.read(tmp_path / "run_04.json", contents.Run)


def test_what_was_checked_is_checked_again_after_any_change_and_in_any_other_place(tmp_path: Path) -> None:
    path, other = tmp_path / "trial_007" / "run_03.json", tmp_path / "trial_007" / "run_04.json"
    _, record = good()[contents.Run][0]
    records.write_record(path, record)
    assert contents.read(path, contents.Run) == contents.read(path, contents.Run) == record
    with pytest.raises(records.CorruptFileError, match='kind is "run"'):
        contents.read(path, contents.Trial)
    other.write_bytes(path.read_bytes())
    with pytest.raises(records.CorruptFileError, match="belongs to run_03"):
        contents.read(other, contents.Run)
    status, text = path.stat(), path.read_text()
    path.write_text(altered := text.replace('"map_at_r": 0.', '"map_at_r": 1.', 1))
    assert altered != text
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(records.CorruptFileError, match="altered"):
        contents.read(path, contents.Run)


def test_the_same_content_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trial_007" / "run_03.json"
    _, record = good()[contents.Run][0]
    records.write_record(path, record)
    contents.read(path, contents.Run)
    for module, name in ((contents, "check"), (records, "digest")):
        monkeypatch.setattr(module, name, None)
    assert contents.read(path, contents.Run) == record


def test_anything_may_be_added_to_a_training_and_to_a_provenance_only() -> None:
    classes = [value for value in vars(contents).values() if dataclasses.is_dataclass(value)]
    found = {c.__name__ for c in classes if getattr(c, "other_keys", None) == dict[str, object]}
    assert found == {"FoldResult", "TraditionalResult", "Origin"} | {
        f"{name}Provenance" for name in ("Fold", "Trial", "Lost", "Run", "Traditional", "Robustness")
    }


def test_a_loss_may_add_fields_to_a_fold_and_not_to_its_trial() -> None:
    own = {"epochs_and_best": [2, 1], "purity": {"level_1": 0.5}}
    path, record = good()[contents.Trial][0]
    result = trial_result(7, [fold_result(number, 0.4) | own for number in range(2)])
    assert refusal(contents.check, dataclasses.replace(record, result=result), contents.Trial, path) == ""
    wrong = dataclasses.replace(record, result=record.result | own)
    assert "result.epochs_and_best is unknown" in refusal(contents.check, wrong, contents.Trial, path)
