"""The experiment that a command line selects, and its studies with the options that the command line adds to all."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core import invocation
from benchmark.core.conf_files import content
from benchmark.core.errors import UserError
from benchmark.core.invocation import key_of
from benchmark.experiment import outline, spec
from benchmark.experiment.spec import Experiment, Member

OWN = (
    "experiment",
    "budget",
    "measure",
    "dataset",
    "results_dir",
    "display",
    "projection",
    "bootstrap",
)  # not passed on as they are
OF_STUDIES = ("loss", "preset", "variant", "study")  # keys that each study has of its own
EXECUTION = (
    "executor", "device", "keep", "tracker", "accept_code", "plugins", "decode", "image_threads", "image_memory",
    "checkpoint_seconds", "levels",
)  # fmt: skip  # change no number


@dataclass(frozen=True)
class StudyOf:
    """A study of an experiment as the command line runs it.

    Attributes:
        member: what the experiment says about it.
        overrides: its options in Hydra's grammar, each key once.
        directory: its folder.
        num_trainings: number of models that it trains, those of its repeated searches included.
        num_searches: number of its searches.
    """

    member: Member
    overrides: tuple[str, ...]
    directory: Path
    num_trainings: int
    num_searches: int = 1

    @property
    def name(self) -> str:
        """The name of its folder, which is unique within the table of a data set."""
        return self.directory.name

    @property
    def directories(self) -> list[Path]:
        """Its folder, and those of its repeated searches."""
        more = range(1, self.num_searches)
        return [self.directory, *(self.directory.with_name(f"{self.name}-search{number}") for number in more)]

    @property
    def verbs(self) -> list[str]:
        """The commands that run it, in order."""
        if "protocol=traditional" in self.overrides:
            return ["traditional"]
        return ["final-eval"] if self.member.preset else ["bo", "final-eval"]

    @property
    def command(self) -> str:
        """The shell command that runs exactly this study, in the form in which this process was started."""
        return invocation.command(" ".join(self.verbs), overrides=self.overrides)


@dataclass(frozen=True)
class Selected:
    """An experiment, where its results are, and the options that the command line gives to all studies.

    Attributes:
        experiment: the experiment on the chosen data sets, with the chosen budget.
        extra: overrides for every study, in Hydra's grammar.
        results_dir: the results folder.
    """

    experiment: Experiment
    extra: tuple[str, ...]
    results_dir: str

    @property
    def overrides(self) -> list[str]:
        """What selects it on a command line."""
        own = [invocation.override("experiment", self.experiment.name)]
        if self.experiment.budget != "full":
            own.append(f"budget={self.experiment.budget}")
        if self.experiment.datasets != self.experiment.own_datasets:
            own.append(f"dataset={self.experiment.datasets[0]}")
        if self.results_dir != self.experiment.folder:
            own.append(invocation.override("results_dir", self.results_dir))
        return [*own, *self.extra]

    def name_on(self, dataset: str) -> str:
        """The name of its files for a data set: its own, with the data set unless that is its only one."""
        return self.experiment.name + f"-{dataset}" * (self.experiment.own_datasets != [dataset])

    @property
    def remark(self) -> str:
        """What everything that is rendered says if the experiment differs from the published one; else empty."""
        given = [entry for entry in self.extra if key_of(entry).partition(".")[0] not in EXECUTION]
        given = [entry for entry in given if not key_of(entry).startswith("dataset.module.")]
        if self.experiment.for_reporting and not given:
            return ""
        other = [name for name in self.experiment.datasets if name not in self.experiment.own_datasets]
        why = [f"on {', '.join(other)} in place of {', '.join(self.experiment.own_datasets)}"] * bool(other)
        why += [f"budget={self.experiment.budget}"] * (self.experiment.budget != "full") + given
        return f"Not for reporting: {'; '.join(why)}."

    def caption(self, dataset: str) -> str:
        """The caption of its table on a data set.

        It is the experiment's own, or, if the experiment differs from the published one, says what is run instead and
        where the studies come from.
        """
        if not self.remark:
            return self.experiment.caption(dataset)
        options = self.experiment.members(dataset)[0].options | self._given()
        label = options.get("dataset.label", content("dataset", dataset).get("label", dataset))
        trunk, protocol = outline.trunk_of(options), str(options["protocol"])
        names = [content(group, name).get("name", name) for group, name in
                 (("trunk", trunk), ("protocol", protocol))]  # fmt: skip
        origin = self.experiment.paper or f"the experiment {self.experiment.name}"
        budget = f", on a {self.experiment.budget} budget" * (self.experiment.budget != "full")
        return f"{label}, trunk {names[0]}, protocol {names[1]}: the studies of {origin}{budget}."

    def _given(self) -> dict[str, str]:
        """The options for every study, by key."""
        return invocation.values_of(self.extra)

    @functools.cached_property
    def studies(self) -> dict[str, list[StudyOf]]:
        """The studies by data set, in the order of the table.

        Raises:
            UserError: the command line gives an option that the experiment sweeps.
        """
        return {name: [self._study(member) for member in self.experiment.members(name)]
                for name in self.experiment.datasets}  # fmt: skip

    def _study(self, member: Member) -> StudyOf:
        given = {key_of(entry): entry for entry in self.extra}
        swept = {sweep.key.lstrip("+") for sweep in self.experiment.sweep}
        if refused := sorted(swept & given.keys()):
            raise UserError(f"{given[refused[0]]}: {self.experiment.name} sweeps {refused[0]} itself. Leave it out.")
        own = [
            entry for entry in member.overrides if key_of(entry) not in (*given, "results_dir")
        ]  # fmt: skip
        options = {key.lstrip("+"): value for key, value in member.options.items()}
        options |= self._given()
        overrides = [*own, *self.extra]
        if self.results_dir != "results":
            overrides.append(invocation.override("results_dir", self.results_dir))
        directory = outline.folder(options, self.results_dir)
        numbers = outline.num_trainings(options), outline.num_searches(options)
        return StudyOf(member, tuple(overrides), directory, *numbers)

    def missing(self, dataset: str) -> list[str]:
        """What this machine lacks to run the studies on a data set: code, the data, weights.

        Args:
            dataset: name of the data set.
        """
        given = self._given()
        found: list[str] = []
        for study in self.studies[dataset]:
            options = study.member.options | given
            found += outline.missing_code(options) + outline.missing_data(options) + outline.missing_weights(options)
        return list(dict.fromkeys(found))


def selected(name: str, overrides: Sequence[str], results_dir: str = "") -> Selected:
    """The experiment that a command line selects.

    Args:
        name: name of the experiment.
        overrides: the overrides on the command line, in Hydra's grammar.
        results_dir: the results folder; empty for the experiment's own.

    Raises:
        UserError: there is no such experiment or budget, its file is invalid, or an override is not allowed here.
    """
    given = invocation.values_of(overrides)
    if refused := [key for key in given if key in OF_STUDIES]:
        raise UserError(
            f"{refused[0]}={given[refused[0]]}: each study of an experiment has its own. Leave it out, or run the "
            f"study itself; {invocation.command('plan', {'experiment': name})} lists them."
        )
    experiment = spec.read(name).pointed_at(given.get("dataset", ""), given.get("budget", "full"))
    extra = tuple(entry for entry in overrides if key_of(entry) not in OWN)
    return Selected(experiment, extra, given.get("results_dir", results_dir) or experiment.folder)
