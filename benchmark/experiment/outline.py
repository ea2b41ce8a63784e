"""Where the studies of an experiment are and how many trainings they need, read from `conf/` without composing them.

Composing a configuration takes a third of a second, and the list of all experiments names hundreds of studies. What
the list shows depends on a few keys only, which are read from the files that Hydra would read. A test compares the two.
"""

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.core import sources
from benchmark.core.cache_dir import user_cache_dir
from benchmark.core.conf_files import content
from benchmark.study.spaces import for_dataset

WEIGHTS = "BENCHMARK_WEIGHTS"  # environment variable that names the folder of pretrained weights
ENDLESS = sys.maxsize
Node = dict[str, Any]
Options = Mapping[str, object]


def trunk_of(options: Options) -> str:
    """The trunk of a study: the one of its options, else its data set's."""
    if "trunk" in options:
        return str(options["trunk"])
    for entry in content("dataset", str(options["dataset"])).get("defaults", []):
        for key, name in entry.items() if isinstance(entry, dict) else ():
            if key.startswith("override /trunk"):
                return str(name)
    return "small_conv"


def folder(options: Options, results_dir: str) -> Path:
    """The folder of a study.

    Args:
        options: its options, by key; `dataset`, `loss` and `protocol` are among them.
        results_dir: the results folder.
    """
    dataset, trunk, protocol = str(options["dataset"]), trunk_of(options), str(options["protocol"])
    names = (
        options.get("dataset.name", content("dataset", dataset).get("name", dataset)),
        content("trunk", trunk).get("name", trunk),
        content("protocol", protocol).get("name", protocol),
    )
    own = filter(None, (options["loss"], options.get("preset"), options.get("variant")))
    return Path(results_dir) / "studies" / "-".join(map(str, names)) / "-".join(map(str, own))


def num_searches(options: Options) -> int:
    """How often the search of a study runs: once, and as often as it is repeated.

    Args:
        options: its options, by key.
    """
    asked, config = str(options.get("searches", 1)), content("protocol", str(options["protocol"]))
    return int(asked) if asked.isdecimal() and config.get("story") != "traditional" else 1


def num_trainings(options: Options) -> int:
    """The number of models that a study trains, those of its repeated searches included.

    Args:
        options: its options, by key.
    """
    protocol = content("protocol", str(options["protocol"]))

    def number(key: str) -> int:
        return int(str(options.get(f"protocol.{key}", protocol.get(key, 1))))

    if protocol.get("story") == "traditional":
        return number("num_runs")
    asked = options.get("trials", protocol.get("trials", 1))
    if not str(asked).isdecimal():  # a reference to the data set's
        asked = options.get("dataset.trials", content("dataset", str(options["dataset"])).get("trials", 1))
    trials = 0 if options.get("preset") else min(int(str(asked)), _num_settings(options))
    runs = 1 if content("loss", str(options["loss"])).get("untrained") else number("num_runs")
    return num_searches(options) * (trials + runs) * number("num_folds")


def _num_settings(options: Options) -> int:
    """Number of settings in the search space of a loss, each of which is tried once; `ENDLESS` if it is continuous."""
    space, dataset = content("loss", str(options["loss"])).get("space", {}), str(options["dataset"])
    if not space or any(one["type"] == "float" or isinstance(one["bounds"], str) for one in space.values()):
        return ENDLESS
    bounds = {
        name: for_dataset(one.get("datasets"), dataset).get("bounds", one["bounds"]) for name, one in space.items()
    }
    given = {name: found for name in bounds if isinstance(found := options.get(f"loss.space.{name}.bounds"), list)}
    return math.prod(int(high) - int(low) + 1 for low, high in (bounds | given).values())


def missing_code(options: Options) -> list[str]:
    """The components that a study names and that do not exist, such as `loss=lifted_structure`."""
    named = {"dataset": options["dataset"], "loss": options["loss"], "trunk": trunk_of(options),
             "protocol": options["protocol"]}  # fmt: skip
    return [f"{group}={name}" for group, name in named.items() if not content(group, str(name))]


def missing_data(options: Options) -> list[str]:
    """The data set of a study, if its folder is not on this machine.

    Its files are only checked when it is used: `make data` says what is missing of a folder that exists.
    """
    module = content("dataset", str(options["dataset"])).get("module", {})
    root = options.get("dataset.module.root", module.get("root"))
    here = root is None or Path(str(root)).expanduser().exists()
    return [] if here else [f"data set {options['dataset']}"]


def missing_weights(options: Options) -> list[str]:
    """The pretrained weights of a study's trunk, if they are not on this machine yet; they are then downloaded."""
    module = content("trunk", trunk_of(options)).get("module", {})
    name, target = module.get("weights"), str(module.get("_target_")).split(".")
    weights = options.get("trunk.module.weights", name)
    entry = sources.statements().weights.get(target[-2], {}).get(str(weights)) if len(target) > 1 else None
    if entry is None or entry.package:
        return []
    file = str([*entry.url, entry.file][0]).rpartition("/")[2]
    place = Path(os.environ.get(WEIGHTS) or user_cache_dir() / "weights")
    return [] if (place / file).is_file() else [f"weights {file}"]
