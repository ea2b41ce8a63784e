"""Several folds on one GPU at once: as processes, as `executor=local` starts them, and as graphs on streams.

Processes share the GPU by time slices, unless NVIDIA's MPS runs; streams of one process can overlap.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmark.core.paths import module_arguments
from benchmark.core.records import JsonObject
from benchmark.core.threads import use_threads
from benchmark.jobs.executors import Report
from benchmark.jobs.executors.local import Local, slots
from benchmark.perf.gpu.fact import Fact, Target
from benchmark.perf.gpu.steps import graph_of, precisions
from benchmark.perf.gpu.training import study_for, training
from benchmark.training.loop import train_epoch

COUNTS = (1, 2, 4, 8)
SECONDS = 4.0  # training time in a round
BEST = "best executor.workers_per_gpu"  # what a fact is called
GAIN = 1.05  # more workers must train this much faster to be chosen


def facts(target: Target) -> Iterator[Fact]:
    """Yield images per second of 1, 2, 4 and 8 folds at once, and the number of workers that suits the device.

    Args:
        target: the device that trains.
    """
    trunk, batch = ("small_conv", 8) if target.small else ("bn_inception", 32)
    counts, seconds = ((1, 2), 0.5) if target.small else (COUNTS, SECONDS)
    for precision in [name for name in precisions(target) if name != "tf32" and not (target.small and name == "bf16")]:
        rates: dict[int, float] = {}
        for count in counts:
            spec: JsonObject = {"trunk": trunk, "batch": batch, "precision": precision, "device": str(target.device),
                                "small": target.small, "seconds": seconds}  # fmt: skip
            found, gigabytes = processes(target, count, spec)
            rates[count] = sum(found)
            yield Fact(f"{trunk}, batch {batch}, {precision}, {count} processes", rates[count], "images/s",
                       f"{rates[count] / rates[1]:.2f} x one, {sum(gigabytes):.1f} GB")  # fmt: skip
        yield Fact(f"{BEST}, {precision}", best(rates))
        if target.is_gpu:
            yield from on_streams(target, trunk, batch, precision)


def best(rates: dict[int, float]) -> int:
    """The smallest number of workers to which no larger number adds `GAIN`.

    >>> best({1: 100.0, 2: 180.0, 4: 185.0, 8: 170.0})
    2
    """
    chosen = min(rates)
    for count in sorted(rates):
        if rates[count] > GAIN * rates[chosen]:
            chosen = count
    return chosen


def processes(target: Target, workers: int, spec: JsonObject) -> tuple[list[float], list[float]]:
    """Images per second, and GB that PyTorch holds on the GPU, of each of some workers that train at the same time.

    The first round, which includes imports and the warm-up of the GPU, is not counted.

    Args:
        target: the device that trains.
        workers: number of processes.
        spec: what each trains, see `train_for`.
    """
    command = [sys.executable, *module_arguments(["benchmark.perf.gpu.together"])]
    with tempfile.TemporaryDirectory() as folder:
        executor = Local(command, workers, Path(folder), environments=slots(target.device.type, 1) * workers)
        try:
            for length in (0.2 * spec["seconds"], spec["seconds"]):
                futures = [executor.submit(spec | {"seconds": length}) for _ in range(workers)]
                answers = [future.result() for future in futures]
        finally:
            executor.close()
    return [a["images_per_second"] for a in answers], [a["gigabytes"] for a in answers]


def train_for(spec: JsonObject, report: Report) -> JsonObject:
    """Train for some seconds with images that are on the device.

    Args:
        spec: `trunk`, `batch`, `precision`, `device`, `small` and `seconds`.
        report: unused.
    """
    use_threads(1)
    target = Target(torch.device(spec["device"]), spec["small"])
    study = study_for(spec["trunk"], spec["batch"], target, f"precision={spec['precision']}")
    parts, schedule = training(study, target)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < spec["seconds"]:
        train_epoch(parts, schedule, range(done, done + 5))  # ends by reading the loss
        done += 5
    rate = done * spec["batch"] / (time.perf_counter() - started)
    held = torch.cuda.max_memory_reserved() if target.is_gpu else 0
    return {"images_per_second": rate, "gigabytes": held / 1e9}


def on_streams(target: Target, trunk: str, batch: int, precision: str) -> Iterator[Fact]:
    """Yield images per second of 1, 2, 4 and 8 trainings as graphs on streams of this process."""
    alone = 0.0
    for count in COUNTS:
        name = f"{trunk}, batch {batch}, {precision}, {count} graphs on streams"
        try:
            streams = [torch.cuda.Stream() for _ in range(count)]
            study = study_for(trunk, batch, target, f"precision={precision}")
            graphs = [graph_of(training(study, target)[0], stream) for stream in streams]

            def replay(streams: list[torch.cuda.Stream] = streams, graphs: list = graphs) -> None:  # type: ignore[type-arg]
                for stream, (graph, _) in zip(streams, graphs, strict=True):
                    with torch.cuda.stream(stream):
                        for _ in range(5):
                            graph.replay()

            rate = 5 * batch * count / target.seconds(replay)
        except Exception as error:
            yield Fact(name, note=f"FAILED: {type(error).__name__}: {str(error)[:200]}")
            return
        alone = alone or rate
        yield Fact(name, rate, "images/s", f"{rate / alone:.2f} x one")


if __name__ == "__main__":
    from benchmark.jobs.executors.serve import serve

    serve(train_for)
