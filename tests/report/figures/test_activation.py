"""Activation maps against Grad-CAM written out in loops, and the command that draws them."""

import json
import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark import figures as command
from benchmark.core.errors import UserError
from benchmark.figures import figures
from benchmark.report.figures.activation import activation_maps, sheet
from benchmark.study.study import Study
from benchmark.traditional import traditional
from tests.command_line import assert_refused, run, study_dir, tiny

KERNELS = [[[0.5, -0.2], [0.1, 0.7]], [[-0.6, 0.3], [0.8, -0.1]], [[0.2, 0.2], [-0.4, 0.9]]]
WEIGHT = [[0.4, -1.0, 0.3], [1.2, 0.5, -0.7]]
BIAS = [0.1, -0.3]
IMAGE = [[0.1, 0.9, -0.4, 0.3], [0.7, 0.2, 0.5, -0.8], [-0.3, 0.6, 1.1, 0.4], [0.2, -0.5, 0.8, 0.6]]


class TinyTrunk(nn.Module):
    """One convolution of 2 x 2 with stride 2 without bias, and ReLU."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.pool, self.kernels = pool, torch.tensor(KERNELS)[:, None]

    def last_map(self, images: Tensor) -> Tensor:
        return torch.relu(nn.functional.conv2d(images, self.kernels, stride=2))


def head() -> nn.Linear:
    layer = nn.Linear(3, 2)
    layer.load_state_dict({"weight": torch.tensor(WEIGHT), "bias": torch.tensor(BIAS)})
    return layer


def grad_cam_by_loops(image: list[list[float]], target: list[float], pool: str) -> list[list[float]]:
    """The map before it is enlarged, with all derivatives worked out by the chain rule."""
    maps = [[[max(0.0, sum(kernel[a][b] * image[2 * i + a][2 * j + b] for a in (0, 1) for b in (0, 1)))
              for j in (0, 1)] for i in (0, 1)] for kernel in KERNELS]  # fmt: skip
    pooled, slopes = [], []  # slopes: of the pooled value in each place
    for channel in maps:
        values = [value for row in channel for value in row]
        top = max(values)
        mean, most = sum(values) / 4, top if "max" in pool else 0.0
        pooled.append((mean if "avg" in pool else 0.0) + most)
        slopes.append([[("avg" in pool) / 4 + ("max" in pool) * (value == top) / values.count(top) for value in row]
                       for row in channel])  # fmt: skip
    z = [sum(w * x for w, x in zip(row, pooled, strict=True)) + b for row, b in zip(WEIGHT, BIAS, strict=True)]
    length, size = math.hypot(*z), math.hypot(*target)
    cosine = sum(a * b for a, b in zip(z, target, strict=True)) / length / size
    by_z = [t / size / length - cosine * a / length**2 for a, t in zip(z, target, strict=True)]
    by_feature = [sum(by_z[d] * WEIGHT[d][k] for d in (0, 1)) for k in range(3)]
    alpha = [by_feature[k] * sum(map(sum, slopes[k])) / 4 for k in range(3)]
    raw = [[max(0.0, sum(alpha[k] * maps[k][i][j] for k in range(3))) for j in (0, 1)] for i in (0, 1)]
    most = max(map(max, raw))
    return [[value / most if most else 0.0 for value in row] for row in raw]


@pytest.mark.parametrize("pool", ["avg", "max", "avg+max"])
@pytest.mark.parametrize("target", [[2.0, 0.5], [-1.0, 3.0], [0.3, -0.2]])
def test_a_map_agrees_with_grad_cam_in_loops(pool: str, target: list[float]) -> None:
    other = [[-value for value in row[::-1]] for row in IMAGE]
    images = torch.tensor([IMAGE, other])[:, None]
    found = activation_maps(TinyTrunk(pool), head(), images, torch.tensor([target, [1.0, 1.0]]))
    expected = [grad_cam_by_loops(IMAGE, target, pool), grad_cam_by_loops(other, [1.0, 1.0], pool)]
    assert found.shape == (2, 4, 4) and found.min() >= 0 and found.max() <= 1
    # Linear interpolation from 2 to 4 pixels keeps the corners, and the others are 3/4 and 1/4 of two neighbours.
    corners = found[:, [0, 0, 3, 3], [0, 3, 0, 3]].reshape(2, 2, 2)
    torch.testing.assert_close(corners, torch.tensor(expected), rtol=1e-3, atol=1e-4)
    between = 0.75 * torch.tensor(expected)[:, 0, 0] + 0.25 * torch.tensor(expected)[:, 0, 1]
    torch.testing.assert_close(found[:, 0, 1], between, rtol=1e-3, atol=1e-4)


def test_maps_are_not_all_zero_and_no_weight_gets_a_gradient() -> None:
    layer = head()
    with torch.no_grad():
        found = activation_maps(TinyTrunk("avg"), layer, torch.tensor(IMAGE)[None, None], torch.tensor([[2.0, 0.5]]))
    assert found.max() == 1 and layer.weight.grad is None and not found.requires_grad


def test_a_trunk_without_a_last_map_is_refused() -> None:
    with pytest.raises(UserError, match=r"needs a convolutional trunk.*Linear has none.*figure=retrieval"):
        activation_maps(nn.Linear(2, 2), head(), torch.zeros(1, 1, 4, 4), torch.zeros(1, 2))


def test_such_a_trunk_is_refused_before_the_test_classes_are_opened(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_kept_run", lambda *_: None)
    monkeypatch.setattr(Study, "make_trunk", lambda *_, **__: nn.Linear(2, 2))
    folder = study_dir(results)
    ended = run(figures, f"study={folder}", "figure=[activation]", "executor=inline")
    assert_refused(ended, "needs a convolutional trunk", "resnet50")
    assert not (folder / "test_ledger.jsonl").exists()


def test_the_sheet_has_a_row_for_each_image_and_a_column_for_each_model(tmp_path: Path) -> None:
    images = [np.full((8, 8), 200, np.uint8), np.full((8, 8, 3), 90, np.uint8)]
    figure = sheet(images, np.linspace(0, 1, 2 * 2 * 64).reshape(2, 2, 8, 8), ["wren", "owl"])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["wren", "model 0", "model 1", "owl", "", ""]
    assert [len(axes.images) for axes in figure.axes] == [1, 2, 2, 1, 2, 2]


@pytest.mark.slow
def test_the_command_draws_the_maps_of_a_run_from_its_own_study_and_logs_the_look(tmp_path: Path) -> None:
    options = ("training.batch_size=256", "training.epochs=1", "protocol.num_runs=1", "keep=best")
    assert tiny(traditional, tmp_path, *options, protocol="traditional").status == 0
    folder = tmp_path / "studies" / "glyphs_small-small_conv-traditional" / "proxy_nca"
    ended = run(figures, f"study={folder}", "figure=[activation]", "executor=inline")
    assert ended.status == 0, ended
    assert matplotlib.image.imread(folder / "figures" / "run_00_activation.png").std() > 0.05
    last = json.loads((folder / "test_ledger.jsonl").read_text().splitlines()[-1])
    assert last["looks"] == "activation maps of a few images" and last["run"] == 0
    assert_refused(run(figures, f"study={folder}", "figure=[activation]", "run=3"), "run 3", "Runs that have: 0")
