"""A search whose space has fewer settings than the search has trials: it ends when all are tried."""

from pathlib import Path

import pytest
import yaml

from benchmark.__main__ import VERBS
from benchmark.bo import bo
from benchmark.final_eval import final_eval
from benchmark.status import status
from benchmark.study.layout import trial_path
from benchmark.study.study import Study
from tests.command_line import run, study_dir, tiny

FASTAP = ("loss=fastap", "loss.space.num_bins.bounds=[9,11]", "protocol.num_runs=1")


def opened_bo(study: Study, overrides: list[str]) -> None:
    VERBS["bo"](study, overrides)  # with its first line


@pytest.mark.slow
def test_it_ends_with_a_choice_says_so_at_its_start_and_final_runs_accept_it(tmp_path: Path) -> None:
    ended = tiny(opened_bo, tmp_path, *FASTAP, "trials=50")
    folder = study_dir(tmp_path, "fastap")
    assert ended.status == 0
    assert "search of 3 trials (not 50: its space has 3 settings, and each is tried once)" in ended.out
    assert yaml.safe_load((folder / "bo" / "best.yaml").read_text())["num_trials"] == 3
    assert trial_path(folder, 2).exists() and not trial_path(folder, 3).exists()
    again = tiny(bo, tmp_path, *FASTAP, "trials=60")
    assert again.status == 0 and "3 trials" in again.out, "nothing is left to try"
    assert run(final_eval, f"study={folder}").status == 0
    assert "3 of 3" in run(status, f"results_dir={tmp_path}").out


@pytest.mark.slow
def test_a_shorter_search_of_a_finite_space_can_be_extended_to_its_end(tmp_path: Path) -> None:
    assert tiny(bo, tmp_path, *FASTAP, "trials=2").status == 0
    folder = study_dir(tmp_path, "fastap")
    early = (trial_path(folder, 1)).read_bytes()
    assert tiny(bo, tmp_path, *FASTAP, "trials=50").status == 0
    assert trial_path(folder, 1).read_bytes() == early and trial_path(folder, 2).exists()
