"""A search that is repeated: studies of their own side by side, with seeds of their own, resumable one by one."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml

from benchmark.bo import bo
from benchmark.final_eval import final_eval, summary_over_searches
from benchmark.protocol.seeds import stable_seed
from benchmark.report.runs import read_runs
from benchmark.searchers.sobol import Sobol
from benchmark.status import status
from benchmark.study import assemble
from benchmark.study.opening import open_study
from benchmark.study.preflight import check_values
from benchmark.study.stored import all_studies, read_study, repetitions
from benchmark.study.study import Study
from tests import fake_results
from tests.command_line import assert_refused, commanded, results_of, run, study_dir, tiny, trainings

Compose = Callable[..., Study]


def test_the_first_search_is_the_study_without_repetitions(compose_study: Compose) -> None:
    alone, first = compose_study("seed=5"), compose_study("seed=5", "searches=3").repetitions()[0]
    assert (first.directory, first.seed, first.title) == (alone.directory, 5, alone.title)
    assert first.science("f") == alone.science("f") and "search" not in first.science("f")


def test_each_repetition_has_a_folder_a_seed_and_an_identity_of_its_own(compose_study: Compose) -> None:
    found = compose_study("seed=5", "searches=3", "variant=wide").repetitions()
    assert [study.directory.name for study in found] == [f"hpl_pa-wide{end}" for end in ("", "-search1", "-search2")]
    assert [study.seed for study in found] == [
        5,
        *(stable_seed(5, "search", number) % 2**53 for number in (1, 2)),
    ]
    assert len({study.identity("f") for study in found}) == 3
    assert found[1].science("f") == found[0].science("f") | {"search": 1}
    assert found[1].repetitions() == [found[1]] and found[1] == compose_study("seed=5", "search=1", "variant=wide")


def test_losses_have_the_same_seed_in_the_same_repetition(compose_study: Compose) -> None:
    one, other = (compose_study(f"loss={name}", "search=2") for name in ("proxy_nca", "hpl_nca"))
    assert one.seed == other.seed != compose_study("loss=hpl_nca", "search=1").seed


def test_the_trainings_and_the_searcher_of_a_repetition_have_its_seed(
    compose_study: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyError(arguments[-1])

    labels = np.array([3, 3, 5, 5])
    split, images = SimpleNamespace(images=None, labels=labels), SimpleNamespace(part=lambda _: None)
    fold = SimpleNamespace(train_classes=np.array([3]), validation_classes=np.array([5]))
    monkeypatch.setattr(assemble, "_trainval", lambda *_: (split, [fold]))
    monkeypatch.setattr(assemble, "make_parts", stop)
    monkeypatch.setattr(Study, "make_images", lambda *_: images)
    study = compose_study("loss=proxy_nca", "seed=5", "search=1", "searcher=sobol")
    with pytest.raises(KeyError) as stopped:
        assemble.build(study, {}, fingerprint="f", kind="run", index=3, fold=0)
    assert stopped.value.args[0] == (study.seed, "glyphs", "run", 3, 0)
    assert study.make_searcher().ask([]) == Sobol(study.make_space(), study.seed).ask([])


def test_repetitions_of_a_folder_lie_beside_it_whatever_its_name(compose_study: Compose, tmp_path: Path) -> None:
    study = Study.of(compose_study("searches=2").raw | {"study": str(tmp_path / "renamed")})
    assert [other.directory.name for other in study.repetitions()] == ["renamed", "renamed-search1"]


def test_repetitions_on_disk_are_found_in_the_order_of_their_numbers(compose_study: Compose) -> None:
    for number in (10, 2, 0):
        fake_results.start(compose_study(f"search={number}"))
    fake_results.start(compose_study("variant=other"))
    folder = compose_study().directory
    (folder.parent / "hpl_pa-search3").mkdir()  # no study
    assert [path.name for path in repetitions(folder)] == ["hpl_pa-search2", "hpl_pa-search10"]
    assert len(all_studies(folder.parents[2])) == 4
    assert read_study(folder.parent / "hpl_pa-search2").label == "HPL-PA (search2)"


def test_the_number_of_searches_is_kept_until_another_is_given(compose_study: Compose, tmp_path: Path) -> None:
    study = compose_study("searches=3")
    open_study(study, "bo", "f")
    folder = study.directory
    by_name = f"reached: {folder} with seed 0"
    assert by_name in commanded("bo", f"results_dir={tmp_path / 'results'}").out
    named = commanded("bo", f"study={folder}")
    assert "and as many for 2 repeated searches: hpl_pa-search1, hpl_pa-search2" in named.out
    assert "repeated" not in commanded("bo", f"study={folder}", "searches=1").out


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["searches=0"], "searches=0: must be at least 1"),
        (["search=-1"], "search=-1: must be at least 0"),
        (["search=1", "searches=2"], "search=1 is one search, and searches=2 asks for several"),
        (["preset=default", "searches=2"], "searches=2: preset=default is a fixed setting"),
        (["variant=search1"], "variant=search1: such names are those of repeated searches"),
    ],
)
def test_what_cannot_be_repeated_is_refused(overrides: list[str], says: str) -> None:
    assert_refused(commanded("bo", *overrides), says)


def test_the_traditional_protocol_has_no_search_to_repeat(compose_study: Compose) -> None:
    with pytest.raises(Exception, match="search=1: protocol=traditional searches nothing"):
        check_values(compose_study("protocol=traditional", "search=1"), "traditional")


def test_a_share_of_time_counts_only_folds_of_the_session(results: Path) -> None:
    """The folds are trained, and a trial's record is missing: nothing of this session's time was training."""
    (study_dir(results) / "bo" / "trial_001.json").unlink()
    again = tiny(bo, results)
    assert "on 1 worker; 100.0 % of the time was not training" in again.out


def test_a_search_of_one_trial_is_worded_so() -> None:
    assert "search of 1 trial," in commanded("bo", "trials=1").out
    assert ": 1 run under the traditional protocol" in commanded("traditional", "protocol.num_runs=1").out


def test_repetitions_end_with_one_summary_over_searches_and_one_suggestion(
    compose_study: Compose,
) -> None:
    study = compose_study("dataset=glyphs_small", "loss=proxy_nca", "searches=3", "protocol.num_runs=2", "trials=4")
    scores = ([0.30, 0.34], [0.36, 0.38], [0.27, 0.27])
    for one, runs in zip(study.repetitions(), scores, strict=True):
        fake_results.finish(one, runs)
    *_, title, concatenated, separated, suggested = summary_over_searches(
        study, [read_runs(one.directory) for one in study.repetitions()]
    )
    expected = scipy.stats.t.interval(0.95, 2, 32, np.std([32, 37, 27], ddof=1) / np.sqrt(3))
    assert "3 searches: mean over searches and their runs" in title
    assert concatenated.split("   ")[0].split() == [
        "concatenated", "MAP@R", "32.00", "+-", f"{expected[1] - 32:.2f}"
    ]  # fmt: skip
    assert "MAP@R 27.00" in separated and suggested.startswith("Next: make tables")


def test_searches_with_different_runs_have_no_mean(compose_study: Compose) -> None:
    study = compose_study("dataset=glyphs_small", "searches=2", "protocol.num_runs=2", "trials=4")
    for one, runs in zip(study.repetitions(), (["diverged", 0.3], [0.2, 0.3]), strict=True):
        fake_results.finish(one, runs)
    lines = list(summary_over_searches(study, [read_runs(one.directory) for one in study.repetitions()]))
    assert lines[0].endswith("different runs with a score, so there is no mean over searches") and len(lines) == 2


@pytest.mark.slow
def test_searches_are_run_resumed_and_evaluated_one_after_the_other(tmp_path: Path) -> None:
    options = ("searches=2", "trials=1", "protocol.num_runs=1")
    searched = tiny(bo, tmp_path, *options)
    assert searched.status == 0 and "best validation MAP@R of its 2 searches: " in searched.out
    assert searched.out.count("Next:") == 1 and searched.out.splitlines()[-1].startswith("Next: make final-eval STUDY=")
    first, second = study_dir(tmp_path), study_dir(tmp_path, "proxy_nca-search1")
    assert tiny(bo, tmp_path / "alone", "trials=1").status == 0
    assert results_of(study_dir(tmp_path / "alone")) == results_of(first)
    settings = [yaml.safe_load((folder / "bo" / "best.yaml").read_text())["setting"] for folder in (first, second)]
    assert settings[0] != settings[1]

    before = results_of(second)
    (second / "bo" / "trial_000.json").unlink()
    (second / "bo" / "trial_000" / "fold_1" / "record.json").unlink()
    with trainings() as trained:
        assert tiny(bo, tmp_path, *options).status == 0
    assert trained == ["trial_000/fold_1"] and results_of(second) == before

    with trainings() as trained:
        ended = tiny(final_eval, tmp_path, "trials=1", "protocol.num_runs=1")  # the stored number of searches
    assert ended.status == 0 and ended.out.count("Next:") == ended.out.count("2 searches: mean over searches") == 1
    assert len(trained) == 4 and (second / "final_eval" / "trial_000" / "run_00.json").exists()
    shown = run(status, f"results_dir={tmp_path}", *("dataset=glyphs_small", "loss=proxy_nca")).out
    assert "proxy_nca-search1\tfinal runs\t1 of 1 runs" in shown
