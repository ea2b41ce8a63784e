"""The command line: runs a story for each study that the arguments describe, and says how it ended."""

import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

import hydra
import hydra.core.global_hydra
import hydra.core.hydra_config
import hydra.errors
from omegaconf.errors import OmegaConfBaseException, ValidationError

from benchmark.core import errors
from benchmark.core.paths import conf_dir
from benchmark.study import messages
from benchmark.study.study import Study


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a story as Ctrl-C does."""


def main(story: Callable[[Study, list[str]], None], protocol: str = "") -> None:
    """Run a story for each study that the command line describes; Hydra's own flags work.

    What stays incomplete ends with a sentence and exit status 1, a mistake of the user's with 2, Ctrl-C with 130,
    SIGTERM with 143; only a defect of ours shows a traceback. Of several studies (`--multirun`) one that cannot
    run keeps none of the others from running.

    Args:
        story: takes the study and the overrides that the user gave.
        protocol: the story's own, where the user names none.
    """
    if protocol and not any(argument.startswith("protocol=") for argument in sys.argv[1:]):
        overrides = [place for place, argument in enumerate(sys.argv) if "=" in argument and argument[0] != "-"]
        sys.argv.insert(next(iter(overrides), len(sys.argv)), f"protocol={protocol}")  # they must stand together
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us instead of being printed
    composed: list[tuple[Any, list[str]]] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def compose(config: Any) -> None:
        given = hydra.core.hydra_config.HydraConfig.get().overrides.task
        composed.append((config, [str(override) for override in given]))

    def terminate(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        statuses = [_attempt(compose)]
        statuses += [_attempt(lambda: story(Study.of(config), given)) for config, given in composed]  # noqa: B023 - called here
    except KeyboardInterrupt as stop:
        print(f"\nStopped. {errors.GO_ON}", file=sys.stderr)
        raise SystemExit(143 if isinstance(stop, _Terminated) else 130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    finally:
        signal.signal(signal.SIGTERM, before)
    if any(statuses):
        raise SystemExit(max(statuses))


def _attempt(work: Callable[[], None]) -> int:
    """Do it, or say which mistake of the user's is in the way, or what is missing; other exceptions pass."""
    status = 2
    try:
        work()
    except errors.IncompleteError as error:
        message, status = str(error), 1
    except (hydra.errors.HydraException, OmegaConfBaseException) as error:
        message = explain(error)
    except (errors.UserError, OSError, ValueError, RuntimeError) as error:
        message = errors.message_for_user(error) or ""
        if not message:
            raise
    else:
        return 0
    print(f"\n{message}", file=sys.stderr)
    return status


def explain(error: Exception) -> str:
    """What is wrong with the configuration, the nearest thing that exists, and what is allowed."""
    if isinstance(error, hydra.errors.MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return messages.unknown_choice(group, name, list(error.options))
    if isinstance(error, hydra.errors.OverrideParseException):
        return messages.unreadable(error.override)
    key = getattr(error, "full_key", None)
    if found := re.search(r"Could not override '([^']+)'|[Kk]ey '([^']+)' (?:is )?not in", str(error)):
        return messages.unknown_key(key or found[1] or found[2], known_keys(sys.argv[1:]))
    if isinstance(error, ValidationError) and key:
        return messages.wrong_type(key, str(error.msg))
    return messages.does_not_fit(str(error.__cause__ or error))


def known_keys(arguments: list[str]) -> list[str]:
    """Every key of the configuration with the loss, data set, ... that the user chose, dotted."""
    chosen = [a for a in arguments if (conf_dir() / f"{a.replace('=', '/')}.yaml").is_file()]
    hydra.core.global_hydra.GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return messages.dotted(Study.of(hydra.compose("config", chosen)).raw)
