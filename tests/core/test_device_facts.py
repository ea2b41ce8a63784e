"""A record names the device that computed it, and no other device."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.bo import bo
from benchmark.core import provenance, records
from benchmark.core.provenance import UNKNOWN, device_facts, devices_of, kinds_of
from benchmark.core.records import Record
from benchmark.final_eval import final_eval
from benchmark.jobs.session import Session
from benchmark.jobs.unit import FinishedUnit, Unit
from benchmark.tables import tables
from tests.command_line import TINY, run, study_dir, tiny

GPU_NAME = "NVIDIA Imaginary"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU next to the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: GPU_NAME)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.backends.cudnn.m, "version", lambda: 91002)


@pytest.mark.usefixtures("gpu")
def test_a_training_on_the_cpu_names_no_gpu() -> None:
    provenance.hardware.cache_clear()
    facts = device_facts(torch.device("cpu"), {"products": "ieee"})
    assert GPU_NAME not in json.dumps(provenance.provenance(device=facts))
    assert (facts["kind"], facts["name"]) == ("cpu", provenance.hardware()["cpu"])
    assert facts["cuda"] is None and facts["cudnn"] is None
    assert facts["threads"] == torch.get_num_threads() and facts["precision"] == {"products": "ieee"}


@pytest.mark.usefixtures("gpu")
def test_a_training_on_a_gpu_names_it_with_its_libraries() -> None:
    facts = device_facts(torch.device("cuda:0"), {}, earlier=["cpu", "cuda"])
    assert (facts["kind"], facts["name"], facts["cuda"], facts["cudnn"]) == ("cuda", GPU_NAME, "13.2", 91002)
    assert facts["earlier"] == ["cpu"]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("deterministic_algorithms", (torch, "are_deterministic_algorithms_enabled", lambda: True)),
        ("cudnn_deterministic", (torch.backends.cudnn, "deterministic", True)),
        ("cudnn_benchmark", (torch.backends.cudnn, "benchmark", True)),
    ],
)
def test_the_determinism_flags_are_those_of_the_process(name: str, setting: Any, monkeypatch: Any) -> None:
    assert device_facts(torch.device("cpu"), {})[name] is False
    monkeypatch.setattr(*setting)
    assert device_facts(torch.device("cpu"), {})[name] is True


def facts(kind: str, *earlier: str) -> dict[str, Any]:
    return {"kind": kind, "name": "its name", "earlier": list(earlier), "threads": 1}


def test_the_kinds_of_a_set_of_records() -> None:
    fold, moved = Record("fold", {}, {"device": facts("cpu")}), Record("fold", {}, {"device": facts("cuda", "mps")})
    old = Record("fold", {}, {"hardware": {"gpu": "NVIDIA H100"}})
    assert kinds_of([]) == set()
    assert kinds_of([fold]) == {"cpu"}
    assert kinds_of([moved]) == {"cuda", "mps"}
    assert kinds_of([old]) == {UNKNOWN}
    trial = Record("trial", {}, {"devices": devices_of(f.provenance for f in (fold, moved, old))})
    assert kinds_of([trial]) == {"cpu", "cuda", "mps", UNKNOWN}
    run = Record("run", {}, {"device": facts("cuda"), "devices": [facts("cpu")]})
    assert kinds_of([run]) == {"cpu", "cuda"}


def test_folds_and_trials_record_their_devices(searched: Path) -> None:
    folder = study_dir(searched)
    fold = records.read_record(folder / "bo" / "trial_000" / "fold_1" / "record.json").provenance["device"]
    assert fold["precision"] == {"convolutions": "ieee", "products": "ieee", "autocast": None}
    brief = {key: fold[key] for key in ("kind", "name", "earlier")}
    assert brief == {"kind": "cpu", "name": provenance.hardware()["cpu"], "earlier": []}
    assert records.read_record(folder / "bo" / "trial_000.json").provenance["devices"] == [brief] * 2


def rewrite(path: Path, devices: list[Any] | None) -> None:
    record = records.read_record(path)
    origin = record.provenance | {"devices": devices}
    if devices is None:
        del origin["devices"]
    records.write_record(path, dataclasses.replace(record, provenance=origin))


@pytest.mark.slow
@pytest.mark.usefixtures("no_fsync")
def test_a_search_that_continues_on_another_kind_of_device_warns_once(results: Path) -> None:
    bo_dir = study_dir(results) / "bo"
    rewrite(bo_dir / "trial_000.json", None)  # an old record, whose device is not known
    rewrite(bo_dir / "trial_001.json", devices_of([{"device": facts("cuda")}] * 2))
    ended = tiny(bo, results)
    assert ended.status == 0 and "results from" not in ended.out, "nothing is left to train"
    ended = tiny(bo, results, "trials=3")
    assert ended.status == 0, ended
    assert ended.out.count("This study has results from cuda, but this session runs on cpu. Results differ") == 1
    assert ended.out.count("results from") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("no_fsync")
def test_a_table_marks_a_row_from_two_kinds_of_device(results: Path) -> None:
    assert tiny(final_eval, results, "protocol.num_runs=1").status == 0
    assert "device" not in run(tables, f"results_dir={results}").out
    (record,) = study_dir(results).glob("final_eval/*/run_00.json")
    rewrite(record, devices_of([{"device": facts("cpu")}, {"device": facts("cuda")}]))
    assert "Kinds of device: cpu and cuda for all rows." in run(tables, f"results_dir={results}").out


def test_a_worker_on_another_kind_of_device_causes_one_warning(compose_study: Any, tmp_path: Path) -> None:
    class Jobs:
        def finished(self) -> Any:
            for index, kind in enumerate(["cpu", "cuda", "cuda", "cpu"]):
                unit = Unit(study=session.study, fingerprint="", kind="trial", index=index, fold=0, setting={},
                            directory=tmp_path / f"trial_{index}" / "fold_0", study_identity="", code="",
                            accepted=())  # fmt: skip
                yield unit, FinishedUnit({}, {"device": facts(kind)})

    said: list[str] = []
    session = Session(compose_study(*TINY), "bo", halves=())
    session._check_folder = lambda: None
    session.display = type("Display", (), {"say": lambda self, line: said.append(line)})()
    assert len(list(session.answers(Jobs()))) == 4
    assert len(said) == 1
    assert "This study has results from cpu, but trial_1/fold_0 ran on cuda." in said[0]
