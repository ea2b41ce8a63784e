"""Units and answers survive JSON, and whoever reads them checks every field."""

import json
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.final_eval import ScoreUnit
from benchmark.jobs.train_unit import finished_record
from benchmark.jobs.unit import FinishedUnit, LostUnit, Unit
from benchmark.study import contents
from benchmark.study.code import training_code
from benchmark.study.preflight import check_values
from benchmark.study.study import Study
from benchmark.traditional import TraditionalUnit
from tests.study import examples

Compose = Callable[..., Study]


@pytest.fixture
def units(compose_study: Compose, tmp_path: Path) -> list[Unit]:
    """One unit of each kind, with no field at its default."""
    folder, study = tmp_path / "trial_003" / "fold_1", compose_study()
    common = {"study": study, "fingerprint": "abc", "index": 3, "setting": {"a": 0.1, "n": 3}, "directory": folder,
              "study_identity": study.identity("abc"),
              "code": training_code(study).digest, "accepted": ["older", training_code(study).digest],
              "keep_weights": True}  # fmt: skip
    return [
        Unit(**common, kind="trial", fold=1),
        TraditionalUnit(**common, kind="run", fold=None, test_contents=None),
        ScoreUnit(**common, kind="run", fold=None, trial=None, folds=[{"fold": 0, "map_at_r": None}],
                  seconds=[{"train": 1.5, "evaluate": 0.25}], warnings=[["idle"]], fold_code=["older"],
                  devices=[{"kind": "cpu", "name": "a", "earlier": []}], costs={"peak_bytes": 5}, test_contents="def"),
    ]  # fmt: skip


def test_a_unit_survives_json(units: list[Unit]) -> None:
    for unit in units:
        assert type(unit).from_json(json.loads(json.dumps(unit.to_json()))) == unit
    assert units[0].name == "trial_003/fold_1"


def test_answers_survive_json() -> None:
    done, lost = (
        FinishedUnit({"x": 1}, {"by": "hand"}, {"index": 1}, ["note"]),
        LostUnit("a/b", "gone", "log", "tail", "error"),
    )
    for answer in (done, lost):
        assert type(answer).from_json(json.loads(json.dumps(answer.to_json()))) == answer


def test_a_missing_or_unknown_field_is_refused_by_name(units: list[Unit]) -> None:
    for unit in units:
        body = unit.to_json()
        without = {key: value for key, value in body.items() if key != "keep_weights"}
        with pytest.raises(ValueError, match="lacks keep_weights"):
            type(unit).from_json(without)
        with pytest.raises(ValueError, match="lacks fold and has unknown flod"):
            type(unit).from_json({key: value for key, value in body.items() if key != "fold"} | {"flod": 1})
    with pytest.raises(ValueError, match="unknown weights"):
        FinishedUnit.from_json(FinishedUnit({}).to_json() | {"weights": 1})


def test_a_worker_without_the_device_of_the_study_names_its_machine(compose_study: Compose, tmp_path: Path) -> None:
    """The driver's own machine need not have it, where others train."""
    study = compose_study("executor=slurm", "executor.prefix=[env]", "device=cuda:7")
    check_values(study)
    unit = Unit(study=study, fingerprint="abc", study_identity=study.identity("abc"), kind="trial", index=0, fold=0,
                setting={}, directory=tmp_path, code=training_code(study).digest, accepted=[])  # fmt: skip
    with pytest.raises(
        UserError, match=rf"device='cuda:7': allowed on this machine \({platform.node()}\) are auto, cpu"
    ):
        Unit.from_json(unit.to_json())
    with pytest.raises(UserError, match="device='gpu': allowed are auto, cpu, cuda, and cuda:N"):
        check_values(compose_study("executor=slurm", "executor.prefix=[env]", "device=gpu"))


def test_a_worker_refuses_a_task_that_is_not_its_own(units: list[Unit]) -> None:
    train, traditional, score = units
    for kind, other in ((Unit, traditional), (TraditionalUnit, score), (ScoreUnit, train)):
        with pytest.raises(ValueError, match=f"A {kind.__name__} has .* this unit has task='{other.task}'"):
            kind.from_json(other.to_json())


def test_other_software_is_found_before_its_other_fields_are(units: list[Unit]) -> None:
    body = units[0].to_json() | {"field_of_tomorrow": 1}
    body["versions"] = body["versions"] | {"torch": "version of tomorrow"}
    with pytest.raises((UserError, ValueError), match="version of tomorrow"):
        Unit.from_json(body)


def test_a_worker_composes_a_study_once(units: list[Unit], monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[object] = []
    compose = Study._composed.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Study, "_composed", classmethod(lambda cls, *a: (composed.append(a), compose(cls, *a))[1]))
    received = [Unit.from_json(json.loads(json.dumps(units[0].to_json()))).study for _ in range(3)]
    assert received[0] is received[1] is received[2] and len(composed) <= 1
    assert received[0] == units[0].study and hash(received[0]) == hash(units[0].study)
    other = received[0].with_setting({"proxy_lr": 0.5})
    assert other is received[0].with_setting({"proxy_lr": 0.5}) and other != received[0] and len(composed) <= 2


@pytest.mark.parametrize(
    ("change", "belongs"),
    [({}, True), ({"code": ["older"]}, True), ({"code": ["unknown"]}, False), ({"setting": "0" * 16}, False),
     ({"study": "0" * 16}, False), ({"index": 4}, False), ({"fold": 2}, False), ({"precision": "bf16"}, False)],
)  # fmt: skip
def test_the_record_of_something_else_is_quarantined_and_not_taken_for_the_units_own(
    change: dict[str, object], belongs: bool, units: list[Unit]
) -> None:
    unit, path = units[0], units[0].directory / "record.json"
    result = examples.fold_result(1, 0.4, dict(unit.setting))
    origin = {"seconds": {"train": 1.0, "evaluate": 1.0}, "fingerprint": "abc"}
    identity = unit.identity().to_json() | change
    records.write_record(path, records.Record("fold", result, origin, identity))
    found, note = finished_record(unit, path, contents.Fold)
    assert (found is not None, path.exists()) == (belongs, belongs)
    if not belongs:
        assert note is not None and f"{next(iter(change))} is" in note
        assert len(list(path.parent.glob("record.json.other-*"))) == 1
