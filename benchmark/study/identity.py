"""Identities: short digests of what a study, a record or a checkpoint depends on.

A study is identified by the part of its configuration that can change a result, and by its data. The identity of a
record adds the trial or run, the setting, the precision and the code. Whether a file belongs to a study is decided by
comparing identities, never by its name alone.

`VERSION` is the version of the rules. It increases whenever equal configurations give other results, for example
because a seed or a default changed. Studies of an older version can be read, but not continued.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from benchmark.core import records
from benchmark.core.records import JsonObject
from benchmark.study.config import PLACES, Config, Node
from benchmark.study.spaces import for_dataset

VERSION = 3
# Keys of the top level that change no result.
NOT_SCIENCE = (
    "trials",
    "searches",
    "results_dir",
    "study",
    "accept_code",
    "plugins",
    "executor",
    "display",
    "tracker",
    "keep",
    "keep_epochs",
    "device",
    "deterministic",
    "variant",
    "preset",
    "decode",
    "image_threads",
    "image_memory",
    "checkpoint_seconds",
    "levels",
    "unit",
    "corruptions",
    "a",
    "b",
    "cell",
    "bootstrap",
    "classes",
    "experiment",
    "budget",
    "measure",
    "figure",
    "run",
    "projection",
    "model",
    "images",
    "query",
    "embeddings",
    "format",
    "output",
    "folds",
    "nearest",
    "embed_batch",
    "descriptor",
    "threshold",
)
PROSE = (
    "label",
    "description",
    "source",
    "presets",
    "base",
    "unread",
    "licence",
    "sources",
    "by_hand",
    "pretrained_on",
    "overlaps",
)
# These are hashed where they are used, not where they are defined: the data set takes the protocol's images, the
# searcher its `failed`, the training the loss's recipe, the loss's space those of training and data set, and other keys
# refer to `usual`. The number of runs can be extended at any time.
TAKEN = {
    "dataset": ("trials", "share_design", "recall_at", "version_1", "space"),
    "protocol": ("trials", "num_runs", "images", "story", "sop_cut", "failed", "usual"),
    "loss": ("recipe", "usual"),
    "searcher": ("share_design",),
    "training": ("space", "space_scales", "defaults_first", "searched"),
}
UNLESS_SET = {
    "dataset": ("images",),
    "trunk": ("crop", "network", "images"),
    "loss": ("untrained",),
    "training": (
        "views",
        "recipe",
        "batch_size",
        "gradient_chunk",
        "epochs",
        "warmup_epochs",
        "clip",
        "decay",
        "sampler",
    ),
    "protocol": ("held_out", "label_noise"),
    "searcher": ("asynchronous", "stop_behind"),
}


def science(plain: Node, config: Config, setting: Node, fingerprint: str) -> Node:
    """What identifies a study: its data, and its configuration without bookkeeping, prose and unused options.

    Args:
        plain: the resolved configuration; it is changed.
        config: the typed configuration.
        setting: the loss's hyper-parameters that the study reads.
        fingerprint: identifies the data.
    """
    kept = {key: value for key, value in plain.items() if key not in NOT_SCIENCE}
    for group, value in kept.items():
        if isinstance(value, dict):
            absent = [key for key in UNLESS_SET.get(group, ()) if not value[key]]
            kept[group] = {k: v for k, v in value.items() if k not in (*PROSE, *TAKEN.get(group, ()), *absent)}
    if kept["searcher"]["module"].get("failed", "") is None:
        del kept["searcher"]["module"]["failed"]
    if config.search == 0:
        del kept["search"]
    if config.searcher.round == 1:
        del kept["searcher"]["round"]
    if config.protocol.story == "traditional":
        kept["dataset"]["recall_at"] = config.dataset.recall_at
    weights = kept["trunk"]["module"].get("weights")
    if isinstance(weights, str) and os.path.isfile(os.path.expanduser(weights)):  # identified by its content
        from benchmark.trunks import weights as files

        kept["trunk"]["module"]["weights"] = files.fingerprint(weights)
    kept["dataset"]["module"] = {k: v for k, v in kept["dataset"]["module"].items() if k not in PLACES}
    if shared_parameters(config):  # the only use of the base that is not in the setting
        kept["loss"]["base"] = {"setting": plain["loss"]["base"]["setting"]}
    kept["loss"]["schedule"] = {key: value for key, value in kept["loss"]["schedule"].items() if key != "usual"}
    kept["loss"]["setting"] = setting
    del kept["loss"]["authors" if config.protocol.loss_optimizer == "searched" else "optimizer"]
    if config.protocol.story == "search":  # whose epochs and batches are the protocol's, even with a recipe
        kept["training"] = {k: v for k, v in kept["training"].items() if k not in ("batch_size", "epochs")}
    for name, parameter in kept["loss"]["space"].items():
        del parameter["datasets"]
        parameter |= {"bounds": bounds(config, name), "scale": scale(config, name)}
        if parameter["default"] is None or not config.protocol.defaults_first:
            del parameter["default"]
    return kept | {"data": fingerprint}


def bounds(config: Config, name: str) -> list[float]:
    """Bounds of a searched hyper-parameter for the configuration's data set."""
    parameter = config.loss.space[name]
    found: list[float] = for_dataset(parameter.datasets, config.dataset.name).get("bounds", parameter.bounds)
    return found


def scale(config: Config, name: str) -> str:
    """Scale of a searched hyper-parameter for the configuration's data set."""
    parameter = config.loss.space[name]
    found: str = for_dataset(parameter.datasets, config.dataset.name).get("scale", parameter.scale)
    return found


def shared_parameters(config: Config) -> list[str]:
    """Parameters that take the values of the initial design of the loss's base, in the order of the base's space.

    Empty unless the searcher's `share_design` asks for it. Where only the data set does, the whole design is the loss's
    own if one of them is not searched.
    """
    base, asked = config.loss.base, config.searcher.share_design
    if base is None or config.preset or config.protocol.story != "search":
        return []
    if not (config.dataset.share_design if asked is None else asked):
        return []
    own = {there: here for here, there in reversed(base.setting.items())}  # the first of each
    names = [*(own[there] for there in dict.fromkeys(base.setting.values())), *config.training.searched]
    return names if asked or all(name in config.loss.space for name in names) else []


def short_digest(value: object) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a JSON value."""
    return records.digest(value)[:16]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a record, a checkpoint or a weights file depends on.

    Attributes:
        study: digest of the scientific configuration and the data.
        kind: kind of the record; a checkpoint has the kind of its unit's record.
        index: number of the trial or run.
        fold: number of the fold; None for a file that covers all folds.
        setting: digest of the hyper-parameters.
        precision: precision of the training, as configured.
        code: digests of the code that computed it, sorted; several only if an edit was accepted in between.
        version: version of the rules, see `VERSION`.
    """

    study: str
    kind: str
    index: int
    fold: int | None
    setting: str
    precision: str
    code: Sequence[str]
    version: int = VERSION

    def to_json(self) -> JsonObject:
        """All fields."""
        return asdict(self) | {"code": list(self.code)}

    def with_code(self, digests: Collection[str]) -> "Identity":
        """This identity with further digests of code, for a result whose parts other code may have computed."""
        return replace(self, code=sorted({*self.code, *digests}))

    def mismatch(self, found: JsonObject | None, accepted: Collection[str] = ()) -> str:
        """Describe how the identity in a file differs from this one; an empty string if it agrees.

        Args:
            found: the identity in the file; None if it has none.
            accepted: digests of other code whose results may be used.
        """
        if found is None:
            return "it has no identity"
        expected = self.to_json()
        allowed = sorted({*self.code, *accepted})  # a list, since a value from a file may be unhashable
        code = found.get("code")
        known = isinstance(code, list) and code != [] and all(digest in allowed for digest in code)
        named = [name for name in expected if name != "code"]
        differing = [f"{name} is missing" for name in named if name not in found]
        differing += [
            f"{name} is {found[name]}, not {expected[name]}"
            for name in named
            if name in found and (found[name], type(found[name])) != (expected[name], type(expected[name]))
        ]
        differing += [] if known else [f"code is {code}, not {' or '.join(allowed)}"]
        unknown = sorted(found.keys() - expected.keys())
        return "; ".join(differing + [f"{name} is not a field of an identity" for name in unknown])


@dataclass(frozen=True)
class StudyIdentity:
    """The part of an identity that all records of a study share.

    Attributes:
        study: digest of the scientific configuration and the data.
        precision: precision of the trainings, as configured.
        code: digests of all code whose results belong to the study.
        version: version of the rules, see `VERSION`; records of version 1 have no identity.
    """

    study: str
    precision: str
    code: frozenset[str]
    version: int = VERSION

    def of(
        self, kind: str, index: int, setting: Mapping[str, float | int], *, fold: int | None = None,
        code: Collection[str] = (),
    ) -> Identity:  # fmt: skip
        """The identity that a record, checkpoint or weights file of the study must have.

        Args:
            kind: kind of the record.
            index: number of the trial or run.
            setting: its hyper-parameters.
            fold: number of the fold; None for a file that covers all folds.
            code: digests of the code that computes it; empty for any code whose results belong to the study.
        """
        return Identity(
            study=self.study, kind=kind, index=index, fold=fold, setting=setting_digest(setting),
            precision=self.precision, code=sorted(code or self.code), version=self.version,
        )  # fmt: skip

    def mismatch(self, record: records.Record, index: int, setting: Mapping[str, float | int]) -> str:
        """Describe how a record of a trial or run differs from what the study expects; an empty string if it agrees.

        Args:
            record: the record, of any schema.
            index: number of the trial or run, from the file's name.
            setting: the hyper-parameters that it must have been trained with.
        """
        if self.version == 1:
            return "" if record.identity is None else "it was made by a newer version than the study"
        return self.of(record.kind, index, setting).mismatch(record.identity)


def setting_digest(setting: Mapping[str, float | int]) -> str:
    """Digest of hyper-parameters."""
    return short_digest(dict(setting))
