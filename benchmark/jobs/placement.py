"""Find the executor that a configuration names, and start it."""

import importlib
import importlib.util
from dataclasses import fields
from pathlib import Path
from types import ModuleType

from benchmark.core import conf_files
from benchmark.core.console import write
from benchmark.core.devices import device_here
from benchmark.core.errors import UserError
from benchmark.jobs.executors import Executor, Job, Options, Report, RunUnit, SharesGpus
from benchmark.study.config import Config
from benchmark.study.stored import NoStudyError, read_study
from benchmark.study.study import Study

FOLDER = "benchmark.jobs.executors"


def executor_names() -> list[str]:
    """Names of all executors: those with a YAML file in `conf/executor/` and a module of that name."""
    return [name for name in conf_files.names("executor") if importlib.util.find_spec(f"{FOLDER}.{name}")]


def executor_options(config: Config) -> Options:
    """The executor's part of the configuration.

    Raises:
        UserError: a value is not allowed.
    """
    executor = config.executor
    if executor.name not in (names := executor_names()):
        raise UserError(f"executor.name={executor.name!r}: allowed are {', '.join(names)}.")
    if (workers := executor.workers) != "auto" and (type(workers) is not int or workers < 1):
        raise UserError(f"executor.workers={workers!r}: give a positive number, or auto.")
    module: ModuleType = importlib.import_module(f"{FOLDER}.{executor.name}")
    allowed = [field.name for field in fields(module.Options)]
    if unknown := [name for name in executor.options if name not in allowed]:
        takes = ", ".join(f"executor.{name}" for name in allowed)
        raise UserError(f"executor.{unknown[0]}: executor={executor.name} has no such key. It takes {takes}.")
    options: Options = module.Options(workers=None if workers == "auto" else workers, **executor.options)
    return options


def check_executor(config: Config) -> None:
    """Check the executor's part of the configuration, and the device if it trains here, before anything is started.

    Raises:
        UserError: a value is not allowed; the message has the key, the value and the allowed values.
    """
    if executor_options(config).on_this_machine() and config.device not in ("auto", "cpu"):  # no PyTorch for them
        device_here(config.device)


def num_workers(config: Config) -> int:
    """Number of units that run at a time: as configured, or as many as there is room for.

    Raises:
        UserError: a value is not allowed, or there is no room for any worker.
    """
    return executor_options(config).num_workers(config.device)


def trains_here(config: Config) -> bool:
    """Whether the configured executor runs all units on this machine.

    Raises:
        UserError: a value is not allowed.
    """
    return executor_options(config).on_this_machine()


def fewer_per_gpu(config: Config) -> str:
    """The override with which fewer workers share a GPU; empty if the executor gives each worker its own."""
    try:
        options = executor_options(config)
    except UserError:  # on a machine other than the driver's, where a launcher may be missing
        return ""
    return options.fewer_per_gpu() if isinstance(options, SharesGpus) else ""


def with_precision(study: Study) -> Study:
    """The study with the precision that `precision=fast` stands for: the stored one, else the fastest of this machine.

    Args:
        study: the study that a command is about to run.

    Raises:
        UserError: other machines train, whose devices are unknown here.
    """
    if study.config.precision != "fast":
        return study
    try:
        precision = str(read_study(study.directory).config.get("precision", "ieee"))
    except NoStudyError:
        if not trains_here(study.config):
            raise UserError(
                f"precision=fast is the fastest precision of this machine, but executor={study.config.executor.name} "
                "trains on others. Name the precision: bf16, tf32 or ieee."
            ) from None
        from benchmark.training.precision import fastest  # PyTorch takes seconds to import

        precision = fastest(device := study.make_device())
        write(f"precision=fast: {precision} on {device}. The study keeps it wherever it is continued.")
    return Study.of(study.raw | {"precision": precision})


def make_executor(
    config: Config, workers: int, run: RunUnit, module: list[str], log_dir: Path, on_progress: Report
) -> Executor:
    """Start the configured executor.

    Args:
        config: the study's configuration.
        workers: number of units that run at a time.
        run: runs one unit in this process (`executor=inline`).
        module: serves units when started as `python -m MODULE ARGUMENT ...` (all other executors).
        log_dir: folder for the output of workers.
        on_progress: receives what units report, from any thread.

    Raises:
        UserError: a value is not allowed, or the executor cannot be started.
    """
    return executor_options(config).make(Job(run, module, workers, log_dir, on_progress, config.device))
