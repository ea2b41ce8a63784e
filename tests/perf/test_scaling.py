"""Slopes of costs over the size of the problem."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.perf import scaling
from benchmark.perf.scaling import Curve
from benchmark.study.study import Study


def test_the_slope_is_1_where_cost_grows_as_work_and_2_where_it_grows_as_its_square() -> None:
    work = [1.0, 2.0, 4.0, 8.0]
    linear = Curve("a job", "images", work, np.outer(work, [0.5, 0.7]))
    assert linear.slopes() == pytest.approx([1.0, 1.0]) and linear.row().verdict() == "reached"
    square = Curve("a job", "images", work, np.outer(np.square(work), [0.001]))
    assert square.slopes() == pytest.approx([2.0]) and square.row().verdict() == "MISSED"
    assert "1 ms at 2,000, 64 ms at 16,000" in square.row().compared


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.slow
def test_every_curve_is_measured_and_drawn(
    compose_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = {"images": (40, 80), "classes": (10, 20), "dimensions": (8, 16), "folds": (1, 2)}
    monkeypatch.setattr(scaling, "SIZES", sizes)
    monkeypatch.setattr(scaling, "ITERATIONS", 1)
    monkeypatch.setattr(scaling, "REPEATS", 1)
    study = compose_study(
        "loss=proxy_anchor", "dataset=glyphs_small", "trunk.width=8", "protocol.batch_size=8", "device=cpu"
    )
    found = list(scaling.curves(study))
    assert [curve.size for curve in found] == ["images", "dimensions", "classes", "folds"]
    assert all(curve.seconds.shape == (2, 1) and (curve.seconds > 0).all() for curve in found)
    assert [path.stat().st_size > 5000 for path in scaling.draw(found, tmp_path / "growth")] == [True, True]
