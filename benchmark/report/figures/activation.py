"""Activation maps: which parts of an image its embedding comes from.

Source of the figure: Lim, Yun, Park and Choi, "Hypergraph-Induced Semantic Tuplet Loss for Deep Metric Learning", CVPR
2022, supplement, D.1, figures 3 and 4. Source of the maps: Grad-CAM, Selvaraju et al., ICCV 2017, arXiv 1610.02391,
equations 1 and 2, with the cosine similarity of an image's embedding and a given vector, such as the mean embedding of
its class, in place of the score of a class. The paper draws them for convolutional trunks; a transformer's class token
is no mean over places, so the equations do not apply to it.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.core.errors import UserError
from benchmark.trunks import HasLastMap
from benchmark.trunks.pooling import global_pool

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def with_last_map(trunk: nn.Module) -> HasLastMap:
    """Return a trunk that has activation maps.

    Args:
        trunk: the trunk.

    Raises:
        UserError: it has no last map.
    """
    if not isinstance(trunk, HasLastMap):
        raise UserError(
            f"figure=activation: Grad-CAM, which HIST's supplement draws, needs a convolutional trunk, whose last map "
            f"is pooled to the features; {type(trunk).__name__} has none. Name a study with such a trunk, for example "
            "resnet50, or draw another figure, for example figure=retrieval."
        )
    return trunk


def activation_maps(trunk: nn.Module, head: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Grad-CAM maps (B, H, W) in [0, 1] of images: relu(sum_k a_k A_k), a_k the mean over places of dy / dA_k.

    A_k is channel k of the trunk's last map, and y the cosine similarity of the image's embedding and its target. Each
    map is divided by its maximum (0 if no place contributes), and enlarged to the image's size by linear interpolation.

    Args:
        trunk: a trunk with a last map, in evaluation mode.
        head: its head, in evaluation mode.
        images: normalised, float32 (B, Ch, H, W).
        targets: (B, D), of any norm.

    Raises:
        UserError: the trunk has no last map.
    """
    mapping = with_last_map(trunk)
    with torch.enable_grad():
        places = mapping.last_map(images).detach().requires_grad_()  # (B, F, h, w)
        similarity = functional.cosine_similarity(head(global_pool(places, mapping.pool)), targets)  # (B,)
        (slope,) = torch.autograd.grad(similarity.sum(), places)
    found = functional.relu((slope.mean(dim=(2, 3), keepdim=True) * places.detach()).sum(dim=1))  # (B, h, w)
    found = found / found.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    return functional.interpolate(found[:, None], images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def sheet(images: Sequence[np.ndarray], maps: np.ndarray, names: Sequence[str]) -> "Figure":
    """A sheet with a row for each image: the image, and the map of each model above it.

    Args:
        images: N images, uint8 (H, W) or (H, W, 3).
        maps: (M, N, H, W) in [0, 1], one model after the other.
        names: name of the class of each image.
    """
    from matplotlib.figure import Figure

    models = len(maps)
    figure = Figure(figsize=(1.5 * (models + 1), 1.6 * len(images)))
    grid = figure.subplots(len(images), models + 1, squeeze=False)
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        for column, axes in enumerate(grid[row]):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
            if column:
                axes.imshow(maps[column - 1, row], cmap="jet", vmin=0, vmax=1, alpha=0.5)
        lines = textwrap.wrap(name, 24, max_lines=2, placeholder=" …")
        grid[row][0].set_title("\n".join(lines), fontsize=6, parse_math=False)
    for column, axes in enumerate(grid[0][1:]):
        axes.set_title(f"model {column}" if models > 1 else "activation", fontsize=7)
    return figure
