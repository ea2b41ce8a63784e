"""Rows on the cost of a search: what is timed is what a search does."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark.perf import search
from benchmark.searchers.sobol import Sobol
from benchmark.study.prepare import prepare
from benchmark.study.study import Study
from tests.command_line import TINY, results_of

Compose = Callable[..., Study]


def test_the_last_proposal_of_a_long_search_is_timed_with_all_other_trials_in_the_history(
    compose_study: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories: list[Any] = []
    monkeypatch.setattr(Study, "make_searcher", lambda self: SimpleNamespace(ask=histories.append))
    study = compose_study()
    row = search.proposal(study)
    assert row.target == ("<=", 1) and len(row.values) == search.REPEATS == len(histories) - 1
    assert [trial.index for trial in histories[0]] == list(range(49)) and len(
        {trial.mean for trial in histories[0]}
    ) == 49
    assert Sobol(study.make_space(), 0).ask(histories[0]), "all belong to the space"


@pytest.mark.slow
def test_both_executors_train_equal_folds_from_scratch_each_time(compose_study: Compose, tmp_path: Path) -> None:
    study = compose_study(*TINY, "protocol.num_folds=4")
    fingerprint = prepare(study, "trainval")
    for executor in ("inline", "local"):
        with search.folds(study, executor, tmp_path, fingerprint) as train:
            train()
            train()
    found = [results_of(tmp_path / executor / f"trial_{i}") for executor in ("inline", "local") for i in range(2)]
    assert len(found[0]) == search.NUM_FOLDS and all(results == found[0] for results in found)
