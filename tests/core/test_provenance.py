"""A unit is done only by the software of the driver that made it."""

import platform
import shutil
from pathlib import Path

import pytest

from benchmark import final_eval, traditional
from benchmark.core import provenance, records
from benchmark.core.errors import UserError
from benchmark.core.provenance import costs_of
from benchmark.jobs import queue
from benchmark.jobs import train_unit as worker
from benchmark.jobs.unit import FinishedUnit, Unit
from benchmark.study.code import training_code
from tests.command_line import TINY, results_of, study_dir, tiny


def test_what_differs_is_named_with_both_versions():
    here = provenance.versions()
    provenance.check_versions(dict(here))
    with pytest.raises(UserError, match=f"torch is {here['torch']} there, 1.0 here") as caught:
        provenance.check_versions(here | {"torch": "1.0"})
    assert "numpy" not in str(caught.value)
    with pytest.raises(UserError, match=r"fancy is absent there, 2\.0 here"):
        provenance.check_versions(here | {"fancy": "2.0"})


def a_unit(study, folder, **fields):
    common = {"study": study, "fingerprint": "data of another machine", "kind": "run", "index": 0, "fold": None,
              "setting": {}, "study_identity": study.identity("data of another machine"),
              "code": training_code(study).digest, "accepted": [], "directory": folder / "unit"}  # fmt: skip
    return fields.pop("of", Unit)(**common | fields)


def test_every_unit_carries_the_versions_of_its_driver(compose_study, tmp_path):
    unit = a_unit(compose_study("executor=inline"), tmp_path)
    with queue.Jobs(unit.study, lambda body, report: FinishedUnit(body).to_json(), ["nothing"], print) as jobs:
        jobs.add(unit)
        assert [answer.result["versions"] for _, answer in jobs.finished()] == [provenance.versions()]


SCORES = {"trial": None, "folds": [], "seconds": [], "warnings": [], "fold_code": [], "devices": [],
          "costs": {}, "test_contents": None}  # fmt: skip
EVERY_TASK = pytest.mark.parametrize(
    ("do", "fields"),
    [
        (lambda body: worker.train_unit(body, print), {}),
        (final_eval.score_unit, {"of": final_eval.ScoreUnit} | SCORES),
        (lambda body: traditional.run_unit(body, print), {"of": traditional.TraditionalUnit, "test_contents": None}),
    ],
    ids=["train", "score", "traditional"],
)


@EVERY_TASK
def test_a_unit_of_other_packages_is_refused_before_anything_is_touched(do, fields, compose_study, tmp_path):
    body = a_unit(compose_study(), tmp_path, **fields).to_json()
    body["versions"] = body["versions"] | {"torch": "version of yesterday"}
    with pytest.raises(UserError, match=r"other software than this command: torch is .* version of yesterday here"):
        do(body)
    assert not any(tmp_path.iterdir())


@EVERY_TASK
def test_a_unit_of_other_code_is_refused_before_anything_is_touched(do, fields, compose_study, tmp_path):
    study = compose_study()
    body = a_unit(study, tmp_path, **fields).to_json() | {"code": "code of yesterday"}
    here = training_code(study).digest
    with pytest.raises(UserError, match=rf"has other code than this command: {here} there, code of yesterday here"):
        do(body)
    assert not any(tmp_path.iterdir())


def test_a_unit_is_refused_where_the_data_are_others(searched, compose_study, tmp_path):
    """`searched` has drawn the data."""
    body = a_unit(compose_study(*TINY), tmp_path, fold=0).to_json()
    with pytest.raises(
        UserError, match=rf"on {platform.node()} has fingerprint .* data of another machine(?s:.)*make data"
    ):
        worker.train_unit(body, print)
    assert not (tmp_path / "unit" / "record.json").exists()


@pytest.mark.slow
def test_a_final_evaluation_by_jobs_leaves_the_records_of_one_in_this_process(results, tmp_path):
    other = shutil.copytree(results, tmp_path / "jobs")
    assert tiny(final_eval.final_eval, results).status == 0
    ended = tiny(final_eval.final_eval, other, "executor=slurm", "executor.prefix=[env]", "executor.workers=2")
    assert ended.status == 0, ended
    assert len(list(Path(other).rglob("run_*.json"))) == 2
    assert results_of(other) == results_of(results)


def test_a_fold_that_does_not_say_what_it_cost_leaves_the_cost_of_its_run_open() -> None:
    folds = [{"seconds_per_iteration": 0.2, "peak_memory_bytes": 5}, {"seconds_per_iteration": 0.4}]
    assert costs_of(folds) == {"seconds_per_iteration": pytest.approx(0.3), "peak_memory_bytes": None}
    full = [fold | {"peak_memory_bytes": peak} for fold, peak in zip(folds, (5, 9), strict=True)]
    assert costs_of(full)["peak_memory_bytes"] == 9
    nothing = {"seconds_per_iteration": None, "peak_memory_bytes": None}
    assert costs_of([]) == costs_of([{}, full[0]]) == nothing


def test_a_trial_holds_what_its_folds_cost(results: Path) -> None:
    path = next((study_dir(results) / "bo").glob("trial_*.json"))
    folds = [records.read_record(fold) for fold in sorted(path.with_suffix("").glob("fold_*/record.json"))]
    found = records.read_record(path).provenance
    seconds = [fold.provenance["seconds_per_iteration"] for fold in folds]
    assert len(folds) > 1 and found["seconds_per_iteration"] == pytest.approx(sum(seconds) / len(seconds))
    assert found["peak_memory_bytes"] == max(fold.provenance["peak_memory_bytes"] for fold in folds) > 1e7
