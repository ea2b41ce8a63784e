"""What losses learned, from the arrays that a run kept of them, in the space of the embeddings."""

from collections.abc import Mapping

import numpy as np
import torch

from benchmark.protocol.hyperbolic import exponential_map, hyperbolic_distance

COARSE, ANCESTORS = "coarse proxy", "ancestor"
PROXIES = ("proxies", "means")  # HIST's means are vectors of the classes, too


def proxies(state: Mapping[str, np.ndarray], metric: str) -> np.ndarray:
    """The unit proxies (P, D) of the training classes; none unless the loss has some that retrieval could compare.

    In a ball, proxies are directions (HIER), not points beside the embeddings.

    Args:
        state: the arrays of the loss by name; proxies are (C, D), or (C, K, D) with K for each class.
        metric: distance of the retrieval.
    """
    found = next((array for name, array in state.items() if name.rpartition(".")[2] in PROXIES), None)
    if found is None or metric != "cosine":
        return np.zeros((0, 0), dtype=np.float32)
    return _unit(found.reshape(-1, found.shape[-1]))


def above(state: Mapping[str, np.ndarray], options: Mapping[str, object]) -> tuple[str, np.ndarray]:
    """What stands above the classes: HPL's coarse proxies as unit vectors, or HIER's ancestors as points of its ball.

    Args:
        state: the arrays of the loss by name.
        options: options of the loss; `curvature` and `clip_radius` are read for HIER.

    Returns:
        What they are, and the points (A, D), in float32; none if the loss has none, or never initialised them.
    """
    if "lcas" in state:
        ball = {name: float(str(options[name])) for name in ("curvature", "clip_radius")}
        nodes = torch.from_numpy(state["lcas"].astype(np.float32))
        return ANCESTORS, exponential_map(nodes, **ball).numpy()
    if "centres_1" in state and state["centres_1"].any():
        return COARSE, _unit(state["centres_1"])
    return "", np.zeros((0, 0), dtype=np.float32)


def distances(points: np.ndarray, nodes: np.ndarray, options: Mapping[str, object]) -> np.ndarray:
    """Distances (N, A) as retrieval measures them: in the ball if it has a curvature, otherwise 1 - cosine.

    Args:
        points: (N, D), of any norm for the cosine.
        nodes: (A, D), likewise.
        options: options of the retrieval; a `curvature` says that it is hyperbolic.
    """
    if "curvature" in options:
        both = (torch.from_numpy(array.astype(np.float32)) for array in (points, nodes))
        return hyperbolic_distance(*both, curvature=float(str(options["curvature"]))).numpy()
    return np.asarray(1 - _unit(points) @ _unit(nodes).T)


def common_ancestors(to_nodes: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The lowest common ancestor of each class's samples, (C,): the node whose largest distance to them is least.

    It is the rule by which HIER's loss chooses the ancestor of a pair or triplet (Kim et al., CVPR 2023).

    Args:
        to_nodes: (N, A) distances from the samples to the nodes.
        labels: (N,) class of each sample.
        classes: (C,) the classes, each with at least one sample.
    """
    return np.array([to_nodes[labels == one].max(axis=0).argmin() for one in classes])


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12))
