"""Run commands in forked processes that are killed right before or right after a write, until they are done.

    python -m tests.recovery.kill_at_writes SEED COMMAND[,COMMAND] OVERRIDE...

Every file is created by a rename. Around a rename, a file may be incomplete, or a record is written but the searcher
has not received it yet. Prints the number of kills.
"""

import os
import random
import signal
import sys
from typing import Any

import faiss  # noqa: F401 - slow imports happen once, before the forks
import record_keeper  # noqa: F401
import rich.console  # noqa: F401
import sklearn.cluster  # noqa: F401
import torch._dynamo
from hydra import compose, initialize_config_dir

from benchmark.bo import bo
from benchmark.core.paths import conf_dir
from benchmark.final_eval import final_eval
from benchmark.study import spaces
from benchmark.study.study import Study
from benchmark.traditional import traditional

COMMANDS = {"bo": bo, "final_eval": final_eval, "traditional": traditional}
MOST_RENAMES = 16  # a process survives at most this many renames
MOST_KILLS = 300  # more kills mean that a command starts from scratch each time


def run_until_killed(command: Any, study: Study, overrides: list[str], rename: int, before: bool) -> None:
    """Run a command, and kill this process at the given rename, counted from 1."""
    replace, calls = os.replace, 0

    def deadly(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == rename and before:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if calls == rename:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = deadly  # type: ignore[assignment]
    command(study, overrides)


def main(seed: int, names: list[str], overrides: list[str]) -> int:
    """Return how often a process was killed before all commands were done."""
    torch.set_num_threads(1)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", overrides)
    spaces.adapt(config, overrides)
    study = Study.of(config)
    dice, kills = random.Random(seed), 0
    for name in names:
        while True:
            rename, before = dice.randint(1, MOST_RENAMES), dice.random() < 0.5
            if (pid := os.fork()) == 0:
                run_until_killed(COMMANDS[name], study, overrides, rename, before)
                os._exit(0)
            status = os.waitpid(pid, 0)[1]
            if status == 0:
                break
            assert os.WTERMSIG(status) == signal.SIGKILL, status
            kills += 1
            assert kills < MOST_KILLS, "no progress"
    return kills


if __name__ == "__main__":
    print(main(int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]))
