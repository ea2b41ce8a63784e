"""Which executor, how many workers, and which GPU each of them sees."""

import os
import re

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.jobs import placement
from benchmark.jobs.executors.local import slots
from benchmark.study.study import Study
from tests.command_line import TINY


@pytest.fixture
def config(compose_study):
    return lambda *overrides: compose_study(*(o for o in TINY if not o.startswith("executor")), *overrides).config


@pytest.fixture
def gpus(monkeypatch):
    def have(number, visible=None):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(7))

    return have


@pytest.mark.parametrize(
    ("number", "overrides", "workers"),
    [
        (0, [], 7),
        (2, [], 2),
        (2, ["executor.workers_per_gpu=3"], 6),
        (2, ["device=cpu"], 7),
        (2, ["device='cuda:1'", "executor.workers_per_gpu=2"], 2),
        (2, ["executor.workers=5"], 5),
        (2, ["executor=ray", "executor.gpus_per_worker=0.5"], 4),
        (2, ["executor=ray"], 2),
        (2, ["executor=ray", "device=cpu"], 7),
        (0, ["executor=slurm"], 8),
        (2, ["executor=inline"], 1),
    ],
)
def test_as_many_workers_as_there_is_room_for(config, gpus, number, overrides, workers):
    gpus(number)
    assert placement.num_workers(config(*overrides)) == workers


def test_workers_take_the_visible_gpus_in_turn(gpus):
    gpus(2)
    assert [s["CUDA_VISIBLE_DEVICES"] for s in slots("auto", 4)] == ["0", "1", "0", "1"]
    gpus(2, visible="5, GPU-3f")
    assert [s["CUDA_VISIBLE_DEVICES"] for s in slots("auto", 3)] == ["5", "GPU-3f", "5"]
    gpus(0)
    assert slots("auto", 2) == [{}, {}]
    gpus(2)
    assert slots("cuda:1", 2) == [{}, {}], "the worker finds it by that name"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["executor.workers=0"], "executor.workers=0: give a positive number, or auto"),
        (["executor.workers=true"], "executor.workers=True"),
        (["executor.workers_per_gpu=0"], "executor.workers_per_gpu=0"),
        (["executor=ray", "executor.gpus_per_worker=-1"], "executor.gpus_per_worker=-1: give a number such as 0.5"),
        (["executor=ray", "executor.gpus_per_worker=some"], "executor.gpus_per_worker='some'"),
        (["executor=ray", "executor.cpus_per_worker=0"], "executor.cpus_per_worker=0"),
        (["executor=ray", "executor.address='ray://head:10001'"], "Ray's client cannot stream results"),
        (["executor=ray", "executor.address=head"], "executor.address='head': give HOST:PORT, auto, or null"),
        (["executor=slurm", "executor.workers=auto"], "executor.workers=auto: give the number of SLURM jobs"),
        (["executor=slurm", "executor.prefix=[nowhere,-n1]"], "executor.prefix=['nowhere', '-n1']: its first word"),
        (["executor=slurm", "executor.prefix=[]"], "executor.prefix=[]: its first word"),
    ],
)
def test_what_cannot_work_is_refused_with_its_key(config, overrides, message):
    with pytest.raises(UserError, match=re.escape(message)):
        placement.check_executor(config(*overrides))


def test_what_can_work_is_not(config):
    for overrides in ([], ["executor=ray", "executor.gpus_per_worker=0.25"],
                      ["executor=slurm", "executor.prefix=[env,-i]"]):  # fmt: skip
        placement.check_executor(config(*overrides))


def test_a_study_stored_with_the_keys_of_every_executor_or_of_none_still_loads(compose_study):
    """Older `study.yaml` files hold the keys of all executors, the first ones none of these keys."""
    raw = compose_study(*TINY).raw
    base = {"name": "local", "workers": "auto", "retries": 2}
    everything = {
        "workers_per_gpu": 1,
        "address": None,
        "cpus_per_worker": 1.0,
        "gpus_per_worker": "auto",
        "prefix": [],
    }
    for executor in (base, base | {"timeout_minutes": 30.0} | everything):
        stored = Study.of(raw | {"executor": executor})
        assert stored.config.executor.retries == 2
        assert stored.identity("data") == compose_study(*TINY).identity("data")
