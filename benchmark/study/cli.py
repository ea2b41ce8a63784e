"""Run a command for each study on the command line, and convert its outcome to a message and an exit status.

This module imports neither PyTorch nor a command, so an invalid configuration is refused before they are loaded.
"""

import contextlib
import functools
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator

import hydra
import hydra.core.global_hydra
import hydra.core.hydra_config
import hydra.errors
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException, ValidationError

from benchmark.core import errors, invocation
from benchmark.core.paths import conf_dir
from benchmark.study import messages
from benchmark.study.study import ConfigurationError, Study

INCOMPLETE, MISTAKE, INTERRUPTED, TERMINATED = 1, 2, 130, 143  # exit statuses
Command = Callable[[Study, list[str]], None]


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def main(command: Command, protocol: str = "") -> None:
    """Compose the configuration from `sys.argv` and run a command on each study that it describes.

    Hydra's own flags work. With `--multirun`, a study that cannot run does not stop the others.

    Args:
        command: receives the study and the overrides that the user gave.
        protocol: the command's default protocol, used unless the user selects one.

    Raises:
        SystemExit: 1 if results are missing, 2 for a user error, 130 for Ctrl-C, 143 for SIGTERM.
        Exception: a defect, which shows its traceback.
    """
    if protocol and not any(argument.startswith("protocol=") for argument in sys.argv[1:]):
        overrides = [place for place, argument in enumerate(sys.argv) if "=" in argument and argument[0] != "-"]
        sys.argv.insert(next(iter(overrides), len(sys.argv)), f"protocol={protocol}")  # Hydra wants overrides together
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them

    def terminate(*_: object) -> None:
        raise _Terminated

    before, statuses = signal.signal(signal.SIGTERM, terminate), [0]
    try:
        with until_the_reader_ends():
            statuses = _run_all(command)
    except KeyboardInterrupt as stop:
        print(f"\nStopped. {errors.GO_ON}", file=sys.stderr)
        raise SystemExit(TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if any(statuses):
        raise SystemExit(max(statuses))


def _run_all(command: Command) -> list[int]:
    """Run a command on every study of the command line and return the exit statuses."""
    composed: list[tuple[DictConfig, list[str]]] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def compose(config: DictConfig) -> None:
        given = hydra.core.hydra_config.HydraConfig.get().overrides.task
        composed.append((config, [str(override) for override in given]))

    def compose_all() -> None:
        try:
            compose()
        except (hydra.errors.HydraException, OmegaConfBaseException) as error:
            raise errors.UserError(explain(error)) from error
        except ValueError as error:  # Hydra's, of a choice that is no name, such as loss=3
            raise errors.UserError(_not_a_choice(sys.argv[1:]) or messages.does_not_fit(str(error))) from error

    def run(config: DictConfig, given: list[str]) -> None:
        try:
            study = Study.of(config)
        except ConfigurationError as error:
            raise errors.UserError(explain(error.__cause__ or error)) from error
        try:
            with invocation.overridden(given):
                command(study, given)
        except SystemExit as error:  # only a plug-in calls it: a command returns, or raises what went wrong
            raise RuntimeError(f"Code that this command runs called sys.exit({error.code!r}).") from error

    return [_status_of(compose_all), *(_status_of(functools.partial(run, *study)) for study in composed)]


@contextlib.contextmanager
def until_the_reader_ends() -> Iterator[None]:
    """End the block quietly if the reader of our output, such as `head`, ends before it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_ended():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_has_ended() -> bool:
    """Whether the reader of our output, such as `head`, has ended."""
    pipes = select.poll()
    for descriptor in (1, 2):
        pipes.register(descriptor, 0)  # an end that is closed is reported without being asked for
    return bool(pipes.poll(0))


def _status_of(work: Callable[[], None]) -> int:
    """Run `work` and return its exit status; print the message of any error but a defect, which propagates."""
    try:
        work()
    except errors.IncompleteError as error:
        message, status = str(error), INCOMPLETE
    except Exception as error:
        found = errors.message_for_user(error)
        if found is None:
            raise
        message, status = found, MISTAKE
    else:
        return 0
    print(f"\n{message}", file=sys.stderr)
    return status


def explain(error: BaseException) -> str:
    """Describe what is wrong with the configuration, with the closest match and the allowed values.

    Args:
        error: an exception from Hydra or OmegaConf.
    """
    if isinstance(error, hydra.errors.MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return messages.unknown_choice(group, name, list(error.options))
    if isinstance(error, hydra.errors.OverrideParseException):
        return messages.unreadable(error.override)
    key = error.full_key if isinstance(error, OmegaConfBaseException) else None
    if found := re.search(r"Could not override '([^']+)'|[Kk]ey '([^']+)' (?:is )?not in", str(error)):
        return messages.unknown_key(key or found[1] or found[2], known_keys(sys.argv[1:]))
    if isinstance(error, ValidationError) and key:
        return messages.wrong_type(key, str(error.msg))
    return messages.does_not_fit(str(error.__cause__ or error))


def _not_a_choice(arguments: list[str]) -> str:
    """The message for the first argument that chooses no file of `conf/`; empty if all do."""
    for argument in arguments:
        group, _, name = argument.partition("=")
        if not group:
            return messages.unreadable(argument)
        allowed = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
        if allowed and name not in allowed:
            return messages.unknown_choice(group, name, allowed)
    return ""


def known_keys(arguments: list[str]) -> list[str]:
    """Return every dotted key of the configuration with the loss, data set, ... that the user chose.

    Args:
        arguments: command-line arguments; those that do not select a file in `conf/` are ignored.
    """
    chosen = [a for a in arguments if (conf_dir() / f"{a.replace('=', '/')}.yaml").is_file()]
    hydra.core.global_hydra.GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return messages.dotted(Study.of(hydra.compose("config", chosen)).raw)
