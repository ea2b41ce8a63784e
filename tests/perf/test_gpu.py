"""make bench-gpu, tried on the CPU."""

import json

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.jobs import gpu_share
from benchmark.jobs.executors.local import Options
from benchmark.perf.gpu import bench, equality, together
from benchmark.perf.gpu.bench import SECTIONS, bench_gpu, facts_of, measured
from benchmark.perf.gpu.fact import Fact, Target
from tests.command_line import assert_refused, run

TINY_CPU = Target(torch.device("cpu"), small=True)


def test_a_machine_without_a_gpu_is_refused():
    assert_refused(run(bench_gpu, "device=cpu"), "make bench-gpu measures a GPU", "run make bench;", "BUDGET=small")


def test_the_facts_of_a_card_are_written_and_its_best_number_of_workers_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H200 (x)")
    monkeypatch.setattr(Target, "is_gpu", True)
    facts = [("steps", Fact("a step", 2.5, "images/s", "of, all")), ("together", Fact(f"{together.BEST}, ieee", 4)),
             ("together", Fact(f"{together.BEST}, bf16", 2))]  # fmt: skip
    monkeypatch.setattr(bench, "measured", lambda target: iter(facts))
    with pytest.raises(UserError, match=r"NVIDIA H200 \(x\) was never measured .*bench-gpu"):
        gpu_share.measured_share("NVIDIA H200 (x)")
    ended = run(bench_gpu, "device=cpu", f"results_dir={tmp_path}")
    assert ended.status == 0 and "a step: 2.5 images/s (of, all)" in ended.out and "workers_per_gpu=2" in ended.out
    rows = [json.loads(line) for line in (tmp_path / "bench" / "nvidia_h200_x.jsonl").read_text().splitlines()]
    assert rows[1] == {"section": "steps", "what": "a step", "value": 2.5, "unit": "images/s", "note": "of, all"}
    table = (tmp_path / "bench" / "nvidia_h200_x.csv").read_text().splitlines()
    assert table[0] == "section,what,value,unit,note" and table[2] == 'steps,a step,2.5,images/s,"of, all"'
    assert Options(workers_per_gpu="auto").num_workers("cuda:1") == 2
    (tmp_path / "cache" / "bench-gpu" / "nvidia_h200_x.txt").write_text("many")
    with pytest.raises(UserError, match="is damaged"):
        gpu_share.measured_share("NVIDIA H200 (x)")


def test_more_workers_are_chosen_only_if_they_gain_something():
    assert together.best({1: 100.0, 2: 104.0}) == 1
    assert together.best({1: 100.0, 2: 104.0, 4: 109.0, 8: 110.0}) == 4


@pytest.mark.slow
def test_a_section_that_fails_or_hangs_costs_no_other(monkeypatch):
    monkeypatch.setattr(bench, "SECTIONS", {"no_such_section": 20, "machine": 0.0})
    found = dict(measured(TINY_CPU))
    assert "No module named 'benchmark.perf.gpu.no_such_section'" in found["no_such_section"].note
    assert found["machine"] == Fact("not run", note="no time was left")
    assert list(facts_of("together", TINY_CPU, 0.3)) == [Fact("stopped", note="after its limit of 0 s")]


def test_no_section_may_take_longer_than_all_together():
    assert max(SECTIONS.values()) < bench.BUDGET < 480


@pytest.mark.slow
def test_a_loss_that_differs_from_the_cpu_or_fails_is_named(monkeypatch):
    steps, calls = equality.steps, iter(range(99))

    def planted(study, device, kind):
        if study.config.loss.name == "anti_collapse_proxy_nca":
            raise ZeroDivisionError("planted")
        moved = 0.1 * next(calls) if study.config.loss.name == "arcface" else 0.0
        return equality.Steps([value + moved for value in steps(study, device, kind).values], waits=0)

    monkeypatch.setattr(equality, "steps", planted)
    facts = list(equality.facts(TINY_CPU))
    assert (facts[-1].value, facts[-1].note) == (2, "anti_collapse_proxy_nca, arcface")
    assert "ZeroDivisionError: planted" in facts[1].note and "not repeatable" in facts[2].note


@pytest.mark.slow
def test_every_section_runs_on_the_cpu(monkeypatch):
    monkeypatch.setattr(bench, "SECTIONS", dict.fromkeys(SECTIONS, 600.0))  # the limits suit a machine with a GPU
    found = list(measured(TINY_CPU, budget=len(SECTIONS) * 600.0))
    assert {section for section, _ in found} == {*SECTIONS}
    assert not [
        fact for _, fact in found if fact.note.startswith(("FAILED", "after its limit", "exit status", "no time"))
    ]
    assert "twice: yes, resumed: yes, deterministic: twice yes" in {fact.note for _, fact in found}
