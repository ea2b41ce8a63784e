"""What a checkpoint costs: the time that the training waits for it, the time to write it, and its size."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.perf.gpu.fact import Fact, Target
from benchmark.perf.gpu.training import bare_step, study_for, training
from benchmark.training.checkpoint import Best, Checkpoint, Progress, Saver


def facts(target: Target) -> Iterator[Fact]:
    """Yield the seconds of a checkpoint with new best weights, and its size.

    Args:
        target: the device that trains.
    """
    for trunk in ("small_conv",) if target.small else ("bn_inception", "resnet50"):
        parts, _ = training(study_for(trunk, 8, target), target)
        bare_step(parts)()
        with tempfile.TemporaryDirectory() as folder:
            target.wait()
            started = time.perf_counter()
            with Saver(Checkpoint(Path(folder) / "checkpoint.pt", {}, lambda identity: ""), {}) as saver:
                saver.save(parts, Progress(epoch=2), {"validation": Best(2, parts.weights())})
                waited = time.perf_counter() - started
            written = time.perf_counter() - started
            megabytes = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
        yield Fact(f"{trunk}, the training waits", waited, "s", f"{megabytes:.0f} MB, written after {written:.2f} s")
