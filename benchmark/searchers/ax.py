"""Bayesian optimisation by Ax: a Sobol design, then a Gaussian process with noisy expected improvement.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3 on
hyper-parameter search. Their code used Ax of May 2020, whose rule was max(5, number of parameters) Sobol points, no
centre point, then the model to the end; `num_sobol="mlrc"` is that rule. Today's Ax would start from the centre, or
take twice as many Sobol points as parameters.

A fresh `ax.api.client.Client` is built from the history for every proposal, so the history is all that a restart needs.
Ax's own snapshot is no such thing: it drops the seed and rounds the scores, after which the next proposal differs.

Noise, our one departure. Classes are disjoint between folds, so folds differ in difficulty, by far more than a training
differs from its repetition; and every trial shares those differences. The standard error between folds therefore
overstates the noise that matters for comparing settings. In a synthetic search with such folds (5 seeds, 16 trials) the
recommended setting lost 4.1e-3 when Ax was told that standard error, 0.7e-3 when it inferred the noise. Default:
"inferred". "fold_sem" is what the Reality Check did.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from benchmark.protocol.seeds import stable_seed
from benchmark.searchers import Parameter, Trial, Value, best_by_mean, check_history

_SCORE = "score"


class Ax:
    """Proposes settings by Ax.

    The first `num_sobol` trials take the points of a fixed design in order; a failed trial has used up its point. After
    them the model proposes, once half as many trials have a score; until then the design goes on.

    Args:
        space: searched parameters by name.
        seed: fixes the design, and with the number of finished trials every later proposal.
        num_sobol: length of the design, defaults included; "mlrc" is max(5, number of parameters).
        noise: "inferred" by the model, or "fold_sem": each trial's standard error between folds.
        select: how `best` chooses: "raw" by the highest mean, "model" by the model's prediction for it.
        defaults_first: whether trial 0 is `defaults`.
        defaults: the published setting; entries beside the search space are ignored.

    Raises:
        ValueError: for an empty space, an unknown option, or defaults that are missing or out of bounds.
    """

    def __init__(
        self,
        space: dict[str, Parameter],
        seed: int,
        *,
        num_sobol: int | Literal["mlrc"] = "mlrc",
        noise: Literal["inferred", "fold_sem"] = "inferred",
        select: Literal["raw", "model"] = "raw",
        defaults_first: bool = False,
        defaults: dict[str, Value] | None = None,
    ) -> None:
        if not space:
            raise ValueError("The search space is empty; name at least one parameter in the loss's `space`.")
        if num_sobol != "mlrc" and not (isinstance(num_sobol, int) and num_sobol >= 1):
            raise ValueError(f'num_sobol is {num_sobol!r}; allowed are "mlrc" and whole numbers from 1.')
        if noise not in ("inferred", "fold_sem") or select not in ("raw", "model"):
            raise ValueError(f'noise={noise!r} ("inferred", "fold_sem"), select={select!r} ("raw", "model"): unknown.')
        self._space, self._seed, self._noise, self._select = space, seed, noise, select
        self._num_sobol = max(5, len(space)) if num_sobol == "mlrc" else num_sobol
        self._first = _first(space, defaults or {}) if defaults_first else None

    def ask(self, history: Sequence[Trial], pending: Sequence[dict[str, Value]] = ()) -> dict[str, Value]:
        """The next setting: plain numbers within the bounds, the same for the same space, seed, history and pending.

        Args:
            history: finished trials, in the order of their index.
            pending: settings that were proposed and have no score yet; the model expects one, and looks
                elsewhere.

        Raises:
            ValueError: for a history of another space, a trial without `sem` where it is to be told, or where every
                setting of an all-integer space has been tried.
        """
        check_history(history, self._space)
        asked = len(history) + len(pending)
        if self._first is not None and not asked:
            return dict(self._first)
        self._check_exhausted([*(trial.parameters for trial in history), *pending])
        num_scored = sum(trial.mean is not None for trial in history)
        designed = asked < self._num_sobol or num_scored < self._num_scored_before_model
        with _quiet_single_thread():
            number = asked - (self._first is not None)
            point = self._design_point(number) if designed else _next(self._told(history, pending))
        return {name: parameter.cast(point[name]) for name, parameter in self._space.items()}

    def best(self, history: Sequence[Trial]) -> int:
        """Index of the chosen trial; of equal ones the first. Warns if the model was to choose and could not.

        Raises:
            ValueError: no trial has a score.
        """
        index, reason = self.choose(history)
        if reason is not None:
            warnings.warn(f'select="model" fell back to the highest mean: {reason}', RuntimeWarning, stacklevel=2)
        return index

    def choose(self, history: Sequence[Trial]) -> tuple[int, str | None]:
        """Index of the chosen trial, and why the model did not choose it although it was to.

        Raises:
            ValueError: for a history of another space, or in which no trial has a score.
        """
        check_history(history, self._space)
        by_mean = best_by_mean(history)
        if self._select == "raw":
            return by_mean, None
        scored = [trial for trial in history if trial.mean is not None]
        if len(scored) < self._num_scored_before_model:
            return by_mean, f"{len(scored)} scored trials, and the model needs {self._num_scored_before_model}"
        with _quiet_single_thread():
            from ax.exceptions.core import AxError
            from botorch.exceptions.errors import BotorchError, ModelFittingError
            from linear_operator.utils.errors import NotPSDError  # type: ignore[import-untyped]

            try:
                client = self._told(history)
                _next(client)  # fits the model
                predicted = [p[_SCORE][0] for p in client.predict([self._cast(trial.parameters) for trial in scored])]
            except (AxError, BotorchError, ModelFittingError, NotPSDError) as error:
                return by_mean, f"{type(error).__name__}: {error}"
        if not all(math.isfinite(value) for value in predicted):
            return by_mean, "the model's predictions are not finite"
        return max(zip(predicted, scored, strict=True), key=lambda pair: (pair[0], -pair[1].index))[1].index, None

    @property
    def _num_scored_before_model(self) -> int:
        return max(2, self._num_sobol // 2)

    def _check_exhausted(self, settings: Sequence[dict[str, Value]]) -> None:
        """Ax proposes no setting twice, and would look for a new one for minutes where there is none."""
        if all(parameter.type == "int" for parameter in self._space.values()):
            num_settings = math.prod(round(p.bounds[1] - p.bounds[0]) + 1 for p in self._space.values())
            if len({tuple(self._cast(setting).values()) for setting in settings}) >= num_settings:
                raise ValueError(
                    f"All {num_settings} settings of the search space have been tried; ask for fewer trials."
                )

    def _design_point(self, number: int) -> dict[str, Any]:
        """Point `number` of the Sobol design, which is one pure call from the seed."""
        client = self._client(number + 1, stable_seed("ax design", self._seed))
        return list(client.get_next_trials(max_trials=number + 1).values())[number]

    def _told(self, history: Sequence[Trial], pending: Sequence[dict[str, Value]] = ()) -> Any:
        """A client that knows the history and what is pending, and whose next proposal is the model's."""
        client = self._client(0, stable_seed("ax proposal", self._seed, len(history) + len(pending)))
        trials = {client.attach_trial(self._cast(trial.parameters)): trial for trial in history}
        for index, trial in trials.items():  # all data first: between completions they would be sorted anew each time
            if trial.mean is not None:
                client.attach_data(index, {_SCORE: self._observation(trial)})
        for index, trial in trials.items():
            if trial.mean is None:
                client.mark_trial_abandoned(index)  # unlike "failed", never proposed again
            else:
                client.complete_trial(index)
        for setting in pending:
            client.attach_trial(self._cast(setting))  # and left running
        return client

    def _observation(self, trial: Trial) -> Any:
        if self._noise == "inferred":
            return trial.mean
        if trial.sem is None:
            raise ValueError(f'Trial {trial.index} has no standard error; use noise="inferred" or more than one fold.')
        return trial.mean, trial.sem

    def _client(self, num_sobol: int, seed: int) -> Any:
        from ax.api.client import Client
        from ax.api.configs import RangeParameterConfig

        client = Client(random_seed=seed % 2**31)
        parameters = [
            RangeParameterConfig(
                name=name, bounds=(p.cast(p.bounds[0]), p.cast(p.bounds[1])), parameter_type=p.type, scaling=p.scale
            )
            for name, p in self._space.items()
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

    def _cast(self, setting: dict[str, Value]) -> dict[str, Value]:
        """A setting in the types of the space; read from JSON a float may be an int, which Ax refuses."""
        return {name: parameter.cast(setting[name]) for name, parameter in self._space.items()}


def _next(client: Any) -> dict[str, Any]:
    (point,) = client.get_next_trials(max_trials=1).values()
    return dict(point)


def _first(space: dict[str, Parameter], defaults: dict[str, Value]) -> dict[str, Value]:
    wrong = [name for name, p in space.items() if name not in defaults or not p.contains(defaults[name])]
    if wrong:
        raise ValueError(
            f"defaults_first needs a default within the bounds for every searched parameter; {wrong} have none. "
            f"Defaults are {defaults}."
        )
    return {name: parameter.cast(defaults[name]) for name, parameter in space.items()}


@contextmanager
def _quiet_single_thread() -> Iterator[None]:
    """Ax on one thread, so that no sum depends on the number of cores, and without its talk.

    Its warnings are about its own internals (scripted functions, jitter on a covariance); what it is told is checked by
    us. Logging needs Ax's own switch, since the level of the logger "ax" changes nothing.
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
