"""Run a command for each study on the command line, and convert its outcome to a message and an exit status.

This module imports neither PyTorch nor a command, so an invalid configuration is refused before they are loaded.
"""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from select import poll
from typing import cast

import hydra
import hydra.core.global_hydra
import hydra.errors
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from benchmark.core import cache_dir, errors, invocation, places, plain_yaml, process
from benchmark.core.console import OutputError, drop_output, write
from benchmark.core.invocation import key_of
from benchmark.core.paths import conf_dir
from benchmark.study import arguments, lengths, messages, plugins, spaces
from benchmark.study.preflight import check_values
from benchmark.study.selected import BOOKKEEPING, PLACE_KEYS, select
from benchmark.study.study import ConfigurationError, Study

INCOMPLETE, MISTAKE, UNREAD = 1, 2, 141  # exit statuses; the last is what a shell reports for SIGPIPE
Command = Callable[[Study, list[str]], None]
OF_THE_COMMAND = (*BOOKKEEPING, "experiment", "budget", "measure")  # not options of its studies


def main(command: Command, protocol: str = "", only_reads: bool = False, several: Sequence[str] = ()) -> None:
    """Compose the configuration from `sys.argv` and run a command on each study that it selects.

    `arguments` describes what may be given. Of several studies, one that cannot run does not stop the others.

    Args:
        command: receives the study and the overrides that the user gave.
        protocol: the command's default protocol, used unless the user selects one.
        only_reads: whether the command itself reads stored studies, and needs only folders from the configuration.
        several: groups of `conf/` of which the command takes several names without `--multirun`.

    Raises:
        SystemExit: 1 if results are missing, 2 for a user error, 130 for Ctrl-C, 143 for SIGTERM, 141 if the reader of
            the output ended before a command that does more than show results.
        Exception: a defect, which shows its traceback.
    """
    selects = ("protocol=", "study=")
    if protocol and not any(argument.startswith(selects) for argument in sys.argv[1:]):
        sys.argv.append(f"protocol={protocol}")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    statuses = [0 if only_reads else UNREAD]
    try:
        with until_the_reader_ends():
            statuses = _run_all(command, only_reads, several)
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, process.Stopped) else process.SIGNALS[0]
        write(f"\n{process.reason(number)}", error=True)
        raise SystemExit(128 + number) from None
    if statuses == [UNREAD]:
        write(f"\nStopped, because the reader of this command's output has ended. {errors.GO_ON}", error=True)
    if any(statuses):
        raise SystemExit(max(statuses))


def _run_all(command: Command, only_reads: bool, several: Sequence[str]) -> list[int]:
    """Run a command on every study of the command line and return the exit statuses."""
    composed: list[tuple[DictConfig, list[str], dict[str, object]]] = []

    def compose_all() -> None:
        process.check_folder()
        if not only_reads:
            process.check_temporary_folder()
        plugin_folders = plugins.conf_dirs(plugins_in(sys.argv[1:]))[1:]
        given = arguments.read(sys.argv[1:], groups(), functools.partial(choices, given=sys.argv[1:]), several)
        cache = os.environ.get(cache_dir.VARIABLE)
        if cache:
            places.usable_folder(cache_dir.VARIABLE, cache)
        for overrides in given.jobs:
            rest, where = _without_places(overrides)
            config = _compose(_of_the_command(rest), plugin_folders)
            if only_reads:
                for key, value in where.items():
                    OmegaConf.update(config, key, value, force_add=True)
            composed.append((config, overrides if only_reads else rest, where))
        if given.shows:
            for config, rest, where in composed:
                composed_only = not config.study and not given.resolves  # references may be to keys that have defaults
                shown = config if composed_only else OmegaConf.create(selected(config, rest, where).raw)
                write(OmegaConf.to_yaml(shown, resolve=given.resolves), end="")
            composed.clear()

    def selected(config: DictConfig, given: list[str], where: dict[str, object]) -> Study:
        return _explaining(given, lambda: Study.of(config) if only_reads else select(config, given, where))

    def run(config: DictConfig, given: list[str], where: dict[str, object]) -> None:
        study = selected(config, given, where)
        check_values(study, study.config.protocol.story)
        try:
            with invocation.overridden(given):
                command(study, given)
        except SystemExit as error:  # only a plug-in calls it: a command returns, or raises what went wrong
            raise RuntimeError(f"Code that this command runs called sys.exit({error.code!r}).") from error

    status = _status_of(compose_all)
    return [status] if status else [_status_of(functools.partial(run, *study)) for study in composed]


def _compose(overrides: list[str], plugin_folders: Sequence[Path]) -> DictConfig:
    """The configuration that Hydra composes.

    Args:
        overrides: in Hydra's grammar.
        plugin_folders: folders `conf/` of plug-ins.

    Raises:
        UserError: a key is unknown, a choice has no file, or a file is invalid.
    """
    own = ",".join(invocation.override("", f"file://{folder}")[1:] for folder in plugin_folders)
    search_path = [f"hydra.searchpath=[{own}]"] if own else []
    try:
        hydra.core.global_hydra.GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = hydra.compose("config", [*search_path, *overrides])
        lengths.adapt(config, overrides)
        spaces.adapt(config, overrides)
    except (hydra.errors.HydraException, OmegaConfBaseException) as error:
        raise errors.UserError(explain(error, overrides)) from error
    except yaml.MarkedYAMLError as error:  # a file of `conf/`, or of a plug-in
        place = error.problem_mark or error.context_mark
        where = f"{place.name}:{place.line + 1}" if place else "A file of the configuration"
        raise errors.UserError(
            f"{where}: {error.problem}. Correct this line, then run the same command again."
        ) from error
    except ValueError as error:
        raise errors.UserError(messages.does_not_fit(str(error))) from error
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if value.strip() == "{}" and OmegaConf.select(config, key):
            raise errors.UserError(
                f"{override} changes nothing: what is given in braces is added to what {key} has. Delete a part, as in "
                f"~{key}.{next(iter(OmegaConf.select(config, key)))}, or give its keys other values."
            )
    return config


def _without_places(overrides: list[str]) -> tuple[list[str], dict[str, object]]:
    """The overrides without those of `PLACE_KEYS` if a folder names the data set, and the values of these by key.

    It is the folder of `study=`, or of `model=` without `dataset=`. Hydra would refuse them, because it composes the
    default data set instead of the folder's.
    """
    given = {*map(key_of, overrides)}
    if "study" not in given and ("model" not in given or "dataset" in given):
        return overrides, {}
    taken = [override for override in overrides if key_of(override) in PLACE_KEYS]
    parsed = OverridesParser.create().parse_overrides(taken)
    places: dict[str, object] = {key_of(override): found.value() for override, found in zip(taken, parsed, strict=True)}
    return [override for override in overrides if override not in taken], places


def _of_the_command(overrides: list[str]) -> list[str]:
    """The overrides that the command itself needs: with `experiment=`, the others are options of its studies."""
    if not any(override.startswith("experiment=") for override in overrides):
        return overrides
    return [override for override in overrides if key_of(override).partition(".")[0] in OF_THE_COMMAND]


@contextlib.contextmanager
def until_the_reader_ends() -> Iterator[None]:
    """End the block quietly if the reader of our output, such as `head`, ends before it.

    Raises:
        SystemExit: standard output cannot be written for another reason.
    """
    try:
        yield
        write("", end="")  # flush what was printed without `write`
    except BrokenPipeError:
        if not _reader_has_ended():
            raise
        drop_output(1)
    except OutputError as error:
        write(f"\n{error}", error=True)
        raise SystemExit(MISTAKE) from None


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


def explain(error: BaseException, overrides: Sequence[str]) -> str:
    """Describe what is wrong with the configuration, with the closest match and the allowed values.

    Args:
        error: an exception from Hydra or OmegaConf.
        overrides: the overrides of the study.
    """
    if isinstance(error, hydra.errors.MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return messages.unknown_choice(group, name, list(error.options))
    if isinstance(error, hydra.errors.OverrideParseException):
        return messages.unreadable(error.override)
    if found := re.search(r"An item is already at '([^']+)'", str(error)):
        return f"+{found[1]} adds a key that exists already. Write {found[1]}=VALUE to change it.\n{messages.see_all()}"
    key = error.full_key if isinstance(error, OmegaConfBaseException) else None
    if (
        found := re.search(
            r"Could not override '([^']+)'|[Kk]ey '([^']+)' (?:is )?not in|delete from config\. '([^']+)' does not",
            str(error),
        )
    ) and (known := known_keys(overrides)):
        return messages.unknown_key(key or found[1] or found[2] or found[3], known)
    if isinstance(error, ValidationError) and key:
        return messages.wrong_type(key, str(error.msg))
    return messages.does_not_fit(str(error.__cause__ or error))


def plugins_in(given: Sequence[str]) -> list[str]:
    """Return the names of the plug-ins that the command line names.

    Args:
        given: command-line arguments.

    Raises:
        UserError: they are not a list of names that a plug-in may have.
    """
    found: list[str] = []
    try:
        for override in OverridesParser.create().parse_overrides([word for word in given if _names_plugins(word)]):
            if override.is_sweep_override():
                raise errors.UserError(f"{override.input_line}: give one list in brackets, for all studies.")
            plugins.check_names(value := override.value())
            found = cast(list[str], value)
    except hydra.errors.OverrideParseException as error:
        raise errors.UserError(messages.unreadable(str(error.override))) from error
    return found


def _names_plugins(argument: str) -> bool:
    return argument.lstrip("+").startswith(f"{plugins.KEY}=")


@functools.cache
def groups() -> tuple[str, ...]:
    """Keys that select a file in `conf/`."""
    defaults = plain_yaml.read_mapping(conf_dir() / "config.yaml")["defaults"]
    return tuple(key for entry in defaults if isinstance(entry, dict) for key in entry)


def choices(group: str, given: Sequence[str]) -> list[str]:
    """Return the names of the YAML files in a group, of this project and of the plug-ins on the command line.

    Args:
        group: a folder of `conf/`.
        given: command-line arguments.
    """
    folders = plugins.conf_dirs(plugins_in(given))
    return sorted(path.stem for folder in folders for path in (folder / group).glob("*.yaml"))


def study_of(overrides: Sequence[str]) -> Study:
    """The study that Hydra composes from overrides, without regard to stored ones.

    Args:
        overrides: in Hydra's grammar.

    Raises:
        UserError: the configuration is invalid.
    """
    return _explaining(
        overrides, lambda: Study.of(_compose([*overrides], plugins.conf_dirs(plugins_in(overrides))[1:]))
    )


def selected_study(overrides: Sequence[str]) -> tuple[Study, list[str]]:
    """The study that a command line with these overrides runs: `study=FOLDER`, or one with the budget that is stored.

    Args:
        overrides: in Hydra's grammar.

    Returns:
        The study, and the overrides that are not places of this machine.

    Raises:
        UserError: the configuration is invalid, or there is no such study.
    """
    rest, where = _without_places([*overrides])
    config = _compose(_of_the_command(rest), plugins.conf_dirs(plugins_in(overrides))[1:])
    return _explaining(rest, lambda: select(config, rest, where)), rest


def _explaining(overrides: Sequence[str], make: Callable[[], Study]) -> Study:
    """Make a study, and explain an invalid configuration by the overrides."""
    try:
        return make()
    except ConfigurationError as error:
        raise errors.UserError(explain(error.__cause__ or error, overrides)) from error


def known_keys(overrides: Sequence[str]) -> list[str]:
    """Return every dotted key of the configuration with the loss, data set, ... that the user chose.

    Args:
        overrides: the overrides of a study; those that do not select a file in `conf/` are ignored. If there are no
            others, the mistake is in a file, and no key is returned.
    """
    folders = plugins.conf_dirs(plugins_in(overrides))
    chosen = [o for o in overrides if any((folder / f"{o.replace('=', '/')}.yaml").is_file() for folder in folders)]
    if len(chosen) == len(overrides):
        return []
    return messages.dotted(Study.of(_compose(chosen, folders[1:])).raw)
