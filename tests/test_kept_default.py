"""`protocol.select=tested`: a search that keeps the default setting says so, and its final runs are of the default."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from benchmark.bo import bo
from benchmark.core import records
from benchmark.final_eval import final_eval
from benchmark.study.trial_score import trial_result
from benchmark.tables import tables
from tests.command_line import assert_refused, run, study_dir, tiny
from tests.study import examples

OPTIONS = ("searcher=ax", "protocol.defaults_first=true", "protocol.num_runs=1", "trials=3")


def choice(results: Path) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((study_dir(results) / "bo" / "best.yaml").read_text())
    return found


def rescore(results: Path, index: int, *scores: float) -> None:
    """Write a trial with these scores on its folds."""
    path = study_dir(results) / "bo" / f"trial_{index:03d}.json"
    record = records.read_record(path)
    setting = record.result["setting"]
    folds = [examples.fold_result(fold, score, setting) for fold, score in enumerate(scores)]
    records.write_record(path, dataclasses.replace(record, result=trial_result(index, setting, folds)))


@pytest.mark.slow
def test_the_default_is_kept_unless_the_best_trial_is_better_on_every_fold(tmp_path: Path) -> None:
    options = (*OPTIONS, "protocol.select=tested")
    assert tiny(bo, tmp_path, *options).status == 0
    rescore(tmp_path, 0, 0.25, 0.3)
    rescore(tmp_path, 2, 0.35, 0.6)  # t is 2 with one degree of freedom, and 6.31 is needed
    ended = tiny(bo, tmp_path, *options)
    assert ended.status == 0 and "the default is kept: trial 3 has" in ended.out, ended.err
    assert (choice(tmp_path)["trial"], choice(tmp_path)["rule"]) == (0, "tested")
    assert tiny(final_eval, tmp_path, *options).status == 0
    (record,) = study_dir(tmp_path).glob("final_eval/*/run_00.json")
    assert record.parent.name == "trial_000"
    shown = run(tables, f"results_dir={tmp_path}").out
    assert "another rule than the highest mean of a trial (protocol.select)" in shown and "tested" in shown

    rescore(tmp_path, 2, 0.45, 0.54)
    assert_refused(tiny(final_eval, tmp_path, *options), "which is not the one that the rule tested chooses")
    ended = tiny(bo, tmp_path, *options)
    assert ended.status == 0 and choice(tmp_path)["trial"] == 2 and "is kept" not in ended.out


def test_a_search_without_the_default_cannot_keep_it(tmp_path: Path) -> None:
    ended = tiny(bo, tmp_path, "searcher=ax", "protocol.select=tested", "protocol.defaults_first=false")
    assert_refused(ended, "which this search does not try. Give protocol.defaults_first=true")


@pytest.mark.parametrize("rule", ["model", "tested"])
def test_a_searcher_that_chooses_by_the_mean_takes_no_other_rule(rule: str, tmp_path: Path) -> None:
    assert_refused(tiny(bo, tmp_path, f"protocol.select={rule}"), f"protocol.select={rule}: searcher=sobol chooses")
