"""README and the pages of the documentation, their blocks, code spans and commands, for the tests that check them."""

import functools
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
STARTS = ("make", "dmlbench", "python -m benchmark")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
START = re.compile(rf"(?:^|(?<=\s)|(?<=/))(?:{'|'.join(STARTS)})(?= )")


@functools.cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of a page in a language; those without one are shell commands and output."""
    return [found[3] for found in FENCE.finditer(text_of(page)) if found[2] == language]


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return FENCE.sub("", text_of(page))


def spans(page: Path) -> list[str]:
    """The code in backticks of a page, outside of blocks, each on one line."""
    return [" ".join(found.split()) for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]


def commands() -> list[tuple[str, str]]:
    """Each command of README and the docs that starts with one of `STARTS`, with its page; in blocks and in spans."""
    found: dict[str, str] = {}
    for page in PAGES:
        lines = [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
        for line in [*lines, *spans(page)]:
            for start in START.finditer(line):
                words = shlex.split(re.split(r"\\?\|| #", line)[0][start.start() :])
                if len(words) > 1 and "..." not in words:
                    found.setdefault(shlex.join(words), name_of(page))
    return list(found.items())
