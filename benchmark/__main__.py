"""The command line: `dmlbench COMMAND key=value ...` and `python -m benchmark COMMAND ...`, which make targets call.

The configuration is composed and checked before a command's own module is imported: PyTorch takes seconds to load, and
a typo, `--help` or `status` does not need it.
"""
# ruff: noqa: E402 - the first import prepares the process

from benchmark.core import process

process.begin()  # before the other imports, which take long enough for a Ctrl-C

import difflib
import importlib
import importlib.util
import os
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

from benchmark.core import invocation
from benchmark.core.console import write, write_traceback
from benchmark.core.errors import UserError
from benchmark.core.wording import counted, human_size
from benchmark.jobs.placement import check_executor
from benchmark.study import cli
from benchmark.study.preflight import check_space, check_values
from benchmark.study.selected import OF_FINAL_RUNS, names_a_study
from benchmark.study.spaces import described
from benchmark.study.study import Study
from benchmark.study.unused import check_used


def _opening_of_search(study: Study, overrides: list[str]) -> str:
    check_values(study)
    check_executor(study.config)
    if study.config.preset:
        return ""  # the command itself refuses a preset
    check_space(study)
    check_used(study, overrides, cli.study_of)
    asked, possible = study.config.trials, study.num_trials
    all_of_them = f" (not {asked}: its space has {possible} settings, and each is tried once)" * (possible < asked)
    again = _repeated(study)
    first = f"{study.title}: search of {counted(possible, 'trial')}{all_of_them}{again}, records in {study.directory}"
    start = " ".join(f"{name}={value:g}" for name, value in study.first_trial.items())
    tried = f"; trial 1 is the default, {start}" * study.config.searcher.module.get("defaults_first", False)
    return f"{first}\nSearch space: {described(study.make_space())}{tried}"


def _opening_of_final_runs(study: Study, overrides: list[str]) -> str:
    if not names_a_study(overrides, besides=OF_FINAL_RUNS):
        return f"Final runs of every finished search below {study.config.results_dir}"
    check_values(study)
    check_executor(study.config)
    check_used(study, overrides, cli.study_of)
    runs = counted(study.config.protocol.num_runs, "final run")
    return f"{study.title}: {runs}{_repeated(study)}, records in {study.directory}"


def _repeated(study: Study) -> str:
    """A clause about the repetitions of a search; empty without any."""
    more = study.repetitions()[1:]
    names = ", ".join(other.directory.name for other in more)
    return f" (and as many for {counted(len(more), 'repeated search', 'repeated searches')}: {names})" * bool(more)


def _opening_of_traditional(study: Study, overrides: list[str]) -> str:
    check_values(study, "traditional")
    check_executor(study.config)
    check_used(study, overrides, cli.study_of)
    runs = counted(study.config.protocol.num_runs, "run")
    return f"{study.title}: {runs} under the traditional protocol, records in {study.directory}"


OF_EXPERIMENTS = ("experiments", "tables", "html_report")  # modules whose commands take the name of an experiment


@dataclass(frozen=True)
class Verb:
    """A command.

    Attributes:
        group: heading under which `dmlbench --help` lists it.
        help: one-line description.
        function: the function that runs it, as `module.function` of this package.
        protocol: default protocol; empty for the configuration's default.
        opening: for commands that train, checks the study's values and returns the first line to print.
    """

    group: str
    help: str
    function: str
    protocol: str = ""
    opening: Callable[[Study, list[str]], str] | None = None

    @property
    def module(self) -> str:
        """Full name of the module that defines the command."""
        return f"benchmark.{self.function.rpartition('.')[0]}"

    def __call__(self, study: Study, overrides: list[str]) -> None:
        """Check the study's values, print the first line, then import the command and run it."""
        if study.config.experiment and self.function.partition(".")[0] not in OF_EXPERIMENTS:
            raise UserError(
                f"experiment={study.config.experiment}: this command runs one study. To run the whole experiment: "
                f"{invocation.command('experiment', {'experiment': study.config.experiment})}"
            )
        if self.opening:
            line = self.opening(study, overrides)
            if line and study.config.display != "quiet":
                write(line)
        getattr(self._import(), self.function.rpartition(".")[2])(study, overrides)

    def _import(self) -> ModuleType:
        try:
            return importlib.import_module(self.module)
        except (ImportError, MemoryError) as error:
            if (limit := process.memory_limit()) is None:
                raise
            raise UserError(
                f"The libraries of this command cannot be loaded ({error}). Its memory is limited to "
                f"{human_size(limit)}: raise the limit (ulimit -v)."
            ) from error


VERBS = {
    "bo": Verb("run", "search a loss's hyper-parameters by class-disjoint cross-validation", "bo.bo",
               opening=_opening_of_search),
    "final-eval": Verb("run", "retrain the best setting 10 times and score the test classes; without options, for "
                       "every finished search", "final_eval.final_eval", opening=_opening_of_final_runs),
    "traditional": Verb("run", "train on all training classes as the papers do, and score the test classes at every "
                        "epoch", "traditional.traditional", "traditional", _opening_of_traditional),
    "robustness": Verb("run", "score the kept models of a study (keep=best) on corrupted test images",
                       "robustness.robustness"),
    "experiment": Verb("run", "run what an experiment (experiment=hpl_table_3) lacks, then write its tables, figures "
                       "and page", "experiments.experiment"),
    "reproduce": Verb("run", "retrain a published cell from its published setting, and compare the numbers",
                      "reproduce.reproduce"),
    "embed": Verb("use", "embed the images of a folder with a trained model", "embed.embed"),
    "search": Verb("use", "find the images of a folder that are nearest to a query", "search.search"),
    "export": Verb("use", "write a trained model for other programs", "export.export"),
    "score": Verb("use", "score a model on test classes, or any embeddings", "score.score"),
    "status": Verb("look", "show the progress of all studies, what runs where and what failed", "status.status"),
    "logs": Verb("look", "show the newest log or that of unit=trial_003/fold_1; on a terminal, follow it", "logs.logs"),
    "tables": Verb("look", "write the tables of all studies as CSV, LaTeX and Markdown", "tables.tables"),
    "report": Verb("look", "write a page with the tables and figures of all studies, or of an experiment "
                   "(experiment=hpl_table_3)", "html_report.report"),
    "searches": Verb("look", "write and draw the best validation score against the number of trials",
                     "searches.searches"),
    "experiments": Verb("look", "list the experiments, one for each table or figure of a paper: state, cost, what is "
                        "missing", "experiments.experiments"),
    "plan": Verb("look", "show what an experiment (experiment=hpl_table_3) would train and cost", "experiments.plan"),
    "figures": Verb("run", "draw retrieved images, embeddings and the learned hierarchy of a run", "figures.figures"),
    "compare": Verb("look", "print how two studies differ, and the paired difference of their scores, or how far two "
                    "folders of studies agree: a=FOLDER b=FOLDER", "compare.compare"),
    "trace": Verb("look", "print the records behind a cell of a table: cell=TABLE/ROW/COLUMN", "trace.trace"),
    "data": Verb("data", "find or download a data set and describe it", "data.data"),
    "splits": Verb("data", "write a data set's split and folds to results/splits as CSV", "splits.splits"),
    "overlap": Verb("data", "report what a data set shares with a trunk's pretraining: class names, copies of images",
                    "overlap.overlap"),
    "check-loss": Verb("develop", "check a loss against its contract in a minute, with a sentence for each mistake",
                       "check_loss.check_loss"),
    "doctor": Verb("look", "check this machine: GPU, libraries, driver, disk, data, weights, cluster",
                   "doctor.doctor"),
    "bench": Verb("develop", "compare the speed of this code with other libraries", "perf.cpu.bench"),
    "bench-front": Verb("develop", "measure score against cost of variants of the training on glyphs",
                        "perf.front.bench_front"),
    "bench-gpu": Verb("develop", "measure a GPU in 8 minutes, and how many folds it should train at once",
                      "perf.gpu.bench.bench_gpu"),
    "bench-search": Verb("develop", "compare the searchers with chance on functions whose best value is known",
                         "perf.searchers.bench_search"),
}  # fmt: skip


def main(verb: str = "") -> int:
    """Run the command that the process's arguments select.

    Args:
        verb: the command, such as `bo` for `python -m benchmark.bo`; empty takes the first argument.

    Returns:
        The exit status: 0, or 2 for a mistake on the command line.

    Raises:
        SystemExit: a command failed; `cli.main` lists the statuses.
    """
    sys.excepthook = write_traceback
    program, *arguments = sys.argv
    form: invocation.Form = "dmlbench" if Path(program).stem == "dmlbench" else "python -m benchmark"
    if from_make := arguments[:1] == ["--from-make"]:
        form, arguments = "make", arguments[1:]
    if started_as := os.environ.pop(invocation.STARTED_AS, ""):
        process.end_with_parent()
    os.environ[invocation.FORM] = started_as or form
    if not verb:
        verb, *arguments = arguments or ["--help"]
    if from_make:
        try:
            arguments += invocation.from_make(os.environ, verb)
        except UserError as error:
            return _refused(str(error))
    name = verb.replace("_", "-")
    if verb in ("--help", "-h", "help"):
        _show(_help(form))
    elif verb == "--version":
        _show(f"dmlbench {_version()}")
    elif name not in _installed():
        return _unknown(verb, form)
    elif {"--help", "-h"} & {*arguments}:
        try:
            _show(_help_of(name, form, arguments))
        except UserError as error:
            return _refused(str(error))
    else:
        sys.argv = [program, *arguments]
        several = ("loss",) if name in invocation.OF_SEVERAL_LOSSES else ()
        cli.main(VERBS[name], VERBS[name].protocol, VERBS[name].group in ("use", "look"), several)
    return 0


def _show(text: str) -> None:
    with cli.until_the_reader_ends():
        write(text)


def _refused(message: str) -> int:
    write(f"\n{message}", error=True)
    return 2


def _installed() -> dict[str, Verb]:
    """The commands of this installation; a wheel omits those that measure the code."""
    return {name: verb for name, verb in VERBS.items() if _is_here(verb.module)}


def _is_here(module: str) -> bool:
    """Whether a module is installed, and so are the packages that contain it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _unknown(verb: str, form: str) -> int:
    known = list(_installed())
    near = difflib.get_close_matches(verb.lower(), known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    if "=" in verb:
        return _refused(f"{verb!r} comes after a command, as in: {form} bo {verb}\nCommands: {', '.join(known)}.")
    return _refused(f"There is no command {verb!r}.{meant}\nCommands: {', '.join(known)}. See {form} --help.")


def _version() -> str:
    try:
        return metadata.version("metric-learning-benchmark")
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


def _help(form: str) -> str:
    title = "Search, final evaluation and tables for deep metric learning losses."
    lines = [f"usage: {form} COMMAND [KEY=VALUE ...]", "", title]
    groups: dict[str, list[str]] = {}
    for name, verb in _installed().items():
        groups.setdefault(verb.group, []).append(f"  {name:<12} {about(name, form)}")
    for group, entries in groups.items():
        lines += ["", f"{group}:", *entries]
    lines += ["", f"Example: {form} bo dataset=glyphs_small loss=hpl_pa trials=6", f"More: {form} COMMAND --help"]
    return "\n".join(lines)


def about(name: str, form: str) -> str:
    """What a command does, with options as the user types them.

    >>> about("plan", "make")
    'show what an experiment (NAME=hpl_table_3) would train and cost'

    Args:
        name: the command.
        form: how it is started: make, or one of the others.
    """
    names = {key: variable for variable, key in invocation.variables(name).items()} if form == "make" else {}
    return re.sub(r"\b([a-z]+)(?==)", lambda found: names.get(found[1], found[1]), VERBS[name].help)


def _help_of(name: str, form: str, arguments: list[str]) -> str:
    usage = f"usage: make {name} [VARIABLE=VALUE ...]" if form == "make" else f"usage: {form} {name} [KEY=VALUE ...]"
    lines = [usage, "", f"{name}: {about(name, form)}.", "", "Choices (KEY=VALUE):"]
    for group in cli.groups():
        options = ", ".join(cli.choices(group, arguments))
        lines += textwrap.wrap(f"{group}: {options}", 110, initial_indent="  ", subsequent_indent="      ")
    lines += [
        "",
        "Common options: trials=20 seed=7 executor.workers=2 results_dir=FOLDER variant=NAME.",
        "To see every key and its value: --cfg job --resolve. For several studies: --multirun loss=proxy_nca,hpl_nca.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
