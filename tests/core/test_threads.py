"""The number of threads is the study's, whatever the environment says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import hashlib, os, sys
import numpy as np
from benchmark.core.threads import use_threads
use_threads(int(sys.argv[1]))
import scipy.linalg, sklearn.cluster, torch  # loaded later, as a loss does
from threadpoolctl import threadpool_info
vectors = np.random.default_rng(0).normal(size=(1000, 128)).astype(np.float32)
product = hashlib.sha256((vectors[:256] @ vectors.T).tobytes()).hexdigest()
print({info["num_threads"] for info in threadpool_info()} | {torch.get_num_threads()}, product)
"""


def said(count: int, environment: str | None) -> str:
    variables = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    if environment is not None:
        variables |= {"OMP_NUM_THREADS": environment}
    command = [sys.executable, "-c", SCRIPT, str(count)]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_every_library_takes_the_studys_number_whatever_the_environment_says(count: int) -> None:
    answers = {said(count, environment) for environment in (None, "1", "2")}
    assert len(answers) == 1 and answers.pop().startswith(f"{{{count}}} "), answers
