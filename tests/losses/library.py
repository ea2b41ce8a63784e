"""pytorch-metric-learning as an oracle, whichever of its versions 2 and 3 is installed."""

import math
from importlib.metadata import version

import pytest
import torch
from pytorch_metric_learning.distances import LpDistance

VERSION = int(version("pytorch-metric-learning").partition(".")[0])
NEEDS_VERSION_2 = "needs pytorch-metric-learning 2"
only_in_version_2 = pytest.mark.skipif(VERSION > 2, reason=NEEDS_VERSION_2)


def of_version_2(module):
    """A module of the library that version 3 does not have; with that version, the tests that need it are skipped."""
    return pytest.importorskip(f"pytorch_metric_learning.{module}", reason=NEEDS_VERSION_2)


def euclidean(power=1):
    """The library's Euclidean distance of unit vectors, with no default."""
    return LpDistance(normalize_embeddings=True, p=2, power=power)


def angle(degrees):
    """An angular margin in the unit of the version: degrees in 2, radians in 3."""
    return degrees if VERSION == 2 else math.radians(degrees)


def of_vectors(loss, vectors):
    """The library's loss as a function of embeddings, labels and `vectors` (P, D), one per class or centre.

    Versions differ in the name of this parameter and in whether its vectors are rows or columns.
    """
    ((name, parameter),) = loss.to(vectors.dtype).named_parameters()
    columns = parameter.shape != vectors.shape
    assert parameter.shape == (vectors.T if columns else vectors).shape
    return lambda e, y, v: torch.func.functional_call(loss, {name: v.T if columns else v}, (e, y))
