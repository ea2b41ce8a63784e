"""Run the sections one after the other, show their facts, and keep them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import torch

from benchmark.core import records
from benchmark.core.console import write
from benchmark.core.csv_file import write_csv
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments, command
from benchmark.core.paths import module_arguments
from benchmark.core.provenance import commit, hardware
from benchmark.jobs.gpu_share import remember
from benchmark.perf.gpu.fact import Fact, Target
from benchmark.perf.gpu.together import BEST
from benchmark.study.selected import check_read
from benchmark.study.study import Study
from benchmark.training.precision import fastest

SECTIONS = {  # and the most seconds that each may take
    "machine": 25, "equality": 60, "fold": 60, "steps": 110, "together": 90, "pipeline": 60, "scoring": 25,
    "checkpoint": 15,
}  # fmt: skip
BUDGET = 470.0  # seconds for all of them
COLUMNS = ("section", *(field.name for field in fields(Fact)))


def bench_gpu(study: Study, overrides: list[str]) -> None:
    """Measure the first GPU, or with `budget=small` any device, and write the table.

    Args:
        study: its device is measured, and its results folder takes the table.
        overrides: those on the command line.

    Raises:
        UserError: an option is not read, or there is no GPU.
    """
    check_read("bench-gpu", overrides, ("budget", "device", "results_dir"))
    target = Target(study.make_device(), study.config.budget == "small")
    if not target.is_gpu and not target.small:
        raise UserError(
            "make bench-gpu measures a GPU, and PyTorch sees none here. On the CPU, run make bench; or try every "
            f"section with tiny sizes: {command('bench-gpu', {'device': 'cpu', 'budget': 'small'})}"
        )
    name = torch.cuda.get_device_name(target.device) if target.is_gpu else hardware()["cpu"]
    found: list[tuple[str, Fact]] = []
    write(f"{name}, at most {BUDGET / 60:.0f} minutes")
    for section, fact in measured(target):
        found.append((section, fact))
        write(f"{section:<10}  {fact.line()}")
    if target.small:
        write("Tiny sizes: nothing is written.")
        return
    path = Path(study.config.results_dir) / "bench" / re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    for written in keep(path, found):
        write(f"Written: {written}")
    write(f"precision=fast stands for {fastest(target.device)} here.")
    if chosen := [int(fact.value) for _, fact in found if fact.what.startswith(BEST) and fact.value]:
        remember(name, min(chosen))
        best = {"executor.workers_per_gpu": min(chosen)}
        write(f"Most images per second: {arguments(best)}, which auto now stands for here.")


def measured(target: Target, budget: float = BUDGET) -> Iterator[tuple[str, Fact]]:
    """Yield each section's name with each of its facts, as they come.

    Args:
        target: what is measured.
        budget: seconds for all sections; those for which none are left are named in a fact.
    """
    end = time.monotonic() + budget
    for section, limit in SECTIONS.items():
        left = min(limit, end - time.monotonic())
        if left < 5:
            yield section, Fact("not run", note="no time was left")
            continue
        for fact in facts_of(section, target, left):
            yield section, fact


def facts_of(section: str, target: Target, limit: float) -> Iterator[Fact]:
    """Yield the facts of a section that runs in a process of its own.

    Args:
        section: a key of `SECTIONS`.
        target: what is measured.
        limit: seconds after which the section and what it started are killed.
    """
    arguments = [*module_arguments(["benchmark.perf.gpu.bench"]), section, str(target.device), str(int(target.small))]
    child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             start_new_session=True)  # fmt: skip
    killed = False

    def kill() -> None:
        nonlocal killed
        killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    timer = threading.Timer(limit, kill)
    timer.start()
    other: list[str] = []
    assert child.stdout is not None
    try:
        for line in child.stdout:
            try:
                yield Fact(**json.loads(line))
            except (ValueError, TypeError):
                other = [*other[-9:], line.rstrip()]
        status = child.wait()
    finally:
        timer.cancel()
        if child.poll() is None:
            kill()
            child.wait()
        child.stdout.close()
    if killed:
        yield Fact("stopped", note=f"after its limit of {limit:.0f} s")
    elif status:
        yield Fact("FAILED", note=f"exit status {status}: {' | '.join(other)}")


def keep(path: Path, found: list[tuple[str, Fact]]) -> list[Path]:
    """Write the facts as CSV and as JSON lines, and return the files.

    Args:
        path: the files without their endings.
        found: facts with their sections.
    """
    all_of_them = [("about", Fact("commit", note=commit())), *found]
    rows = [{"section": section, **fact.to_json()} for section, fact in all_of_them]
    lines = path.with_suffix(".jsonl")
    records.write_whole(lines, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return [write_csv(path.with_suffix(".csv"), [COLUMNS, *(list(row.values()) for row in rows)]), lines]


def main(section: str, device: str, small: str) -> None:
    """Print the facts of a section as JSON lines.

    Args:
        section: a key of `SECTIONS`.
        device: what is measured.
        small: 1 for tiny sizes, else 0.
    """
    torch.set_num_threads(1)
    for fact in import_module(f"benchmark.perf.gpu.{section}").facts(Target(torch.device(device), small == "1")):
        print(json.dumps(fact.to_json()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
