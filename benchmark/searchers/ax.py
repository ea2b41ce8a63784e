"""Bayesian optimisation by Ax: a Sobol design, then a Gaussian process with noisy expected improvement.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3 on
hyper-parameter search. Their code used Ax of May 2020, whose rule was max(5, number of parameters) Sobol points, no
centre point, and then the model only; `num_sobol="mlrc"` is that rule. Today's Ax would start from the centre, or take
twice as many Sobol points as parameters.

A fresh `ax.api.client.Client` is built from the history for every proposal, so a restart needs nothing but the history.
Ax's own snapshot is no substitute: it drops the seed and rounds the scores, so the next proposal would differ. Neither
is a client that is kept: its own proposals stay in it. All scores are told to a new client at once, in 0.2 ms a trial.

Departure: the noise. Classes are disjoint between folds, so scores differ far more between folds than between
repetitions, and all trials share those differences. The standard error over folds therefore overstates the noise that
matters for comparing settings. In a synthetic search with such folds (5 seeds, 16 trials) the regret of the recommended
setting was 4.1e-3 when Ax was given that standard error, and 0.7e-3 when it inferred the noise. The default is
"inferred"; "fold_sem" is what the Reality Check did.

A trial without a score would teach the model nothing, so it could be proposed again and again at the edge of the region
where training diverges. With `failed="worst"` the model sees the lowest score so far in its place; with "zero" it sees
0 with standard error 0, as the Reality Check's code returned. Records never contain these numbers.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch

from benchmark.core.errors import UserError
from benchmark.protocol.seeds import stable_seed
from benchmark.searchers import (
    BY_SCORES,
    Parameter,
    Rule,
    Setting,
    Trial,
    best_by_mean,
    check_history,
    check_not_exhausted,
    design_spaces,
    num_settings,
)

if TYPE_CHECKING:
    from ax.api.client import Client

_SCORE = "score"


class Ax:
    """Proposes settings by Bayesian optimisation.

    The first `num_sobol` trials take the points of a fixed design in order; a failed trial uses up its point. After
    that the model proposes, once half as many trials have a score; until then the design continues.

    Args:
        space: searched parameters by name.
        seed: determines the design and, with the number of finished and pending trials, every later proposal.
        num_sobol: number of points in the design, defaults included; "mlrc" is max(5, number of parameters).
        noise: "inferred": the model estimates it; "fold_sem": the standard error of each trial over folds.
        failed: what the model sees for a trial without a score: "worst", the lowest score so far; "zero", 0 with
            standard error 0; None, nothing. A lost trial is always abandoned: its setting is not proposed again.
        select: criterion of `best`: "raw", the highest mean; "model", the highest prediction of the model; or "tested",
            the highest mean if it is better than that of `defaults`, see `searchers.best_or_default`.
        defaults_first: whether trial 0 tries `defaults`.
        defaults: the published setting; entries outside the search space are ignored.
        shared: parameters of the space that take the points of another search's design, in the order of its space; see
            `searchers.design_spaces`.

    Raises:
        UserError: the space is empty, an option is unknown, a default is missing or out of bounds, or a shared
            parameter is not in the space.
    """

    def __init__(
        self,
        space: dict[str, Parameter],
        seed: int,
        *,
        num_sobol: int | Literal["mlrc"] = "mlrc",
        noise: Literal["inferred", "fold_sem"] = "inferred",
        failed: Literal["worst", "zero"] | None = None,
        select: Rule = "raw",
        defaults_first: bool = False,
        defaults: Setting | None = None,
        shared: Sequence[str] = (),
    ) -> None:
        if not space:
            raise UserError("The search space is empty; name at least one parameter in the loss's `space`.")
        if num_sobol != "mlrc" and not (isinstance(num_sobol, int) and num_sobol >= 1):
            raise UserError(f'num_sobol is {num_sobol!r}; allowed are "mlrc" and whole numbers from 1.')
        if noise not in ("inferred", "fold_sem") or select not in get_args(Rule):
            raise UserError(
                f'noise={noise!r} (allowed: "inferred", "fold_sem") or select={select!r} (allowed: '
                f"{', '.join(get_args(Rule))}) is unknown."
            )
        if failed not in ("worst", "zero", None):
            raise UserError(f'failed={failed!r}: allowed are "worst", "zero" and null.')
        self._space, self._seed, self._noise, self._failed, self._select = space, seed, noise, failed, select
        self._designs = design_spaces(space, shared)
        self._num_sobol = max(5, len(space)) if num_sobol == "mlrc" else num_sobol
        self._first = _first(space, defaults or {}) if defaults_first else None

    def ask(self, history: Sequence[Trial], pending: Sequence[Setting] = ()) -> Setting:
        """Propose the next setting, as plain numbers within the bounds.

        Args:
            history: finished trials in the order of proposal.
            pending: settings that were proposed and have no result yet; the model avoids their neighbourhood.

        Raises:
            UserError: the history belongs to another search space, a trial lacks the `sem` that `noise="fold_sem"`
                needs, or every setting of an all-integer space has been tried.
        """
        check_history(history, self._space)
        num_proposed = len(history) + len(pending)
        if self._first is not None and not num_proposed:
            return dict(self._first)
        tried = [*(trial.parameters for trial in history), *pending]
        check_not_exhausted(self._space, tried)
        num_scored = sum(trial.mean is not None for trial in history)
        use_design = num_proposed < self._num_sobol or num_scored < self._num_scored_before_model
        with _quiet_single_thread():
            if use_design:
                return self._next_of_design(num_proposed - (self._first is not None), tried)
            point = _next(self._client_with(history, pending))
        return self._plain(point)

    def best(self, history: Sequence[Trial]) -> int:
        """Return the index of the chosen trial, the first in case of a tie; warn if the model could not choose.

        Args:
            history: finished trials in the order of proposal.

        Raises:
            UserError: the history belongs to another search space, or no trial has a score.
        """
        index, reason = self.choose(history)
        if reason is not None:
            warnings.warn(f'select="model" fell back to the highest mean: {reason}', RuntimeWarning, stacklevel=2)
        return index

    def choose(self, history: Sequence[Trial]) -> tuple[int, str | None]:
        """Choose a trial.

        Args:
            history: finished trials in the order of proposal.

        Returns:
            Index of the chosen trial, and the reason if the highest mean was used although `select` is "model".

        Raises:
            UserError: the history belongs to another search space, or no trial has a score.
        """
        check_history(history, self._space)
        if choose := BY_SCORES.get(self._select):
            return choose(history), None
        by_mean = best_by_mean(history)
        scored = [trial for trial in history if trial.mean is not None]
        if len(scored) < self._num_scored_before_model:
            return by_mean, f"{len(scored)} scored trials, and the model needs {self._num_scored_before_model}"
        with _quiet_single_thread():
            from ax.exceptions.core import AxError, SearchSpaceExhausted
            from botorch.exceptions.errors import BotorchError, ModelFittingError
            from linear_operator.utils.errors import NotPSDError

            try:
                client = self._client_with(history)
                with suppress(SearchSpaceExhausted):  # which it says after it has fitted the model
                    _next(client)
                predicted = [p[_SCORE][0] for p in client.predict([self._cast(trial.parameters) for trial in scored])]
            except (AxError, BotorchError, ModelFittingError, NotPSDError) as error:
                return by_mean, f"{type(error).__name__}: {error}"
        if not all(math.isfinite(value) for value in predicted):
            return by_mean, "the model's predictions are not finite"
        return max(zip(predicted, scored, strict=True), key=lambda pair: (pair[0], -pair[1].index))[1].index, None

    @property
    def _num_scored_before_model(self) -> int:
        return max(2, self._num_sobol // 2)

    def _plain(self, point: Setting) -> Setting:
        """A point as plain numbers within the bounds."""
        return {name: parameter.cast(point[name]) for name, parameter in self._space.items()}

    def _next_of_design(self, number: int, tried: Sequence[Setting]) -> Setting:
        """Point `number` of the design or, if whole numbers alone are searched, the next one that was not tried."""
        found = self._plain(self._design_point(number))
        if num_settings(self._space) is not None:
            while found in tried:  # the first trial may be any setting, and points of the design can be equal
                number += 1
                found = self._plain(self._design_point(number))
        return found

    def _design_point(self, number: int) -> Setting:
        """Return point `number` of the Sobol design, a pure function of the seed."""
        point: Setting = {}
        for space in self._designs:
            own = space is not self._designs[-1]
            seed = stable_seed("ax design", self._seed, *(["own"] if own else []))
            client = self._client(number + 1, seed, space)
            point |= cast(Setting, list(client.get_next_trials(max_trials=number + 1).values())[number])
        return point

    def _client_with(self, history: Sequence[Trial], pending: Sequence[Setting] = ()) -> "Client":
        """Build a client from the history and the pending settings; its next proposal comes from the model."""
        client = self._client(0, stable_seed("ax proposal", self._seed, len(history) + len(pending)))
        trials = {client.attach_trial(self._cast(trial.parameters)): trial for trial in history}
        seen = {index: self._observation(trial, history) for index, trial in trials.items()}
        _tell(client, seen)
        for setting in pending:
            client.attach_trial(self._cast(setting))  # still running
        return client

    def _observation(self, trial: Trial, history: Sequence[Trial]) -> float | tuple[float, float] | None:
        """What the model sees for a trial: its score, with its standard error if the model gets it; or nothing."""
        mean, sem = trial.mean, trial.sem
        if mean is None:
            scored = [other for other in history if other.mean is not None]
            if trial.is_lost or self._failed is None or (self._failed == "worst" and not scored):
                return None
            if self._failed == "zero":
                mean, sem = 0.0, 0.0
            else:
                worst = min(scored, key=lambda other: cast(float, other.mean))
                mean, sem = cast(float, worst.mean), worst.sem
        if self._noise == "inferred":
            return mean
        if sem is None:
            raise UserError(f'Trial {trial.index} has no standard error; use noise="inferred" or more than one fold.')
        return mean, sem

    def _client(self, num_sobol: int, seed: int, space: dict[str, Parameter] | None = None) -> "Client":
        from ax.api.client import Client
        from ax.api.configs import RangeParameterConfig

        client = Client(random_seed=seed % 2**31)
        parameters = [
            RangeParameterConfig(
                name=name, bounds=(p.cast(p.bounds[0]), p.cast(p.bounds[1])), parameter_type=p.type, scaling=p.scale
            )
            for name, p in (space or self._space).items()
        ]
        client.configure_experiment(parameters=parameters)
        client.configure_optimization(objective=_SCORE)
        client.configure_generation_strategy(
            method="fast",
            initialization_budget=num_sobol,
            initialization_random_seed=seed % 2**31,
            initialize_with_center=False,
            allow_exceeding_initialization_budget=True,
        )
        return client

    def _cast(self, setting: Setting) -> Setting:
        """Convert a setting to the types of the space: Ax rejects a float that JSON stored as an int."""
        return {name: parameter.cast(setting[name]) for name, parameter in self._space.items()}


def _tell(client: "Client", seen: Mapping[int, float | tuple[float, float] | None]) -> None:
    """Complete trials of a client with their scores, and abandon those without.

    This has the effect of `Client.attach_data` and `Client.complete_trial` for each trial, which would build a table of
    all trials again each time and take 6 ms a trial.

    Args:
        client: the client.
        seen: score, or score and standard error, by trial.
    """
    from ax.core.data import Data, DataRow

    experiment = client._experiment
    signature, rows = experiment.metrics[_SCORE].signature, []
    for index, score in seen.items():
        if score is None:
            client.mark_trial_abandoned(index)  # its setting is never proposed again, unlike that of a FAILED trial
            continue
        mean, sem = score if isinstance(score, tuple) else (score, math.nan)  # NaN: the model infers the noise
        trial = experiment.trials[index]
        rows.append(DataRow(index, trial.arms[0].name, _SCORE, signature, float(mean), float(sem)))
        trial.mark_completed()
    experiment.attach_data(Data(data_rows=rows))


def _next(client: "Client") -> Setting:
    (point,) = client.get_next_trials(max_trials=1).values()
    return cast(Setting, point)


def _first(space: dict[str, Parameter], defaults: Setting) -> Setting:
    wrong = [name for name, p in space.items() if name not in defaults or not p.contains(defaults[name])]
    if wrong:
        raise UserError(
            f"defaults_first needs a default within the bounds for every searched parameter; {wrong} have none. "
            f"Defaults are {defaults}."
        )
    return {name: parameter.cast(defaults[name]) for name, parameter in space.items()}


@contextmanager
def _quiet_single_thread() -> Iterator[None]:
    """Run Ax on one thread, so that no sum depends on the number of cores, and silence its log and warnings.

    The warnings concern its internals (scripted functions, jitter on a covariance); its inputs are checked here.
    The log is silenced by Ax's own switch, since the level of the logger "ax" has no effect.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ax.utils.common.logger import set_ax_logger_levels

            set_ax_logger_levels(logging.ERROR)
            yield
    finally:
        torch.set_num_threads(threads)
