"""From an experiment to the layout of its table."""

import functools
from collections.abc import Collection, Mapping
from pathlib import Path

from benchmark.core.conf_files import content
from benchmark.core.invocation import command
from benchmark.core.paths import experiments_dir
from benchmark.experiment import spec
from benchmark.experiment.spec import Experiment, Member
from benchmark.report.table_layout import Layout, Line
from benchmark.study.command import results_override

USUAL = "results"  # results folder of experiments that name none; they describe any folder


def layout_of(
    experiment: Experiment, dataset: str, warning: str = "", commands: Mapping[str, str] | None = None,
    caption: str = "", results_dir: Path = Path(USUAL),
) -> Layout:  # fmt: skip
    """Return the layout of an experiment's table on a data set: quoted rows first, then its studies.

    Args:
        experiment: the experiment.
        dataset: name of the data set.
        warning: a sentence that everything rendered shows; empty for none.
        commands: the command that runs a study, by name of its folder; by default, the one with its options.
        caption: the table's caption; empty for the experiment's own.
        results_dir: the results folder that these options lead to.
    """
    lines = [Line("", method, cells) for method, cells in experiment.quoted_rows(dataset).items()]
    for member in experiment.members(dataset):
        run = (commands or {}).get(member.folder_name) or _command(member, results_dir)
        lines.append(Line(member.folder_name, _label(member), member.published, command=run))
    columns = [tuple(column.split(".")) for column in experiment.columns]
    return Layout(caption or experiment.caption(dataset), tuple(lines), tuple(columns), warning=warning)


def _label(member: Member) -> str:
    """Return a member's label with its swept values; empty for the study's own."""
    swept = [f"{title} = {value}" for title, value in member.swept.items()]
    label = member.label or (content("loss", member.loss).get("label", member.loss) if swept else "")
    return ", ".join(filter(None, [label, *swept]))


def _command(member: Member, results_dir: Path) -> str:
    """Return the command that runs a study with its own options; empty if it differs from others in its loss only."""
    if member.folder_name == member.loss:
        return ""
    traditional = member.options["protocol"] == "traditional"
    verbs = "traditional" if traditional else "final-eval" if member.preset else "bo final-eval"
    return command(verbs, overrides=[*member.overrides, *results_override(results_dir)])


def describing(group: str, results_dir: Path, found: Collection[str]) -> Layout:
    """Return the layout of the experiment that describes a group of studies; an empty one if there is none.

    An experiment that describes this results folder precedes one with this folder as its own, which precedes those of
    the usual folder. Of several, the one with most of its studies in the group is taken.

    Args:
        group: `dataset-trunk-protocol`.
        results_dir: the results folder.
        found: names of the studies' folders.
    """
    dataset = group.partition("-")[0]
    candidates = [each for each in _all(experiments_dir()) if dataset in each.datasets and each.group(dataset) == group]

    def fit(experiment: Experiment) -> tuple[int, int]:
        own = Path(experiment.results_dir).name
        place = 2 if results_dir.name in experiment.describes else int(own == results_dir.name)
        return place, sum(member.folder_name in found for member in experiment.members(dataset))

    allowed = [each for each in candidates if fit(each)[0] or each.results_dir == USUAL]
    best = max(allowed, key=fit, default=None)
    return layout_of(best, dataset, results_dir=results_dir) if best else Layout()


@functools.cache
def _all(folder: Path) -> list[Experiment]:
    """Return all experiments of a folder, in the order of their names."""
    return [spec.parse(path, path.stem) for path in sorted(folder.glob("*.yaml"))]
