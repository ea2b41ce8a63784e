"""The layout of version 1, of whose configurations the stored identities of the oldest studies are digests.

Both the blocks `hpl` and `xbm` of the data set and the name "customary" of the traditional protocol's training were
part of the identity of every study, whatever its loss. Nothing in this module may change.
"""

from benchmark.study.config import Config, Node

# The values of version 1 for each data set; a data set that is not listed has the first ones.
HPL: Node = {
    "warmup_iterations": 300,
    "num_coarse": 10,
    "num_coarse_bounds": [2, 20],
    "update_every": 100,
    "update_every_bounds": [10, 200],
}
XBM: Node = {"start_iteration": 1000}
HPL_BY_DATASET: dict[str, Node] = {
    "cub": {"num_coarse": 20, "num_coarse_bounds": [2, 37]},
    "cars196": {"num_coarse": 20, "num_coarse_bounds": [2, 37]},
    "sop": {"num_coarse": 500, "num_coarse_bounds": [10, 1000]},
    "inshop": {"num_coarse": 500, "num_coarse_bounds": [10, 1000]},
    "inaturalist2019": {"num_coarse": 48, "num_coarse_bounds": [10, 246], "customary": {"num_coarse": 500}},
    "glyphs": {
        "warmup_iterations": 100, "num_coarse": 50, "num_coarse_bounds": [5, 200],
        "update_every": 20, "update_every_bounds": [10, 100],
    },
    "glyphs_small": {
        "warmup_iterations": 15, "num_coarse": 10, "num_coarse_bounds": [3, 40],
        "update_every": 5, "update_every_bounds": [2, 15],
    },
}  # fmt: skip
XBM_BY_DATASET = {"glyphs": {"start_iteration": 100}, "glyphs_small": {"start_iteration": 15}}
USER_DATASETS = ("manifest", "folder")  # modules whose data sets may have any name, even `cub`


def as_version_1(science: Node, config: Config) -> Node:
    """Convert what identifies a study to the layout of version 1, of which the stored identities are digests.

    Args:
        science: what identifies a study today, see `identity.science`; it is changed.
        config: the typed configuration.
    """
    science.pop("precision")
    science["searcher"]["module"].pop("failed", None)
    for key in ("orient", "background"):  # version 1 read all images as published ones are read
        science["dataset"].get("images", {}).pop(key, None)
    science["loss"] |= {"setting": config.loss.setting, "optimizer": config.loss.optimizer}  # whether read or not
    dataset, schedule = science["dataset"], config.loss.schedule
    blocks = config.dataset.version_1 or _blocks(dataset)
    for key, block in blocks.items():
        dataset[key] = block | {name: value for name, value in schedule.items() if name in block}
    if schedule.get("traditional"):
        dataset["hpl"]["customary"] = schedule["traditional"]
    del science["loss"]["schedule"]
    science["loss"].pop("base", None)
    if science["training"]["name"] == "traditional":
        science["training"]["name"] = "customary"
    science["protocol"]["num_runs"] = config.protocol.num_runs
    return science


def _blocks(dataset: Node) -> dict[str, Node]:
    """The blocks that version 1 had in the YAML of a data set."""
    module = str(dataset["module"].get("_target_")).split(".")[-2:-1]  # `cub` of `benchmark.datasets.cub.listing`
    (name,) = module or [""]
    if name not in USER_DATASETS and dataset["name"] in HPL_BY_DATASET:
        name = dataset["name"]  # glyphs and glyphs_small share a module
    return {"hpl": HPL | HPL_BY_DATASET.get(name, {}), "xbm": XBM | XBM_BY_DATASET.get(name, {})}
