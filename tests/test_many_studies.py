"""One folder holds one study: a changed configuration, two drivers, a longer search, several studies."""

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.bo import bo
from benchmark.core import records
from benchmark.final_eval import final_eval
from benchmark.jobs import train_unit as worker
from benchmark.study.stored import read_study
from tests.command_line import assert_refused, results_of, run, study_dir, tiny, trainings


def choice(results: Path, name: str = "proxy_nca") -> dict[str, Any]:
    return dict(yaml.safe_load((study_dir(results, name) / "bo" / "best.yaml").read_text()))


# -- a changed configuration ------------------------------------------------------------------------------------------


def test_a_changed_configuration_is_refused_with_the_difference(results: Path) -> None:
    for story in (bo, final_eval):
        with trainings() as trained:
            ended = tiny(story, results, "seed=5", "loss.setting.softmax_scale=8")
        again = f"make {'bo' if story is bo else 'final-eval'} STUDY={study_dir(results)}"
        assert_refused(ended, str(study_dir(results)), "another configuration", again, "variant=NAME")
        assert re.findall(r"^  (.*)$", ended.err, re.M) == [
            "loss.module.softmax_scale: 32.0 there, 8 now",
            "loss.setting.softmax_scale: 32.0 there, 8 now",
            "seed: 0 there, 5 now",
        ]
        assert not trained


@pytest.mark.slow
def test_a_variant_keeps_two_configurations_side_by_side(results: Path) -> None:
    before = results_of(study_dir(results))
    assert tiny(bo, results, "seed=5", "variant=seed5", "trials=1").status == 0
    assert choice(results, "proxy_nca-seed5")["num_trials"] == 1
    assert results_of(study_dir(results)) == before


def test_what_cannot_change_a_result_may_change(results: Path) -> None:
    with trainings() as trained:
        ended = tiny(bo, results, "display=quiet", "executor=local", "keep=best", "device=cpu")
    assert ended.status == 0 and not trained


@pytest.mark.slow
def test_data_that_changed_since_the_study_started_are_refused(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.jobs.session.prepare", lambda study, *halves: "abc123")
    ended = tiny(bo, results)
    assert_refused(ended, "another configuration", "now")
    assert re.search(r"^  data: [0-9a-f]+ there, abc123 now$", ended.err, re.M)


# -- two drivers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("story", [bo, final_eval])
def test_a_second_driver_is_refused_at_once_and_names_the_first(story: Any, results: Path) -> None:
    with records.only_one(study_dir(results) / "lock", "the first"), trainings() as trained:
        ended = tiny(story, results, "trials=4")
    assert_refused(
        ended, "Study proxy_nca on glyphs_small", f"process {os.getpid()}", str(study_dir(results) / "lock"), "Wait"
    )
    assert not trained and choice(results)["num_trials"] == 2
    assert tiny(bo, results).status == 0, "the lock is free again"


# -- a longer search --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_extended_search_trains_the_new_trials_only_and_evaluates_a_new_best_in_its_own_folder(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = choice(results)["trial"]
    assert tiny(final_eval, results, "protocol.num_runs=2").status == 0
    kept = results_of(study_dir(results))
    train_fold = worker.train_fold

    def better(*arguments: Any) -> Any:
        outcome = train_fold(*arguments)
        best, history = outcome.result["best_epoch"], outcome.result["history"]
        rows = [row | {"map_at_r": 0.9} if row["epoch"] == best else row for row in history]
        return dataclasses.replace(outcome, result=outcome.result | {"map_at_r": 0.9, "history": rows})

    with monkeypatch.context() as patch:
        patch.setattr(worker, "train_fold", better)
        with trainings() as trained:
            assert tiny(bo, results, "trials=3").status == 0
    assert sorted(trained) == ["trial_002/fold_0", "trial_002/fold_1"]
    assert (choice(results)["trial"], choice(results)["num_trials"]) == (2, 3)
    with trainings() as trained:
        assert tiny(final_eval, results, "trials=3").status == 0
    assert len(trained) == 4, "2 runs x 2 folds of the new setting"
    folders = sorted(path.name for path in (study_dir(results) / "final_eval").iterdir())
    assert folders == [f"trial_{old:03d}", "trial_002"]
    now = results_of(study_dir(results))
    assert {path: now[path] for path in kept} == kept


@pytest.mark.slow
def test_a_search_that_is_being_extended_is_unfinished(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "train_fold", stop)
        ended = tiny(bo, results, "trials=3")
    assert ended.status == 130 and "the same command resumes from here" in ended.err
    assert_refused(tiny(final_eval, results, "trials=3"), "2 of 3 trials", f"make bo STUDY={study_dir(results)}")


# -- final-eval without arguments -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_final_eval_without_arguments_evaluates_finished_searches_and_names_the_others(results: Path) -> None:
    group = study_dir(results).parent
    for name in ("unfinished", "damaged", "hostile"):
        shutil.copytree(study_dir(results), group / name)
    (group / "unfinished" / "bo" / "best.yaml").unlink()
    (group / "damaged" / "study.yaml").write_text("identity: ")
    (group / "hostile").rename(group / "zzz")
    path = group / "zzz" / "study.yaml"
    body = yaml.safe_load(path.read_text())
    body.pop("sha256")
    body["config"]["dataset"]["name"] = "../../.."
    path.write_text(yaml.safe_dump({"sha256": records.digest(body)} | body))
    with trainings() as trained:
        ended = run(final_eval, f"results_dir={results}", "executor=inline", "display=plain")
    assert len(trained) == 4, "only the finished one: 2 runs x 2 folds"
    unfinished = f"Skipped: {group / 'unfinished'}: proxy_nca on glyphs_small: Its search has 2 of 2 trials"
    assert f"{unfinished}, and no best.yaml. Run make bo STUDY={group / 'unfinished'}" in ended.out
    assert f"Skipped: {group / 'damaged'}: {group / 'damaged' / 'study.yaml'} is damaged" in ended.out
    assert "proxy_nca on glyphs_small, test classes: mean +- 95 % t-interval over n = 2 runs" in ended.out
    assert f"Skipped: {group / 'zzz'}: " in ended.out and "it was altered" in ended.out and ended.status == 0
    with trainings() as trained:
        assert tiny(final_eval, results).status == 0
    assert not trained, "the same study by its name is done"


def test_a_single_option_of_a_study_selects_that_study(results: Path) -> None:
    ended = run(final_eval, f"results_dir={results}", "variant=other")
    assert_refused(ended, "There is no search of hpl_pa on glyphs", "hpl_pa-other", "Run make bo", "variant=other")


@pytest.mark.slow
def test_a_number_of_runs_alone_is_that_of_every_finished_search(results: Path) -> None:
    shutil.copytree(study_dir(results), study_dir(results).parent / "unfinished")
    (study_dir(results).parent / "unfinished" / "bo" / "best.yaml").unlink()
    given = (f"results_dir={results}", "executor=inline", "display=plain", "protocol.num_runs=1")
    with trainings() as trained:
        ended = run(final_eval, *given)
    assert len(trained) == 2 and ended.status == 0, "1 run x 2 folds"


def test_the_study_file_survives_yaml_to_the_last_bit(results: Path) -> None:
    body = read_study(study_dir(results))
    assert body.identity == records.digest(body.science)[:16]
    assert body.config["training"]["optimizers"]["trunk"] == {
        "_target_": "torch.optim.Adam", "lr": 2e-3, "weight_decay": 1e-4,
    }  # fmt: skip
