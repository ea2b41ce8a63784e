"""What the weights of a trunk were trained on, and whether those images may hold the test classes of a data set.

Retrieval of classes that were not trained on is another task for a network that saw them in its pretraining. Sources
are with the statements, in `conf/pretraining.yaml` and `conf/dataset/*.yaml`.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.core import plain_yaml
from benchmark.core.paths import conf_dir
from benchmark.core.typed import Text, convert

NAME = "pretraining.yaml"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class ImageSet:
    """A set of images that networks are pretrained on.

    Attributes:
        label: its name in tables.
        web: whether it was collected from the web at large, so that it may hold anything.
        includes: names of sets that are part of it.
        tags: parts of the names of timm's networks, or whole tags, that name it.
        classes: timm's name of the list of its classes; empty without one.
    """

    label: Text
    web: bool = False
    includes: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    classes: str = ""


@functools.cache
def image_sets() -> dict[str, ImageSet]:
    """The sets of `conf/pretraining.yaml` by name.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    return read(conf_dir() / NAME)


def read(path: Path) -> dict[str, ImageSet]:
    """Read a file like `conf/pretraining.yaml`.

    Raises:
        UserError: the file cannot be read, or is not valid; the message names what is wrong in it.
    """
    return convert(plain_yaml.read_mapping(path), dict[str, ImageSet], path)


def of_network(network: str) -> list[str]:
    """Return the sets that the name of a network of timm names, by a part of it or the whole tag; else `unknown`.

    >>> of_network("convnext_base.clip_laion2b_augreg_ft_in12k"), of_network("vit_pe_core_base_patch16_224.fb")
    (['imagenet12k', 'laion'], ['unknown'])

    Args:
        network: name of the network in timm, with the tag of its weights.
    """
    parts = {network.partition(".")[2], *re.split("[._]", network)}
    return [name for name, one in image_sets().items() if parts & {*one.tags}] or [UNKNOWN]


def may_have_seen(pretrained_on: Iterable[str], overlaps: Mapping[str, str]) -> list[str]:
    """Return a phrase for each set that may hold test classes or images of a data set.

    >>> may_have_seen(["imagenet21k"], {"imagenet1k": "23 equal images"}), may_have_seen(["imagenet1k"], {})
    (['ImageNet-21k, 23 equal images'], [])
    >>> may_have_seen(["webli"], {})
    ['WebLI, images of the web']

    Args:
        pretrained_on: names of sets; one that is not in `conf/pretraining.yaml` counts as a set of the web.
        overlaps: what a data set shares with each set, by name, as `dataset.overlaps` has it.
    """
    found = []
    for name in pretrained_on:
        one = image_sets().get(name, ImageSet(name, web=True))
        shared = dict.fromkeys(overlaps[part] for part in (name, *_parts(one)) if part in overlaps)
        if one.web or shared:
            found.append(", ".join([one.label, *(["images of the web"] if one.web else []), *shared]))
    return found


def class_lists(pretrained_on: Iterable[str]) -> list[str]:
    """Return timm's names of the lists of classes of sets and of their parts.

    >>> class_lists(["imagenet21k", "webli"])
    ['imagenet-22k', 'imagenet-1k']

    Args:
        pretrained_on: names of sets.
    """
    known = image_sets()
    sets = [known[part] for name in pretrained_on if name in known for part in (name, *_parts(known[name]))]
    return [*dict.fromkeys(one.classes for one in sets if one.classes)]


def _parts(one: ImageSet) -> Sequence[str]:
    """The names of all sets that are part of one, directly or not."""
    return [part for name in one.includes for part in (name, *_parts(image_sets()[name]))]
