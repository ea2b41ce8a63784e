"""Rows on memory that is kept for the next batch."""

import importlib.util

import pytest
import torch

from benchmark.perf import kept_memory
from benchmark.perf.timing import Spent


def test_each_side_is_measured_in_turn_and_the_ratio_is_what_keeping_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, bool]] = []

    def measured(job: str, *, kept: bool) -> Spent:
        order.append((job, kept))
        return Spent(2.0, 3.0) if kept else Spent(5.0, 6.0)

    monkeypatch.setattr(kept_memory, "in_child", measured)
    monkeypatch.setattr(kept_memory, "reason", lambda: "")
    rows = list(kept_memory.kept_memory())
    assert [row.values for row in rows] == [[2.5] * 3] * 2 and rows[0].wall == [2.0] * 3
    assert order[:6] == [("embedding", kept) for kept in (True, False, False, True, True, False)]


@pytest.mark.parametrize(("is_glibc", "spec"), [(False, object()), (True, None)], ids=["macOS", "without timm"])
def test_where_nothing_can_be_measured_the_rows_say_why(
    monkeypatch: pytest.MonkeyPatch, is_glibc: bool, spec: object
) -> None:
    monkeypatch.setattr(kept_memory, "is_glibc", lambda: is_glibc)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    rows = list(kept_memory.kept_memory())
    assert [row.verdict() for row in rows] == ["not measured"] * 2 and all(row.compared for row in rows)


def test_a_step_trains_and_embedding_does_not() -> None:
    trunk, images = torch.nn.Linear(3, 2), torch.ones(4, 3)
    before = trunk.weight.clone()
    assert not kept_memory.embedding(trunk, images)().requires_grad  # type: ignore[attr-defined]
    assert torch.equal(trunk.weight, before)
    kept_memory.training(trunk, images)()
    assert not torch.equal(trunk.weight, before)


@pytest.mark.slow
@pytest.mark.skipif(bool(kept_memory.reason()), reason=kept_memory.reason() or "it can be measured")
def test_a_child_measures_itself() -> None:
    spent = kept_memory.in_child("embedding", kept=True)
    assert spent.cpu > 0.01 and spent.wall > 0.01
