"""make reproduce: retrain a published cell from its published setting, and say whether the numbers agree.

    make reproduce                                     ArcFace on CUB: 40 trainings
    make reproduce DATASET=cars196 LOSS=margin         another cell of the Reality Check

The setting is the one that the Reality Check's own search found, so no search is needed, and no noise of a search is
between the two numbers: only that of training, which both intervals hold. The cell passes if all its numbers agree:
separated and concatenated MAP@R, P@1 and RP, see `protocol.agreement`. The tolerance covers neither other versions of
libraries nor other hardware, since nobody has published what these change.

The trainings are those of `final-eval`, which runs as a command of its own and resumes. `make experiment` runs the same
studies for all losses: NAME=mlrc_published.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("reproduce"))

from collections.abc import Sequence

from benchmark.core import process
from benchmark.core.console import write, write_table
from benchmark.core.errors import IncompleteError, UserError
from benchmark.core.invocation import command, key_of, values_of
from benchmark.core.wording import plus_minus
from benchmark.experiment import outline, run, selected, state
from benchmark.experiment.selected import StudyOf
from benchmark.protocol.agreement import Agreement, agreement
from benchmark.protocol.statistics import Interval, t_interval
from benchmark.report.runs import StudyRuns, read_runs
from benchmark.report.table import Key, Published
from benchmark.study.study import Study

EXPERIMENT = "mlrc_published"  # the studies that have a published setting
DEFAULTS = {"dataset": "cub", "loss": "arcface"}
FIXED = ("protocol", "preset", "trunk")  # options that the experiment sets
PUBLISHED_RUNS = 10  # behind each published interval


def reproduce(study: Study, overrides: list[str]) -> None:
    """Run what is missing of a published cell, print it beside the published numbers, and say pass or fail.

    Args:
        study: unused; the overrides select the cell.
        overrides: the overrides on the command line: `dataset` and `loss` name the cell, others go to `final-eval`.

    Raises:
        UserError: there is no such cell, its data set is not on this machine, or the command for it was refused.
        IncompleteError: runs are missing, or the numbers do not agree.
    """
    # 1. the study of the cell, and what is missing for it
    cell = find(overrides)
    options = cell.member.options | values_of(overrides)
    what = f"{cell.member.loss} on {cell.member.dataset}, published setting: {cell.num_trainings} trainings"
    write(f"{what}, records in {cell.directory}")
    done, _ = state.progress(cell)
    if done != state.FINISHED:
        if outline.missing_data(options):
            advice = command("data", {"dataset": cell.member.dataset})
            raise UserError(
                f"The data set {cell.member.dataset} is not on this machine. {advice} finds or downloads it, or says "
                f"where to get it. A GPU is advisable for these {cell.num_trainings} trainings."
            )

        # 2. train and score what is missing
        with process.stopped_by_exception():
            faults = run.run_all([run.Job((run.Command("", "final-eval", cell.overrides),))])
        if faults:
            kind = UserError if run.status_of(faults) == 2 else IncompleteError
            raise kind("\n".join(map(str, faults)))

    # 3. compare
    found = read_runs(cell.directory)
    compared = judged(found, cell.member.published)
    write(f"\nPublished in {next(iter(cell.member.published.values())).source}; percent, with 95 % t-intervals:")
    write_table(
        ("column", "published", "reproduced", "difference", "tolerance", "verdict"), _rows(found, cell, compared)
    )
    if remark := _remark(overrides):
        write(remark)
    failed = [".".join(key) for key, one in compared.items() if not one.agrees]
    write(
        f"Tolerance: Welch's t-test of two means with their standard errors, at 5 % for all {len(compared)} numbers "
        "together (Bonferroni), plus 0.005 for rounding."
    )
    if failed:
        raise IncompleteError(f"FAIL: {len(failed)} of {len(compared)} numbers do not agree: {', '.join(failed)}.")
    write(f"PASS: all {len(compared)} numbers agree with the published ones.")


def find(overrides: Sequence[str]) -> StudyOf:
    """The study of the cell that a command line names.

    Args:
        overrides: the overrides on the command line, in Hydra's grammar.

    Raises:
        UserError: an option is not allowed here, or there is no such cell.
    """
    given = values_of(overrides)
    names = {key: given.get(key, default) for key, default in DEFAULTS.items()}
    rest = [entry for entry in overrides if key_of(entry) not in (*DEFAULTS, *FIXED)]
    results_dir = given.get("results_dir", "results")
    chosen = selected.selected(EXPERIMENT, [*rest, f"dataset={names['dataset']}"], results_dir)
    known = chosen.experiment.own_datasets
    if names["dataset"] not in known:
        raise UserError(f"dataset={names['dataset']}: there are published settings for {', '.join(known)}.")
    studies = {one.member.loss: one for one in chosen.studies[names["dataset"]]}
    printed = [loss for loss, one in studies.items() if one.member.published]
    if names["loss"] not in printed:
        raise UserError(
            f"loss={names['loss']}: no number on {names['dataset']} is published with its setting; "
            f"there are numbers for {', '.join(printed)}."
        )
    found = studies[names["loss"]]
    for key in FIXED:
        if given.get(key, found.member.options[key]) != found.member.options[key]:
            raise UserError(
                f"{key}={given[key]}: this cell was published with {found.member.options[key]}. Leave it out."
            )
    return found


def judged(runs: StudyRuns, published: dict[Key, Published]) -> dict[Key, Agreement]:
    """Compare the means of a study with the published cells.

    Args:
        runs: the study.
        published: the published cells by column.

    Raises:
        IncompleteError: runs are missing, or there is only one.
    """
    found = {}
    for key, cell in published.items():
        ours = _interval(runs, key)
        if ours.n < runs.stored.num_runs or ours.n < 2:
            raise IncompleteError(f"{runs.directory} has {ours.n} scored runs; at least 2, and all of its "
                                  f"{runs.stored.num_runs}, are needed.")  # fmt: skip
        theirs = Interval(cell.value, cell.half_width, PUBLISHED_RUNS)
        found[key] = agreement(ours, theirs, len(published), runs.stored.facts.confidence)
    return found


def _interval(runs: StudyRuns, key: Key) -> Interval:
    values = runs.values(".".join(key))
    return t_interval([values[number] for number in sorted(values)], runs.stored.facts.confidence)


def _rows(runs: StudyRuns, cell: StudyOf, compared: dict[Key, Agreement]) -> list[tuple[str, ...]]:
    """One row for each published number."""
    rows: list[tuple[str, ...]] = []
    for key, one in compared.items():
        theirs, ours = cell.member.published[key], _interval(runs, key)
        rows.append((
            ".".join(key), plus_minus(theirs.value, theirs.half_width), plus_minus(ours.mean, ours.half_width),
            f"{one.difference:+.2f}", f"{one.tolerance:.2f}", "pass" if one.agrees else "FAIL",
        ))  # fmt: skip
    return rows


def _remark(overrides: Sequence[str]) -> str:
    """A sentence about options that make this another training than the published one; empty without any."""
    own = (*selected.OWN, *selected.EXECUTION, *DEFAULTS, *FIXED)
    keys = {key_of(entry): entry for entry in overrides}
    changed = [
        entry for key, entry in keys.items()
        if key not in own and not key.startswith(("executor.", "dataset.module."))
    ]  # fmt: skip
    return f"Differs from what was published: {'; '.join(changed)}." if changed else ""
