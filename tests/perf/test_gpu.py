"""Throughput of folds that share a device, tried on the CPU."""

import re

import pytest

from benchmark.perf import gpu
from benchmark.study.prepare import prepare
from tests.command_line import TINY, assert_refused, run


def test_a_machine_without_a_gpu_is_refused():
    assert_refused(run(gpu.bench_gpu, "device=cpu"), "make bench-gpu measures a GPU", "make bench.")


def test_a_rate_is_relative_to_that_of_one_fold(compose_study, monkeypatch):
    rates = {1: [100.0], 2: [80.0, 70.0]}
    monkeypatch.setattr(gpu, "together", lambda study, data, workers, seconds: (rates[workers], [10.0] * workers))
    found = [re.findall(r"[\d.]+", line) for line in gpu.lines(compose_study(), "", (1, 2), 1.0)]
    assert found == [["1", "100", "1.00", "10"], ["2", "150", "1.50", "20"]]


@pytest.mark.slow
def test_folds_train_at_the_same_time(compose_study):
    study = compose_study(*TINY, "device=cpu")
    rates, megabytes = gpu.together(study, prepare(study, "trainval"), 2, seconds=1.0)
    assert len(rates) == 2 and min(rates) > 0 and megabytes == [0.0, 0.0]
