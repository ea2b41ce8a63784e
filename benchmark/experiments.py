"""The papers' tables and figures: list them, plan one, run one.

    make experiments                                              lists them
    make plan NAME=hpl_table_3                                    what it would train, and what that costs
    make experiment NAME=hpl_table_3                              runs what is missing, writes tables, figures, page
    make experiment NAME=hpl_table_3 DATASET=glyphs BUDGET=small  tries it out, not for reporting

Each study runs as a command of its own, as a user would type it, so an experiment has no results that its studies do
not have: it can be stopped at any time, and its studies can be run, extended and looked at one by one.
"""

from benchmark.core import process
from benchmark.core.console import write, write_table
from benchmark.core.errors import GO_ON, IncompleteError, UserError
from benchmark.core.invocation import command, values_of
from benchmark.core.wording import counted
from benchmark.experiment import plan as plans
from benchmark.experiment import run, spec, state
from benchmark.experiment import selected as selection
from benchmark.experiment.selected import Selected
from benchmark.jobs.placement import check_executor, num_workers
from benchmark.study.study import Study

LISTED = ("name", "data sets", "studies", "trainings", "with the project", "missing here", "title")


def experiments(study: Study, overrides: list[str]) -> None:
    """List all experiments: how far each is, what it costs, and what this machine lacks for it.

    Args:
        study: unused, apart from its results folder.
        overrides: the overrides on the command line; `dataset` and `budget` apply to every experiment.

    Raises:
        UserError: a file of an experiment is invalid, or there is no such budget.
    """
    rows = []
    for name in spec.names():
        chosen = selection.selected(name, overrides)
        studies = [study for dataset in chosen.experiment.datasets for study in chosen.studies[dataset]]
        states = [state.progress(study) for study in studies]
        finished, total = sum(found == state.FINISHED for found, _ in states), sum(one.num_trainings for one in studies)
        missing = dict.fromkeys(text for dataset in chosen.experiment.datasets for text in chosen.missing(dataset))
        rows.append((
            name, ", ".join(chosen.experiment.datasets), f"{finished} of {len(studies)}",
            f"{sum(done for _, done in states):,} of {total:,}", ", ".join(chosen.experiment.committed) or "-",
            ", ".join(missing) or "-",
            chosen.caption(chosen.experiment.datasets[0]) if chosen.remark else chosen.experiment.title,
        ))  # fmt: skip
    write_table(LISTED, rows, cut=("data sets", "missing here", "title"))
    write(f"{counted(len(rows), 'experiment')}. Next: {command('plan', {'experiment': 'hpl_table_3'})}")


def plan(study: Study, overrides: list[str]) -> None:
    """Print what an experiment will train, and what that costs.

    Args:
        study: supplies the name of the experiment.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is no such experiment, an option is not allowed here, or a study refuses one.
    """
    chosen = named(study, overrides, "plan")
    refused = 0
    for dataset in chosen.experiment.datasets:
        plan = plans.make_plan(chosen, dataset, study.config.measure)
        show(chosen, plan)
        refused += sum(one.composed is None for one in plan.studies)
    if refused:
        given = f" Leave out what they refuse of {' '.join(chosen.extra)}." * bool(chosen.extra)
        raise UserError(f"{counted(refused, 'study', 'studies')} of {chosen.experiment.name} cannot run.{given}")
    write(f"\nNext: {command('experiment', overrides=chosen.overrides)}")


def experiment(study: Study, overrides: list[str]) -> None:
    """Print the plan of an experiment, run what is missing, then write its tables, figures and page.

    Args:
        study: supplies the name of the experiment and the executor.
        overrides: the overrides on the command line.

    Raises:
        UserError: there is no such experiment, an option is not allowed here, or a study was refused.
        IncompleteError: results are missing.
    """
    # 1. print the plan
    chosen = named(study, overrides, "experiment")
    check_executor(study.config)
    todo, refused = list[plans.Planned](), list[str]()
    for dataset in chosen.experiment.datasets:
        plan = plans.make_plan(chosen, dataset, study.config.measure)
        show(chosen, plan)
        refused += [f"{one.study.name}: {one.state}" for one in plan.studies if one.composed is None]
        if any(text.startswith("data set") for text in plan.missing):
            refused.append(f"{dataset} is not on this machine. Run {command('data', {'dataset': dataset})}")
        else:
            todo += [one for one in plan.studies if one.composed and not one.is_finished]

    # 2. run what is missing
    write("")
    with process.stopped_by_exception():
        failed = run.run_studies(todo, slots(study)) if todo else []

        # 3. draw figures, then write tables and the page, which show what was scored for the figures
        projection = values_of(overrides).get("projection", chosen.experiment.projection)
        studies = [one for dataset in chosen.experiment.datasets for one in chosen.studies[dataset]]
        drawings = [
            run.drawing_of(one, chosen.experiment.figures, projection)
            for one in studies
            if state.progress(one)[0] == state.FINISHED
        ]
        failed += run.run_all([job for job in drawings if job.steps])
        drawn = [f"bootstrap={study.config.bootstrap}"] * bool(study.config.bootstrap)
        options = (*chosen.overrides, *drawn)
        failed += run.run_all([run.Job((run.Command("", "tables", options), run.Command("", "report", options)))])
    if refused or failed:
        kind = UserError if refused or run.status_of(failed) == 2 else IncompleteError
        text = "\n".join([*refused, *map(str, failed)])
        raise kind(f"{chosen.experiment.name} is not complete:\n{text}\n{GO_ON}")


def slots(study: Study) -> list[dict[str, str]]:
    """The environment variables of each local worker; empty for an executor that spreads trainings itself."""
    if study.config.executor.name != "local":
        return []
    from benchmark.jobs.executors import local  # which imports PyTorch

    return local.slots(study.config.device, num_workers(study.config))


def named(study: Study, overrides: list[str], target: str) -> Selected:
    """The experiment that the command line names.

    Args:
        study: supplies its name.
        overrides: the overrides on the command line.
        target: the command.

    Raises:
        UserError: none is named, there is no such experiment, or an option is not allowed here.
    """
    if not study.config.experiment:
        example = command(target, {"experiment": "hpl_table_3"})
        raise UserError(f"Name an experiment, as in {example}. {command('experiments')} lists them.")
    return selection.selected(study.config.experiment, overrides)


def show(chosen: Selected, plan: plans.Plan) -> None:
    """Print a plan."""
    write(f"\n{plans.heading(chosen, plan.dataset, plan.studies)}\n")
    write_table(plans.COLUMNS, plans.table(plan))
    headings, rows = plans.recipes_table(plan)
    if rows:
        write("")
        write_table(headings, rows)
    for number, line in enumerate(plans.spaces(plan)):
        write(("\nSearch spaces:\n" if number == 0 else "") + f"  {line}")
    for line in plans.summary(plan):
        write(line)
