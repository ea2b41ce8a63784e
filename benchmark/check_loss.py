"""make check-loss: what the harness demands of a loss, checked in a minute, with a sentence for each mistake.

    make check-loss LOSS=my_loss
    make check-loss LOSS=my_loss ARGS=plugins=[my_package]

The checks on toy batches are those of `losses.contract`, which the tests run on all losses of this project. Others are
of the search space, of the loss at both ends of it, of the cost of a step with many classes, and of a short training.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("check-loss"))

import copy
import itertools
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmark.core.console import write
from benchmark.core.errors import IncompleteError, UserError, message_for_user
from benchmark.core.invocation import command, key_of
from benchmark.core.wording import counted, human_time
from benchmark.losses import contract
from benchmark.losses.cost import NUM_CLASSES, NUM_IMAGES, fill_memory, made_up_batches, step_costs
from benchmark.study import cli, plugins
from benchmark.study.assemble import build
from benchmark.study.preflight import check_parts, check_space
from benchmark.study.prepare import prepare
from benchmark.study.study import Study
from benchmark.training.checkpoint import Checkpoint
from benchmark.training.loop import train_fold

READ = ("loss", "plugins", "head", "training", "seed", "threads", "precision", "display", "device")  # of the options
EPOCH = ("dataset=glyphs_small", "dataset.max_epochs=1")
STEPS = 2  # of the cost


def check_loss(study: Study, overrides: list[str]) -> None:
    """Check a loss, and print a line for each demand.

    Args:
        study: the study with the loss.
        overrides: the overrides on the command line.

    Raises:
        UserError: an option has no effect here.
        IncompleteError: the loss does not keep its contract.
    """
    for override in overrides:
        if (key := key_of(override)).partition(".")[0] not in READ:
            raise UserError(f"{override}: check-loss reads no {key}, but a loss and its options. Leave it out.")
    if study.config.loss.untrained:
        raise UserError(f"loss={study.config.loss.name} trains nothing, so there is nothing to check.")
    started, name = time.monotonic(), study.config.loss.name
    write(f"{name}: {study.config.loss.label}, {study.config.loss.source}")
    broken = 0
    for demand, check in demands(study, cli.study_of([*overrides, *EPOCH])):
        problems, note = _outcome(check)
        write(f"  {'BROKEN' if problems else 'ok':<7}{demand}{f': {note}' if note else ''}")
        for problem in problems:
            write(f"         {problem}")
        broken += bool(problems)
    took = human_time(time.monotonic() - started)
    if broken:
        again = command("check-loss", overrides=overrides)
        raise IncompleteError(f"{name} breaks {counted(broken, 'demand')} ({took}). Change it, and run again: {again}")
    write(f"{name} keeps its contract ({took}). Next: {command('bo', overrides=overrides)}")


Check = Callable[[], list[str] | str]  # returns problems, or a note to what is fine


def demands(study: Study, small: Study) -> Iterator[tuple[str, Check]]:
    """Yield each demand with its check.

    Args:
        study: the study with the loss.
        small: a study with the loss, a small data set and one epoch.
    """

    def space() -> str:
        check_space(study)
        return ""

    yield "a search space that contains the default", space

    def prepared() -> str:
        prepare(small, "trainval")
        check_parts(small)
        return ""

    yield "it can be built, at both ends of its space too", prepared
    course: list[contract.Course] = []

    def trains() -> str:
        course.append(contract.course_of(subject_of(study)))
        return ""

    yield f"finite over {contract.STEPS} steps of a training on toy batches", trains
    for demand, check in contract.CHECKS.items() if course else ():
        yield demand, lambda check=check: check(course[0])  # type: ignore[misc]
    yield (
        "float32 or better under precision=bf16, where the training loop calls it outside autocast",
        (lambda: keeps_float32(study)),
    )
    yield f"a step with {NUM_CLASSES:,} classes", lambda: cost(study)
    yield "an epoch on glyphs_small", lambda: epoch(small)


def subject_of(study: Study) -> contract.Subject:
    """The study's loss for toy batches, with a schedule that suits them."""
    raw = copy.deepcopy(study.raw)
    loss = raw["loss"]
    raw["protocol"] |= {"embedding_dim": contract.DIM, "batch_size": 12}
    loss["schedule"] |= {key: value for key, value in contract.SCHEDULE.items() if key in loss["schedule"]}
    toy = Study.of(raw)
    head: nn.Module = toy.make_head(contract.DIM, 6) if toy.config.loss.head else nn.Identity()
    named = study.config.plugins
    return contract.Subject(
        lambda: toy.make_loss(contract.NUM_CLASSES, 5, np.array(contract.SUPERS), contract.NUM_IMAGES),
        head,
        (toy.config.loss.optimizer or {}).get("lr"),
        tuple(
            str(Path(folder) / name.partition(".")[0])
            for folder, name in zip(plugins.folders(named), named, strict=True)
        ),
    )


def keeps_float32(study: Study) -> list[str]:
    """Problems with the type of the loss of embeddings in float32, which trunk and head compute in bfloat16."""
    subject = subject_of(study)
    features, labels = contract.toy_batch()
    dtype = subject.make()(subject.head(features), labels).dtype
    return [] if dtype in (torch.float32, torch.float64) else [f"It returns {dtype} for embeddings in float32."]


def cost(study: Study) -> str:
    """Memory and time of a step with as many classes as Stanford Online Products has, all parts of the loss in use."""
    raw = copy.deepcopy(study.raw)
    schedule = raw["loss"]["schedule"]
    schedule |= dict.fromkeys(schedule.get("starts", ()), 0)
    study = Study.of(raw)
    loss = study.make_loss(NUM_CLASSES, 0, np.arange(NUM_CLASSES) // 25, NUM_IMAGES)
    fill_memory(loss, NUM_CLASSES)
    labels, protocol = np.arange(NUM_IMAGES) % NUM_CLASSES, study.config.protocol
    batches = made_up_batches(study.make_sampler(labels, seed=0).batch, labels, protocol.embedding_dim)
    found = list(step_costs(loss, itertools.islice(batches, STEPS)))
    megabytes, seconds = (statistics.median(values) for values in zip(*found, strict=True))
    parameters = sum(p.nbytes for p in loss.parameters()) / 1e6
    return (
        f"{megabytes:.0f} MB beside {parameters:.0f} MB of parameters, {1000 * seconds:.0f} ms on this CPU "
        f"(batches of {protocol.batch_size}, {protocol.embedding_dim} dimensions)"
    )


def epoch(small: Study) -> list[str] | str:
    """Train one epoch of a fold, from the real images to the validation score."""
    fingerprint = small.make_dataset().fingerprint
    parts, schedule = build(small, {}, fingerprint=fingerprint, kind="trial", index=0, fold=0)
    with tempfile.TemporaryDirectory(prefix="check-loss-") as folder:
        checkpoint = Checkpoint(Path(folder) / "checkpoint.pt", {}, lambda found: "", 3600.0)
        result = train_fold(parts, schedule, checkpoint, lambda history: None).result
    if result["reason"]:
        return [f"The training diverged: {result['reason']}. Try a lower learning rate as the default."]
    before, after = (row["map_at_r"] for row in result["history"])
    mean = result["history"][-1]["loss"]
    return f"mean loss {mean:.4g}, validation MAP@R {100 * before:.2f} before and {100 * after:.2f} after it"


def _outcome(check: Check) -> tuple[list[str], str]:
    """The problems that a check finds, and its note; an exception in the loss is a problem too."""
    try:
        found = check()
    except Exception as error:
        if (said := message_for_user(error)) is not None:
            return [said], ""
        if isinstance(error, FloatingPointError):
            return [str(error)], ""
        last = traceback.extract_tb(error.__traceback__)[-1]
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_library(f.filename)]
        where = frames[-1] if frames else last
        return [f"{type(error).__name__}: {error} (at {where.filename}:{where.lineno}, {where.line})"], ""
    return (found, "") if isinstance(found, list) else ([], found)


def _is_library(path: str) -> bool:
    return bool({"site-packages", "dist-packages"} & {*Path(path).parts})
