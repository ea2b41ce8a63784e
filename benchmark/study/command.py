"""The shell command that runs a study."""

from benchmark.study.config import Config


def make_command(config: Config, target: str, loss: str | None = None) -> str:
    """The shell command that runs a make target for a configuration, or for another loss in its place."""
    dataset, trunk, pictures = config.dataset, config.trunk.name, bool(config.dataset.images)
    own = {"benchmark.datasets.manifest.listing": "csv", "benchmark.datasets.folder.listing": "folder"}
    choice = own.get(str(dataset.module.get("_target_")), dataset.name)
    words = ["make", target, f"DATASET={choice}"]
    if choice in own.values():
        words.append(f"CSV={dataset.module['path']}" if choice == "csv" else f"ROOT={dataset.module['root']}")
        words += [f"NAME={dataset.name}"] * (dataset.name != choice)
    if target in ("data", "splits"):
        return " ".join(words)
    words += [f"LOSS={loss or config.loss.name}"]
    words += [f"TRUNK={trunk}"] * (trunk != ("bn_inception" if pictures else "small_conv"))  # the data sets' own
    usual = "traditional" if target == "traditional" else "hpl"  # of the story, of config.yaml
    words += [f"PROTOCOL={config.protocol.name}"] * (config.protocol.name != usual)
    words += [f"PRESET={config.preset}"] * bool(config.preset)
    return " ".join(words + [f"ARGS=variant={config.variant}"] * bool(config.variant and loss is None))
