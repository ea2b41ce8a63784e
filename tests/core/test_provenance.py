"""A unit is done only by the software of the driver that made it."""

import shutil
from pathlib import Path

import pytest

from benchmark import final_eval, traditional
from benchmark.core import provenance
from benchmark.core.errors import UserError
from benchmark.jobs import queue
from benchmark.jobs import train_unit as worker
from benchmark.jobs.unit import FinishedUnit, Unit
from tests.command_line import TINY, results_of, tiny


def test_code_is_known_by_its_content_and_not_by_its_place(tmp_path, monkeypatch):
    def of(folder):
        monkeypatch.setattr(provenance, "PACKAGE_DIR", folder)
        return provenance.software.__wrapped__()["benchmark"]

    for name in ("a", "b"):
        (tmp_path / name / "losses").mkdir(parents=True)
        (tmp_path / name / "bo.py").write_text("one = 1\n")
        (tmp_path / name / "losses" / "new.py").write_text("two = 2\n")
    assert of(tmp_path / "a") == of(tmp_path / "b")
    (tmp_path / "b" / "losses" / "new.py").write_text("two = 3\n")
    assert of(tmp_path / "a") != of(tmp_path / "b")
    shutil.move(tmp_path / "b" / "losses" / "new.py", tmp_path / "b" / "losses" / "other.py")
    (tmp_path / "b" / "losses" / "other.py").write_text("two = 2\n")
    assert of(tmp_path / "a") != of(tmp_path / "b")


def test_what_differs_is_named_with_both_versions():
    here = provenance.software()
    provenance.check_software(dict(here))
    with pytest.raises(UserError, match=f"torch is {here['torch']} there, 1.0 here") as caught:
        provenance.check_software(here | {"torch": "1.0"})
    assert "numpy" not in str(caught.value)
    with pytest.raises(UserError, match=r"fancy is absent there, 2\.0 here"):
        provenance.check_software(here | {"fancy": "2.0"})


def a_unit(study, folder):
    return Unit(study=study, fingerprint="data of another machine", kind="trial", index=0, fold=0, setting={},
                directory=folder / "unit")  # fmt: skip


def test_every_unit_carries_the_software_of_its_driver(compose_study, tmp_path):
    unit = a_unit(compose_study("executor=inline"), tmp_path)
    with queue.Jobs(unit.study, lambda body, report: FinishedUnit(body).to_json(), ["nothing"], print) as jobs:
        jobs.add(unit)
        assert [answer.result["software"] for _, answer in jobs.finished()] == [provenance.software()]


@pytest.mark.parametrize(
    "do",
    [
        lambda body: worker.train_unit(body, print),
        final_eval.score_unit,
        lambda body: traditional.run_unit(body, print),
    ],
)
def test_a_unit_of_other_code_is_refused_before_anything_is_touched(do, tmp_path):
    spec = {"software": provenance.software() | {"benchmark": "code of yesterday"}, "directory": str(tmp_path / "unit")}
    with pytest.raises(
        UserError, match=r"runs different software from this command: .* code of yesterday here(?s:.)*the same command"
    ):
        do(spec)
    assert not any(tmp_path.iterdir())


def test_a_unit_is_refused_where_the_data_are_others(searched, compose_study, tmp_path):
    """`searched` has drawn the data."""
    body = a_unit(compose_study(*TINY), tmp_path).to_json()
    with pytest.raises(UserError, match=r"on this machine has fingerprint .* data of another machine(?s:.)*make data"):
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
