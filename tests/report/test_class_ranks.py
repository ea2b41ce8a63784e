"""Ranks of rows over resampled test classes, from embeddings beside the runs, with each look in the ledger."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark import tables
from benchmark.study import layout
from benchmark.study.study import Study
from tests import fake_results
from tests.command_line import assert_refused, run

Compose = Callable[..., Study]
LABELS = np.arange(12).repeat(6)
GROUP = "glyphs_small-small_conv-hpl"

pytestmark = pytest.mark.usefixtures("no_fsync")


def finished(compose_study: Compose, loss: str, spread: float | None, labels: np.ndarray = LABELS) -> Study:
    """A study of two runs whose kept embeddings are class centres with some spread; None keeps none."""
    study = compose_study("dataset=glyphs_small", f"loss={loss}", "protocol.num_runs=2")
    fake_results.finish(study, [0.4, 0.5])
    for number in range(2) if spread is not None else ():
        draws = np.random.default_rng(number)
        centres = np.random.default_rng(9).normal(size=(12, 8))
        embeddings = centres[labels] + (spread or 0) * draws.normal(size=(4, len(labels), 8))
        folder = layout.run_dir(study.directory, "trial_003", number)
        folder.mkdir()
        np.savez(folder / "embeddings.npz", embeddings=embeddings.astype(np.float16), labels=labels)
    return study


def ledger_of(study: Study) -> list[tuple[int, str]]:
    path = study.directory / "test_ledger.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line["run"], line["looks"]) for line in map(json.loads, lines)]


def test_a_row_with_tighter_classes_is_first_whatever_classes_are_drawn(compose_study: Compose) -> None:
    tight, loose = finished(compose_study, "hpl_pa", 0.1), finished(compose_study, "proxy_anchor", 2.0)
    third = finished(compose_study, "proxy_nca", None)
    results = tight.config.results_dir
    ended = run(tables.tables, f"results_dir={results}", "bootstrap=50")
    assert ended.status == 0, ended
    text = ended.out.split("**Ranks over resampled test classes.**")[1]
    assert "| HPL-PA | 100 % | 1.0 |" in text and "| Proxy-Anchor | 0 % | 2.0 |" in text
    assert "in 50 bootstrap samples" in text and "Left out, because a run kept no test embeddings: ProxyNCA." in text
    table = (Path(results) / "tables" / f"{GROUP}.csv").read_text(encoding="utf-8")
    rows = {row["loss"]: row for row in csv.DictReader(io.StringIO(table))}
    assert float(rows["hpl_pa"]["concatenated_map_at_r_first_over_classes"]) == 1.0
    assert rows["proxy_nca"]["concatenated_map_at_r_rank_over_classes"] == ""
    looks = [(0, "ranks over classes"), (1, "ranks over classes")]
    assert ledger_of(tight) == ledger_of(loose) == looks and ledger_of(third) == []


def test_without_bootstrap_nothing_is_read_and_a_single_row_has_no_ranks(compose_study: Compose) -> None:
    study = finished(compose_study, "hpl_pa", 0.1)
    results = f"results_dir={study.config.results_dir}"
    assert "resampled" not in run(tables.tables, results).out
    out = run(tables.tables, results, "bootstrap=50").out
    assert "No ranks over test classes: fewer than two rows kept embeddings." in out and ledger_of(study) == []
    assert_refused(run(tables.tables, results, "bootstrap=1"), "bootstrap=1", "1000")


def test_rows_with_other_test_images_cannot_be_ranked(compose_study: Compose) -> None:
    study = finished(compose_study, "hpl_pa", 0.1)
    finished(compose_study, "proxy_anchor", 0.1, LABELS[::-1].copy())
    ended = run(tables.tables, f"results_dir={study.config.results_dir}", "bootstrap=50")
    assert_refused(ended, "other test images", "embeddings.npz")
