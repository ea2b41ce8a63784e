"""Workers on a real Ray: killed, with their machine or without, and the answers of those that end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark.core.errors import UserError, WorkerDiedError
from benchmark.jobs import placement
from benchmark.jobs.executors import ray as executor_ray
from benchmark.jobs.executors.messages import UnitFailedError
from tests.jobs.executors import scripted_worker
from tests.processes import is_alive, wait_for

ROOT = Path(__file__).resolve().parents[3]
WORKER = str(scripted_worker.__file__)


def sleep(seconds):
    return {"do": "sleep", "seconds": seconds}


def wait(file):
    return {"do": "wait", "file": str(file)}


def test_a_missing_ray_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'ray>=2\.40'"):
        executor_ray.connect(None)


@pytest.mark.parametrize(
    ("options", "device", "gpus", "workers"),
    [
        ({"gpus_per_worker": 1}, "auto", 2, 2),
        ({"gpus_per_worker": 0.25}, "auto", 2, 8),
        ({"gpus_per_worker": 1, "workers": 5}, "auto", 1, 5),  # four wait for the first
        ({"gpus_per_worker": 0, "workers": 5}, "auto", 0, 5),
        ({"gpus_per_worker": 1}, "auto", 0, None),
        ({"gpus_per_worker": 0.5}, "cpu", 0, None),
        ({"gpus_per_worker": 2}, "auto", 1, None),
        ({"gpus_per_worker": 1, "workers": 2}, "auto", 0, None),
    ],
    ids=str,
)
def test_a_local_ray_has_as_many_workers_as_gpus_allow_and_refuses_to_wait_for_ever(
    options, device, gpus, workers, monkeypatch
):
    monkeypatch.setattr(executor_ray, "gpus_here", lambda device: [str(number) for number in range(gpus)])
    found = executor_ray.Options(**options)
    if workers is not None:
        assert found.num_workers(device) == workers
        return
    with pytest.raises(UserError, match=rf"gpus_per_worker=.*for device={device}, so no worker could start"):
        found.num_workers(device)


@pytest.mark.parametrize("options", [{}, {"address": "auto", "workers": 2}], ids=str)
def test_a_gpu_by_its_number_is_refused_since_a_worker_sees_only_those_that_ray_gives_it(options):
    with pytest.raises(UserError, match=r"device=cuda:1: .*device=cuda; .*CUDA_VISIBLE_DEVICES=1 "):
        executor_ray.Options(**options).num_workers("cuda:1")


def test_a_local_ray_offers_whole_cpus(monkeypatch):
    started = []
    fake = SimpleNamespace(is_initialized=lambda: False, init=lambda **options: started.append(options))
    monkeypatch.setitem(sys.modules, "ray", fake)
    executor_ray.connect(None, 2.5)
    assert started[0]["num_cpus"] == 3 and isinstance(started[0]["num_cpus"], int)


@pytest.mark.slow
class TestReal:
    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch):
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray>=2.40'")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])))
        yield
        sys.modules["ray"].shutdown()  # Ray ends a process whose cluster is gone

    @pytest.fixture
    def cluster(self):
        """A head that does no work, and a function that adds machines of one core."""
        import ray
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20})
        made.more = lambda: made.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        yield made
        ray.shutdown()
        made.shutdown()

    def test_units_come_back_as_what_they_are_and_workers_are_replaced(self, tmp_path):
        handler, heard = signal.getsignal(signal.SIGTERM), []
        executor = executor_ray.Ray([WORKER], 2, tmp_path / "logs", heard.append)
        try:
            assert signal.getsignal(signal.SIGTERM) is handler, "Ray puts its own in its place"
            both = [executor.submit(wait(tmp_path / "both")) for _ in range(2)]
            wait_for(lambda: len(heard) == 2)
            (tmp_path / "both").touch()
            results = [f.result() for f in [*both, *(executor.submit(sleep(0.1)) for _ in range(4))]]
            assert sorted(r["pid"] for r in results) == sorted(m["pid"] for m in heard)
            assert len({r["pid"] for r in results}) == 2, "workers are long-lived"
            assert {(r["cwd"], r["OMP_NUM_THREADS"]) for r in results} == {(os.getcwd(), "1")}
            assert {r["BENCHMARK_WORKERS_HERE"] for r in results} == {"2"}

            with pytest.raises(UnitFailedError, match=r"^KeyError: 'gone'\n(?s:.)*scripted_worker\.py"):
                executor.submit({"do": "fail"}).result()
            with pytest.raises(UserError, match=r"^no such folder$"):
                executor.submit({"do": "refuse"}).result()
            with pytest.raises(WorkerDiedError, match=r"killed by signal 9 (?s:.)*last words"):
                executor.submit({"do": "die"}).result()

            heard.clear()
            other, lost = executor.submit(wait(tmp_path / "other")), executor.submit(sleep(300))
            wait_for(lambda: len(heard) == 2)
            (hurt,) = [message for message in heard if message["unit"] == sleep(300)]
            os.kill(hurt["parent"], signal.SIGKILL)
            assert isinstance(lost.exception(timeout=120), WorkerDiedError)
            wait_for(lambda: not is_alive(hurt["pid"]))
            (tmp_path / "other").touch()
            assert other.result(timeout=120)["pid"] != hurt["pid"], "the other unit is not touched"
            assert executor.submit(sleep(0)).result()["pid"] != hurt["pid"]

            heard.clear()
            hanging = executor.submit(sleep(300))
            wait_for(lambda: heard)
            os.kill(heard[0]["pid"], signal.SIGSTOP)
            executor.kill(hanging)
            assert isinstance(hanging.exception(timeout=120), WorkerDiedError)
            wait_for(lambda: not is_alive(heard[0]["pid"]))

            heard.clear()
            futures = [executor.submit(sleep(300)) for _ in range(3)]
            wait_for(lambda: len(heard) == 2)
        finally:
            executor.close()
        assert not any(is_alive(m["pid"]) for m in heard)
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(timeout=1)

    def test_a_cluster_has_as_many_workers_as_fit_and_more_wait(self, cluster, tmp_path, compose_study, monkeypatch):
        at = ["executor=ray", f"executor.address={cluster.address}"]
        with pytest.raises(UserError, match=r"no machine of this cluster has 1 CPUs and 0 GPUs"):
            placement.num_workers(compose_study(*at).config)
        cluster.more()
        assert placement.num_workers(compose_study(*at).config) == 1
        assert placement.num_workers(compose_study(*at, "executor.cpus_per_worker=0.25").config) == 4
        with pytest.raises(UserError, match="1 CPUs and 1 GPUs"):
            placement.num_workers(compose_study(*at, "executor.gpus_per_worker=1").config)

        monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))  # which the cluster was started without
        monkeypatch.setenv("BENCHMARK_WORKER", "the driver's own")
        executor = executor_ray.Ray([WORKER], 3, tmp_path / "logs", None, cluster.address)
        results = [f.result(timeout=120) for f in [executor.submit(sleep(0.1)) for _ in range(4)]]
        assert len({r["pid"] for r in results}) == 1, "there is room for one"
        assert results[0]["BENCHMARK_CACHE"] == str(tmp_path / "cache") and results[0]["BENCHMARK_WORKERS_HERE"] == "1"
        assert results[0]["BENCHMARK_WORKER"] == "worker_0"
        executor.close()

    def test_workers_and_ray_end_with_their_driver(self, tmp_path):
        script = textwrap.dedent("""
            import json, sys, time
            from pathlib import Path
            from benchmark.jobs.executors.ray import Ray

            heard = lambda message: print(json.dumps(message), flush=True)
            executor = Ray([sys.argv[1]], 1, Path(sys.argv[2]), heard)
            executor.submit({"do": "sleep", "seconds": 300})
            time.sleep(300)
        """)
        command = [sys.executable, "-c", script, WORKER, str(tmp_path / "logs")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            started = json.loads(driver.stdout.readline())
            driver.kill()
        wait_for(lambda: not is_alive(started["pid"]) and not is_alive(started["parent"]))

    def test_a_cluster_that_is_not_there_is_named(self, monkeypatch):
        import ray

        says = r": no Ray cluster answers there(?s:.)*ray start --head"
        with socket.socket() as silent:  # bound, so that no other process listens there
            silent.bind(("127.0.0.1", 0))
            address, started = "{}:{}".format(*silent.getsockname()), time.monotonic()
            with pytest.raises(UserError, match=re.escape(f"executor.address={address}") + says):
                executor_ray.connect(address)
            assert time.monotonic() - started < 20
        for address in ("127.0.0.1:99999", "no-such-machine.invalid:6379"):
            with pytest.raises(UserError, match=re.escape(f"executor.address={address}") + says):
                executor_ray.connect(address)

        def none_found(**_):  # `auto` finds the clusters of other tests, too
            raise ConnectionError("no cluster on this machine")

        monkeypatch.setattr(ray, "init", none_found)
        with pytest.raises(UserError, match=r"executor\.address=auto" + says):
            executor_ray.connect("auto")
