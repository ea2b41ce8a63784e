"""Run a command for each study on the command line, and convert its outcome to a message and an exit status.

This module imports neither PyTorch nor a command, so an invalid configuration is refused before they are loaded.
"""

import contextlib
import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from select import poll
from typing import cast

import hydra
import hydra.core.global_hydra
import hydra.core.hydra_config
import hydra.errors
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException, ValidationError

from benchmark.core import errors, invocation
from benchmark.core.console import write
from benchmark.core.paths import conf_dir
from benchmark.study import messages, plugins
from benchmark.study.selected import PLACE_KEYS, key_of, select
from benchmark.study.study import ConfigurationError, Study

INCOMPLETE, MISTAKE, INTERRUPTED, TERMINATED = 1, 2, 130, 143  # exit statuses
Command = Callable[[Study, list[str]], None]


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def main(command: Command, protocol: str = "", only_reads: bool = False) -> None:
    """Compose the configuration from `sys.argv` and run a command on each study that it selects.

    Hydra's own flags work. With `--multirun`, a study that cannot run does not stop the others.

    Args:
        command: receives the study and the overrides that the user gave.
        protocol: the command's default protocol, used unless the user selects one.
        only_reads: whether the command itself reads stored studies, and needs only folders from the configuration.

    Raises:
        SystemExit: 1 if results are missing, 2 for a user error, 130 for Ctrl-C, 143 for SIGTERM.
        Exception: a defect, which shows its traceback.
    """
    selects = ("protocol=", "study=")
    if protocol and not any(argument.startswith(selects) for argument in sys.argv[1:]):
        overrides = [place for place, argument in enumerate(sys.argv) if "=" in argument and argument[0] != "-"]
        sys.argv.insert(next(iter(overrides), len(sys.argv)), f"protocol={protocol}")  # Hydra wants overrides together
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them

    def terminate(*_: object) -> None:
        raise _Terminated

    before, statuses = signal.signal(signal.SIGTERM, terminate), [0]
    try:
        with until_the_reader_ends():
            statuses = _run_all(command, only_reads)
    except KeyboardInterrupt as stop:
        write(f"\nStopped. {errors.GO_ON}", error=True)
        raise SystemExit(TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if any(statuses):
        raise SystemExit(max(statuses))


def _run_all(command: Command, only_reads: bool) -> list[int]:
    """Run a command on every study of the command line and return the exit statuses."""
    places: dict[str, object] = {}
    composed: list[tuple[DictConfig, list[str]]] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def compose(config: DictConfig) -> None:
        given = hydra.core.hydra_config.HydraConfig.get().overrides.task
        composed.append((config, [str(override) for override in given]))

    def compose_all() -> None:
        try:
            places.update(_take_places())
            sys.argv[1:] = with_search_path(sys.argv[1:])
            compose()
        except (hydra.errors.HydraException, OmegaConfBaseException) as error:
            raise errors.UserError(explain(error)) from error
        except yaml.MarkedYAMLError as error:  # a file of `conf/`, or of a plug-in
            place = error.problem_mark or error.context_mark
            where = f"{place.name}:{place.line + 1}" if place else "A file of the configuration"
            raise errors.UserError(
                f"{where}: {error.problem}. Correct this line, then run the same command again."
            ) from error
        except ValueError as error:  # Hydra's, of a choice that is no name, such as loss=3
            raise errors.UserError(_not_a_choice(sys.argv[1:]) or messages.does_not_fit(str(error))) from error

    def run(config: DictConfig, given: list[str]) -> None:
        try:
            study = Study.of(config) if only_reads else select(config, given, places)
        except ConfigurationError as error:
            raise errors.UserError(explain(error.__cause__ or error)) from error
        try:
            with invocation.overridden(given):
                command(study, given)
        except SystemExit as error:  # only a plug-in calls it: a command returns, or raises what went wrong
            raise RuntimeError(f"Code that this command runs called sys.exit({error.code!r}).") from error

    return [_status_of(compose_all), *(_status_of(functools.partial(run, *study)) for study in composed)]


def _take_places() -> dict[str, object]:
    """Remove the overrides of `PLACE_KEYS` from `sys.argv` if there is `study=`, and return them by key.

    Hydra would refuse them, because it composes the default data set instead of the stored study's.
    """
    if not any(argument.startswith("study=") for argument in sys.argv[1:]):
        return {}
    taken = [argument for argument in sys.argv[1:] if key_of(argument) in PLACE_KEYS]
    sys.argv = [argument for argument in sys.argv if argument not in taken]
    parsed = OverridesParser.create().parse_overrides(taken)
    for override in parsed:
        if override.is_sweep_override():
            raise errors.UserError(f"{override.input_line}: give one value, for all studies.")
    return {key_of(argument): override.value() for argument, override in zip(taken, parsed, strict=True)}


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
    pipes = poll()
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
    write(f"\n{message}", error=True)
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


def plugins_in(arguments: list[str]) -> list[str]:
    """Return the names of the plug-ins that the command line names.

    Args:
        arguments: command-line arguments.

    Raises:
        UserError: they are not a list of names that a plug-in may have.
    """
    given = [argument for argument in arguments if _names_plugins(argument)]
    names: list[str] = []
    try:
        for override in OverridesParser.create().parse_overrides(given):
            if override.is_sweep_override():
                raise errors.UserError(f"{override.input_line}: give one list in brackets, for all studies.")
            plugins.check_names(found := override.value())
            names = cast(list[str], found)
    except hydra.errors.OverrideParseException as error:
        raise errors.UserError(messages.unreadable(error.override)) from error
    return names


def _names_plugins(argument: str) -> bool:
    return argument.lstrip("+").startswith(f"{plugins.KEY}=")


def with_search_path(arguments: list[str]) -> list[str]:
    """Return command-line arguments with the folders `conf/` of plug-ins on Hydra's search path.

    Args:
        arguments: command-line arguments.

    Raises:
        UserError: a plug-in cannot be found, or has a file with the name of another one.
    """
    folders = plugins.conf_dirs(plugins_in(arguments))[1:]
    if not folders:
        return arguments
    own = ",".join(invocation.override("", f"file://{folder}")[1:] for folder in folders)
    place = next(number for number, argument in enumerate(arguments) if _names_plugins(argument))
    return [*arguments[:place], f"hydra.searchpath=[{own}]", *arguments[place:]]  # Hydra wants overrides together


def choices(group: str, arguments: list[str]) -> list[str]:
    """Return the names of the YAML files in a group, of this project and of the plug-ins on the command line.

    Args:
        group: a folder of `conf/`.
        arguments: command-line arguments.
    """
    folders = plugins.conf_dirs(plugins_in(arguments))
    return sorted(path.stem for folder in folders for path in (folder / group).glob("*.yaml"))


def _not_a_choice(arguments: list[str]) -> str:
    """The message for the first argument that chooses no file of `conf/`; empty if all do."""
    for argument in arguments:
        group, _, name = argument.partition("=")
        if not group:
            return messages.unreadable(argument)
        allowed = choices(group, arguments)
        if allowed and name not in allowed:
            return messages.unknown_choice(group, name, allowed)
    return ""


def known_keys(arguments: list[str]) -> list[str]:
    """Return every dotted key of the configuration with the loss, data set, ... that the user chose.

    Args:
        arguments: command-line arguments; those that do not select a file in `conf/` are ignored.
    """
    folders = plugins.conf_dirs(plugins_in(arguments))
    chosen = [a for a in arguments if any((folder / f"{a.replace('=', '/')}.yaml").is_file() for folder in folders)]
    chosen += [a for a in arguments if a.startswith("hydra.searchpath=")]
    hydra.core.global_hydra.GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return messages.dotted(Study.of(hydra.compose("config", chosen)).raw)
