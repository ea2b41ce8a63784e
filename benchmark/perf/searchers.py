"""make bench-search: how fast the searchers find good settings, on functions whose best value is known.

Every searcher searches every problem with the same seeds. A problem is a function of a search space, to be maximised,
with Gaussian noise of known size on what a searcher sees:

- `branin` and `hartmann6`, without noise (Dixon and Szego, "Towards Global Optimisation 2", 1978);
- `proxy_nca`, `proxy_anchor`, `hpl_pa`: surfaces of real losses, each the mean of a Gaussian process that was fitted to
  16 trials on glyphs (`surfaces.csv`), on the space that the loss has there today, in percent MAP@R;
- `wide, log` and `wide, linear`: made-up losses, one a seed, with a rate, a margin, and a scale whose best value lies
  anywhere from 1 to 50 by its logarithm; its range from 0.01 to 100 is searched on a log or on a linear scale. In
  percent MAP@R; a decade away from the best rate or scale costs 10 or 15 of them.

Two regrets are reported after 10, 20 and 50 trials, as median and quartiles over seeds: how far the best trial lies
below the optimum, and how far the trial does that a search chooses, which has the highest noisy score.
"""

import csv
import functools
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmark.core.console import write, write_table
from benchmark.core.errors import UserError
from benchmark.core.invocation import key_of
from benchmark.perf.table_file import write_lines
from benchmark.protocol.seeds import stable_seed
from benchmark.searchers import Parameter, Searcher, Setting, Trial, Value, best_by_mean
from benchmark.searchers.ax import Ax
from benchmark.searchers.sobol import Sobol, value_at
from benchmark.study.cli import study_of
from benchmark.study.selected import check_read
from benchmark.study.study import Study

AFTER = (10, 20, 50)  # trials after which regrets are reported
BUDGETS = {"full": (10, 50), "small": (3, 20)}  # seeds and trials
NOISE = 0.7  # standard deviation of a trial's MAP@R in percent, about that of the final runs on glyphs
COLUMNS = ("problem", "searcher", "trials", "seeds", "best", "best_quartiles", "chosen", "chosen_quartiles")
LOSSES = ("proxy_nca", "proxy_anchor", "hpl_pa")
POINTS = Path(__file__).with_name("surfaces.csv")
WIDE = {"rate": Parameter((1e-4, 1.0), "log"), "margin": Parameter((0.0, 1.0)), "scale": Parameter((0.01, 100.0))}


@dataclass(frozen=True)
class Problem:
    """A function to maximise.

    Attributes:
        name: its name in the table.
        space: the searched parameters.
        value: the function, of one setting.
        optimum: its highest value in the space.
        noise: standard deviation of what a searcher sees.
        default: a setting that a search may try first; empty if there is none.
    """

    name: str
    space: dict[str, Parameter]
    value: Callable[[Setting], float]
    optimum: float
    noise: float = 0.0
    default: Setting = field(default_factory=dict)


Make = Callable[[Problem, int], Searcher]


class Random:
    """Proposes points drawn independently and uniformly from the space, on its scales.

    Args:
        space: searched parameters by name.
        seed: determines all points.
    """

    def __init__(self, space: dict[str, Parameter], seed: int) -> None:
        self._space, self._seed = space, seed

    def ask(self, history: Sequence[Trial], pending: Sequence[Setting] = ()) -> Setting:
        """Propose the next setting, by the number of trials so far.

        Args:
            history: finished trials.
            pending: settings without a result.
        """
        draw = np.random.default_rng([self._seed, len(history) + len(pending)])
        return {name: value_at(parameter, draw.random()) for name, parameter in self._space.items()}

    def best(self, history: Sequence[Trial]) -> int:
        """Return the index of the trial with the highest mean.

        Args:
            history: finished trials.

        Raises:
            UserError: no trial has a score.
        """
        return best_by_mean(history)


def searchers(problem: Problem) -> dict[str, Make]:
    """What searches a problem, by its name in the table; the first is the published protocol's."""
    size = 2 * max(5, len(problem.space))
    found: dict[str, Make] = {
        "ax": lambda p, seed: Ax(p.space, seed, failed="worst"),
        "ax, design twice as large": lambda p, seed: Ax(p.space, seed, failed="worst", num_sobol=size),
        "sobol": lambda p, seed: Sobol(p.space, seed),
        "random": lambda p, seed: Random(p.space, seed),
    }
    if problem.default:
        found["ax, default first"] = lambda p, seed: Ax(
            p.space, seed, failed="worst", defaults_first=True, defaults=p.default
        )
    return found


# -- problems ---------------------------------------------------------------------------------------------------------


def branin(setting: Setting) -> float:
    """The negative Branin function of x1 in [-5, 10] and x2 in [0, 15], which is at most -0.397887.

    >>> round(branin({"x1": math.pi, "x2": 2.275}), 6)
    -0.397887

    Args:
        setting: x1 and x2.
    """
    x, y = setting["x1"], setting["x2"]
    bowl = (y - 5.1 * x**2 / (4 * math.pi**2) + 5 * x / math.pi - 6) ** 2
    return -(bowl + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


HARTMANN_WEIGHTS = (1.0, 1.2, 3.0, 3.2)
HARTMANN_A = (
    (10, 3, 17, 3.5, 1.7, 8),
    (0.05, 10, 17, 0.1, 8, 14),
    (3, 3.5, 1.7, 10, 17, 8),
    (17, 8, 0.05, 10, 0.1, 14),
)
HARTMANN_P = ((1312, 1696, 5569, 124, 8283, 5886), (2329, 4135, 8307, 3736, 1004, 9991),
              (2348, 1451, 3522, 2883, 3047, 6650), (4047, 8828, 8732, 5743, 1091, 381))  # fmt: skip


def hartmann6(setting: Setting) -> float:
    """The Hartmann function of six numbers in [0, 1], as a maximum of 3.32237.

    >>> best = (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)
    >>> round(hartmann6(dict(zip("abcdef", best))), 5)
    3.32237

    Args:
        setting: the six numbers, in their order.
    """
    x = np.array(list(setting.values()))
    inner = (np.array(HARTMANN_A) * (x - 1e-4 * np.array(HARTMANN_P)) ** 2).sum(axis=1)
    return float((np.array(HARTMANN_WEIGHTS) * np.exp(-inner)).sum())


def wide(seed: int, is_log: bool) -> Problem:
    """A made-up loss, searched with its scale on a log or a linear axis.

    Args:
        seed: determines where its optimum lies, which is the same for both axes.
        is_log: whether the scale's logarithm is searched.
    """
    draw = np.random.default_rng(stable_seed("wide", seed) % 2**63)
    rate, scale, margin = draw.uniform(-3, -1), draw.uniform(0, math.log10(50)), draw.uniform(0.1, 0.6)

    def value(setting: Setting) -> float:
        lost = 10 * (math.log10(setting["rate"]) - rate) ** 2 + 15 * (math.log10(setting["scale"]) - scale) ** 2
        return max(45 - lost - 20 * (setting["margin"] - margin) ** 2, 1.0)

    space = WIDE | {"scale": Parameter((0.01, 100.0), "log" if is_log else "linear")}
    return Problem(f"wide, {'log' if is_log else 'linear'}", space, value, 45.0, NOISE)


@functools.cache
def recorded(loss: str) -> Problem:
    """The surface of a loss, fitted to its recorded trials on glyphs.

    The Gaussian process has a length scale for each hyper-parameter, of 0.4 to 5 times its range, and infers the noise,
    of at least a seventh of the scores' standard deviation, so that it follows no single trial.

    Args:
        loss: its name.
    """
    from scipy.optimize import minimize
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    study = study_of([f"loss={loss}", "dataset=glyphs"])
    space = study.make_space()
    with POINTS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(line for line in file if not line.startswith("#")) if row["loss"] == loss]
    seen = np.array([_place(space, json.loads(row["setting"])) for row in rows])
    scores = np.array([float(row["map_at_r"]) for row in rows])
    lengths = RBF(np.ones(len(space)), (0.4, 5.0))
    kernel = ConstantKernel(1.0, (0.1, 2.0)) * lengths + WhiteKernel(0.05, (0.02, 0.5))
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length or the noise may end on its bound
        model.fit(seen, scores)

    def predicted(places: np.ndarray) -> np.ndarray:
        found: np.ndarray = model.predict(places)
        return found

    grid = np.random.default_rng(0).random((20_000, len(space)))
    starts = grid[np.argsort(-predicted(grid))[:5]]
    box = [(0.0, 1.0)] * len(space)
    ends = [minimize(lambda x: -float(predicted(x[None])[0]), start, bounds=box) for start in starts]
    optimum = max(-float(end.fun) for end in ends)
    return Problem(
        loss, space, lambda setting: float(predicted(_place(space, setting)[None])[0]), optimum, NOISE,
        {name: float(value) for name, value in study.first_trial.items()},
    )  # fmt: skip


def _place(space: dict[str, Parameter], setting: Setting) -> np.ndarray:
    """A setting as fractions of the ranges on their scales, each below 0 or above 1 if it lies outside."""

    def fraction(parameter: Parameter, value: Value) -> float:
        low, high = parameter.bounds
        if parameter.scale == "log":
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    return np.array([fraction(parameter, setting[name]) for name, parameter in space.items()])


def problems(seed: int) -> Iterator[Problem]:
    """All problems; the made-up losses are those of a seed."""
    plane = {"x1": Parameter((-5.0, 10.0)), "x2": Parameter((0.0, 15.0))}
    yield Problem("branin", plane, branin, -0.397887)
    yield Problem("hartmann6", {f"x{i}": Parameter((0.0, 1.0)) for i in range(1, 7)}, hartmann6, 3.32237)
    yield from map(recorded, LOSSES)
    yield from (wide(seed, is_log) for is_log in (True, False))


# -- searches ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Regret:
    """How far a search fell below the optimum after some trials.

    Attributes:
        best: optimum minus the highest true value of its trials.
        chosen: optimum minus the true value of the trial with the highest score, which the search chooses.
    """

    best: float
    chosen: float


def search(problem: Problem, searcher: Searcher, seed: int, num_trials: int) -> dict[int, Regret]:
    """Search a problem and return the regrets by number of trials.

    Args:
        problem: the problem.
        searcher: what proposes settings.
        seed: seed of the noise, which depends on the number of the trial only, not on the searcher.
        num_trials: length of the search.
    """
    noise = np.random.default_rng(stable_seed("noise", problem.name, seed) % 2**63).normal(0, problem.noise, num_trials)
    history, values, found = list[Trial](), list[float](), dict[int, Regret]()
    for index in range(num_trials):
        setting = searcher.ask(history)
        values.append(problem.value(setting))
        history.append(Trial(index, setting, float(values[-1] + noise[index])))
        if index + 1 in AFTER:
            best, chosen = max(values), values[best_by_mean(history)]
            found[index + 1] = Regret(problem.optimum - best, problem.optimum - chosen)
    return found


Found = dict[tuple[str, str, int], list[Regret]]  # of each seed, by problem, searcher and number of trials


def table(found: Found) -> list[tuple[str, ...]]:
    """The rows of the table, in the order of `COLUMNS`."""

    def cells(values: list[float]) -> tuple[str, str]:
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        return f"{middle:.3g}", f"{low:.3g} to {high:.3g}"

    return [
        (problem, name, str(trials), str(len(each)), *cells([r.best for r in each]), *cells([r.chosen for r in each]))
        for (problem, name, trials), each in found.items()
    ]


def bench_search(study: Study, overrides: list[str]) -> None:
    """Search all problems with all searchers, print the regrets, and write them to `results/bench/search.csv`.

    The file is written anew after each seed, so that a command that is stopped leaves the seeds that are done.

    Args:
        study: supplies `budget`, `trials`, `searches` (the number of seeds) and `results_dir`.
        overrides: those on the command line.

    Raises:
        UserError: an option is not read, there is no such budget, or it has too few trials to report any.
    """
    check_read("bench-search", overrides, ("budget", "trials", "searches", "results_dir"))
    c = study.config
    if c.budget not in BUDGETS:
        raise UserError(f"budget={c.budget}: allowed are {', '.join(BUDGETS)}.")
    given = set(map(key_of, overrides))
    seeds, trials = BUDGETS[c.budget]
    seeds, trials = (c.searches if "searches" in given else seeds), (c.trials if "trials" in given else trials)
    if trials < AFTER[0]:
        raise UserError(f"trials={trials}: regrets are reported after {', '.join(map(str, AFTER))} trials; give more.")
    path, found = Path(c.results_dir) / "bench" / "search.csv", Found()
    for seed in range(seeds):
        for problem in problems(seed):
            for name, make in searchers(problem).items():
                for after, regret in search(problem, make(problem, seed), seed, trials).items():
                    found.setdefault((problem.name, name, after), []).append(regret)
        write_lines(path, COLUMNS, table(found))
        write(f"  seed {seed + 1} of {seeds}")
    write_table(COLUMNS, table(found))
    write(f"Written: {path}")
