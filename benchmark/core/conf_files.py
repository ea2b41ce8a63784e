"""The files of `conf/`: which there are, and what they say, without Hydra composing them.

A group is a folder of `conf/`, such as `loss`. Each of its files describes a component, which has the file's name.
"""

import functools

from benchmark.core import plain_yaml
from benchmark.core.paths import conf_dir
from benchmark.core.records import JsonObject


def names(group: str) -> list[str]:
    """The names of a group's files, without extension, sorted; those of plug-ins are not among them."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


@functools.cache
def content(group: str, name: str) -> JsonObject:
    """The content of a file, which no caller may change; empty if there is none, as for a plug-in's component.

    >>> content("loss", "hpl_pa")["label"], content("loss", "of_a_plug_in")
    ('HPL-PA', {})

    Raises:
        UserError: the file cannot be read or is not valid.
    """
    path = conf_dir() / group / f"{name}.yaml"
    return plain_yaml.read_mapping(path) if path.is_file() else {}
