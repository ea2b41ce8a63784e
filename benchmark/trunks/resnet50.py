"""ResNet-50, the trunk of HPL, Proxy-Anchor and HIST under the traditional protocol.

Source: He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016, arXiv:1512.03385, table 1, as
torchvision builds it (the stride is in the 3 x 3 convolution). `v1` are torchvision's first ImageNet weights, which
papers on metric learning use; `v2` are those of its longer training recipe of 2021. RGB, ImageNet mean and std.
"""

from torch import Tensor, channels_last

from benchmark.trunks import weights as files
from benchmark.trunks.pooling import check_pool, global_pool
from benchmark.trunks.published import IMAGENET_MEAN, IMAGENET_STD, PublishedTrunk

PUBLISHED = files.published("resnet50")


class ResNet50(PublishedTrunk):
    """Maps normalised RGB or grey images (B, in_channels, H, W) to features (B, 2048).

    Args:
        in_channels: 3 for RGB, 1 for grey.
        weights: `v1`, `v2`, the path of a file with torchvision's names, or None for random weights.
        pool: global pooling of the last map: avg, avg+max (HPL) or max.

    Raises:
        UserError: a setting is invalid, or the weights cannot be found, downloaded or written, or do not fit.
    """

    def __init__(self, *, in_channels: int = 3, weights: str | None = None, pool: str = "avg") -> None:
        from torchvision.models import resnet50

        super().__init__(out_features=2048, mean=IMAGENET_MEAN, std=IMAGENET_STD, in_channels=in_channels)
        check_pool("resnet50", pool)
        self.pool = pool
        self.network = resnet50(weights=None)
        del self.network.fc
        if weights is not None:
            path = files.find(weights, PUBLISHED)
            files.fill(self.network, files.read(path), path, without=("fc.",))
        self.to(memory_format=channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to features (B, 2048)."""
        return global_pool(self.last_map(images), self.pool)

    def last_map(self, images: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to the last map (B, 2048, h, w), before pooling."""
        net = self.network
        maps = net.maxpool(net.relu(net.bn1(net.conv1(self.prepared(images)))))
        found: Tensor = net.layer4(net.layer3(net.layer2(net.layer1(maps))))
        return found
