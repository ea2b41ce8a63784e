"""make bench-gpu: training throughput of 1, 2, 4 and 8 folds on one GPU, to choose `executor.workers_per_gpu`.

Each worker trains a fold of the study in its own process, as with `executor=local`, and all of them train at the same
time. The first round, which includes imports, data loading and GPU warm-up, is not counted.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmark.core.errors import UserError
from benchmark.core.records import JsonObject
from benchmark.core.threads import use_threads
from benchmark.jobs.executors import Report
from benchmark.jobs.executors.local import Local, slots
from benchmark.study.assemble import build
from benchmark.study.preflight import check_values
from benchmark.study.prepare import prepare
from benchmark.study.study import Study
from benchmark.training.loop import set_train_mode, train_epoch
from benchmark.training.precision import use_precision

WORKERS = (1, 2, 4, 8)
SECONDS = 20.0  # training time in a round


def bench_gpu(study: Study, overrides: list[str]) -> None:
    """Measure on the first GPU and print a line for each number of folds.

    Args:
        study: the study whose folds are trained.
        overrides: unused.

    Raises:
        UserError: there is no GPU.
    """
    check_values(study)
    if not torch.cuda.is_available() or study.config.device == "cpu":
        raise UserError("make bench-gpu measures a GPU, and PyTorch sees none here. On the CPU, run make bench.")
    fingerprint = prepare(study, "trainval")
    gpu, batch = torch.cuda.get_device_name(), study.config.protocol.batch_size
    print(f"{study.title}, {study.config.trunk.name}, batch {batch}, {gpu}, precision {study.config.precision}")
    for line in lines(study, fingerprint, WORKERS, SECONDS):
        print(line, flush=True)


def lines(study: Study, fingerprint: str, counts: tuple[int, ...], seconds: float) -> Iterator[str]:
    """Yield a line for each number of parallel folds: images per second, also relative to one fold, and memory."""
    alone = 0.0
    for workers in counts:
        rates, megabytes = together(study, fingerprint, workers, seconds)
        alone = alone or sum(rates) / workers
        yield (f"{workers} folds at once: {sum(rates):9,.0f} images/s, {sum(rates) / alone:5.2f} x one fold, "
               f"{sum(megabytes):8,.0f} MB of the GPU")  # fmt: skip


def together(study: Study, fingerprint: str, workers: int, seconds: float) -> tuple[list[float], list[float]]:
    """Images per second, and MB that PyTorch holds on the GPU, for each of `workers` folds that train in parallel."""
    unit = {"study": study.raw, "fingerprint": fingerprint}
    command = [sys.executable, "-m", "benchmark.perf.gpu"]
    with tempfile.TemporaryDirectory() as folder:
        executor = Local(command, workers, Path(folder), environments=slots(study.config.device, 1) * workers)
        try:
            for length in (0.2 * seconds, seconds):
                folds = [i % study.config.protocol.num_folds for i in range(workers)]
                futures = [executor.submit(unit | {"fold": fold, "seconds": length}) for fold in folds]
                answers = [future.result() for future in futures]
        finally:
            executor.close()
    return [a["images_per_second"] for a in answers], [a["megabytes"] for a in answers]


def train_for(spec: JsonObject, report: Report) -> JsonObject:
    """Train a fold for a given number of seconds, without evaluating it."""
    study = Study.of(spec["study"])
    use_threads(study.config.threads)
    use_precision(study.config.precision, study.make_device())
    parts, schedule = build(study, {}, fingerprint=spec["fingerprint"], kind="trial", index=0, fold=spec["fold"])
    set_train_mode(parts, schedule.freeze_batchnorm)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < spec["seconds"]:
        train_epoch(parts, schedule, range(done, done + 10))
        done += 10
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    rate = done * study.config.protocol.batch_size / (time.perf_counter() - started)
    held = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    return {"images_per_second": rate, "megabytes": held / 1e6}


if __name__ == "__main__":
    from benchmark.jobs.executors.serve import serve

    serve(train_for)
