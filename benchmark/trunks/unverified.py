"""What identifies a trunk's features beyond its options: weights without a published checksum, and the version of timm.

A name such as `pretrained` says which file is meant, not what is in it: the file behind an address can be replaced.
"""

from collections.abc import Mapping

from benchmark.trunks import weights as files
from benchmark.trunks.published import import_timm


def facts_of(network: str, weights: object, published: Mapping[str, files.Published]) -> dict[str, str]:
    """Return the version of timm and, for published weights without a published checksum, the SHA-256 of their file.

    Args:
        network: name of the network, which timm builds.
        weights: a name in `published`, whose file is downloaded if it is missing; None, or the path of a file, which is
            identified by its content elsewhere.
        published: the files that the trunk knows, by name.

    Raises:
        UserError: timm is not installed, or the file cannot be downloaded, written or read.
    """
    found = {"timm": str(import_timm(network).__version__)}
    if isinstance(weights, str) and weights in published and not published[weights].sha256:
        found["weights"] = files.fingerprint(files.find(weights, published))
    return found
