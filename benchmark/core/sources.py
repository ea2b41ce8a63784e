"""Where published files come from, as `conf/sources.yaml` states it: addresses, sizes, checksums and licences.

That file is the only place with statements about the outside world, each with the date and the basis of its last check.
"""

import datetime
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from benchmark.core import plain_yaml
from benchmark.core.archives import Limits
from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.core.typed import AtLeastOne, Text, convert

NAME = "sources.yaml"
PACKAGE = "benchmark.datasets"
WHOLE = {"sha256": 64, "md5": 32}  # hexadecimal digits of a whole checksum
Address = Annotated[str, Meta(pattern="^https?://", description="an http or https address")]


@dataclass(frozen=True)
class Source:
    """One published file of a data set.

    Attributes:
        file: file name.
        url: address of the file, or several addresses of the same bytes, which are tried in order; empty if it can be
            used only when it lies in the data set's folder already.
        copy: where the file comes from, such as "Kaggle, OWNER/NAME". Files with the same value together make up the
            whole data set; different copies are tried in order.
        sha256: published SHA-256, if any.
        md5: published MD5, if any.
        bytes: published size, if any.
        room: approximate disk space for the file and its unpacked contents, in bytes.
        unpack: for an archive, the limits on its contents.

    Raises:
        ValueError: the file name has a folder in it, a checksum is not one, or several addresses have no checksum in
            common, by which it is known that they send the same file.
    """

    file: Text
    url: str | list[str] = ""
    copy: str = ""
    sha256: str | None = None
    md5: str | None = None
    bytes: AtLeastOne | None = None
    room: AtLeastOne | None = None
    unpack: Limits | None = None

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file or "\0" in self.file or self.file.startswith("."):
            raise ValueError(f"file is {self.file!r}; give a file name without a folder")
        for name, digits in WHOLE.items():
            value = getattr(self, name)
            if value is not None and not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", value):
                raise ValueError(f"{name} is {value!r}; give {digits} hexadecimal digits")
        if len(self.addresses) > 1 and not self.is_verifiable:
            raise ValueError("url has several addresses, so a sha256 or md5 must tell that they send the same file")

    @property
    def addresses(self) -> list[str]:
        """The addresses of the file, in the order in which they are tried."""
        return [self.url] * bool(self.url) if isinstance(self.url, str) else self.url

    @property
    def is_verifiable(self) -> bool:
        """Whether a checksum of the file is published."""
        return bool(self.sha256 or self.md5)


@dataclass(frozen=True)
class DataSet:
    """What is known about a published data set.

    Attributes:
        licence: licence of the images.
        checked: date on which the statements were last checked.
        basis: how they were checked, and against what.
        sources: its files, see `Source.copy`.
        gone: addresses that no longer work, or what hinders a download.
        by_hand: instructions for obtaining the data by hand.

    Raises:
        ValueError: two files have the same name.
    """

    licence: Text
    checked: datetime.date
    basis: Text
    sources: list[Source] = field(default_factory=list)
    gone: str = ""
    by_hand: str = ""

    def __post_init__(self) -> None:
        if fault := _repeated(self.sources):
            raise ValueError(f"sources {fault}")


@dataclass(frozen=True)
class WeightFile:
    """What is known about a published file of pretrained weights.

    Attributes:
        file: file name; with `package`, its path inside the package.
        whose: who published it.
        licence: its licence.
        checked: date on which the statements were last checked.
        basis: how they were checked, and against what.
        url: addresses of the same bytes, in the order in which they are tried; empty with `package`.
        sha256: SHA-256, or its first digits as torch.hub puts them into a file name; empty if none is published.
        bytes: published size, if any.
        package: import name of the Python package that ships the file.
    """

    file: Text
    whose: Text
    licence: Text
    checked: datetime.date
    basis: Text
    url: list[Address] = field(default_factory=list)
    sha256: str = ""
    bytes: AtLeastOne | None = None
    package: str = ""


@dataclass(frozen=True)
class Statements:
    """The content of `conf/sources.yaml`.

    Attributes:
        datasets: published data sets, by the module of `benchmark/datasets/` that lists them.
        weights: published weight files, by the module of `benchmark/trunks/` that loads them and the name there.
    """

    datasets: dict[str, DataSet]
    weights: dict[str, dict[str, WeightFile]]


def read(path: Path) -> Statements:
    """Read a file like `conf/sources.yaml`.

    Raises:
        UserError: the file cannot be read, or is not valid; the message names what is wrong in it.
    """
    return convert(plain_yaml.read_mapping(path), Statements, path)


@functools.cache
def statements() -> Statements:
    """What this project knows about published files.

    Raises:
        UserError: the file with these statements is damaged.
    """
    return read(conf_dir() / NAME)


def data_set(target: str) -> DataSet | None:
    """What is known about the data set that a function of this project lists; None for any other data set.

    Args:
        target: full name of the function, such as `benchmark.datasets.cub.listing`.

    Raises:
        UserError: the file with these statements is damaged.
    """
    package, _, module = target.rpartition(".")[0].rpartition(".")
    return statements().datasets.get(module) if package == PACKAGE else None


def copies(sources: Sequence[Source]) -> list[list[Source]]:
    """Group the files of a data set by the copy that they belong to, in order.

    >>> both = copies([Source("a", copy="1"), Source("b"), Source("c", copy="1")])
    >>> [[source.file for source in copy] for copy in both]
    [['a', 'c'], ['b']]

    Args:
        sources: files of all copies.
    """
    grouped: dict[str, list[Source]] = {}
    for source in sources:
        grouped.setdefault(source.copy, []).append(source)
    return list(grouped.values())


def parse(values: Sequence[object], name: str) -> list[Source]:
    """The sources that a configuration lists.

    Args:
        values: one mapping for each file, with the fields of `Source`.
        name: name of the list in messages.

    Raises:
        UserError: a field is unknown or invalid, or two entries have the same file name.
    """
    found = [convert(value, Source, Path(f"{name}[{number}]")) for number, value in enumerate(values)]
    if fault := _repeated(found):
        raise UserError(f"{name} {fault}.")
    return found


def _repeated(sources: Sequence[Source]) -> str:
    """What is wrong if two files have the same name, by which a partial download is continued; empty if none have."""
    seen: set[str] = set()
    for source in sources:
        if source.file.lower() in seen:
            return (
                f"names {source.file} twice; give each file a name of its own, and list several addresses of the same "
                "bytes in one entry, as in url: [FIRST, SECOND]"
            )
        seen.add(source.file.lower())
    return ""
