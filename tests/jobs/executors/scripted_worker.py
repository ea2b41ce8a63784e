"""A worker whose units say what it does, for tests of executors. It lies outside the package, as a user's would.

A unit is `{"do": ...}`; each reports itself (`unit`), its process (`pid`) and that one's parent (`parent`) before it
starts.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.jobs.executors.serve import serve

SHOWN = (  # variables that an answer holds
    "SLURM_JOB_ID", "SLURM_NTASKS", "OMP_NUM_THREADS", "BENCHMARK_WORKERS_HERE", "BENCHMARK_WORKER", "BENCHMARK_CACHE",
)  # fmt: skip


def run(spec: dict[str, Any], report: Any) -> dict[str, Any]:
    """Do a unit: sleep, wait for a file, fail, refuse (the user's mistake), die or exit."""
    report({"unit": spec, "pid": os.getpid(), "parent": os.getppid()})
    if spec["do"] == "fail":
        raise KeyError("gone")
    if spec["do"] == "refuse":
        raise UserError("no such folder")
    if spec["do"] == "die":
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if spec["do"] == "exit":
        sys.stdout.flush()
        os._exit(3)
    if spec["do"] == "wait":
        while not Path(spec["file"]).exists():
            time.sleep(0.02)
    else:
        time.sleep(spec["seconds"])
    return {"pid": os.getpid(), "cwd": os.getcwd()} | {name: os.environ.get(name) for name in SHOWN}


if __name__ == "__main__":
    serve(run)
