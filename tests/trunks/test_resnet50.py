"""ResNet-50 with a file in torchvision's format, compared with torchvision's own forward pass."""

from pathlib import Path

import pytest
import torch
from torchvision.models import resnet50

from benchmark.core.errors import UserError
from benchmark.images.batches import to_batch
from benchmark.trunks.resnet50 import ResNet50


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """Return torchvision's whole network with non-trivial batch-norm parameters, and its file."""
    torch.manual_seed(0)
    network = resnet50(weights=None).eval()
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape) + 0.5 * name.endswith("running_var"))
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(network.state_dict(), path)
    return network, path


@pytest.mark.slow
def test_averaged_features_through_the_files_classifier_are_torchvisions_logits(
    published: tuple[torch.nn.Module, Path],
) -> None:
    network, path = published
    trunk = ResNet50(weights=str(path)).eval()
    images = torch.randint(0, 256, (2, 3, 80, 64), dtype=torch.uint8)
    # torchvision's preset: pixels of 0..1, then ImageNet's mean and standard deviation of R, G and B.
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        logits = network((images / 255 - mean) / std)
        features = trunk(to_batch(images, trunk.mean, trunk.std))
        assert features.shape == (2, trunk.out_features) == (2, 2048)
        torch.testing.assert_close(network.fc(features), logits, rtol=1e-4, atol=1e-4 * float(logits.abs().max()))


def test_the_state_holds_the_trunk_and_not_the_classifier_or_constants() -> None:
    names = list(ResNet50(in_channels=1).state_dict())
    # 53 convolutions of one tensor, 53 batch norms of five.
    assert len(names) == 53 * 6 and not [name for name in names if ".fc." in name]


@pytest.mark.slow
def test_a_file_without_a_layer_is_refused(published: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    state = {name: value for name, value in published[0].state_dict().items() if name != "layer4.2.conv3.weight"}
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(UserError, match=r"cut\.pth does not fit ResNet\. Tensors 1 missing: layer4\.2\.conv3\.weight"):
        ResNet50(weights=str(tmp_path / "cut.pth"))
