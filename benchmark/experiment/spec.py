"""What a file of `experiments/` says, and the studies that it describes.

An experiment is a table, or a figure, of a paper: studies that share most of their options, on one or more data sets.
Its file has these keys:

- `title`: the caption, preceded by the name of the data set if there are several;
- `paper`: what it reproduces; `description`: what a reader has to know, such as an open reading;
- `datasets`: one table is made for each;
- `common`: options of all studies, as on the command line; `trunk` and `protocol` are always among them;
- `studies`: the rows, see `Entry`;
- `sweep`: options with several values each, which multiply the studies that they name, see `Sweep`;
- `published`: sources in `published_results.csv`, and `quoted`: methods of these that are printed but not run;
- `columns`: the metrics to show, `recall_at_1` or `concatenated.map_at_r`; all if it is absent;
- `figures`: names of figures that are drawn from the kept results; `projection`: that of embeddings, `umap` or `tsne`;
- `results_dir`: where the studies are, if not in `results`; `describes`: names of other results folders whose tables it
  describes, such as those that come with the project.

Pointed at another data set (`dataset=glyphs`), an experiment takes that data set's own trunk, training and images. With
`budget=small` it searches and trains briefly. Both are marked as not for reporting.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmark.core import plain_yaml
from benchmark.core.conf_files import content
from benchmark.core.errors import UserError
from benchmark.core.invocation import command, override
from benchmark.core.paths import CHECKOUT_DIR, experiments_dir
from benchmark.experiment.published import cells_of
from benchmark.report.table import Key, Published

Options = dict[str, Any]  # options as on the command line, by key
OF_DATASET = re.compile(r"(trunk(\..*)?|training|(protocol|dataset)\.images\..*)")  # keys that a data set brings itself
BUDGETS: dict[str, dict[str, Options]] = {
    "full": {"search": {}, "traditional": {}},
    "small": {
        "search": {"trials": 4, "protocol.num_runs": 3},
        "traditional": {"training.epochs": 6, "protocol.num_runs": 2},
    },
}  # options that a budget adds, by the protocol's story
OF_TRAINED = ("trials", "searches", "protocol.num_runs", "protocol.defaults_first")  # of no use without training
SMALL_RESULTS = "results/small"  # below it, each experiment that is not for reporting has a folder


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the table.

    Attributes:
        loss: name of the loss.
        label: printed name; empty for the loss's own.
        preset: a published setting in place of a search.
        variant: suffix of the study's folder, needed if `set` or `sweep` change a study from the loss's usual one.
        set: further options.
        published: the row's method in the published sources.
        datasets: the data sets that have this row; empty for all.
        elsewhere: options that replace those of `set` on another data set.
    """

    loss: str
    label: str = ""
    preset: str = ""
    variant: str = ""
    set: Options = {}
    published: str = ""
    datasets: list[str] = []
    elsewhere: Options = {}


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An option with several values.

    Attributes:
        key: the option.
        values: its values, each of which makes a study.
        name: what precedes the value in the study's variant, such as `p` for `p48`.
        losses: losses whose studies it multiplies; empty for all.
        elsewhere: values on another data set; empty for `values`.
        title: name of the option in the table and on the axis; empty for `key`.
        published: with `{}` for the value, the variant in the published sources.
        log: whether the axis is logarithmic.
    """

    key: str
    values: list[Any]
    name: str
    losses: list[str] = []
    elsewhere: list[Any] = []
    title: str = ""
    published: str = ""
    log: bool = False


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An experiment; the attributes are explained at the top of this module.

    `name` and `budget` do not come from the file.
    """

    title: str
    datasets: list[str]
    studies: list[Entry]
    paper: str = ""
    description: str = ""
    common: Options = {}
    sweep: list[Sweep] = []
    published: list[str] = []
    quoted: list[str] = []
    columns: list[str] = []
    figures: list[str] = []
    projection: str = "tsne"
    results_dir: str = "results"
    describes: list[str] = []
    name: str = ""
    own_datasets: list[str] = []
    budget: str = "full"

    @property
    def for_reporting(self) -> bool:
        """Whether it is the paper's experiment: on its own data sets, with the full budget."""
        return self.budget == "full" and {*self.datasets} <= {*self.own_datasets}

    @property
    def folder(self) -> str:
        """The folder of its results."""
        return self.results_dir if self.for_reporting else f"{SMALL_RESULTS}/{self.name}"

    @property
    def story(self) -> str:
        """`traditional`, or `search` for the protocols with folds."""
        return "traditional" if self.common.get("protocol") == "traditional" else "search"

    @property
    def committed(self) -> list[str]:
        """The results folders that come with a checkout and hold its studies."""
        return [f"results/{name}" for name in self.describes if (CHECKOUT_DIR / "results" / name / "studies").is_dir()]

    def group(self, dataset: str) -> str:
        """The group of its studies on one of its own data sets: `dataset-trunk-protocol`."""
        return "-".join((dataset, self.common["trunk"], self.common["protocol"]))

    def caption(self, dataset: str) -> str:
        """The caption of its table on one of its own data sets."""
        label = content("dataset", dataset).get("label", dataset)
        return f"{label}, {self.title}" if len(self.own_datasets) > 1 else self.title

    def members(self, dataset: str) -> list[Member]:
        """Its studies on a data set, in the order of the table."""
        elsewhere = dataset not in self.own_datasets
        found = []
        for entry in self.studies:
            if entry.datasets and not elsewhere and dataset not in entry.datasets:
                continue
            sweeps = [sweep for sweep in self.sweep if not sweep.losses or entry.loss in sweep.losses]
            choices = [sweep.elsewhere or sweep.values if elsewhere else sweep.values for sweep in sweeps]
            for values in itertools.product(*choices):
                found.append(self._member(dataset, elsewhere, entry, sweeps, values))
        return found

    def _member(
        self, dataset: str, elsewhere: bool, entry: Entry, sweeps: Sequence[Sweep], values: Sequence[Any]
    ) -> Member:
        swept = {sweep.key: value for sweep, value in zip(sweeps, values, strict=True)}
        options = self.common | entry.set | (entry.elsewhere if elsewhere else {})
        if elsewhere:
            options = {key: value for key, value in options.items() if not OF_DATASET.fullmatch(key)}
        untrained = bool(content("loss", entry.loss).get("untrained"))  # no search, and one run
        # Other presets are published for one data set.
        preset = "default" if untrained or (entry.preset and elsewhere) else entry.preset
        budget = BUDGETS[self.budget][self.story]
        options |= {key: value for key, value in budget.items() if not (preset and key == "trials")} | swept
        options = {key: value for key, value in options.items() if not (untrained and key in OF_TRAINED)}
        suffixes = [f"{sweep.name}{_word(value)}" for sweep, value in zip(sweeps, values, strict=True)]
        texts = [sweep.published.format(value) for sweep, value in zip(sweeps, values, strict=True) if sweep.published]
        variant = "_".join(filter(None, [entry.variant, *suffixes]))
        chosen = {"dataset": dataset, "loss": entry.loss, "preset": preset, "variant": variant}
        return Member(
            dataset=dataset, loss=entry.loss, label=entry.label, preset=preset, variant=variant,
            options={key: value for key, value in chosen.items() if value} | options,
            swept={sweep.title or sweep.key: value for sweep, value in zip(sweeps, values, strict=True)},
            published=self._published(", ".join([entry.published, *texts]), dataset) if entry.published else {},
        )  # fmt: skip

    def _published(self, method: str, dataset: str) -> dict[Key, Published]:
        return cells_of(method, dataset, self.published) if dataset in self.own_datasets else {}

    def quoted_rows(self, dataset: str) -> dict[str, dict[Key, Published]]:
        """The published cells of the methods that are quoted for a data set, by method."""
        rows = {method: self._published(method, dataset) for method in self.quoted}
        return {method: cells for method, cells in rows.items() if cells}

    def pointed_at(self, dataset: str = "", budget: str = "full") -> Experiment:
        """This experiment on another data set, or with a smaller budget.

        Args:
            dataset: name of the only data set; empty for the experiment's own.
            budget: a key of `BUDGETS`.

        Raises:
            UserError: there is no such budget.
        """
        if budget not in BUDGETS:
            raise UserError(f"budget={budget}: allowed are {', '.join(BUDGETS)}.")
        return msgspec.structs.replace(self, datasets=[dataset] if dataset else self.datasets, budget=budget)


class Member(msgspec.Struct, frozen=True):
    """A study of an experiment.

    Attributes:
        dataset: name of its data set.
        loss: name of its loss.
        label: printed name; empty for the loss's own.
        preset: a published setting in place of a search; empty for none.
        variant: suffix of its folder; empty for none.
        options: all its options, by key, as on the command line.
        swept: values of the swept options, by title.
        published: what the paper prints for it, by column.
    """

    dataset: str
    loss: str
    label: str
    preset: str
    variant: str
    options: Options
    swept: Options
    published: dict[Key, Published]

    @property
    def folder_name(self) -> str:
        """The name of its folder within the group of its data set, trunk and protocol."""
        return "-".join(filter(None, (self.loss, self.preset, self.variant)))

    @property
    def overrides(self) -> list[str]:
        """Its options in Hydra's grammar."""
        return [hydra_override(key, value) for key, value in self.options.items()]


def hydra_override(key: str, value: object) -> str:
    """An option in Hydra's grammar.

    >>> hydra_override("loss.module.weights", [1.0, 0.3]), hydra_override("training.decay", {"kind": "cosine"})
    ('loss.module.weights=[1.0,0.3]', 'training.decay={kind:cosine}')
    """
    return override(key, value) if isinstance(value, str) else f"{key}={_in_hydra(value)}"


def _in_hydra(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_in_hydra, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_in_hydra(child)}' for key, child in value.items())}}}"
    return override("", value)[1:] if isinstance(value, str) else str(value)


def _word(value: object) -> str:
    """A swept value as a part of a variant, which has letters, digits and underscores only.

    >>> _word([1.0, 0.03])
    '1_0_0_03'
    """
    text = "_".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"\W", "_", text)


def names() -> list[str]:
    """The names of all experiments, in alphabetical order."""
    return sorted(path.stem for path in experiments_dir().glob("*.yaml"))


def read(name: str) -> Experiment:
    """Read an experiment.

    Args:
        name: name of its file, without the extension.

    Raises:
        UserError: there is none of that name, or its file is invalid.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"There is no experiment {name!r}.{meant} {command('experiments')} lists them: {', '.join(names())}."
        )
    return parse((experiments_dir() / f"{name}.yaml"), name)


def parse(path: Path, name: str) -> Experiment:
    """Read an experiment from a file.

    Args:
        path: the file.
        name: the experiment's name.

    Raises:
        UserError: the file is invalid.
    """
    try:
        found = msgspec.convert(plain_yaml.read_mapping(path), Experiment)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {error}") from error
    if lacking := [key for key in ("trunk", "protocol") if key not in found.common]:
        raise UserError(f"{path}: common lacks {' and '.join(lacking)}.")
    return msgspec.structs.replace(found, name=name, own_datasets=found.datasets)
