"""The studies that are part of the repository still load, and still give the tables next to them.

The records of `grocery` are 70 MB, which take seconds to read: what reads all of them is a slow test, and so is what
reads all records of another large folder.
"""

import csv
import functools
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev, variance
from typing import Any

import numpy as np
import pytest
import yaml
from _pytest.mark import ParameterSet
from scipy.optimize import brentq
from scipy.stats import chi2, f, nct, norm, rankdata, t

from benchmark.core import conf_files, records
from benchmark.core.conf_files import content
from benchmark.core.typed import convert
from benchmark.protocol.racing import estimate, stops_after
from benchmark.report.group_table import base_loss
from benchmark.report.rankings import Ranking, kendall_tau, read_rankings
from benchmark.searchers import best_by_mean, best_or_default
from benchmark.study import contents
from benchmark.study.identity import short_digest
from benchmark.study.layout import to_observation
from benchmark.study.opening import difference
from benchmark.study.stored import all_studies, read_study
from benchmark.study.study import Study
from benchmark.tables import tables
from tests.command_line import run
from tests.study.version_1 import as_version_1

RESULTS = Path(__file__).parents[1] / "results"
NAMES = (
    "classes", "glyphs", "grocery", "grocery_default", "grocery_finetuned", "new_methods", "one_of_each", "reference",
    "traditional",
)  # fmt: skip
FOLDERS = [RESULTS / name for name in NAMES]
FAST = ("one_of_each", "reference", "traditional")
EACH = [
    pytest.param(folder, marks=[] if folder.name in FAST else [pytest.mark.slow], id=folder.name) for folder in FOLDERS
]
SEARCHED = [param for param in EACH if param.id in ("grocery", "one_of_each", "new_methods", "reference")]


def studies() -> Iterator[ParameterSet]:
    """Every study; those between the first and the last one of a folder are slow tests."""
    for folder in FOLDERS:
        first, *others, last = all_studies(folder)
        for directory in (first, *others, last):
            marks = [pytest.mark.slow] if directory in others else []
            yield pytest.param(directory, marks=marks, id=f"{folder.name}-{directory.name}")


# Keys that came after the oldest studies, in the days when a new key changed every identity.
OLDEST = [
    "  dataset.xbm: None there, {} now",
    "  loss.head: None there, {} now",
    "  loss.retrieval_options: None there, {} now",
    "  protocol.loss_optimizer: None there, searched now",
]


def rows_of(table: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, whose comments start with #."""
    lines = table.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_there_are_committed_studies() -> None:
    assert all(all_studies(folder) for folder in FOLDERS)


@functools.cache
def rankings(folder: Path) -> list[Ranking]:
    return read_rankings(folder, "concatenated.map_at_r")


@pytest.mark.parametrize("folder", EACH)
def test_no_committed_record_names_a_folder_of_the_machine_that_made_it(folder: Path) -> None:
    absolute = re.compile(r"""(?:^|[\s"'=,\[])(/[\w.-]+/[\w./-]*)""")
    found = {
        match[1]
        for path in folder.rglob("*")
        if path.is_file()
        for match in absolute.finditer(path.read_text(encoding="utf-8"))
    }
    assert found == set()


def test_what_a_loss_says_it_measured_is_what_the_committed_tables_of_todays_network_hold() -> None:
    tables = {folder: rows_of(next((RESULTS / folder / "tables").glob("*.csv"))) for folder in ("grocery", "glyphs")}
    wrong, told = {}, set()
    for path in sorted((RESULTS.parent / "conf" / "loss").glob("*.yaml")):
        (said,) = re.findall(r"^#.*Measured: (.+)\.$", path.read_text(encoding="utf-8"), re.MULTILINE)
        found = []
        for folder, table in tables.items():
            for row in table:
                if row["loss"].removesuffix("-default") == path.stem and row["concatenated_map_at_r"]:
                    numbers = [row["concatenated_map_at_r"], row["concatenated_map_at_r_half_width"]]
                    number = " +- ".join(f"{float(text):.2f}" for text in numbers if text)
                    found.append(f"{number}{'' if found else ' % MAP@R'} in results/{folder}")
                    told.add(folder)
        if said != (expected := ", ".join(found) or "not yet"):
            wrong[path.name] = f"has {said!r}, but the tables say {expected!r}"
    assert wrong == {} and told == tables.keys()


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("folder", EACH)
def test_committed_records_give_the_committed_tables_byte_for_byte(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # since the commands below a table name the folder
    copy = Path("results") / folder.name
    shutil.copytree(folder / "studies", copy / "studies")
    assert run(tables, f"results_dir={copy}").status == 0
    committed = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    assert {path.name: path.read_bytes() for path in (copy / "tables").iterdir()} == committed


def test_the_table_of_a_named_study_has_the_layout_and_commands_of_its_results_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(RESULTS.parent)
    directory = next(iter(all_studies(Path("results/classes"))))
    shown = run(tables, f"study={directory}").out
    assert "held out = 0.0" in shown and "protocol.held_out=0.0 results_dir=results/classes'" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "losses"),
    [("grocery_finetuned", ("*",)), ("grocery", ("proxy_anchor*", "hpl_pa*"))],
    ids=["all", "repeated"],
)
def test_the_table_of_an_experiment_has_the_numbers_of_the_table_of_its_folder(
    name: str, losses: tuple[str, ...], tmp_path: Path
) -> None:
    copy = tmp_path / name
    for directory in (found for loss in losses for found in (RESULTS / name / "studies").glob(f"*/{loss}")):
        shutil.copytree(directory, copy / directory.relative_to(RESULTS / name))
    ended = [run(tables, f"results_dir={copy}", *given) for given in ([], [f"experiment={name}"])]
    assert [each.status for each in ended] == [0, 0] and "left out" not in ended[1].out
    by_folder, by_experiment = (
        [{key: text for key, text in row.items() if key not in ("reason", "notes")} for row in rows_of(path)]
        for path in sorted((copy / "tables").glob("*.csv"), key=lambda path: path.stem == name)
    )
    assert by_experiment == by_folder


def test_the_rows_in_the_docs_are_those_of_the_committed_tables() -> None:
    page = (RESULTS.parent / "docs" / "reference_run.md").read_text(encoding="utf-8")
    reference = (RESULTS / "reference" / "tables" / "glyphs-small_conv-hpl.md").read_text(encoding="utf-8")
    rows = [line for line in reference.split("**How the numbers")[0].splitlines() if line.startswith("|")]
    assert len(rows) == 2 * (2 + 9) and [line for line in rows if line not in page] == []
    small = (RESULTS / "one_of_each" / "tables" / "glyphs-small_conv-hpl.md").read_text(encoding="utf-8")
    cells = [
        [cell.strip() for cell in line.split("|")] for line in small.split("Mean +-")[0].splitlines() if "±" in line
    ]
    shown = [" | ".join((cell[1].partition(" <sup>")[0], cell[2], cell[5])) for cell in cells]
    assert len(shown) == 17 and [text for text in shown if text not in page] == []
    new = rows_of(RESULTS / "new_methods" / "tables" / "glyphs-small_conv-hpl.csv")
    plain = page.rpartition("## Losses since 2020")[2].replace("*", "")
    modes = ("concatenated_map_at_r", "separated_map_at_r")
    for row in new:
        values = " | ".join(f"{float(row[mode]):.2f} ± {float(row[f'{mode}_half_width']):.2f}" for mode in modes)
        assert re.search(rf"\| {re.escape(row['label'])} +\| {values} \|", plain), row["label"]
    assert len(new) == 25


def test_the_table_of_the_findings_is_the_committed_one() -> None:
    page = (RESULTS.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    table = (RESULTS / "grocery" / "tables" / "grocery-efficientnet_lite0-hpl.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")] for line in table.partition("**Difference")[0].splitlines()]
    rows = [one for one in cells if len(one) > 9 and re.match(r"[*\d]", one[3])]
    shown = [" | ".join((one[1].partition(" <sup>")[0], one[3], one[4], one[6])) for one in rows]
    assert len(shown) > 20 and [text for text in shown if text not in page] == []
    assert f"; {len(shown)} of 58 rows" in page or len(shown) == 58
    regrets = [row for row in rows_of(RESULTS / "bench" / "search.csv") if row["trials"] == "20"]
    for problem in {row["problem"] for row in regrets}:
        by = {row["searcher"]: row["chosen"] for row in regrets if row["problem"] == problem}
        cells = " | ".join(by.get(name, "") for name in ("ax", "ax, default first", "sobol", "random"))
        assert f"| {cells} |" in page


def hsu_quantile(count: int, freedom: int) -> float:
    """How many standard errors of a difference a mean is behind the best one where it is told from it, level 5 %.

    It is Dunnett's one-sided quantile for all pairs with one of `count` means. Source: Hsu 1996, section 4.1.

    Args:
        count: number of means.
        freedom: degrees of freedom of their standard deviation.
    """
    points = (np.arange(400) + 0.5) / 400
    z, s = norm.ppf(points)[:, None], np.sqrt(chi2.ppf(points, freedom) / freedom)
    return float(brentq(lambda q: np.mean(norm.cdf(z + q * s * 2**0.5) ** (count - 1)) - 0.95, 1, 9))


def test_the_quantile_for_the_comparison_with_the_best_is_dunnetts() -> None:
    # Dunnett, JASA 50, 1955, table 1a: one-sided, 5 %, with 9 and 2 comparisons.
    assert hsu_quantile(10, 20) == pytest.approx(2.60, abs=0.02) and hsu_quantile(3, 10) == pytest.approx(
        2.15, abs=0.02
    )


@pytest.mark.slow
def test_the_luck_of_a_search_in_the_findings_is_that_of_the_committed_records() -> None:
    page = (RESULTS.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    text = (RESULTS / "grocery" / "tables" / "grocery-efficientnet_lite0-hpl.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")] for line in text.partition("**Difference")[0].splitlines()]
    over = {one[1].partition(" <sup>")[0]: one[9] for one in cells if len(one) > 10 and "±" in one[9]}
    first = [
        one for one in map(read_study, all_studies(RESULTS / "grocery")) if not (one.facts.search or one.facts.preset)
    ]
    labels = {stored.facts.loss: stored.label for stored in first}
    means = [ranking.means() for ranking in rankings(RESULTS / "grocery")]
    repeated = {loss: [found[loss] for found in means] for loss in means[1]}
    for loss, each in repeated.items():
        numbers = " | ".join(f"{mean:.2f}" for mean in each)
        assert f"| {labels[loss]} | {numbers} | {over[labels[loss]]} |" in page
    assert len(repeated) == len(over) == 8 and all(len(each) == 3 for each in repeated.values())
    deviation = fmean(map(variance, repeated.values())) ** 0.5
    needed = t.ppf(0.975, 2 * len(repeated)) * (2 * deviation**2) ** 0.5
    trained = [mean for loss, mean in means[0].items() if not loss.startswith("none")]
    words = " ".join(page.split())
    assert f"a standard deviation of {deviation:.2f} points (over the eight losses, 16 degrees" in words
    assert f"after one search differ by {stdev(trained):.2f}, so about half of the variance" in words
    share, freedom = deviation**2 / variance(trained), (2 * len(repeated), len(trained) - 1)
    assert 0.4 < share < 0.6
    low, high = share / f.ppf(0.975, *freedom), share * f.ppf(0.975, *reversed(freedom))
    assert f"(95 % interval: {100 * low:.0f} to {100 * high:.0f} %) is the luck of a search" in words
    assert f"apart from {needed:.2f} points on, if the pair was of interest beforehand" in words
    from_best = hsu_quantile(len(trained), 2 * len(repeated)) * (2 * deviation**2) ** 0.5
    near = sum(mean > max(trained) - from_best for mean in trained)
    assert f"from the best of {len(trained)}, which is known only afterwards, takes {from_best:.2f} points" in words
    assert f"and {near} of the {len(trained)} trained rows are within that" in words
    taus = [kendall_tau(one, two) for one, two in combinations(means, 2)]
    assert "by two of the searches is {:.2f}, {:.2f} and {:.2f}.".format(*taus) in words


@dataclass
class Race:
    """What `searcher.stop_behind=2` would have done in recorded searches, whose proposals stay as they are.

    Attributes:
        trials: number of trials.
        stopped: number of trials that are stopped.
        epochs: epochs of all folds.
        saved: epochs of the folds that are not trained.
        lost: of each search, how many points of MAP@R the best completed trial lies below the best of all.
        errors: of each stopped trial, how far its estimate and, as another one, the leader's mean minus the difference
            over the first folds lie from its mean, in points.
    """

    trials: int = 0
    stopped: int = 0
    epochs: int = 0
    saved: int = 0
    lost: list[float] = field(default_factory=list)
    errors: list[tuple[float, float]] = field(default_factory=list)

    def run(self, trials: list[dict[str, Any]]) -> None:
        """Race the trials of a search."""
        leader: dict[str, Any] | None = None
        for trial in trials:
            scores, best = ([fold["map_at_r"] for fold in each["folds"]] for each in (trial, leader or trial))
            after = stops_after(scores, best, 0.02) if leader else None
            epochs = [fold["last_epoch"] for fold in trial["folds"]]
            self.trials, self.epochs = self.trials + 1, self.epochs + sum(epochs)
            if leader and after:
                self.stopped, self.saved = self.stopped + 1, self.saved + sum(epochs[after:])
                less = fmean(best[:after]) - fmean(scores[:after])
                guesses = estimate(scores[:after], best)[0], leader["map_at_r"] - less
                self.errors.append(tuple(100 * (guess - fmean(scores)) for guess in guesses))  # type: ignore[arg-type]
            elif trial["map_at_r"] is not None and (not leader or trial["map_at_r"] > leader["map_at_r"]):
                leader = trial
        assert leader is not None
        self.lost.append(100 * (max(trial["map_at_r"] or 0 for trial in trials) - leader["map_at_r"]))

    def row(self, folder: str) -> str:
        """The row of the page."""
        same = sum(lost == 0 for lost in self.lost)
        cells = f"{len(self.lost)} | {self.stopped} of {self.trials} | {100 * self.saved / self.epochs:.0f} %"
        return f"| `results/{folder}` | {cells} | {same} | {max(self.lost):.2f} | {fmean(self.lost):.2f} |"


@pytest.mark.parametrize("folder", SEARCHED)
def test_what_stopping_trials_would_have_saved_is_what_the_findings_say(folder: Path) -> None:
    page = (RESULTS.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    race = Race()
    for directory in all_studies(folder):
        paths = sorted((directory / "bo").glob("trial_*.json"))
        if paths and not read_study(directory).facts.preset:
            race.run([records.read_record(path).result for path in paths])
    assert race.row(folder.name) in page
    ours, other = ([error[number] ** 2 for error in race.errors] for number in (0, 1))
    assert fmean(ours) < fmean(other), "the estimate is the better one"


@pytest.mark.parametrize("folder", SEARCHED)
def test_the_stability_of_rankings_in_the_findings_is_that_of_the_committed_records(folder: Path) -> None:
    page = (RESULTS.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    (ranking, *_) = rankings(folder)
    final, half = ranking.validation(), max(map(len, ranking.searched.values())) // 2
    taus = (
        ranking.between_runs(), kendall_tau(ranking.validation(half), final), kendall_tau(final, ranking.means()),
    )  # fmt: skip
    cells = " | ".join(f"{tau:.2f}" for tau in taus if tau is not None)
    assert f"| `results/{folder.name}` | {len(final)} | {cells} |" in page


def shown(row: dict[str, str], column: str) -> str:
    """A mean of a table as a page shows it, with its half-width unless nothing was drawn."""
    half_width = row[f"{column}_half_width"]
    return f"{float(row[column]):.2f}" + (f" ± {float(half_width):.2f}" if half_width else "")


def gap(row: dict[str, str]) -> str:
    """How a sentence says by how much a row differs from its base."""
    mean, half_width = (float(row[f"concatenated_map_at_r_difference{end}"]) for end in ("", "_half_width"))
    return f"{abs(mean):.2f} ± {half_width:.2f} {'above' if mean > 0 else 'below'}"


def section(heading: str) -> str:
    """A section of the findings, in one line."""
    page = (RESULTS.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    return " ".join(page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0].split())


BASES = {"hpl_pa": "proxy_anchor", "hpl_nca": "proxy_nca", "hpl_cosface": "cosface", "hpl_soft_triple": "soft_triple"}


def paired(one: dict[int, float], two: dict[int, float]) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval of the differences between runs of equal number."""
    differences = [one[run] - two[run] for run in one]
    return fmean(differences), t.ppf(0.975, len(one) - 1) * stdev(differences) / len(one) ** 0.5


@pytest.mark.slow
def test_what_a_search_buys_is_what_the_findings_say() -> None:
    page = (RESULTS.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    words = section("What does a search buy?")
    (default,), (first, *_) = (rankings(RESULTS / name) for name in ("grocery_default", "grocery"))
    untuned = {loss: runs for loss, runs in default.runs.items() if loss in first.runs}  # not those in other batches
    rows = rows_of(RESULTS / "grocery_default" / "tables" / "grocery-efficientnet_lite0-hpl.csv")
    for row in (row for row in rows if row["loss"].removesuffix("-default") in untuned):
        label, cell = row["label"].removesuffix(" (default)"), shown(row, "concatenated_map_at_r")
        assert re.search(rf"^\| {re.escape(label)} \|.* \| {cell} \|$", page, re.MULTILINE)

    means, margins = [], []
    for loss, runs in untuned.items():
        mean, margin = paired(first.runs[loss], runs)
        means.append(mean)
        margins.append(margin)
    better, worse = (sum(sign * mean > margin for mean, margin in zip(means, margins, strict=True)) for sign in (1, -1))
    assert f"better on the test classes in {better} of {len(untuned)} cases and worse in {worse}" in words
    assert f"exclude zero), and {-fmean(means):.2f} points worse on average" in words
    found = {pair: paired(*(untuned[loss] for loss in pair)) for pair in BASES.items()}
    assert (
        "HPL-PA is {:.2f} ± {:.2f} above Proxy-Anchor and HPL-NCA {:.2f} ± {:.2f} above ProxyNCA, and HPL-CosFace and "
        "HPL-SoftTriple differ from their bases by {:.2f} ± {:.2f} and {:+.2f} ± {:.2f}."
    ).format(*(number for pair in found.values() for number in pair)) in words

    gains_of: dict[str, list[float]] = {"raw": [], "tested": []}
    in_validation: list[float] = []
    for directory in all_studies(RESULTS / "grocery"):
        facts, paths = read_study(directory).facts, sorted((directory / "bo").glob("trial_*.json"))
        if facts.loss not in untuned or not paths:
            continue
        history = [to_observation(records.read_record(path)) for path in paths]
        (run,) = (RESULTS / "grocery_default").rglob(f"{facts.loss}-default/final_eval/default/run_00.json")
        default_setting = records.read_record(run).result["setting"]
        assert {name: default_setting[name] for name in history[0].parameters} == history[0].parameters
        gain = rankings(RESULTS / "grocery")[facts.search].means()[facts.loss] - fmean(untuned[facts.loss].values())
        means_of_trials = [trial.mean for trial in history if trial.mean is not None]
        in_validation.append(100 * (max(means_of_trials) - means_of_trials[0]))
        for rule, choose in (("raw", best_by_mean), ("tested", best_or_default)):
            gains_of[rule].append(gain if choose(history) else 0.0)
    for rule, gains in gains_of.items():
        assert f"| `{rule}` | {gains.count(0.0)} of {len(gains)} | {fmean(gains):+.2f} |" in page
    assert len(gains_of["raw"]) == 68
    assert f"A search gains {fmean(in_validation):.1f} points of validation MAP@R" in words
    tau = kendall_tau({loss: fmean(runs.values()) for loss, runs in untuned.items()}, first.means())
    assert f"Kendall's tau between the rankings with and without a search is {tau:.2f}" in words


@pytest.mark.slow
def test_what_additions_to_a_loss_change_is_what_the_findings_say() -> None:
    pairs = {
        "xbm": "contrastive", "tcm_contrastive": "contrastive", "tcm_proxy_anchor": "proxy_anchor",
        "anti_collapse_proxy_anchor": "proxy_anchor", "anti_collapse_proxy_nca": "proxy_nca",
    }  # fmt: skip
    words, searches = section("Photographs, frozen network"), rankings(RESULTS / "grocery")
    (default,) = rankings(RESULTS / "grocery_default")
    searched, untuned = (
        [paired(ranking.runs[loss], ranking.runs[base]) for loss, base in pairs.items()]
        for ranking in (searches[0], default)
    )
    one, two, *rest = searched
    assert "adds {:.2f} ± {:.2f} to Contrastive and TCM {:.2f} ± {:.2f};".format(*one, *two) in words
    assert (
        "TCM takes {:.2f} ± {:.2f} from Proxy-Anchor, and Anti-Collapse {:.2f} ± {:.2f} from Proxy-Anchor and {:.2f} ± "
        "{:.2f} from ProxyNCA."
    ).format(*(abs(number) for pair in rest for number in pair)) in words
    assert (
        "they are {:+.2f} ± {:.2f}, {:+.2f} ± {:.2f}, {:+.2f} ± {:.2f}, {:+.2f} ± {:.2f} and {:+.2f} ± {:.2f}."
    ).format(*(number for pair in untuned for number in pair)) in words
    matched = {"tcm_proxy_anchor": "proxy_anchor m4", "anti_collapse_proxy_anchor": "proxy_anchor m2",
               "anti_collapse_proxy_nca": "proxy_nca m2"}  # fmt: skip
    same = [paired(default.runs[loss], default.runs[base]) for loss, base in matched.items()]
    assert (
        "last three are {:+.2f} ± {:.2f}, {:+.2f} ± {:.2f} and {:+.2f} ± {:.2f}".format(
            *(number for pair in same for number in pair)
        )
        in words
    )
    means = [ranking.means() for ranking in searches]
    luck = fmean(variance([found[loss] for found in means]) for loss in means[1])
    largest = max(abs(mean) for mean, _ in searched)
    assert f"has p = {len(pairs) * 2 * t.sf(largest / (2 * luck) ** 0.5, 16):.2f} by Holm's method" in words


@dataclass(frozen=True)
class Searched:
    """The trials of a search, in the order in which they were proposed.

    Attributes:
        base: the loss, or the one that it extends.
        rates: (trials, 1 or 2), logarithms of the rates of the head and, if it has any, of its proxies.
        scores: (trials,), validation MAP@R in percent.
    """

    base: str
    rates: np.ndarray
    scores: np.ndarray

    @classmethod
    def read(cls, directory: Path) -> "Searched":
        """The search in the folder of a study."""
        trials = [records.read_record(path).result for path in sorted((directory / "bo").glob("trial_*.json"))]
        rates = [[trial["setting"][name] for name in ("head_lr", "proxy_lr") if name in trial["setting"]]
                 for trial in trials]  # fmt: skip
        stored = read_study(directory)
        scores = np.array([100 * (trial["map_at_r"] or 0.0) for trial in trials])
        return cls(base_loss(stored) or stored.facts.loss, np.log10(rates), scores)

    def expected(self, others: Iterable["Searched"]) -> np.ndarray:
        """What other losses' trials at rates within about a third of a decade let expect, from 0 to 1, by trial."""
        alike = [o for o in others if o.base != self.base and o.rates.shape[1] == self.rates.shape[1]]
        seen = np.concatenate([o.rates for o in alike])
        ranks = np.concatenate([rankdata(o.scores) / len(o.scores) for o in alike])
        weights = np.exp(-0.5 * ((self.rates[:, None] - seen) ** 2).sum(axis=-1) / 0.35**2)
        return (weights @ ranks + 0.5) / (weights.sum(axis=1) + 1.0)

    def regret(self, order: Iterable[int], num: int) -> float:
        """How far the best of the first trials of an order lies below the best of all."""
        return float(self.scores.max() - self.scores[[*order][:num]].max())


@pytest.mark.slow
def test_what_other_losses_tell_about_a_search_is_what_the_findings_say() -> None:
    page = (RESULTS.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    folders = [folder for folder in all_studies(RESULTS / "grocery") if (folder / "bo" / "trial_019.json").exists()]
    searches = [Searched.read(folder) for folder in folders]
    draw = np.random.default_rng(0)
    regrets: dict[tuple[str, int], list[float]] = {}
    for one in searches:
        informed = np.argsort(-one.expected(searches), kind="stable")
        for num in (3, 5, 10):
            regrets.setdefault(("proposed", num), []).append(one.regret(range(20), num))
            drawn = [one.regret(draw.permutation(20), num) for _ in range(200)]
            regrets.setdefault(("random", num), []).append(fmean(drawn))
            regrets.setdefault(("informed", num), []).append(one.regret(informed, num))
    assert f"the {len(searches)} searches of `results/grocery`" in " ".join(page.split())
    for num in (3, 5, 10):
        cells = " | ".join(f"{fmean(regrets[order, num]):.2f}" for order in ("proposed", "random", "informed"))
        assert f"| {num} | {cells} |" in page


def test_the_speed_of_learning_in_the_findings_is_that_of_the_committed_curves() -> None:
    rest = (RESULTS.parent / "docs" / "findings.md").read_text(encoding="utf-8").partition("## Speed or quality?")[2]
    labels = {name: content("loss", name)["label"] for name in conf_files.names("loss")}
    curves: dict[str, list[float]] = {}
    for row in rows_of(RESULTS / "bench" / "glyphs_long.csv"):
        curve = curves.setdefault(labels[row["loss"]], [])
        assert int(row["epoch"]) == len(curve)
        curve.append(float(row["map_at_r"]))
    best = {label: max(curve) for label, curve in curves.items()}
    listed = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")][2:]
    assert listed == [
        f"| {label} | {' | '.join(f'{score:.1f}' for score in (*scores, best[label]))} | {curve.index(best[label])} |"
        for label, curve in sorted(curves.items(), key=lambda entry: -best[entry[0]])
        for scores in [[curve[epoch] for epoch in (4, 6, 12)]]
    ]
    taus = [kendall_tau({label: curve[n] for label, curve in curves.items()}, best) for n in (4, 6, 8, 12)]
    words = " ".join(rest.split())
    assert "is {:.2f} after 4, {:.2f} after 6, {:.2f} after 8 and {:.2f} after 12.".format(*taus) in words
    six = [
        sorted(curves, key=lambda label: -score(label)) for score in (lambda label: curves[label][6], best.__getitem__)
    ]
    assert [order.index("CosFace") for order in six] == [10, 3]
    assert [order.index("Smooth-AP") for order in six] == [8, 11]
    assert len({*six[0][:6]} & {*six[1][:6]}) == 5 and "Five of the six best are the same." in words


def test_the_gains_by_number_of_classes_in_the_findings_are_those_of_the_committed_table() -> None:
    page = (RESULTS.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    table = (RESULTS / "classes" / "tables" / "glyphs-small_conv-traditional.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    last = {one[0].partition(", last")[0]: one for one in cells if one[0].endswith(", last epoch") and len(one) == 3}
    gains = [one for one in cells if one[0].startswith("HPL-") and one[0].endswith(", last epoch") and len(one) > 8]
    for _, base, recall, _, _, map_at_r, *_ in gains:
        name, _, held_out = base.partition(", held out = ")
        classes = 1067 - round(float(held_out) * 1067)
        mean = last[base][1].replace("*", "").partition(" ")[0]
        assert f"| {name} | {classes:,} | {mean} | {recall} | {map_at_r} |" in page
    half_widths = [float(gain[5].partition("± ")[2]) for gain in gains]
    found = [(float(gain[5].partition(" ")[0]), gain[1]) for gain in gains]
    most = [gain for gain, base in found if base.endswith(("= 0.0", "= 0.25"))]
    rows = [row for row in rows_of(RESULTS / "classes" / "tables" / "glyphs-small_conv-traditional.csv")
            if row["kind"] == "last epoch" and row["loss"].startswith("hpl_") and row["compared_with"]]  # fmt: skip
    sure, smallest_p = [], []
    for metric in ("map_at_r", "recall_at_1"):
        difference = f"{metric}_difference"
        in_half_widths = [abs(float(row[difference]) / float(row[f"{difference}_half_width"])) for row in rows]
        sure.append(sum(ratio > 1 for ratio in in_half_widths))
        smallest_p.append(min(1.0, len(rows) * 2 * t.sf(max(in_half_widths) * t.ppf(0.975, 2), 2)))
    words = " ".join(page.split())
    assert f"Of the {len(gains)} gains in MAP@R, {sure[0]} has an interval without zero" in words
    assert f"and of those in R@1, {sure[1]} have one" in words and len(rows) == len(gains)
    assert "p is {:.2f} and {:.2f} by Holm's method".format(*smallest_p) in words
    assert f"the {len(most)} gains are between {min(most):.2f} and {max(most):.2f}" in words
    effect = brentq(lambda size: nct.sf(t.ppf(0.975, 2), 2, 3**0.5 * size) - 0.8, 1, 9)  # in standard deviations
    needed = [effect * 3**0.5 * half_width / t.ppf(0.975, 2) for half_width in half_widths]
    assert f"to be {min(needed):.2f} to {max(needed):.2f} points" in words
    assert len(gains) == len(re.findall(r"\| [\w-]+ \| [\d,]+ \|", section("More classes, more gain?")))


def test_the_fine_tuned_rows_of_the_findings_are_those_of_the_committed_table() -> None:
    text = section("Photographs, fine-tuned network").replace("*", "")
    for row in rows_of(RESULTS / "grocery_finetuned" / "tables" / "grocery_finetuned-efficientnet_lite0-hpl.csv"):
        columns = ("concatenated_map_at_r", "concatenated_precision_at_1", "separated_map_at_r")
        assert f"| {row['label']} | {' | '.join(shown(row, column) for column in columns)} |" in text
        assert not row["loss"].startswith("hpl") or gap(row) in text


def test_the_differences_on_glyphs_in_the_findings_are_those_of_the_committed_table() -> None:
    text, folder = section("Glyphs, from scratch"), RESULTS / "glyphs"
    rows = {row["loss"]: row for row in rows_of(folder / "tables" / "glyphs-small_conv-hpl.csv")}
    pairs = {"hpl_nca": "ProxyNCA", "hpl_pa": "Proxy-Anchor", "hpl_cosface": "CosFace", "hpl_soft_triple": "SoftTriple"}
    apart, gained = [], []
    for loss, label in pairs.items():
        base = rows[loss]["compared_with"]
        assert f"{gap(rows[loss])} {label} ({shown(rows[base], 'concatenated_map_at_r')})" in text
        at_its_setting = rows[f"{loss}-base"]
        assert not at_its_setting["concatenated_map_at_r"] or f"{gap(at_its_setting)} {label}" in text
        validation = [scores_of_search(folder / "studies" / "glyphs-small_conv-hpl" / each) for each in (loss, base)]
        mine, other = (scores[0] for scores in validation)
        assert re.search(rf"{mine:.1f} and {other:.1f} % for {label}\b", text)
        apart.append(abs(mine - other))
        gained.append("{:.1f} and {:.1f}".format(*(max(scores) - scores[0] for scores in validation)))
    assert f"within {max(apart):.1f} points in validation" in text and f"gain {', '.join(gained)} points" in text

    (scores,) = rankings(folder)
    for given, learned, over in (("hpl_nca_gt", "hpl_nca", "ProxyNCA"), ("hpl_pa_gt", "hpl_pa", "Proxy-Anchor")):
        above = "{:.2f} ± {:.2f} above".format(*paired(scores.runs[given], scores.runs[learned]))
        assert f"{above} {rows[learned]['label']} and {gap(rows[given])} {over}" in text
        first = [scores_of_search(folder / "studies" / "glyphs-small_conv-hpl" / each)[0] for each in (given, learned)]
        assert "{:.1f} and {:.1f} % over {}".format(*first, over) in text

    above = "{:.2f} ± {:.2f} above".format(*paired(scores.runs["proxy_nca_eq3"], scores.runs["proxy_nca"]))
    assert f"is {above} its usual form, a softmax, and {gap(rows['proxy_nca_eq3'])} Proxy-Anchor" in text
    assert f"HPL over it is {gap(rows['hpl_nca_eq3'])} its base" in text

    of_tcm, of_anti_collapse = (rows[loss] for loss in ("tcm_proxy_anchor", "anti_collapse_proxy_anchor"))
    difference = gap(of_anti_collapse).removesuffix(" below")
    assert f"TCM is {gap(of_tcm)} Proxy-Anchor and Proxy-Anchor + Anti-Collapse {difference}," in text
    first = [
        "{:.1f}".format(scores_of_search(folder / "studies" / "glyphs-small_conv-hpl" / each)[0])
        for each in ("proxy_anchor", "tcm_proxy_anchor", "anti_collapse_proxy_anchor")
    ]
    assert "falls from {} % in validation".format(*first) in text
    assert "TCM has {1} and Anti-Collapse {2} %".format(*first) in text


def scores_of_search(study: Path) -> list[float]:
    """Validation MAP@R of each trial of a search in %, 0 for one that failed."""
    results = [records.read_record(path).result for path in sorted(study.glob("bo/trial_*.json"))]
    return [100 * (result["map_at_r"] or 0.0) for result in results]


def test_a_changed_record_changes_the_table(tmp_path: Path) -> None:
    copy = tmp_path / "traditional"
    shutil.copytree(RESULTS / "traditional" / "studies", copy / "studies")
    path = sorted(copy.rglob("run_00.json"))[0]
    body = json.loads(path.read_text())
    for scores in (body["result"]["selected"]["last_epoch"], body["result"]["history"][-1]["watched"]):
        scores["recall_at_1"] += 1e-9
    path.write_text(json.dumps(body | {"result_sha256": records.digest(body["result"])}))
    assert run(tables, f"results_dir={copy}").status == 0
    name = "glyphs-small_conv-traditional.csv"
    assert (copy / "tables" / name).read_bytes() != (RESULTS / "traditional" / "tables" / name).read_bytes()


KINDS = {"bo/trial_*.json": contents.Trial, "final_eval/*/run_*.json": contents.Run,
         "traditional/*/run_*.json": contents.Traditional}  # fmt: skip


@pytest.mark.parametrize("folder", EACH)
def test_every_committed_record_and_choice_has_the_content_of_its_kind(folder: Path) -> None:
    checked = set()
    for pattern, kind in KINDS.items():
        for path in folder.glob(f"studies/*/*/{pattern}"):
            contents.read(path, kind)
            checked.add(path)
    assert checked == set(folder.rglob("*.json")) != set()
    evaluated = [path.relative_to(folder).parts[:3] for path in folder.glob("studies/*/*/final_eval/*")]
    assert len(evaluated) == len({*evaluated}), "runs of a setting that is no longer the chosen one"
    for path in folder.rglob("best.yaml"):
        body = yaml.safe_load(path.read_text())
        body.pop("sha256", None)  # the oldest have none
        assert body.pop("record") == f"trial_{body['trial']:03d}.json"
        convert(body, contents.Choice, path)


@pytest.mark.parametrize("directory", list(studies()))
def test_a_stored_study_is_what_it_was_when_it_ran(directory: Path) -> None:
    stored = read_study(directory)
    study = Study.of(stored.config)
    science, known = study.science(stored.fingerprint), list[str]()
    if stored.version == 1:
        known = OLDEST if directory.is_relative_to(RESULTS / "reference") else []
        science = as_version_1(science, study.config)
    assert stored.facts.loss in directory.name and (stored.code == []) == (stored.version == 1)
    assert difference(stored.science, science) == known
    assert known or short_digest(science) == stored.identity
