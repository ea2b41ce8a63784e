"""Two studies side by side: what differs, and the difference of their scores over the runs that both have."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from scipy import stats

from benchmark import compare
from benchmark.study.study import Study
from tests import fake_results
from tests.command_line import Ended, assert_refused, run

Compose = Callable[..., Study]
RUNS, OTHER_RUNS = [0.40, 0.42, 0.44, 0.46], [0.41, 0.45, 0.44, 0.49]

pytestmark = pytest.mark.usefixtures("no_fsync")


def finished(compose: Compose, runs: list[float | None], *overrides: str) -> Path:
    study = compose("dataset=glyphs_small", f"protocol.num_runs={len(runs)}", *overrides)
    fake_results.finish(study, runs)
    return study.directory


def compared(a: Path, b: Path) -> Ended:
    return run(compare.compare, f"a={a}", f"b={b}")


def cells(ended: Ended, first: str) -> list[list[str]]:
    """The rows of all tables that begin with a cell."""
    assert ended.status == 0, ended
    return [line.split("\t") for line in ended.out.splitlines() if line.split("\t")[0] == first]


def test_the_difference_is_that_of_a_paired_t_test(compose_study: Compose) -> None:
    one, two = finished(compose_study, RUNS, "loss=hpl_pa"), finished(compose_study, OTHER_RUNS, "loss=proxy_anchor")
    (row, *by_run) = cells(compared(one, two), "concatenated.map_at_r")
    expected = stats.ttest_rel(OTHER_RUNS, RUNS)
    half = 100 * (expected.confidence_interval(0.95).high - expected.confidence_interval(0.95).low) / 2
    assert row[1:] == ["43.00 +- 4.11", "44.75 +- 5.26", f"+1.75 +- {half:.2f}", f"{expected.pvalue:.2g}", "4"]
    assert by_run[1] == ["concatenated.map_at_r", "1", "42.0000", "45.0000", "+3.0000"]


def test_unequal_numbers_of_runs_are_compared_over_the_shared_ones(compose_study: Compose) -> None:
    one = finished(compose_study, RUNS, "loss=hpl_pa")
    two = finished(compose_study, [0.41, None, 0.45], "loss=proxy_anchor")
    ended = compared(one, two)
    (row, *_) = cells(ended, "concatenated.map_at_r")
    assert row[3].startswith("+1.00") and row[5] == "2"  # runs 0 and 2 differ by 1 point each
    assert "Only A has the runs 1, 3" in ended.out


def test_other_seeds_are_not_paired(compose_study: Compose) -> None:
    one = finished(compose_study, RUNS, "loss=hpl_pa")
    two = finished(compose_study, OTHER_RUNS, "loss=hpl_pa", "seed=7", "variant=seed7")
    ended = compared(one, two)
    (row, *_) = cells(ended, "concatenated.map_at_r")
    assert row[4] == f"{stats.ttest_ind(OTHER_RUNS, RUNS, equal_var=False).pvalue:.2g}"
    assert "not paired" in ended.out and cells(ended, "configuration") == [["configuration", "seed", "0", "7"]]


def test_a_copy_is_reported_as_equal_bit_for_bit(compose_study: Compose, tmp_path: Path) -> None:
    one = finished(compose_study, RUNS, "loss=hpl_pa")
    two = Path(shutil.copytree(one, tmp_path / "before"))
    ended = compared(one, two)
    assert "The results of all 4 shared runs are equal, bit for bit." in ended.out
    assert "Equal: configuration, data, setting, code, commits, versions and devices." in ended.out
    assert "What differs" not in ended.out


def test_one_run_that_changed_is_counted(compose_study: Compose, tmp_path: Path) -> None:
    one = finished(compose_study, RUNS, "loss=hpl_pa")
    before = Path(shutil.copytree(one, tmp_path / "before"))
    fake_results.finish(compose_study("dataset=glyphs_small", "protocol.num_runs=4", "loss=hpl_pa"), {2: 0.5})
    assert "Of 4 shared runs, 3 are equal, bit for bit (runs 0, 1, 3)." in compared(before, one).out


def test_traditional_studies_are_compared_by_the_way_in_which_the_epoch_was_chosen(compose_study: Compose) -> None:
    folders = []
    for loss, value in (("hpl_pa", 0.3), ("proxy_anchor", 0.4)):
        study = compose_study("dataset=glyphs_small", "protocol=traditional", f"loss={loss}", "protocol.num_runs=2")
        fake_results.finish_traditional(study, [{"best_on_test": value + 0.1, "last_epoch": value}] * 2)
        folders.append(study.directory)
    ended = compared(*folders)
    (row, *_) = cells(ended, "last_epoch.map_at_r")
    assert row[1:4] == ["30.00 +- 0.00", "40.00 +- 0.00", "+10.00 +- 0.00"]
    assert ["configuration", "loss", '"hpl_pa"', '"proxy_anchor"'] in cells(ended, "configuration")


def repeated(compose: Compose, loss: str, scores: list[list[float | None]]) -> Path:
    study = compose("dataset=glyphs_small", f"loss={loss}", "protocol.num_runs=2", f"searches={len(scores)}")
    for one, runs in zip(study.repetitions(), scores, strict=True):
        fake_results.finish(one, runs)
    return study.directory


@pytest.mark.slow
def test_repeated_searches_are_compared_by_their_means(compose_study: Compose) -> None:
    one = repeated(compose_study, "hpl_pa", [[0.30, 0.32], [0.36, 0.40], [0.33, 0.35]])
    two = repeated(compose_study, "proxy_anchor", [[0.31, 0.35], [0.37, 0.37], [0.38, 0.38]])
    ended = compared(one, two)
    row = cells(ended, "concatenated.map_at_r")[-1]  # means of 31, 38, 34 and 33, 37, 38
    expected = stats.ttest_rel([33, 37, 38], [31, 38, 34])
    half = (expected.confidence_interval(0.95).high - expected.confidence_interval(0.95).low) / 2
    assert row[1].startswith("34.33 +- ") and row[3:] == [f"+1.67 +- {half:.2f}", f"{expected.pvalue:.2g}", "3"]
    assert "Means over the searches 0-2 and their runs" in ended.out
    alone = finished(compose_study, RUNS, "loss=ms")
    assert "A has the searches 0-2, and B 0: they are not compared." in compared(one, alone).out


def test_searches_of_which_a_run_has_no_score_have_no_means(compose_study: Compose) -> None:
    one = repeated(compose_study, "hpl_pa", [[0.30, 0.32], [None, 0.40]])
    two = repeated(compose_study, "proxy_anchor", [[0.31, 0.35], [0.37, 0.37]])
    assert cells(compared(one, two), "concatenated.map_at_r")[-1][3] == "the searches have different runs"


def test_runs_of_different_searches_are_not_paired(compose_study: Compose) -> None:
    one = repeated(compose_study, "hpl_pa", [[0.30, 0.32], [0.36, 0.40]])
    ended = compared(one, one.with_name("hpl_pa-search1"))
    assert "differences are not paired" in ended.out


@pytest.mark.slow
def test_two_sets_of_studies_are_compared_by_the_order_of_their_losses(
    compose_study_in: Compose, tmp_path: Path
) -> None:
    scores = {"ms": (0.5, 0.3), "snr": (0.4, 0.4), "fastap": (0.3, 0.2), "triplet": (0.2, None)}
    for loss, by_budget in scores.items():
        for budget, score in zip(("short", "long"), by_budget, strict=True):
            if score is not None:
                variant = ["variant=wide"] * (budget == "long")  # of all of them, so that it is no part of their names
                finished(partial(compose_study_in, tmp_path / budget), [score, score + 0.01], f"loss={loss}", *variant)
    fake_results.start(compose_study_in(tmp_path / "long", "dataset=glyphs_small", "loss=xbm"), [0])
    ended = compared(tmp_path / "short", tmp_path / "long")
    # Of the three pairs of the shared losses, ms and snr change places: (2 - 1) / 3.
    assert cells(ended, "1 and 2") == [["1 and 2", "3", "0.33"]]
    assert cells(ended, "ms") == [["ms", "50.50 (1)", "30.50 (2)"]]
    assert cells(ended, "triplet") == [["triplet", "20.50", "-"]]
    assert "4 losses; mean tau between its single runs 1.00" in ended.out and "xbm is left out" in ended.out


@pytest.mark.slow
def test_repeated_searches_of_one_folder_are_ranked_against_each_other(compose_study: Compose) -> None:
    for loss, scores in {"ms": [[0.4, 0.5], [0.2, 0.3]], "snr": [[0.3, 0.4], [0.3, 0.4]]}.items():
        folder = repeated(compose_study, loss, [list(one) for one in scores]).parent
    assert cells(compared(folder, folder), "1 and 2") == [["1 and 2", "2", "-1.00"]]


@pytest.mark.slow
def test_folders_without_two_rankings_are_refused(compose_study: Compose) -> None:
    folder = finished(compose_study, RUNS, "loss=ms").parent
    assert_refused(compared(folder, folder), "the only ranking")
    assert_refused(compared(folder, folder / "ms"), f"{folder} holds several studies")
    assert_refused(compared(folder, folder / "nowhere"), "nowhere")
    fake_results.finish(compose_study("dataset=glyphs", "loss=ms", "protocol.num_runs=2"), [0.3, 0.4])
    assert_refused(compared(folder.parents[1], folder), "both of ms")


def test_what_cannot_be_compared_is_refused(compose_study: Compose, tmp_path: Path) -> None:
    one = finished(compose_study, RUNS, "loss=hpl_pa")
    traditional = compose_study("dataset=glyphs_small", "protocol=traditional", "loss=hpl_pa", "protocol.num_runs=1")
    fake_results.finish_traditional(traditional, [{"last_epoch": 0.3, "best_on_test": 0.4}])
    assert_refused(run(compare.compare, f"a={one}"), "B=FOLDER")
    assert_refused(compared(one, traditional.directory), "traditional", "no number")
    assert_refused(compared(one, tmp_path / "nowhere"), "nowhere")
    unsearched = compose_study("dataset=glyphs_small", "loss=ms")
    fake_results.start(unsearched, [0])
    assert_refused(compared(one, unsearched.directory), "no finished search", "bo")


@pytest.mark.slow
def test_a_ranking_says_which_losses_tables_do_not_show(compose_study: Compose, tmp_path: Path) -> None:
    for loss, scores in (("ms", [0.4, 0.5]), ("hpl_pa", [0.6]), ("triplet", [0.3, 0.4])):
        fake_results.finish(compose_study("dataset=glyphs_small", f"loss={loss}", "protocol.num_runs=2"), scores)
    more = compose_study("dataset=glyphs_small", "loss=triplet", "protocol.num_runs=2", "trials=8")
    fake_results.start(more, range(6))
    again = shutil.copytree(more.directory.parent, tmp_path / "again")
    out = compared(more.directory.parent, again).out
    assert "hpl_pa is ranked, but tables do not show it: it has 1 of 2 runs" in out
    assert "triplet is ranked, but tables do not show it: Its search has 6 of 8 trials" in out
    assert "ms is ranked" not in out
