"""Cost of a search beyond its training: proposals, and the speed-up by training folds in parallel."""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmark.core.conf_files import content
from benchmark.core.records import JsonObject
from benchmark.core.threads import usable_cores
from benchmark.jobs.queue import Jobs
from benchmark.jobs.train_unit import train_unit
from benchmark.jobs.unit import Unit
from benchmark.perf.timing import Row, interleave
from benchmark.searchers import Trial
from benchmark.study.code import training_code
from benchmark.study.prepare import prepare
from benchmark.study.study import Study

TRIAL = 50  # the trial whose proposal is timed: the last one of MLRC's search
REPEATS = 5
WORKERS = 2
NUM_FOLDS = 4


def search_costs(study: Study) -> Iterator[Row]:
    """Yield a row for the searcher and a row for parallel workers.

    Args:
        study: the study whose searcher, search space and training are measured.
    """
    yield proposal(study)
    yield side_by_side(study)


def proposal(study: Study) -> Row:
    """The row for the time that the searcher takes to propose trial 50, given all earlier ones."""
    searcher, history = study.make_searcher(), made_up_history(study)
    spent = interleave({"ask": lambda: searcher.ask(history)}, REPEATS)["ask"]
    what = f"proposal {TRIAL} of {study.config.searcher.name}"
    compared = f"{study.config.loss.name}, {len(study.make_space())} hyper-parameters, without imports"
    return Row(what, ("<=", 1), [s.cpu for s in spent], compared, "s", [s.wall for s in spent])


def made_up_history(study: Study) -> list[Trial]:
    """Trials over the study's search space, with different scores that rise towards its middle."""
    from benchmark.searchers.sobol import Sobol

    space = study.make_space()
    design, history = Sobol(space, seed=1), list[Trial]()
    for index in range(TRIAL - 1):
        setting = design.ask(history)
        places = [(float(setting[name]) - p.bounds[0]) / (p.bounds[1] - p.bounds[0]) for name, p in space.items()]
        score = 0.3 - sum((place - 0.5) ** 2 for place in places) / len(places) + 0.01 * (index * 7 % 5)
        history.append(Trial(index, setting, score, 0.01))
    return history


def side_by_side(study: Study) -> Row:
    """The row for the speed-up from training a trial's folds on two warm workers, with one thread per process."""
    what = f"{NUM_FOLDS} folds, local over inline"
    if usable_cores() < WORKERS:
        return Row(what, (">=", 1.6), [], f"{WORKERS} workers need {WORKERS} cores")
    fingerprint = prepare(study, "trainval")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work = {
            name: stack.enter_context(folds(study, name, Path(folder), fingerprint)) for name in ("inline", "local")
        }
        spent = interleave(work, REPEATS)
    ratios = [one.wall / two.wall for one, two in zip(spent["inline"], spent["local"], strict=True)]
    return Row(what, (">=", 1.6), ratios, f"wall clock; {WORKERS} warm workers and this process, one thread each")


@contextlib.contextmanager
def folds(study: Study, executor: str, folder: Path, fingerprint: str) -> Iterator[Callable[[], None]]:
    """Yield a job that trains the folds of a trial for one epoch, from scratch at each call."""
    place = content("executor", executor)
    one = Study.of(study.raw | {
        "dataset": study.raw["dataset"] | {"max_epochs": 1}, "threads": 1, "device": "cpu", "results_dir": str(folder),
        "executor": place | {"workers": WORKERS if executor == "local" else 1},
    })  # fmt: skip
    numbers = itertools.count()

    def ignore(progress: JsonObject) -> None:
        """Do nothing, since there is no display."""

    code = training_code(one).digest
    with Jobs(one, train_unit, ["benchmark.jobs.train_unit"], ignore) as jobs:

        def train() -> None:
            trial = folder / executor / f"trial_{next(numbers)}"
            for fold in range(NUM_FOLDS):
                jobs.add(Unit(
                    study=one, fingerprint=fingerprint, study_identity=one.identity(fingerprint), kind="trial",
                    index=0, fold=fold, setting={},
                    directory=trial / f"fold_{fold}", code=code, accepted=[code],
                ))  # fmt: skip
            for _ in jobs.finished():
                pass

        yield train
