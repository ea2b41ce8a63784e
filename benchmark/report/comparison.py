"""Which rows may share a table: those that differ in their loss only. Every other difference is reported.

**The table is split** if two rows differ in data (fingerprint), precision, number of runs, confidence, story, or any
value of the scientific configuration outside the loss's own part: data set, trunk, head, protocol, searcher, seed,
threads and, for a search, the training. It is also split if the code of a module that both rows used differs, unless
the user accepts that. Modules that only one of the rows used are not compared.

**Columns and a footnote** describe the training under the traditional protocol, where each paper has its own and the
table compares them: passes over the images, batch size, and the recipe with all its values.

**Footnotes** report what may matter but cannot be equal in all rows of a comparison that grows over months: the number
of trials, settings that were not searched, package versions, kinds of device, several accepted versions of the code
within a study, code that was not recorded, accepted differences of the code, and plug-ins.

The loss's own part is `loss` in the scientific configuration and the searcher's copy of its published setting; in
studies of version 1 also `dataset.hpl` and `dataset.xbm`, the schedules of two losses.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmark.core.provenance import UNKNOWN, kinds_of
from benchmark.core.records import JsonObject, Record
from benchmark.study.stored import StoredStudy
from benchmark.study.version_1 import BLOCKS

# Values that the oldest studies had but did not record, or that a study records only if they differ from these.
OLDEST: dict[str, object] = {
    "protocol.held_out": 0.0,
    "protocol.label_noise": 0.0,
    "protocol.loss_optimizer": "searched",
    "head.module.normalize_features": False,
    "searcher.module.failed": None,
}
FIELDS = ("data", "precision", "protocol.num_runs", "protocol.confidence")  # compared as fields of a `Comparable`
LENGTHS = ("dataset.max_epochs", "dataset.iterations_per_epoch", "protocol.iterations_per_epoch")
RECIPE = ("training.", "protocol.batch_size", *LENGTHS)  # beginnings of the keys of a recipe, traditional protocol only
ABSENT = "not set"
RUNS = "number of runs"
WORD = re.compile(r"(?!(?:true|false|none)$)[^\W\d][\w.]*")
MOST_NAMES = 5
WIDTH = 60  # of a printed value at most, in characters


@dataclass(frozen=True)
class Comparable:
    """What a row's numbers depend on.

    Attributes:
        name: name of the study's folder.
        label: printed name of the loss.
        science: scientific configuration, as in `study.yaml`.
        fingerprint: identifies the data.
        story: `search` or `traditional`.
        num_runs: number of runs that the study needs; None if nothing is trained, so that it may stand beside any.
        trials: number of trials in the search; None for a study that does not search.
        preset: the published setting that was used; empty for none.
        confidence: confidence level of the intervals, such as 0.95.
        code: digest of each module that computed the numbers, by name; None if the code was not recorded.
        codes_accepted: number of versions of the code that computed the study.
        num_records: number of its finished trials and runs.
        versions: the versions of each package that computed the study.
        devices: kinds of device, such as `cpu`; empty if they were not recorded.
        precision: precision of convolutions and products; empty if it was not recorded.
        plugins: names of packages outside the benchmark that supplied parts of the study.
    """

    name: str
    label: str
    science: JsonObject
    fingerprint: str
    story: str
    num_runs: int | None
    trials: int | None
    preset: str
    confidence: float
    code: Mapping[str, str] | None
    codes_accepted: int
    num_records: int
    versions: Mapping[str, frozenset[str]]
    devices: frozenset[str]
    precision: str
    plugins: tuple[str, ...]


def comparable(stored: StoredStudy, used: Sequence[Record], name: str) -> Comparable:
    """Return what the numbers of a study depend on, from its `study.yaml` and its records.

    Args:
        stored: the study.
        used: its trials and the runs of its row.
        name: its name among the rows.
    """
    facts = stored.facts
    origins = [record.provenance for record in used]
    seen = [origin["versions"] for origin in origins if "versions" in origin] or [stored.versions]
    packages = dict.fromkeys(package for versions in seen for package in versions)
    # Version 1 did not record the precision; on a CPU, it was ieee.
    known = stored.version > 1 or not any(origin.get("hardware", {}).get("gpu") for origin in origins)
    latest = [*stored.search_code[-1:], *stored.code[-1:]]
    modules = {name: digest for code in latest for name, digest in code.modules.items()}
    return Comparable(
        name=name, label=stored.label, science=stored.science, fingerprint=stored.fingerprint,
        story=facts.story, num_runs=None if facts.untrained else stored.num_runs, preset=facts.preset,
        trials=None if facts.preset or facts.story == "traditional" else stored.trials,
        confidence=facts.confidence, code=modules if stored.code else None,
        codes_accepted=max(len(stored.code), len(stored.search_code)), num_records=len(used),
        devices=frozenset(kinds_of(used) - {UNKNOWN}),
        versions={name: frozenset(each[name] for each in seen if name in each) for name in packages},
        precision=stored.expected.precision if known else "", plugins=tuple(stored.plugins),
    )  # fmt: skip


@dataclass
class Part:
    """Rows that may be compared with one another.

    Attributes:
        rows: names of the studies.
        differences: how they differ from the rows of the first part; empty for the first part.
        footnotes: sentences about differences between these rows.
        columns: text of each row by its name, for each further column by its title.
    """

    rows: list[str]
    differences: list[str] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)


def parts(rows: Sequence[Comparable], accept_code: bool = False) -> list[Part]:
    """Divide the rows of a table into parts whose rows may be compared; the part with most rows is the first one.

    Copies of a study are left out, with a footnote.

    Args:
        rows: the studies, in the order of the table.
        accept_code: whether rows that different code computed may share a table, with a footnote.
    """
    labels = printed_labels(rows)
    kept, copies = _without_copies(rows)
    fixed = {row.name: _fixed(row) for row in kept}

    def may_join(row: Comparable, group: list[Comparable]) -> bool:
        mine, theirs = fixed[row.name], fixed[group[0].name]
        equal = mine == (theirs if row.num_runs else {key: theirs[key] for key in theirs if key != RUNS})
        return equal and (accept_code or not any(_other_code(row, other) for other in group))

    groups: list[list[Comparable]] = []
    for row in sorted(kept, key=lambda row: row.num_runs is None):
        if (group := next((group for group in groups if may_join(row, group)), None)) is None:
            groups.append([row])
        else:
            group.append(row)
    groups = [sorted(group, key=kept.index) for group in groups]
    groups.sort(key=len, reverse=True)  # stable, so that equally long ones keep their order
    return [
        Part(
            [row.name for row in group],
            _differences(group, groups[0], accept_code) if number else [],
            _Notes(group, labels).all() + [text for row in group for text in copies.get(row.name, [])],
            _columns(group),
        )
        for number, group in enumerate(groups)
    ]


def printed_labels(rows: Iterable[Comparable]) -> dict[str, str]:
    """Return the label of each row by its name, with the name added where two rows have the same label."""
    rows = list(rows)
    labels = [row.label for row in rows]
    return {row.name: row.label if labels.count(row.label) == 1 else f"{row.label} [{row.name}]" for row in rows}


def _without_copies(rows: Sequence[Comparable]) -> tuple[list[Comparable], dict[str, list[str]]]:
    """Return the rows without copies of a study, and footnotes about the copies by the name of the one that is kept.

    Of several copies, the first of those with most records is kept.
    """
    kept: list[Comparable] = []
    notes: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: -row.num_records):
        same = [o for o in kept if replace(row, name=o.name, label=o.label, num_records=o.num_records) == o]
        if same:
            text = f"{row.name} is left out: it is a copy of {same[0].name}, with equal configuration, data and code."
            notes.setdefault(same[0].name, []).append(text)
        else:
            kept.append(row)
    return [row for row in rows if row in kept], notes


# -- the split -------------------------------------------------------------------------------------------------------


def leaves(tree: object, prefix: str = "") -> dict[str, object]:
    """Return the values of nested mappings by their full key.

    >>> leaves({"a": {"b": 1, "c": [2]}, "d": {}})
    {'a.b': 1, 'a.c': [2], 'd': {}}
    """
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix("."): tree}
    return {key: value for name, child in tree.items() for key, value in leaves(child, f"{prefix}{name}.").items()}


def text_of(value: object) -> str:
    """Return a value as text; equal texts are equal values, whether 4 was written as 4 or as 4.0.

    >>> [text_of(value) for value in (4.0, True, "4", None, [1, "a"])]
    ['4', 'true', '"4"', 'not set', '[1, "a"]']
    """
    if value is None:
        return ABSENT
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, list):
        return f"[{', '.join(map(text_of, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {text_of(child)}' for key, child in value.items())}}}"
    return json.dumps(value, ensure_ascii=False, default=str)


def _shared(row: Comparable) -> dict[str, object]:
    """Return the values that rows of a table must share, by their printed name; the most important first.

    Under the traditional protocol, the values of the recipe are among them, see `_fixed`.
    """
    science = {key: value for key, value in row.science.items() if key != "loss"}
    if isinstance(dataset := science.get("dataset"), dict):
        science["dataset"] = {key: value for key, value in dataset.items() if key not in BLOCKS}
    published = leaves(at(row.science, "loss", "setting"), "searcher.module.defaults.")
    copied = leaves(at(row.science, "searcher", "module", "defaults"), "searcher.module.defaults.")
    # The copy also holds what the study does not read, such as a rate that the authors' replaces.
    own = copied if all(copied.get(key) == value for key, value in published.items()) else {}
    found = {key: value for key, value in leaves(science).items() if key not in FIELDS and key not in own}
    setting = at(row.science, "loss", "setting")
    for part in ("trunk", "head"):  # a rate that is searched with the loss's hyper-parameters is one of the setting
        if (rate := at(setting, f"{part}_lr")) is not None and found.get(
            key := f"training.optimizers.{part}.lr"
        ) == rate:
            del found[key]
    if found.get("training.name") == "customary":  # the name of version 1
        found["training.name"] = "traditional"
    found = OLDEST | found
    given = {
        "data fingerprint": row.fingerprint, "precision": row.precision or None, RUNS: row.num_runs,
        "confidence": row.confidence, "story": row.story,
    }  # fmt: skip
    return given | found


def at(tree: object, *keys: str) -> object:
    """Return the value at a path of keys; None where there is no such value.

    >>> at({"a": {"b": 1}}, "a", "b"), at({"a": 1}, "a", "b")
    (1, None)

    Args:
        tree: nested mappings.
        keys: the keys from the outside to the inside.
    """
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _fixed(row: Comparable) -> dict[str, str]:
    """Return the values that rows of a table must share, as text, without the recipe of the traditional protocol."""
    of_recipe = RECIPE if row.story == "traditional" else ()
    return _texts({key: value for key, value in _shared(row).items() if not key.startswith(of_recipe)})


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    """Return values as text, without those that are None."""
    return {key: text_of(value) for key, value in values.items() if value is not None}


def _other_code(row: Comparable, other: Comparable) -> list[str]:
    """Return the modules that both rows used, in different versions."""
    mine, theirs = row.code or {}, other.code or {}
    return sorted(module for module in mine.keys() & theirs.keys() if mine[module] != theirs[module])


def _differences(group: list[Comparable], first: list[Comparable], accept_code: bool) -> list[str]:
    """Return the differences between a part and the first one; of more than `MOST_NAMES`, the rest is counted."""
    comparing_recipes = group[0].story == first[0].story == "traditional"
    # of rows with a training, since the others may stand beside any number of runs
    here, there = (_texts(_shared(next((row for row in rows if row.num_runs), rows[0]))) for rows in (group, first))
    found = []
    for key in dict.fromkeys((*here, *there)):
        if comparing_recipes and key.startswith(RECIPE):
            continue
        mine, theirs = here.get(key, ABSENT), there.get(key, ABSENT)
        if mine != theirs:
            mine, theirs = _shortened(mine, theirs)
            found.append(f"{key}: {mine} here, {theirs} in the first table")
    modules = sorted({module for row in group for other in first for module in _other_code(row, other)})
    if modules and not accept_code:
        found.append(f"code: differs from the first table's in {_listed(modules)} (accept_code=true joins them)")
    return found if len(found) <= MOST_NAMES else [*found[:MOST_NAMES], f"and {len(found) - MOST_NAMES} more"]


def _shortened(mine: str, theirs: str) -> tuple[str, str]:
    """Shorten two different texts to the places where they differ."""
    if max(len(mine), len(theirs)) <= WIDTH:
        return mine, theirs
    equal = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))
    start = max(0, equal - 10)

    def cut(text: str) -> str:
        return "..." * (start > 0) + text[start : start + WIDTH] + "..." * (len(text) > start + WIDTH)

    return cut(mine), cut(theirs)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


# -- columns and footnotes -------------------------------------------------------------------------------------------


def _training(row: Comparable) -> dict[str, str]:
    """Return the values of a row's recipe, as text."""
    return _texts({key: value for key, value in _shared(row).items() if key.startswith(RECIPE)})


def _length_and_batch(row: Comparable) -> dict[str, str]:
    """Return passes over the images and images per batch; the recipe's take precedence over the protocol's."""
    values = _training(row)
    length = f"{values.get('dataset.max_epochs')} of {values.get('protocol.iterations_per_epoch')} batches"
    batch = values.get("training.batch_size", values.get("protocol.batch_size", ABSENT))
    return {"Epochs": values.get("training.epochs", length), "Batch": batch}


def _columns(group: list[Comparable]) -> dict[str, dict[str, str]]:
    """Return passes and batch size where they differ between rows of the traditional protocol."""
    if group[0].story != "traditional":
        return {}
    texts = {row.name: _length_and_batch(row) for row in group}
    columns = {title: {name: values[title] for name, values in texts.items()} for title in ("Epochs", "Batch")}
    return {title: column for title, column in columns.items() if len(set(column.values())) > 1}


def _words(value: object) -> str:
    """Return a value of a recipe in words.

    >>> _words({"_target_": "torch.optim.AdamW", "lr": 0.1, "groups": {}})
    '(AdamW, lr 0.1, groups none)'
    """
    if isinstance(value, str) and WORD.fullmatch(value):
        return value.removeprefix("torch.optim.")
    if not isinstance(value, dict):
        return text_of(value)
    listed = [_words(child) if key == "_target_" else f"{key} {_words(child)}" for key, child in value.items()]
    return f"({', '.join(listed)})" if listed else "none"


def _described(row: Comparable, differing: set[str]) -> str:
    """Return a training in words.

    Args:
        row: a row of the traditional protocol.
        differing: the keys outside the recipe, and its name, if they differ between rows.
    """
    training = at(row.science, "training")
    given = dict(training) if isinstance(training, dict) else {}
    name = f"recipe {_words(given['recipe'])}" if given.get("recipe") else f"training {_words(given.get('name'))}"
    effective = [f"{title.lower()} {text}" for title, text in _length_and_batch(row).items()]
    rest = [f"{k} {_words(v)}" for k, v in given.items() if k not in ("recipe", "name", "epochs", "batch_size")]
    values = _training(row)
    return ", ".join([name, *effective, *rest, *(f"{key} {values.get(key, ABSENT)}" for key in sorted(differing))])


@dataclass(frozen=True)
class _Notes:
    """Makes the footnotes about rows that share a table.

    Attributes:
        group: the rows.
        labels: their printed names.
    """

    group: list[Comparable]
    labels: Mapping[str, str]

    def all(self) -> list[str]:
        several = [row for row in self.group if row.codes_accepted > 1]
        return [
            *self.trainings(),
            *self.differing("Number of trials", lambda row: text_of(row.trials), self.those(lambda r: not r.preset)),
            *self.listed("Not searched, a fixed setting", lambda row: row.preset,
                         self.those(lambda r: r.preset not in ("", "base") and r.num_runs)),
            *self.listed("Not searched, the setting that the search of its base chose", lambda row: "",
                         self.those(lambda r: r.preset == "base")),
            *self.listed("Precision not recorded", lambda row: "", self.those(lambda r: not r.precision)),
            *self.versions(),
            *self.several("Kinds of device", lambda row: row.devices),
            *self.listed("Computed with several versions of the code, which accept_code=true accepted",
                         lambda row: f"{row.codes_accepted} versions", several),
            *self.code(),
            *self.listed("Code not recorded", lambda row: "", self.those(lambda r: r.code is None)),
            *self.listed("With plug-ins", lambda row: ", ".join(row.plugins), self.those(lambda r: r.plugins)),
        ]  # fmt: skip

    def those(self, condition: Callable[[Comparable], object]) -> list[Comparable]:
        return [row for row in self.group if condition(row)]

    def names(self, rows: Sequence[Comparable]) -> str:
        return "all rows" if len(rows) == len(self.group) else ", ".join(self.labels[row.name] for row in rows)

    def listed(self, what: str, text: Callable[[Comparable], str], rows: list[Comparable]) -> list[str]:
        """Return a footnote that names some rows, each with a text in parentheses; an empty list without rows."""
        found = [self.names(some) + (f" ({value})" if value else "") for value, some in _grouped(rows, text).items()]
        return [f"{what}: {'; '.join(found)}."] if found else []

    def differing(self, what: str, text: Callable[[Comparable], str], rows: list[Comparable]) -> list[str]:
        """Return a footnote with the text of each row if they differ, else an empty list."""
        found = _grouped(rows, text)
        usual = max(found.values(), key=len, default=[])
        if len(found) < 2:
            return []
        shorten = len(usual) > 2 and len(rows) == len(self.group)
        some = [f"{value} for {self.names(r)}" for value, r in found.items() if r is not usual or not shorten]
        rest = [f"{text(usual[0])} for the other rows"] * shorten
        return [f"{what}: {'; '.join(some + rest)}."]

    def several(self, what: str, values: Callable[[Comparable], frozenset[str]]) -> list[str]:
        """Return a footnote if rows used different values, or one of them used several; else an empty list."""

        def text(row: Comparable) -> str:
            return " and ".join(sorted(values(row))) or "not recorded"

        found = self.differing(what, text, self.group)
        mixed = any(len(values(row)) > 1 for row in self.group)
        return found or [f"{what}: {text(self.group[0])} for all rows."] * mixed

    def versions(self) -> list[str]:
        def of(package: str) -> Callable[[Comparable], frozenset[str]]:
            return lambda row: row.versions.get(package, frozenset())

        packages = dict.fromkeys(package for row in self.group for package in row.versions)
        return [note for package in packages for note in self.several(f"Version of {package}", of(package))]

    def code(self) -> list[str]:
        """Return a footnote for each set of rows that used the same modules in different versions."""

        def digest(module: str) -> Callable[[Comparable], str]:
            return lambda row: (row.code or {})[module]

        found: dict[str, list[str]] = {}
        for module in sorted({module for row in self.group for module in row.code or {}}):
            users = [row for row in self.group if module in (row.code or {})]
            versions = _grouped(users, digest(module)).values()
            if len(versions) > 1:
                found.setdefault(" against ".join(map(self.names, versions)), []).append(module)
        return [f"Different code, accepted by accept_code=true: {rows}, in {_listed(m)}." for rows, m in found.items()]

    def trainings(self) -> list[str]:
        """Return a footnote that states each training, if rows of the traditional protocol differ in it."""
        if self.group[0].story != "traditional":
            return []
        trainings = {row.name: _training(row) for row in self.group}
        keys = {key for values in trainings.values() for key in values}
        differing = {key for key in keys if len({values.get(key) for values in trainings.values()}) > 1}
        outside = {key for key in differing if key == "training.name" or not key.startswith("training.")}
        found = _grouped(self.group, lambda row: _described(row, outside))
        return [f"Training of {self.names(rows)}: {text}." for text, rows in found.items() if len(found) > 1]


def _grouped(rows: Iterable[Comparable], text: Callable[[Comparable], str]) -> dict[str, list[Comparable]]:
    found: dict[str, list[Comparable]] = {}
    for row in rows:
        found.setdefault(text(row), []).append(row)
    return found
