"""ViT-S/16: one network with five sets of published weights, including those that HIER compares.

Source: Dosovitskiy et al. An Image is Worth 16x16 Words. ICLR 2021, arXiv:2010.11929; the small size is that of
Touvron et al. Training data-efficient image transformers (DeiT). ICML 2021, arXiv:2012.12877, table 1. Weights:

* `imagenet21k`, `imagenet21k_1k`: Steiner et al. How to train your ViT? TMLR 2022, arXiv:2106.10270 (augreg), without
  and with fine-tuning on ImageNet-1k; images with mean and standard deviation 0.5. HIER's paper describes the first,
  and the version of timm that its code pins loads the second;
* `deit`: DeiT-S without distillation, ImageNet-1k; ImageNet mean and standard deviation;
* `deit_distilled`: DeiT-S with distillation, ImageNet-1k, whose network has one more token; HIER's "DeiT-S";
* `dino`: Caron et al. Emerging Properties in Self-Supervised Vision Transformers. ICCV 2021, arXiv:2104.14294.

timm builds the network. The feature is the class token after the last layer norm. With a distillation token, HIER's
code (github.com/tjddus9597/HIER-CVPR23, with timm 0.4.12) trains on the class token and retrieves by the mean of both
tokens; so does this module, unless `tokens` says otherwise.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from benchmark.core.errors import UserError
from benchmark.trunks import weights as files
from benchmark.trunks.published import HALF, IMAGENET_MEAN, IMAGENET_STD, PublishedTrunk, timm_network
from benchmark.trunks.unverified import facts_of

PUBLISHED = files.published("vit_small")
NORMALISATION = {
    "imagenet21k": (HALF, HALF),
    "imagenet21k_1k": (HALF, HALF),
    "deit": (IMAGENET_MEAN, IMAGENET_STD),
    "deit_distilled": (IMAGENET_MEAN, IMAGENET_STD),
    "dino": (IMAGENET_MEAN, IMAGENET_STD),
}
SIZE, WIDTH, HEADS = 224, 384, 6
TOKENS = ("class", "mean", "class_then_mean")
NPZ_BYTES = 1 << 29  # the genuine files hold 122 MB


class ViTSmall(PublishedTrunk):
    """Maps normalised RGB or grey images (B, in_channels, 224, 224) to class tokens (B, 384).

    Args:
        in_channels: 3 for RGB, 1 for grey.
        weights: `imagenet21k`, `imagenet21k_1k`, `deit`, `deit_distilled`, `dino`, the path of a file in one of their
            formats (.npz: that of the first two), or None for random weights.
        distilled: whether the network has a distillation token, as `deit_distilled` requires.
        tokens: the feature of a network with a distillation token: the `class` token, the `mean` of both, or
            `class_then_mean`, the class token in training and the mean in evaluation.
        freeze_patches: whether the patch embedding keeps its weights, as in HIER's code.
        any_size: whether position embeddings are interpolated for images that are not 224 x 224; sides must still be
            multiples of 16. Departure: timm interpolates (bicubic) with antialiasing, DINO's code without, and with an
            offset of 0.1.
        mean: mean of the pixels scaled to [0, 1], three numbers; required with your own file, by default that of the
            weights.
        std: standard deviation of the pixels scaled to [0, 1], three numbers; required with your own file, by default
            that of the weights.

    Raises:
        UserError: a setting is invalid, the weights cannot be found, downloaded or written, or do not fit, or timm
            is not installed.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        weights: str | None = None,
        any_size: bool = False,
        distilled: bool = False,
        tokens: Literal["class", "mean", "class_then_mean"] = "class_then_mean",
        freeze_patches: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        known = (HALF, HALF) if weights is None else NORMALISATION.get(weights)
        if known is None and (mean is None or std is None):
            raise UserError(
                f"vit_small has weights={weights}, mean={mean}, std={std}. For a file of your own, say which mean and "
                f"std of the pixels it was trained with. Weights with known ones: {', '.join(PUBLISHED)}."
            )
        if distilled != (weights == "deit_distilled") and weights in PUBLISHED:
            raise UserError(
                f"vit_small has weights={weights}, distilled={distilled}: deit_distilled, and no other published "
                "weights, has a distillation token. Set distilled accordingly."
            )
        if tokens not in TOKENS:
            raise UserError(f"vit_small has tokens={tokens}; allowed are {', '.join(TOKENS)}.")
        known_mean, known_std = known or (HALF, HALF)
        super().__init__(out_features=384, mean=mean or known_mean, std=std or known_std, in_channels=in_channels)
        self.any_size, self.distilled, self.tokens = any_size, distilled, tokens
        name = "deit_small_distilled_patch16_224" if distilled else "vit_small_patch16_224"
        self.network = timm_network(name, num_classes=0, dynamic_img_size=any_size)
        if weights is not None:
            path = files.find(weights, PUBLISHED)
            if path.suffix == ".npz" and distilled:
                raise _misfit(path, "it has no distillation token")
            if path.suffix == ".npz":
                self._fill_from_npz(path)
            else:
                files.fill(self.network, files.read(path), path, without=("head.", "head_dist."))
        for parameter in self.network.patch_embed.parameters() if freeze_patches else ():
            parameter.requires_grad = False

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, 224, 224) to features (B, 384), see `tokens`.

        Raises:
            UserError: the images have another size.
        """
        height, width = images.shape[2:]
        if (height % 16 or width % 16) if self.any_size else (height, width) != (SIZE, SIZE):
            allowed = "sides that are multiples of 16" if self.any_size else f"{SIZE} x {SIZE}"
            raise UserError(
                f"vit_small got images of {height} x {width} pixels; allowed: {allowed}. Crop them to {SIZE}, or set "
                "any_size=true, which interpolates the position embeddings."
            )
        if not self.distilled:
            return self.network(self.prepared(images))
        found = self.network.forward_features(self.prepared(images))  # (B, 2 + patches, 384): class, distillation, ...
        if self.tokens == "mean" or (self.tokens == "class_then_mean" and not self.training):
            return found[:, :2].mean(dim=1)
        return found[:, 0]

    def _fill_from_npz(self, path: Path) -> None:
        if not zipfile.is_zipfile(path):
            raise _misfit(path, "it is damaged, or not an .npz file")
        try:
            _check_npz(path)
            self.network.load_pretrained(str(path))  # reads the file without unpickling
        except UserError:
            raise
        except Exception as error:  # on a malicious file, zipfile and numpy can raise nearly anything
            raise _misfit(path, str(error)[:200] or type(error).__name__) from error


def facts(options: Mapping[str, Any]) -> dict[str, str]:
    """What identifies the features of a trunk beyond its options.

    Args:
        options: those of `ViTSmall`.

    Raises:
        UserError: timm is not installed, or the weights cannot be downloaded or read.
    """
    return facts_of("vit_small", options.get("weights"), PUBLISHED)


def _check_npz(path: Path) -> None:
    """Check the arrays of an .npz file, since timm repeats or resizes those of another shape.

    Raises:
        UserError: the file is too large, or an array is missing, unknown, of another shape or type, or not finite.
    """
    with zipfile.ZipFile(path) as whole:
        if sum(member.file_size for member in whole.infolist()) > NPZ_BYTES:
            raise _misfit(path, f"it holds more than {NPZ_BYTES:,} bytes")
    shapes = _npz_shapes()
    with np.load(path, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if not name.startswith(("head/", "pre_logits/"))]
        for name in names:
            array = arrays[name]
            if name in shapes and (array.shape != shapes[name] or array.dtype != np.float32):
                raise _misfit(path, f"{name} is {array.dtype} {array.shape}, expected float32 {shapes[name]}")
            if name in shapes and not np.isfinite(array).all():
                raise _misfit(path, f"{name} is not finite")
        missing, unknown = [sorted(set(a) - set(b)) for a, b in ((shapes, names), (names, shapes))]
        for odd, fault in ((unknown, "unknown"), (missing, "missing")):
            if odd:
                raise _misfit(path, f"{len(odd)} arrays are {fault}, such as {odd[0][:80]}")


def _npz_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of each array in the .npz file, as JAX names it; the classifier is left out."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls": (1, 1, WIDTH),
        "embedding/kernel": (16, 16, 3, WIDTH),
        "embedding/bias": (WIDTH,),
        "Transformer/posembed_input/pos_embedding": (1, 197, WIDTH),
    }
    norms = ["encoder_norm"]
    for n in range(12):
        block = f"Transformer/encoderblock_{n}"
        norms += [f"encoderblock_{n}/LayerNorm_0", f"encoderblock_{n}/LayerNorm_2"]
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes[f"{attention}/{part}/kernel"] = (WIDTH, HEADS, WIDTH // HEADS)
            shapes[f"{attention}/{part}/bias"] = (HEADS, WIDTH // HEADS)
        shapes |= {f"{attention}/out/kernel": (HEADS, WIDTH // HEADS, WIDTH), f"{attention}/out/bias": (WIDTH,)}
        for layer, (inputs, outputs) in enumerate([(WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)]):
            shapes[f"{block}/MlpBlock_3/Dense_{layer}/kernel"] = (inputs, outputs)
            shapes[f"{block}/MlpBlock_3/Dense_{layer}/bias"] = (outputs,)
    return shapes | {f"Transformer/{norm}/{part}": (WIDTH,) for norm in norms for part in ("scale", "bias")}


def _misfit(path: Path, reason: str) -> UserError:
    return UserError(f"{path} does not fit vit_small ({reason}). Give the .npz of ViT-S/16 as its authors publish it.")
