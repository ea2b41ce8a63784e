"""The small convolutional trunk, compared with convolutions in plain loops and numbers counted by hand."""

import math

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.trunks.small_conv import SmallConv

EPSILON = 1e-5  # PyTorch's default for batch normalisation


def loop_stage(images: np.ndarray, stage: torch.nn.Sequential, stride: int) -> np.ndarray:
    """Apply convolution with zero padding of 1, batch normalisation by stored statistics, and ReLU to one image."""
    weight, norm = stage[0].weight.detach().numpy(), {k: v.numpy() for k, v in stage[1].state_dict().items()}
    outputs, inputs, kernel, _ = weight.shape
    size = (images.shape[1] + 2 - kernel) // stride + 1
    padded = np.zeros((inputs, images.shape[1] + 2, images.shape[2] + 2))
    padded[:, 1:-1, 1:-1] = images
    result = np.zeros((outputs, size, size))
    for o in range(outputs):
        for y in range(size):
            for x in range(size):
                window = padded[:, y * stride : y * stride + kernel, x * stride : x * stride + kernel]
                value = (window * weight[o]).sum() - norm["running_mean"][o]
                value = value / math.sqrt(norm["running_var"][o] + EPSILON) * norm["weight"][o] + norm["bias"][o]
                result[o, y, x] = max(value, 0.0)
    return result


def a_trunk_with_statistics(pool: str) -> SmallConv:
    """Return a trunk of three stages for 2-channel images, with non-trivial batch-norm parameters."""
    torch.manual_seed(0)
    trunk = SmallConv(channels=(3, 5, 4), strides=(2, 1, 2), in_channels=2, pool=pool).eval()
    for stage in trunk.stages:
        for value in (stage[1].running_mean, stage[1].weight.data, stage[1].bias.data):
            value.copy_(torch.randn(len(value)) / 4)
        stage[1].running_var.copy_(torch.rand(len(stage[1].running_var)) + 0.5)
    return trunk


@pytest.mark.parametrize("pool", ["avg", "max", "avg+max"])
def test_features_equal_those_of_convolutions_in_plain_loops(pool: str) -> None:
    trunk = a_trunk_with_statistics(pool)
    images = torch.randn(3, 2, 8, 8)
    features = trunk(images).detach()
    assert features.shape == (3, 4) and bool((features != 0).any())
    for image, row in zip(images.numpy(), features.numpy(), strict=True):
        maps = image
        for stage, stride in zip(trunk.stages, (2, 1, 2), strict=True):
            maps = loop_stage(maps, stage, stride)
        for channel, value in zip(maps, row, strict=True):
            places = [float(number) for number in channel.reshape(-1)]
            average, highest = sum(places) / len(places), max(places)
            assert value == pytest.approx(
                {"avg": average, "max": highest, "avg+max": average + highest}[pool], abs=1e-5
            )


@pytest.mark.parametrize(("width", "in_channels", "num_images"), [(8, 1, 1), (64, 1, 5), (128, 3, 2)])
def test_a_feature_has_as_many_numbers_as_the_last_stage_has_channels(
    width: int, in_channels: int, num_images: int
) -> None:
    trunk = SmallConv(width, in_channels=in_channels).eval()
    assert trunk.out_features == width
    assert trunk(torch.zeros(num_images, in_channels, 32, 32)).shape == (num_images, width)


def test_the_default_stages_have_the_channels_and_map_sizes_worked_out_by_hand() -> None:
    maps, seen = torch.zeros(1, 1, 32, 32), []
    for stage in SmallConv(128).eval().stages:
        maps = stage(maps)
        seen.append(tuple(maps.shape[1:]))
    # A 4 x 4 window: (32 + 2 - 4) / 2 + 1 = 16. A 3 x 3 window keeps the size, and with stride 2 halves it.
    assert seen == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 4, 4), (128, 2, 2)]


def test_the_default_trunk_has_the_parameters_counted_by_hand() -> None:
    # Convolutions without bias: 16*1*16 + 32*16*9 + 64*32*9 + 64*64*9 + 128*64*9 = 256 + 4608 + 18432 + 36864 + 73728
    # = 133,888; batch normalisation: 2 * (16 + 32 + 64 + 64 + 128) = 608.
    assert sum(p.numel() for p in SmallConv(128).parameters()) == 133_888 + 608


def test_weights_come_from_the_global_generator() -> None:
    trunks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        trunks.append(SmallConv(8).stages[0][0].weight)
    assert torch.equal(trunks[0], trunks[1]) and not torch.equal(trunks[0], trunks[2])


def test_the_trunk_owns_the_constants_that_normalise_its_images() -> None:
    trunk = SmallConv(8, in_channels=3, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    assert (trunk.mean, trunk.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_every_parameter_gets_a_gradient() -> None:
    trunk = SmallConv(8)
    trunk(torch.randn(4, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in trunk.parameters())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"width": 0}, "width=0"),
        ({"width": -8}, "width=-8"),
        ({"width": 100}, "width=100"),
        ({"channels": ()}, r"channels=\[\]"),
        ({"channels": (4, 4), "strides": (1,)}, r"strides=\[1\]"),
        ({"channels": (4, 0), "strides": (1, 1)}, r"channels=\[4, 0\]"),
        ({"channels": (4,), "strides": (0,)}, r"strides=\[0\]"),
        ({"pool": "sum"}, "pool='sum'"),
    ],
)
def test_an_invalid_setting_is_named(settings: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        SmallConv(**settings)
