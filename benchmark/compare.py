"""make compare: two studies side by side, or one study before and after a change of the code.

    make compare A=results/studies/GROUP/hpl_pa B=results/studies/GROUP/proxy_anchor

Printed are the values of the configuration that differ, the data, the modules of the code, package versions and
devices; the chosen settings; for each metric both means, and the difference B - A over the runs that both have; and
each run's values. Runs with equal numbers are paired if the two studies draw equal seeds for them, which needs equal
values of `seed` and the same data set, and the same search if searches were repeated. Where both studies have the same
repeated searches, their means are compared as well. Equal records are reported as equal, bit for bit.

    make compare A=results/studies/GROUP B=FOLDER/studies/GROUP

For two folders of studies, Kendall's tau between their rankings of the losses that both have is printed, and each
loss's rank; with repeated searches, tau between all of them; tau between single runs, for the noise of the seeds; and
how the best validation score ranks the losses, after all trials and after part of them. With A=B, the searches of one
folder are compared.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("compare"))

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmark.core.console import write, write_table
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.provenance import UNKNOWN, kinds_of
from benchmark.core.wording import counted, plus_minus, ranges
from benchmark.protocol.comparisons import difference, unpaired_difference
from benchmark.protocol.nested import difference_over_searches, over_searches
from benchmark.protocol.statistics import t_interval
from benchmark.report import rankings
from benchmark.report.comparison import leaves, text_of
from benchmark.report.rankings import Ranking
from benchmark.report.runs import StudyRuns, code_of, read_repetitions, read_runs
from benchmark.study.selected import check_read
from benchmark.study.study import Study

RANKED_BY = "concatenated.map_at_r"
MAIN = ("map_at_r", "recall_at_1")  # metrics of which each run's values are printed


def compare(study: Study, overrides: list[str]) -> None:
    """Print what two studies have in common and what differs, or how far two sets of studies rank the losses alike.

    Args:
        study: supplies `a` and `b`, the folders of two studies or of two sets of studies; the rest is not used.
        overrides: the overrides on the command line.

    Raises:
        UserError: a folder is missing or cannot be read, the studies have nothing to compare, or an option is not read.
    """
    check_read("compare", overrides, ("a", "b"))
    config = study.config
    if not config.a or not config.b:
        usage = command("compare", {"a": "FOLDER", "b": "FOLDER"})
        raise UserError(f"Name the folders of two studies, or of two sets of studies: {usage}")
    folders = Path(config.a), Path(config.b)
    sets = [bool(rankings.studies_in(folder)) for folder in folders]
    if all(sets):
        _write_rankings(*(rankings.read_rankings(folder, RANKED_BY) for folder in folders))
        return
    if any(sets):
        read_runs(folders[sets.index(False)])  # refuses a folder that is missing or holds nothing
        raise UserError(f"{folders[sets.index(True)]} holds several studies: give two such folders, or two studies.")
    one, two = map(read_runs, folders)
    columns = [column for column in one.columns if column in two.columns]
    if not columns:
        raise UserError(
            f"{one.directory} follows the protocol {one.stored.facts.protocol} and {two.directory} the protocol "
            f"{two.stored.facts.protocol}: no number of one can be compared with a number of the other."
        )
    for name, runs in (("A", one), ("B", two)):
        write(f"{name}: {runs.directory}, {runs.stored.label}, {len(runs.records)} of {runs.stored.num_runs} runs")
        for text in filter(None, (*(problem.text for problem in runs.problems), runs.not_shown)):
            write(f"   {text}")
    _write_differences(one, two)
    _write_scores(one, two, columns)
    _write_searches(one, two, columns)


def _write_rankings(first: list[Ranking], second: list[Ranking]) -> None:
    """Print Kendall's tau between rankings, then the losses with their mean and rank in each."""
    every = list({ranking.name: ranking for ranking in (*first, *second)}.values())
    names = {ranking.name: str(number) for number, ranking in enumerate(every, 1)}
    for ranking in every:
        within = ranking.between_runs()
        noise = "" if within is None else f"; mean tau between its single runs {within:.2f}"
        write(f"{names[ranking.name]}: {ranking.name}, {len(ranking.runs)} losses{noise}")
        for sentence in (*_budgets(ranking), *ranking.remarks):
            write(f"   {sentence}")
    rows = []
    for one, two in itertools.combinations(every, 2):
        a, b = one.means(), two.means()
        tau = rankings.kendall_tau(a, b)
        both = f"{names[one.name]} and {names[two.name]}"
        rows.append((both, str(len(a.keys() & b.keys())), "-" if tau is None else f"{tau:.2f}"))
    if not rows:
        raise UserError(f"{every[0].name} is the only ranking: give another folder, or one with repeated searches.")
    write(f"\nKendall's tau between the rankings by {RANKED_BY}, over the losses that both have:")
    write_table(("rankings", "losses", "tau"), rows)
    means = [ranking.means() for ranking in every]
    losses = sorted(set().union(*means), key=lambda loss: -max(found.get(loss, 0.0) for found in means))
    write("\nMean in percent (rank among the losses of all rankings):")
    everywhere = [loss for loss in losses if all(loss in found for found in means)]
    write_table(("loss", *names.values()), [
        (loss, *(_ranked(loss, found, everywhere) for found in means)) for loss in losses
    ])  # fmt: skip


def _budgets(ranking: Ranking) -> Iterator[str]:
    """Yield how the best validation score ranks the losses: against the test classes, and after part of the trials."""
    final = ranking.validation()
    with_test = rankings.kendall_tau(final, ranking.means())
    if with_test is None:
        return
    yield f"best validation MAP@R of {len(final)} searched losses: tau {with_test:.2f} with the test classes"
    total = max(map(len, ranking.searched.values()))
    for number in sorted({max(1, total // share) for share in (20, 4, 2)} - {total}):
        tau = rankings.kendall_tau(ranking.validation(number), final)
        if tau is not None:
            yield f"after {number} of {counted(total, 'trial')}: tau {tau:.2f} with all trials"


def _ranked(loss: str, means: Mapping[str, float], among: list[str]) -> str:
    if loss not in means:
        return "-"
    rank = f" ({1 + sum(means[other] > means[loss] for other in among)})" if loss in among else ""
    return f"{means[loss]:.2f}{rank}"


def _write_differences(one: StudyRuns, two: StudyRuns) -> None:
    """Print how configuration, data, code, packages and devices differ, and the chosen settings."""
    first, second = one.stored, two.stored
    rows = [("configuration", *row) for row in differing(_configuration(one, two), _configuration(two, one))]
    rows += [
        ("data", *row) for row in differing({"fingerprint": first.fingerprint}, {"fingerprint": second.fingerprint})
    ]
    rows += [("code", *row) for row in differing(_modules(one), _modules(two))]
    rows += [("records", *row) for row in differing(_origin(one), _origin(two))]
    same = {
        "configuration": first.science == second.science, "data": first.fingerprint == second.fingerprint,
        "setting": _setting(one) == _setting(two), "code": bool(_modules(one)) and _modules(one) == _modules(two),
        "commits, versions and devices": _origin(one) == _origin(two),
    }  # fmt: skip
    write(f"Equal: {', '.join(name for name, equal in same.items() if equal) or 'nothing'}.")
    if rows:
        write("\nWhat differs:")
        write_table(("in", "what", "A", "B"), rows)
    if not same["data"]:
        write("The data differ, so the differences below are not those between two methods.")
    for name, runs in (("A", one), ("B", two)):
        if not _modules(runs):
            write(f"{name}'s records do not say which code computed them.")
    write("\nChosen settings:")
    names = list(dict.fromkeys([*_setting(one), *_setting(two)]))
    write_table(("", "A", "B"), [(n, *(text_of(_setting(runs).get(n)) for runs in (one, two))) for n in names])


def _configuration(runs: StudyRuns, other: StudyRuns) -> dict[str, object]:
    """The scientific configuration of a study by key; of two different losses, only their names are compared."""
    values = leaves({key: value for key, value in runs.stored.science.items() if key != "data"})
    if runs.stored.facts.loss == other.stored.facts.loss:
        return values
    own = ("loss.", "searcher.module.defaults")
    return {"loss": runs.stored.facts.loss} | {k: v for k, v in values.items() if not k.startswith(own)}


def differing(first: Mapping[str, object], second: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """The keys at which two mappings differ, with both values as text.

    >>> differing({"a": 1, "b": 2}, {"a": 1.0, "b": 3, "c": 4})
    [('b', '2', '3'), ('c', 'not set', '4')]

    Args:
        first: values by key.
        second: values by key.
    """
    texts = [(k, text_of(first.get(k)), text_of(second.get(k))) for k in dict.fromkeys([*first, *second])]
    return [row for row in texts if row[1] != row[2]]


def _setting(runs: StudyRuns) -> dict[str, object]:
    values: dict[str, object] = dict(sorted(runs.chosen.setting.items()))
    return values | ({} if runs.choice is None else {"record": f"trial_{runs.choice.trial:03d}"})


def _modules(runs: StudyRuns) -> dict[str, str]:
    """Digests of the newest versions of the modules that computed a study."""
    latest = [*runs.stored.search_code[-1:], *runs.stored.code[-1:]]
    return {name: digest[:12] for code in latest for name, digest in code.modules.items()}


def _origin(runs: StudyRuns) -> dict[str, object]:
    """Commits, package versions and kinds of device of a study's runs, each as one text."""
    origins = [record.provenance for record in runs.records.values()]
    found: dict[str, set[str]] = {
        "commit": {str(origin.get("commit", UNKNOWN)) for origin in origins},
        "device": kinds_of(runs.records.values()),
        "versions of the code": {digest[:12] for record in runs.records.values() for digest in code_of(record)},
    }
    for origin in origins:
        for package, version in origin.get("versions", {}).items():
            found.setdefault(package, set()).add(version)
    return {name: ", ".join(sorted(values)) or None for name, values in found.items()}


def _write_scores(one: StudyRuns, two: StudyRuns, columns: list[str]) -> None:
    """Print means, differences and the values of each run."""
    shared = sorted(one.records.keys() & two.records.keys())
    paired = seeds_are_shared(one, two)
    confidence = one.stored.facts.confidence
    rows = []
    for column in columns:
        first, second = one.values(column), two.values(column)
        if not first or not second:
            rows.append((column, _mean(first, confidence), _mean(second, confidence), "", "", ""))
            continue
        runs = [run for run in sorted(first) if run in second]
        if paired and runs:
            found = difference({run: second[run] for run in runs}, {run: first[run] for run in runs}, confidence)
        else:
            found = unpaired_difference(list(second.values()), list(first.values()), confidence)
        p = "" if found.p is None else f"{found.p:.2g}"
        rows.append((column, _mean(first, confidence), _mean(second, confidence),
                     plus_minus(found.mean, found.half_width, sign="+"), p, str(found.n)))  # fmt: skip
    how = "paired" if paired else "not paired, since the studies draw other seeds (Welch)"
    write(f"\nPercent, with {100 * confidence:g} % t-intervals; differences are {how}:")
    write_table(("column", "A", "B", "B - A", "p", "runs"), rows)
    for line in _equal_records(one, two, shared):
        write(line)
    write("\nBy run, in percent:")
    write_table(("column", "run", "A", "B", "B - A"), [row for c in columns for row in _by_run(one, two, c)])


def seeds_are_shared(one: StudyRuns, two: StudyRuns) -> bool:
    """Whether runs with equal numbers have equal seeds.

    They depend on `seed`, the number of the search if it was repeated, the data set, the run and the fold.

    Args:
        one: a study.
        two: another one.
    """
    first, second = one.stored, two.stored
    keys = [
        (s.science.get("seed"), s.facts.search, s.facts.dataset, s.facts.story, s.fingerprint) for s in (first, second)
    ]
    return keys[0] == keys[1]


def _write_searches(one: StudyRuns, two: StudyRuns, columns: list[str]) -> None:
    """Print the difference of the means over repeated searches, if both studies have the same ones."""
    first, second = _searches(one), _searches(two)
    if len(first) == len(second) == 1:
        return
    numbers = [ranges(found) for found in (first, second)]
    if first.keys() != second.keys() or not seeds_are_shared(one, two):
        write(f"\nA has the searches {numbers[0]}, and B {numbers[1]}: they are not compared.")
        return
    confidence, rows = one.stored.facts.confidence, []
    for column in columns:
        scores = [
            {(number, run): value for number, runs in found.items() for run, value in runs.values(column).items()}
            for found in (first, second)
        ]
        runs = {frozenset(run for search, run in of if search == number) for of in scores for number in first}
        if len(runs) > 1 or not any(runs):
            rows.append((column, "", "", "the searches have different runs", "", ""))
            continue
        means = [over_searches(of, confidence) for of in scores]
        found = difference_over_searches(scores[1], scores[0], confidence)
        a, b = (plus_minus(mean.mean, mean.half_width) for mean in means)
        p = "" if found.p is None else f"{found.p:.2g}"
        rows.append((column, a, b, plus_minus(found.mean, found.half_width, sign="+"), p, str(found.n)))
    write(f"\nMeans over the searches {numbers[0]} and their runs; the intervals cover the luck of the search:")
    write_table(("column", "A", "B", "B - A", "p", "searches"), rows)


def _searches(runs: StudyRuns) -> dict[int, StudyRuns]:
    """A study and the repetitions of its search that have runs, by their number."""
    found, left_out = read_repetitions(runs)
    for line in left_out:
        write(line)
    return {runs.stored.facts.search: runs} | found


def _mean(values: Mapping[int, float], confidence: float) -> str:
    if not values:
        return "-"
    interval = t_interval(list(values.values()), confidence)
    return plus_minus(interval.mean, interval.half_width)


def _equal_records(one: StudyRuns, two: StudyRuns, shared: list[int]) -> Iterator[str]:
    """Yield sentences about the runs whose results are equal bit for bit, and about runs that only one study has."""
    equal = [run for run in shared if one.records[run].result == two.records[run].result]
    if shared and len(equal) == len(shared):
        yield f"The results of all {len(shared)} shared runs are equal, bit for bit."
    elif shared:
        named = f" (runs {ranges(equal)})" if equal else ""
        yield f"Of {len(shared)} shared runs, {len(equal)} are equal, bit for bit{named}."
    for name, mine, other in (("A", one, two), ("B", two, one)):
        if alone := sorted(mine.records.keys() - other.records.keys()):
            yield f"Only {name} has the runs {ranges(alone)}; differences leave them out."


def _by_run(one: StudyRuns, two: StudyRuns, column: str) -> Iterator[tuple[str, ...]]:
    if column.rpartition(".")[2] not in MAIN:
        return
    first, second = one.values(column), two.values(column)
    for run in sorted(first.keys() | second.keys()):
        mine, other = first.get(run), second.get(run)
        change = "" if mine is None or other is None else f"{other - mine:+.4f}"
        yield column, str(run), *("-" if v is None else f"{v:.4f}" for v in (mine, other)), change
