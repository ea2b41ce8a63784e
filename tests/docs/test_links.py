"""Links of README and the docs lead somewhere, every page is in the menu, and no passage stands on two pages."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import DOCS, PAGES, README, ROOT, name_of, prose, text_of

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
IGNORED = re.compile(r"^(\||:::|    options:|\s*$)")


def links(page: Path) -> list[str]:
    return LINK.findall(re.sub(r"`[^`]*`", "", prose(page)))


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert page == README or target.is_relative_to(DOCS), f"{link}: a site has the files of docs/ only"
        assert not anchor or anchor in anchors(target), link


def test_the_menu_has_every_page_once() -> None:
    def pages(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [page for part in (node.values() if isinstance(node, dict) else node) for page in pages(part)]

    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(pages(menu)) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES if page != README)


def test_every_page_of_the_docs_can_be_reached_from_the_first_one() -> None:
    found, left = set(), [DOCS / "index.md"]
    while left:
        page = left.pop()
        found.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links(page) if ".md" in link}
        left += targets - found
    assert {name_of(page) for page in PAGES} - {name_of(page) for page in found} == {"README.md"}


def test_the_readme_has_at_most_120_lines() -> None:
    assert len(text_of(README).splitlines()) <= 120


def test_no_passage_stands_on_two_pages() -> None:
    sentences: Counter[str] = Counter()
    for page in PAGES:
        lines = "\n".join("" if IGNORED.match(line) else line.strip(" -*") for line in prose(page).splitlines())
        flat = [" ".join(block.split()) for block in re.split(r"\n\s*\n", lines)]
        sentences.update({part for block in flat for part in re.split(r"(?<=[.:;]) ", block) if len(part.split()) > 9})
    assert [sentence for sentence, pages in sentences.items() if pages > 1] == []
