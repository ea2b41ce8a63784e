"""The description of a study on disk, `study.yaml`, which is read as untrusted data.

Reading it builds no objects, runs no code and opens no other file. Its size and depth are limited. A value may refer to
another value of the same configuration, as in `${loss.setting.margin}`, but to nothing outside it. Studies of versions
1, which recorded no code, and 2 can still be read; `identity.VERSION` is written.
"""

import copy
import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from benchmark.core import plain_yaml, records, typed
from benchmark.core.code import Code
from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments, command, key_of
from benchmark.core.names import PATTERN
from benchmark.core.records import CorruptFileError, JsonObject
from benchmark.core.typed import AtLeastOne
from benchmark.searchers import Rule
from benchmark.study.command import results_override
from benchmark.study.identity import VERSION, StudyIdentity, short_digest

NAME = "study.yaml"
MOST_VALUES = 20_000  # limit of values in a configuration, references followed
OUTDATED = {
    1: "whose records do not say which code computed them",
    2: "whose losses started from other proxies",
}  # why nothing can be added to a study, by its version
DEEPEST = 20  # limit of levels of nesting, references followed
REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{8,64}\Z", description="8 to 64 hexadecimal digits")]
Word = Annotated[str, Meta(pattern=rf"^{PATTERN}\Z", description="a name")]
WordOrNone = Annotated[str, Meta(pattern=rf"^({PATTERN})?\Z", description="a name or nothing")]
Plugin = Annotated[str, Meta(pattern=r"^[^\W\d_]\w*(\.[^\W\d_]\w*)*\Z", description="the name of a package")]


class NoStudyError(UserError):
    """A folder holds no study."""


@dataclass(frozen=True)
class StoredCode:
    """A version of the code whose results belong to a study.

    Attributes:
        digest: digest of `modules`.
        modules: digest of each module, by its name.
        commit: commit of the checkout, see `provenance.commit`.
    """

    digest: Digest
    modules: dict[str, str]
    commit: str = "unknown"

    def __post_init__(self) -> None:
        if Code(self.modules).digest != self.digest:
            raise ValueError(f"digest {self.digest} is not the digest of modules")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The names, labels and protocol constants that are needed to read a study's records and to print them.

    Attributes:
        dataset: name of the data set.
        loss: name of the loss.
        trunk: name of the trunk.
        protocol: name of the protocol.
        dataset_label: the data set's name in tables.
        loss_label: the loss's name in tables.
        preset: the published setting that replaces a search; empty for a study that searches.
        variant: suffix that distinguishes two configurations of one loss.
        search: number of the repetition of the search that the study is; 0 for the search itself.
        story: `search` (with final runs) or `traditional`.
        num_folds: trainings of each trial and final run.
        embedding_dim: D, the length of an embedding.
        confidence: confidence level of intervals.
        select: how a search chooses its best trial.
        setting: the loss's published hyper-parameters, or those of the preset.
        held_out: share of the training classes that chooses the epoch, traditional protocol only.
        recall_at: each K of Recall@K, traditional protocol only.
        untrained: whether nothing is trained, so that every run would give the same numbers.
    """

    dataset: Word
    loss: Word
    trunk: Word
    protocol: Word
    dataset_label: str
    loss_label: str
    preset: WordOrNone
    variant: WordOrNone
    story: Literal["search", "traditional"]
    num_folds: Annotated[int, Meta(ge=2, le=1000)]
    embedding_dim: AtLeastOne
    confidence: Annotated[float, Meta(gt=0, lt=1)]
    select: Rule
    setting: JsonObject
    search: Annotated[int, Meta(ge=0)] = 0
    held_out: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    recall_at: list[AtLeastOne] = dataclasses.field(default_factory=list)
    untrained: bool = False


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """The content of `study.yaml`.

    Attributes:
        version: version of the identity's rules, see `identity.VERSION`.
        identity: digest of `science`.
        fingerprint: identifies the data.
        versions: package versions with which the study was started.
        science: everything that can change a result, resolved.
        config: the configuration, references unresolved.
        trials: number of trials in the search.
        num_runs: number of final runs, or of runs under the traditional protocol.
        code: versions of the code whose results belong to the study, the oldest first; more than one only if an edit
            was accepted, none in version 1.
        search_code: versions of the code that proposed its trials, in the same order.
        plugins: names of the plug-ins that it was made with; reading a study never imports them.
        overrides: options of the command that started it, except for the loss, its preset and the variant.
    """

    version: AtLeastOne
    identity: Digest
    fingerprint: str
    versions: dict[str, str]
    science: JsonObject
    config: JsonObject
    trials: AtLeastOne
    num_runs: AtLeastOne
    code: list[StoredCode]
    search_code: list[StoredCode]
    plugins: list[Plugin]
    overrides: list[str]

    def __post_init__(self) -> None:
        if short_digest(self.science) != self.identity:
            raise ValueError(f"identity {self.identity} is not the digest of science")
        if self.science.get("data") != self.fingerprint:
            raise ValueError(f"fingerprint {self.fingerprint} is not the value of science.data")

    @functools.cached_property
    def facts(self) -> Facts:
        """The study's names, labels and constants; the scientific ones come from `science`, which the identity covers.

        Raises:
            ValueError: a value is missing or not allowed; never for a study from `read_study`.
        """
        return msgspec.convert(_facts_in(self.science, self.config), Facts)

    @property
    def label(self) -> str:
        """The name of the study in a table: its loss and, in parentheses, its preset, variant and repeated search."""
        return self._labelled(f"search{self.facts.search}" if self.facts.search else "")

    @property
    def row_label(self) -> str:
        """The name of the study and all repetitions of its search in a table."""
        return self._labelled()

    def _labelled(self, *more: str) -> str:
        preset = "" if self.facts.untrained else self.facts.preset  # it has nothing to set
        suffix = ", ".join(filter(None, (preset, self.facts.variant, *more)))
        return self.facts.loss_label + f" ({suffix})" * bool(suffix)

    @property
    def row(self) -> str:
        """What all repetitions of a search share: the scientific configuration, the preset and the variant.

        At the optimum of its base, the setting belongs to the repetition: each takes that of another search.
        """
        science = copy.deepcopy(self.science) | {"search": 0}
        if self.facts.preset == "base":  # the setting is in many places of the resolved configuration
            keys = ("name", "module", "sampler", "optimizer", "head", "space")
            science["loss"] = {key: self._raw_loss(key) for key in keys}
            science["searcher"] = None
        return " ".join((short_digest(science), self.facts.preset, self.facts.variant))

    def _raw_loss(self, key: str) -> object:
        loss = self.config.get("loss")
        return loss.get(key) if isinstance(loss, dict) else None

    def command_for_loss(self, target: str, loss: str, results_dir: Path) -> str:
        """The shell command that runs a target for another loss, with the options of the command that made this study.

        Args:
            target: names of commands, separated by blanks.
            loss: name of the loss.
            results_dir: the results folder of that loss, whichever the command that made this study named.
        """
        facts = self.facts
        protocol = "traditional" if target == "traditional" else "hpl"
        named = {"dataset": facts.dataset, "trunk": facts.trunk}
        named |= {"protocol": facts.protocol} if facts.protocol != protocol else {}
        options = {"loss": loss} | ({} if self.overrides else named)  # version 1 did not record the overrides
        plugins = [f"plugins=[{','.join(self.plugins)}]"] if self.plugins else []
        given = [entry for entry in self.overrides if key_of(entry) != "results_dir"]
        return command(target, options, overrides=[*given, *plugins, *results_override(results_dir)])

    @property
    def expected(self) -> StudyIdentity:
        """What the identities of the study's records must agree with."""
        precision = self.science.get("precision", "ieee")
        return StudyIdentity(self.identity, precision, frozenset(c.digest for c in self.code), self.version)


def all_studies(results_dir: Path) -> list[Path]:
    """The folders of all studies below a results folder, sorted."""
    return sorted(folder for folder in (results_dir / "studies").glob("*/*") if is_study(folder))


def repetitions(directory: Path) -> list[Path]:
    """The folders of the studies that repeat the search of a study in its folder's neighbourhood, by their number.

    Args:
        directory: the study's folder; `glyphs/hpl_pa-search2` repeats the search of `glyphs/hpl_pa`.
    """
    numbers = (path.name.removeprefix(f"{directory.name}-search") for path in directory.parent.glob("*-search*"))
    known = sorted({int(number) for number in numbers if number.isascii() and number.isdecimal()})
    folders = (directory.with_name(f"{directory.name}-search{number}") for number in known)
    return [folder for folder in folders if is_study(folder)]


def is_study(folder: Path) -> bool:
    """Whether a folder holds a `study.yaml`, or may hold one because it cannot be searched; its reader says so.

    Args:
        folder: a folder, which need not exist.
    """
    try:
        (folder / NAME).stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def write_study(directory: Path, stored: StoredStudy) -> None:
    """Write `study.yaml`, with a checksum that detects damage.

    Raises:
        WriteError: the file cannot be written.
    """
    body: JsonObject = msgspec.to_builtins(stored)
    records.write_whole(directory / NAME, plain_yaml.with_checksum(body))


def read_study(directory: Path) -> StoredStudy:
    """The checked content of a folder's `study.yaml`.

    Args:
        directory: the study's folder, which may have any name.

    Raises:
        NoStudyError: the folder has no `study.yaml`.
        UserError: the file cannot be opened.
        CorruptFileError: it is damaged, or a field is missing, unknown or not allowed; the message names it.
        NewerFileError: a newer version wrote it.
    """
    path = directory / NAME
    body = plain_yaml.load_checked(_read(path), path, VERSION)
    if not isinstance(body.get("config"), dict):
        raise CorruptFileError(f"{path}: config is not a mapping.")
    try:
        check_references(body["config"])
        stored = typed.convert(body if "version" in body else _from_version_1(body), StoredStudy, path)
        typed.convert(_facts_in(stored.science, stored.config), Facts, path)  # so that `facts` cannot fail
    except (ValueError, LookupError, TypeError, RecursionError) as error:  # ValueError: also msgspec's
        raise CorruptFileError(f"{path} is not a valid description of a study: {error}.") from None
    return stored


def check_version(directory: Path, stored: StoredStudy, advice: str) -> None:
    """Check that this version of the project may add to a study.

    Args:
        directory: the study's folder.
        stored: the content of its `study.yaml`.
        advice: what the user can do instead, for the message.

    Raises:
        UserError: an older version made the study.
    """
    if stored.version < VERSION:
        raise UserError(
            f"{directory} was made by version {stored.version} of this project, {OUTDATED[stored.version]}. `tables` "
            f"and `status` can read it, but nothing can be added to it. {advice}"
        )


def _read(path: Path) -> bytes:
    """The bytes of a folder's `study.yaml`."""
    try:
        return records.read_file(path, plain_yaml.MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        folder = path.parent
        advice = f"Run {command('bo')} to start one."
        if above := next((part for part in folder.parents[:2] if (part / NAME).is_file()), None):
            advice = f"It is part of the study {arguments({'study': above})}."
        raise NoStudyError(f"There is no study in {folder}. {advice}") from None
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Make it and its folder readable.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Restore the file, or delete the folder.") from error


def _from_version_1(body: JsonObject) -> JsonObject:
    """A body of version 1 in today's layout."""
    return body | {
        "version": 1, "code": [], "search_code": [], "plugins": [], "overrides": [],
        "trials": value_at(body["config"], "trials"), "num_runs": value_at(body["config"], "protocol.num_runs"),
    }  # fmt: skip


def _facts_in(science: JsonObject, config: JsonObject) -> JsonObject:
    """The fields of `Facts` in a stored study.

    Args:
        science: the scientific configuration, resolved.
        config: the configuration, references unresolved.

    Raises:
        ValueError: a value is missing.
    """

    def scientific(group: str, key: str, *default: object) -> object:
        values = science.get(group)
        if isinstance(values, dict) and key in values:
            return values[key]
        if default:
            return default[0]
        raise ValueError(f"science has no {group}.{key}")

    return {
        **{group: scientific(group, "name") for group in ("dataset", "loss", "trunk", "protocol")},
        "dataset_label": value_at(config, "dataset.label"),
        "loss_label": value_at(config, "loss.label"),
        "preset": value_at(config, "preset", ""),
        "variant": value_at(config, "variant", ""),
        "story": value_at(config, "protocol.story", "search"),
        **{key: scientific("protocol", key) for key in ("num_folds", "embedding_dim", "confidence", "select")},
        "setting": scientific("loss", "setting"),
        "search": science.get("search", 0),
        "held_out": scientific("protocol", "held_out", 0.0),
        "recall_at": scientific("dataset", "recall_at", []),
        "untrained": scientific("loss", "untrained", False),
    }


# -- references within a configuration --------------------------------------------------------------------------------


def value_at(config: JsonObject, key: str, *default: object) -> object:
    """The value at a dotted key, references followed.

    >>> value_at({"trials": "${protocol.trials}", "protocol": {"trials": 7}}, "trials")
    7

    Args:
        config: a stored configuration.
        key: the dotted key.
        default: returned for a key that does not exist, if given.

    Raises:
        ValueError: there is no such key and no default, or too many references have to be followed.
    """
    try:
        return _Walk(config).value_at(key)
    except LookupError as error:
        if default:
            return default[0]
        raise ValueError(f"config has no {error.args[0]}") from None


def check_references(config: JsonObject) -> None:
    """Check that a configuration refers only to values of its own, and is not too large or too deep.

    Args:
        config: a stored configuration.

    Raises:
        ValueError: a value refers to something else, such as `${oc.env:HOME}`, or to a value that does not exist; or
            the configuration is too deep or too large with references followed.
    """
    walk = _Walk(config)
    try:
        walk.through(config, "config", 0)
    except LookupError as error:
        raise ValueError(f"config refers to {error.args[0]}, which it does not have") from None


class _Walk:
    """Follows references in a configuration, for a limited number of steps."""

    def __init__(self, config: JsonObject) -> None:
        self._config, self._left = config, MOST_VALUES

    def _step(self, depth: int, key: str) -> None:
        self._left -= 1
        if depth > DEEPEST or self._left < 0:
            raise ValueError(f"config is too large: at {key}, more than {DEEPEST} levels or {MOST_VALUES:,} values")

    def value_at(self, key: str, depth: int = 0) -> object:
        here: object = self._config
        for name in key.split("."):
            self._step(depth, key)
            if isinstance(here, Mapping) and name in here:
                here = here[name]
            elif isinstance(here, list) and name.isdecimal() and int(name) < len(here):
                here = here[int(name)]
            else:
                raise LookupError(key)
            if isinstance(here, str) and (found := REFERENCE.fullmatch(here)):
                here = self.value_at(found[1], depth + 1)
        return here

    def through(self, node: object, key: str, depth: int) -> None:
        self._step(depth, key)
        if isinstance(node, Mapping):
            for name, value in node.items():
                self.through(value, f"{key}.{name}", depth + 1)
        elif isinstance(node, list):
            for number, value in enumerate(node):
                self.through(value, f"{key}.{number}", depth + 1)
        elif isinstance(node, str) and "${" in node:  # even if escaped, since a value may be resolved twice
            found = REFERENCE.fullmatch(node)
            if found is None:
                raise ValueError(f"{key} is {node!r}; it may refer only to another value, as in ${{loss.name}}")
            self.through(self.value_at(found[1], depth + 1), key, depth + 1)
