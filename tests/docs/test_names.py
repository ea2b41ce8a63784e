"""Keys, files and names of code in README and the docs exist."""

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.cases import for_each
from tests.docs.pages import PAGES, ROOT, spans

CONF = ROOT / "conf"
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
KEY = re.compile(rf"(?:\+|\b)((?:{'|'.join(GROUPS)})(?:\.[a-z_0-9]+)+)(?=[=`\s,)]|$)")
PLACE = re.compile(r"(?:benchmark|conf|tests|experiments|docs|results)/[\w./-]*")
CODE = re.compile(r"benchmark(?:\.[A-Za-z_]\w*)+")
NOT_IN_GIT = (
    "results/studies",
    "results/tables",
    "results/small",
    "results/splits",
    "results/overlap",
    "results/embeddings",
    "results/export",
    "results/scores",
    "results/report",
    "results/tensorboard",
)
A_READER_WRITES = re.compile(r"my_|uniform|MyPairs|WithReplacement|Dropped|Uniform")


@functools.cache
def keys() -> frozenset[str]:
    """Every dotted key that some choice of files in `conf/` has."""

    def dotted(node: object, prefix: str) -> Iterator[str]:
        yield prefix
        for key, value in node.items() if isinstance(node, dict) else ():
            yield from dotted(value, f"{prefix}.{key}")

    found = set()
    for path in [*CONF.glob("*/*.yaml"), *CONF.glob("loss/schedule/*.yaml")]:
        prefix = ".".join(path.parent.relative_to(CONF).parts)
        found |= set(dotted(yaml.load(path.read_bytes(), yaml.CSafeLoader), prefix))
    return frozenset(found | set(yaml.load((CONF / "config.yaml").read_bytes(), yaml.CSafeLoader)) | set(GROUPS))


@for_each("page", PAGES)
def test_a_key_of_the_configuration_exists(page: Path) -> None:
    named = {key for span in spans(page) if "_target_:" not in span for key in KEY.findall(span)}
    for span in spans(page):
        if found := re.fullmatch(r'ARGS=(?:"(.*)"|(\S+))', span):
            named |= {word.lstrip("+").partition("=")[0] for word in shlex.split(found[1] or found[2])}
    assert {key for key in named if key not in keys()} == set()


@for_each("page", PAGES)
def test_a_file_or_folder_exists(page: Path) -> None:
    named = {place for span in spans(page) for place in PLACE.findall(span) if "*" not in span}
    missing = {place for place in named if not (ROOT / place).exists() and not place.startswith(NOT_IN_GIT)}
    assert {place for place in missing if not A_READER_WRITES.search(place)} == set()


@for_each("page", PAGES)
def test_a_module_or_a_name_in_it_exists(page: Path) -> None:
    for name in {name for span in spans(page) for name in CODE.findall(span)}:
        parts = name.split(".")
        depth = max(n for n in range(1, len(parts) + 1) if is_module(ROOT.joinpath(*parts[:n])))
        rest = parts[depth:]
        place = ROOT.joinpath(*parts[:depth])
        source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        known = not rest or re.search(rf"^(?:def|class) {rest[0]}\b|^{rest[0]}\b.*=", source.read_text("utf-8"), re.M)
        assert known or A_READER_WRITES.search(name), name


def is_module(place: Path) -> bool:
    return place.is_dir() or place.with_suffix(".py").is_file()
