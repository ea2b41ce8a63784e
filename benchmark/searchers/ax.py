"""Bayesian optimisation by Ax, as a pure function of the finished trials and the seed.

Source: the protocol of Musgrave, Belongie, Lim, ECCV 2020 (arXiv 2003.08505), whose code used Ax of 2020: max(5, number
of parameters) Sobol points, then a Gaussian process with noisy expected improvement; and Ax's `Client` API.

A fresh `Client` is built for every proposal from the history, so nothing but the history needs to survive a restart
(Ax's own JSON loses the seed and rounds the means, after which the next proposal differs).

Noise. Class-disjoint folds differ in difficulty far more than runs differ by chance, and every trial shares those
differences, so the standard error between folds overstates the noise that matters for comparing two settings. In a
synthetic comparison (5 seeds, 16 trials) the regret of the recommended point was 6 times higher with it than with
inferred noise. The default is therefore `inferred`; `fold_sem` is what MLRC did.
"""

import logging
import warnings
from typing import Any, Literal

from benchmark.searchers import Parameter, Trial

OBJECTIVE = "map_at_r"
SEED_STEP = 100_003  # a prime; keeps the seeds of one study's proposals apart from the next study's


class Ax:
    """Proposes settings by Ax.

    Args:
        space: parameters by name.
        seed: every proposal is drawn from (seed, number of finished trials).
        noise: `inferred` by the model, or `fold_sem`: each trial's standard error between folds.
        select: `raw` takes the trial with the highest mean, `model` the one with the highest predicted mean.
        defaults_first: whether trial 0 is `defaults`.
        defaults: the published setting.
        num_sobol: Sobol points; None is MLRC's max(5, number of parameters).
    """

    def __init__(
        self,
        space: dict[str, Parameter],
        seed: int,
        *,
        noise: Literal["inferred", "fold_sem"] = "inferred",
        select: Literal["raw", "model"] = "raw",
        defaults_first: bool = False,
        defaults: dict[str, Any] | None = None,
        num_sobol: int | None = None,
    ) -> None:
        self._space, self._seed, self._noise, self._select = space, seed, noise, select
        self._first = {name: (defaults or {})[name] for name in space} if defaults_first else None
        self._num_sobol = num_sobol or max(5, len(space))

    def ask(self, history: list[Trial]) -> dict[str, Any]:
        """The next setting after these trials.

        Args:
            history: finished trials in the order of their index.
        """
        number = len(history)
        if self._first is not None and number == 0:
            return dict(self._first)
        designed = number - (self._first is not None)
        with _one_quiet_thread():
            if designed < self._num_sobol or not any(t.mean is not None for t in history):
                design = self._client(self._seed).get_next_trials(max_trials=designed + 1)
                point = list(design.values())[designed]
            else:
                client = self._told(history)
                (point,) = client.get_next_trials(max_trials=1).values()
        return {name: self._plain(name, point[name]) for name in self._space}

    def best(self, history: list[Trial]) -> int:
        """Index of the chosen trial; of equal ones the first.

        Raises:
            ValueError: no trial has a score.
        """
        scored = [t for t in history if t.mean is not None]
        if not scored:
            raise ValueError("No trial has a score, so none can be chosen.")
        values: dict[int, float] = {t.index: t.mean for t in scored if t.mean is not None}
        if self._select == "model" and len(scored) >= 2:
            with _one_quiet_thread():
                client = self._told(history)
                predicted = client.predict([self._cast(t.parameters) for t in scored])
            values = {t.index: p[OBJECTIVE][0] for t, p in zip(scored, predicted, strict=True)}
        return max(values, key=lambda index: (values[index], -index))

    def _client(self, seed: int) -> Any:
        from ax.api.client import Client
        from ax.api.configs import RangeParameterConfig

        client = Client(random_seed=seed)
        client.configure_experiment([
            RangeParameterConfig(
                name=name, bounds=p.bounds, parameter_type=p.type, scaling=p.scale
            )
            for name, p in self._space.items()
        ])  # fmt: skip
        client.configure_optimization(objective=OBJECTIVE)
        client.configure_generation_strategy(
            method="fast", initialization_budget=self._num_sobol, initialization_random_seed=self._seed,
            initialize_with_center=False, allow_exceeding_initialization_budget=True,
        )  # fmt: skip
        return client

    def _told(self, history: list[Trial]) -> Any:
        """A client that knows the history and whose next proposal comes from the model."""
        client = self._client(self._seed * SEED_STEP + len(history))
        for trial in history:
            index = client.attach_trial(self._cast(trial.parameters))
            if trial.mean is None:
                client.mark_trial_abandoned(index)  # avoided from now on, and never a number
            elif self._noise == "fold_sem":
                client.complete_trial(index, {OBJECTIVE: (trial.mean, trial.sem)})
            else:
                client.complete_trial(index, {OBJECTIVE: trial.mean})
        return client

    def _cast(self, setting: dict[str, Any]) -> dict[str, Any]:
        return {name: self._plain(name, setting[name]) for name in self._space}

    def _plain(self, name: str, value: Any) -> float | int:
        low, high = self._space[name].bounds
        if self._space[name].type == "int":
            return int(value)
        return min(max(float(value), low), high)


class _one_quiet_thread:  # noqa: N801 - used as a statement
    """Ax without its log lines, on one thread, so that sums do not depend on the number of cores."""

    def __enter__(self) -> None:
        import torch

        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        from ax.utils.common.logger import set_ax_logger_levels

        set_ax_logger_levels(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        import torch

        self._warnings.__exit__(None, None, None)
        torch.set_num_threads(self._threads)
