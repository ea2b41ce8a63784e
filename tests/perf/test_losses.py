"""Rows on the memory of losses."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmark.core.memory import peak_allocated
from benchmark.losses import HasMemory, hpl
from benchmark.perf import losses
from benchmark.study.study import Study
from tests.losses.every_loss import NAMES


@pytest.mark.slow
def test_the_peak_is_what_is_allocated_at_once_in_addition_to_what_was_before() -> None:
    before = torch.zeros(1000, 1000)

    def work() -> None:
        one = before + 1  # 4 MB
        del one
        two = before + 2
        three = two + 3  # 8 MB at once
        assert three[0, 0] == 5

    assert peak_allocated(work) == pytest.approx(8e6, rel=0.01)
    assert peak_allocated(lambda: None) == 0


@pytest.fixture
def few_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "NUM_CLASSES", 200)
    monkeypatch.setattr(losses, "NUM_IMAGES", 2000)
    monkeypatch.setattr(losses, "STEPS", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("few_classes")
def test_parameters_and_gradients_do_not_count(compose_study: Callable[..., Study]) -> None:
    study = compose_study("loss=normalized_softmax", "protocol.batch_size=32")
    row = losses.cost("normalized_softmax", study)
    # 200 x 128 parameters are 0.1 MB. In addition: their normalised copy, whose gradient is made before that of the
    # parameters, and some (32, 200) matrices of 0.026 MB each.
    assert row.compared.endswith("parameters 0.1 MB")
    assert all(0.1 < value < 0.5 for value in row.values)
    assert row.target == ("<=", 400)


@pytest.mark.usefixtures("few_classes")
def test_a_memory_is_full_when_a_step_is_measured(compose_study: Callable[..., Study]) -> None:
    loss = compose_study("loss=xbm", "loss.schedule.start_iteration=0").make_loss(200, 0, np.arange(200), 2000)
    assert isinstance(loss, HasMemory) and loss.diagnostics()["memory_rows"] == 0  # type: ignore[attr-defined]
    losses.fill_memory(loss, 200)
    assert loss.diagnostics()["memory_rows"] == len(loss.memory) > 1000  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_step_of_every_loss_on_11_318_classes_takes_less_than_400_megabytes(
    compose_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "STEPS", 1)
    few = {"restarts": 1}  # of the grouping before the step whose memory is measured, which would take most of the time
    grouped = hpl.first_clusters
    monkeypatch.setattr(hpl, "first_clusters", lambda points, number, **given: grouped(points, number, **given | few))
    rows = {row.what.split()[-1]: row for row in losses.loss_steps(compose_study())}
    assert list(rows) == NAMES
    assert {name: row.values for name, row in rows.items() if row.verdict() != "reached"} == {}
    assert rows["soft_triple"].values[0] > 58  # one copy of its (11318, 10, 128) centres, or nothing was measured
    assert rows["xbm"].values[0] > 28  # cosines with a full memory (128, 54787)
