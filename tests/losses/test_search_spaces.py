"""Every loss stays finite in float32 throughout its search space; new files in conf/loss are tested automatically."""

import pytest
import torch

from tests.losses.every_loss import build, config, every_loss, train

LARGEST = 48  # upper limit of integers, which are sizes and cost time


def sobol_settings(space, num):
    """Yield scrambled Sobol points of the space, then its two extreme corners."""
    points = torch.quasirandom.SobolEngine(len(space), scramble=True, seed=0).draw(num)
    points = torch.cat([points, torch.zeros(1, len(space)), torch.ones(1, len(space))]).double()
    for point in points.tolist():
        setting = {}
        for (key, parameter), u in zip(space.items(), point, strict=True):
            low, high = parameter["bounds"]
            value = low * (high / low) ** u if parameter["scale"] == "log" else low + (high - low) * u
            setting[key] = min(round(value), LARGEST) if parameter["type"] == "int" else value
        yield setting


@every_loss
@pytest.mark.parametrize("num", [pytest.param(40, marks=pytest.mark.slow)])
def test_stays_finite_in_float32_throughout_its_space(name, num):
    for setting in sobol_settings(config(name)["space"], num):
        module, node = build(name, **setting)
        try:
            train(module, node, 4)
        except AssertionError as error:
            raise AssertionError(f"not finite at {setting}") from error
