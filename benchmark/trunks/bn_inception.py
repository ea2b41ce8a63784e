"""BN-Inception, the trunk of MLRC and of most papers that it covers.

Source: Ioffe, Szegedy. Batch Normalization. ICML 2015, arXiv:1502.03167, figure 5 of the appendix, in the form whose
ImageNet weights Cadene's `pretrainedmodels` 0.7.4 publishes and MLRC (Musgrave, Belongie, Lim, ECCV 2020,
arXiv:2003.08505) uses: convolutions with bias before each batch normalisation, and max pooling instead of average
pooling in block 5b. Layers have the names of the published file. The network expects BGR images in 0..255, minus 104,
117 and 128.

Departures: the last map is pooled globally, which for 224 and 227 pixels is the published 7 x 7 window, so that images
of any size are accepted; for the same reason, max pooling parallel to a convolution of stride 2 starts one pixel
earlier on maps of odd size, for which the published network cannot concatenate its branches.
"""

from torch import Tensor, cat, channels_last, nn
from torch.nn import functional

from benchmark.trunks import weights as files
from benchmark.trunks.pooling import check_pool, global_pool
from benchmark.trunks.published import PublishedTrunk

MEAN_RGB = (128 / 255, 117 / 255, 104 / 255)  # the file's 104, 117, 128 are in the order B, G, R
STD_RGB = (1 / 255, 1 / 255, 1 / 255)
PUBLISHED = files.published("bn_inception")
# Channels of each block: 1x1 | reduce, 3x3 | reduce, twice 3x3 | pooling, its projection. 0: the branch is missing
# (no projection: the pooled maps are used directly), and the block halves the map.
BLOCKS = {
    "3a": (64, (64, 64), (64, 96), ("avg", 32)),
    "3b": (64, (64, 96), (64, 96), ("avg", 64)),
    "3c": (0, (128, 160), (64, 96), ("max", 0)),
    "4a": (224, (64, 96), (96, 128), ("avg", 128)),
    "4b": (192, (96, 128), (96, 128), ("avg", 128)),
    "4c": (160, (128, 160), (128, 160), ("avg", 128)),
    "4d": (96, (128, 192), (160, 192), ("avg", 128)),
    "4e": (0, (128, 192), (192, 256), ("max", 0)),
    "5a": (352, (192, 320), (160, 224), ("avg", 128)),
    "5b": (352, (192, 320), (192, 224), ("max", 128)),
}


class BNInception(PublishedTrunk):
    """Maps normalised RGB or grey images (B, in_channels, H, W) to features (B, 1024).

    Args:
        in_channels: 3 for RGB, 1 for grey.
        weights: `imagenet`, the path of a file with its names, or None for random weights.
        pool: global pooling of the last map: avg (MLRC), avg+max (HPL) or max.

    Raises:
        UserError: a setting is invalid, or the weights cannot be found, downloaded or written, or do not fit.
    """

    def __init__(self, *, in_channels: int = 3, weights: str | None = None, pool: str = "avg") -> None:
        super().__init__(out_features=1024, mean=MEAN_RGB, std=STD_RGB, in_channels=in_channels, channel_order="bgr")
        check_pool("bn_inception", pool)
        self.pool = pool
        self._add("conv1_7x7_s2", 3, 64, kernel=7, stride=2)
        self._add("conv2_3x3_reduce", 64, 64)
        self._add("conv2_3x3", 64, 192, kernel=3)
        channels = 192
        for block in BLOCKS:
            channels = self._add_block(block, channels)
        if weights is not None:
            path = files.find(weights, PUBLISHED)
            files.fill(self, files.read(path), path, without=("last_linear.",))
        self.to(memory_format=channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to features (B, 1024)."""
        return global_pool(self.last_map(images), self.pool)

    def last_map(self, images: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to the last map (B, 1024, h, w), before pooling."""
        maps = self._unit("conv1_7x7_s2", self.prepared(images))
        maps = functional.max_pool2d(maps, 3, 2, ceil_mode=True)
        maps = self._unit("conv2_3x3", self._unit("conv2_3x3_reduce", maps))
        maps = functional.max_pool2d(maps, 3, 2, ceil_mode=True)
        for block in BLOCKS:
            maps = self._block(block, maps)
        return maps

    def _add(self, name: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))

    def _unit(self, name: str, maps: Tensor) -> Tensor:
        """Apply convolution, batch normalisation and ReLU to maps (B, Ch, h, w)."""
        return functional.relu(self.get_submodule(f"{name}_bn")(self.get_submodule(name)(maps)), inplace=True)

    def _add_block(self, block: str, inputs: int) -> int:
        """Add the layers of a block, and return its number of output channels."""
        single, (reduce, triple), (double_reduce, double), (_, projection) = BLOCKS[block]
        name, stride = f"inception_{block}", 1 if single else 2
        if single:
            self._add(f"{name}_1x1", inputs, single)
        self._add(f"{name}_3x3_reduce", inputs, reduce)
        self._add(f"{name}_3x3", reduce, triple, kernel=3, stride=stride)
        self._add(f"{name}_double_3x3_reduce", inputs, double_reduce)
        self._add(f"{name}_double_3x3_1", double_reduce, double, kernel=3)
        self._add(f"{name}_double_3x3_2", double, double, kernel=3, stride=stride)
        if projection:
            self._add(f"{name}_pool_proj", inputs, projection)
        return single + triple + double + (projection or inputs)

    def _block(self, block: str, maps: Tensor) -> Tensor:
        single, _, _, (pooling, projection) = BLOCKS[block]
        name = f"inception_{block}"
        outputs = [self._unit(f"{name}_1x1", maps)] if single else []
        outputs.append(self._unit(f"{name}_3x3", self._unit(f"{name}_3x3_reduce", maps)))
        double = self._unit(f"{name}_double_3x3_1", self._unit(f"{name}_double_3x3_reduce", maps))
        outputs.append(self._unit(f"{name}_double_3x3_2", double))
        if not projection:
            odd = (maps.shape[2] % 2, maps.shape[3] % 2)
            outputs.append(functional.max_pool2d(maps, 3, 2, padding=odd, ceil_mode=True))
        else:
            pool = functional.avg_pool2d if pooling == "avg" else functional.max_pool2d
            outputs.append(self._unit(f"{name}_pool_proj", pool(maps, 3, 1, padding=1)))
        return cat(outputs, 1)
