"""The shell command that runs a study, in the form in which this process was started."""

from benchmark.core import invocation
from benchmark.study.config import Config

CHOSEN = (
    "dataset",
    "dataset.module.path",
    "dataset.module.root",
    "dataset.name",
    "loss",
    "trunk",
    "protocol",
    "preset",
    "variant",
)
PRINTING = ("display", "unit")  # keys that change no record
OWN_DATA = {"benchmark.datasets.manifest.listing": "csv", "benchmark.datasets.folder.listing": "folder"}


def command_for(config: Config, target: str, loss: str | None = None) -> str:
    """Return the shell command that runs a target for a configuration.

    The other options of the user's command line, such as `results_dir`, are part of it: without them it would be about
    another study.

    Args:
        config: the study's configuration; values that are the command's defaults are omitted.
        target: names of commands, separated by blanks, such as `bo final-eval`.
        loss: another loss to run in place of the configuration's.
    """
    dataset, trunk = config.dataset, config.trunk.name
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
    return invocation.command(target, options, overrides=invocation.other_overrides((*CHOSEN, *PRINTING)))
