"""BN-Inception, compared with the published network.

`bn_inception.npz` holds the features that the network of `pretrainedmodels` 0.7.4 gives in float64 for `an_image` with
the weights `a_state`: its `features(bgr)` pooled by its own `global_pool` (`avg`), and their maximum (`max`), where
`bgr` is the image with channels reversed, minus 104, 117 and 128. MT19937's uniform numbers do not depend on the
platform.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.images.batches import to_batch
from benchmark.trunks.bn_inception import BNInception

PUBLISHED_FEATURES = Path(__file__).with_name("bn_inception.npz")


def a_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return weights for named shapes: variances and gains around 1, others around 0, scaled to preserve the signal."""
    rng, state = np.random.RandomState(52), {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith(("running_var", "_bn.weight")):
            values = 0.5 + rng.uniform(size=shape)
        elif len(shape) > 1:
            values = rng.uniform(-1, 1, size=shape) * np.sqrt(6 / np.prod(shape[1:]))
        else:
            values = rng.uniform(-0.1, 0.1, size=shape)
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def an_image() -> torch.Tensor:
    """Return one RGB image of 227 x 227 pixels (1, 3, 227, 227), uint8."""
    return torch.from_numpy(np.random.RandomState(7).randint(0, 256, (1, 3, 227, 227)).astype(np.uint8))


def published_state() -> dict[str, torch.Tensor]:
    shapes = {name: tuple(v.shape) for name, v in BNInception().state_dict().items() if "num_batches" not in name}
    return a_state(shapes | {"last_linear.weight": (1000, 1024), "last_linear.bias": (1000,)})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file in the format of 2018: names at the top, no counters, a leading axis of 1 for batch norm."""
    path = tmp_path_factory.mktemp("weights") / "bn_inception.pth"
    state = {k: v[None] if "_bn." in k else v for k, v in published_state().items()}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_features_of_an_rgb_image_are_those_of_the_published_network(file: Path, pool: str) -> None:
    trunk = BNInception(weights=str(file), pool=pool).eval()
    with torch.no_grad():
        features = trunk(to_batch(an_image(), trunk.mean, trunk.std))[0]
    expected = torch.from_numpy(np.load(PUBLISHED_FEATURES)[pool])
    assert features.shape == (1024,) and trunk.out_features == 1024
    assert float((features - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_the_normalised_image_is_bgr_of_0_to_255_less_the_published_means() -> None:
    trunk = BNInception()
    red_green_blue = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1)
    entering = trunk.prepared(to_batch(red_green_blue, trunk.mean, trunk.std)).flatten()
    # blue 50 - 104, green 100 - 117, red 200 - 128
    assert entering.tolist() == pytest.approx([-54, -17, 72], abs=1e-4) and trunk.channel_order == "bgr"


def test_it_has_the_layers_counted_in_the_published_file() -> None:
    trunk = BNInception()
    kinds = [type(module).__name__ for module in trunk.modules()]
    # 3 before the blocks, 6 in each block of stride 2 minus the projection (5 each), 7 in the eight others.
    assert kinds.count("Conv2d") == kinds.count("BatchNorm2d") == 3 + 2 * 5 + 8 * 7


@pytest.mark.parametrize(("height", "width"), [(32, 32), (240, 60), (29, 45)])
def test_images_of_any_size_are_accepted(height: int, width: int) -> None:
    with torch.no_grad():
        assert BNInception().eval()(torch.zeros(1, 3, height, width)).shape == (1, 1024)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    with pytest.raises(
        UserError, match=r"other\.pth does not fit BNInception\. Tensors 414 missing: conv1_7x7_s2\.weight"
    ):
        BNInception(weights=str(tmp_path / "other.pth"))
