"""Shell commands for messages, in the form in which this process was started (`make`, `dmlbench` or `python -m`)."""

from collections.abc import Sequence
from pathlib import Path

from benchmark.core import invocation
from benchmark.core.names import similar_name
from benchmark.study.config import Config

CHOSEN = (
    "dataset",
    "dataset.module.path",
    "dataset.name",
    "loss",
    "trunk",
    "protocol",
    "preset",
    "variant",
    "study",
    "accept_code",
)
PRINTING = ("display", "unit")  # options that affect only the output
OF_OTHERS = ("model", "images", "query", "embeddings", "format", "output", "folds", "nearest", "embed_batch",
             "descriptor", "threshold")  # options that no command reads which trains  # fmt: skip
CARRIED = (
    "executor",
    "device",
    "keep",
    "plugins",
    "tracker",
)  # that a stored study takes from each command line
OWN_DATA = {"benchmark.datasets.manifest.listing": "csv", "benchmark.datasets.folder.listing": "folder"}


def command_for(config: Config, target: str, loss: str | None = None) -> str:
    """Return the shell command that runs a target for a configuration.

    It includes the other options of the user's command line, such as `results_dir`, without which it would run another
    study.

    Args:
        config: the study's configuration; values that are the command's defaults are omitted.
        target: names of commands, separated by blanks, such as `bo final-eval`.
        loss: another loss to run in place of the configuration's.
    """
    dataset, trunk = config.dataset, config.trunk.name
    if trunk == similar_name(config.trunk.network):  # of a network that the user named, with `trunk.network`
        trunk = "timm"
    choice = OWN_DATA.get(str(dataset.module.get("_target_")), dataset.name)
    options: dict[str, object] = {"dataset": choice}
    if choice in OWN_DATA.values():
        place = "path" if choice == "csv" else "root"
        options[f"dataset.module.{place}"] = dataset.module[place]
        if dataset.name != choice:
            options["dataset.name"] = dataset.name
    if target in ("data", "splits"):
        return invocation.command(target, options)
    options["loss"] = loss or config.loss.name
    if trunk != ("bn_inception" if dataset.images else "small_conv"):  # the data set's default
        options["trunk"] = trunk
    if config.protocol.name != ("traditional" if target == "traditional" else "hpl"):  # the command's default
        options["protocol"] = config.protocol.name
    if config.preset:
        options["preset"] = config.preset
    if config.variant and loss is None:
        options["variant"] = config.variant
    rest = invocation.other_overrides((*CHOSEN, *options, *PRINTING, *OF_OTHERS))
    return invocation.command(target, options, overrides=rest)


def command_for_folder(folder: Path, target: str, *more: str, plugins: Sequence[str] = ()) -> str:
    """Return the shell command that runs a target for the study in a folder.

    Args:
        folder: folder with a `study.yaml`.
        target: names of commands, separated by blanks.
        more: further overrides.
        plugins: packages that the study was made with; used if the command line names none.
    """
    given = {entry: invocation.key_of(entry).partition(".")[0] for entry in invocation.other_overrides(())}
    carried = [entry for entry, key in given.items() if key in CARRIED]
    if plugins and "plugins" not in given.values():
        carried.append(f"plugins=[{','.join(plugins)}]")
    return invocation.command(target, {"study": folder}, overrides=[*carried, *more])


def results_command(results_dir: Path, target: str) -> str:
    """Return the shell command that runs a target for a whole results folder.

    Args:
        results_dir: the folder.
        target: `tables`, `report` or `final-eval`.
    """
    return invocation.command(target, overrides=results_override(results_dir))


def results_override(results_dir: Path) -> list[str]:
    """Return the override that names a results folder, as a list; empty for the usual one.

    A folder below the current one is named by its relative path, so that the command is the same on every machine.

    Args:
        results_dir: the folder.
    """
    absolute, here = results_dir.absolute(), Path.cwd()
    shown = absolute.relative_to(here) if absolute.is_relative_to(here) else results_dir
    return [] if shown == Path("results") else [invocation.override("results_dir", str(shown))]


def tables_command(results_dir: Path) -> str:
    """Return the shell command that writes the tables of a results folder."""
    return results_command(results_dir, "tables")


def results_dir_of(directory: Path) -> Path:
    """Return the results folder that a study's folder lies in; the usual one if it lies elsewhere."""
    return directory.parents[2] if directory.parts[-3:-2] == ("studies",) else Path("results")


def first_target(config: Config) -> str:
    """Return the name of the command that begins a study: a search, final runs of a preset, or traditional runs."""
    return "traditional" if config.protocol.story == "traditional" else "final-eval" if config.preset else "bo"
