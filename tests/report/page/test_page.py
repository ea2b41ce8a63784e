"""The HTML of a page: its structure, its numbers, and texts from records that try to be markup."""

import dataclasses
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmark.protocol.statistics import t_interval
from benchmark.report.differences import compare
from benchmark.report.page import charts, content, render
from benchmark.report.page.pictures import Picture
from benchmark.report.published import published_block
from benchmark.report.table import Column, Published, Row, Section, Table
from tests import hostile

SCRIPT = "<script>alert(1)</script> & \"quoted\" 'label'"
KEY = ("concatenated", "map_at_r")
COLUMNS = [
    Column(KEY, "MAP@R", "Concatenated (512-d)", is_main=True),
    Column(("x", "p"), "P@1", "Concatenated (512-d)"),
]
VOID = {"meta", "link", "br", "img", "path", "use", "rect"}
QUOTED = Published(31.5, 0.25, "Paper, Table 1")


@dataclasses.dataclass
class Element:
    """An element of a page, with the text and the elements in it."""

    tag: str
    given: dict[str, str | None]
    inside: list["Element | str"] = dataclasses.field(default_factory=list)

    def all(self, *tags: str) -> list["Element"]:
        found = [self] if self.tag in tags or not tags else []
        return found + [one for child in self.inside if isinstance(child, Element) for one in child.all(*tags)]

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.inside)


def outside_figures(element: Element) -> list[str]:
    """The tags of an element and what is in it, except for parts of an SVG."""
    inside = element.inside if element.tag != "svg" else []
    return [element.tag, *(tag for one in inside if isinstance(one, Element) for tag in outside_figures(one))]


class Parser(HTMLParser):
    """Builds a tree, and refuses an element that is closed by another one's end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open = [Element("document", {})]
        self.feed(text)
        assert len(self.open) == 1, [element.tag for element in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def row(name: str, label: str, values: list[float], **given: object) -> Row:
    found = Row(name, label, num_runs=len(values), **given)  # type: ignore[arg-type]
    for column in COLUMNS:
        found.values[column.key] = dict(enumerate(values))
        found.cells[column.key] = t_interval(values, 0.95)
    return found


def table_of(labels: list[str]) -> Table:
    """A table of complete rows, the first one best, with one that a paper quotes and one that was not run."""
    rows = [row(f"loss_{n}", label, [40.0 - n, 41.0 - n, 42.5 - n], published={KEY: QUOTED} if n == 1 else {})
            for n, label in enumerate(labels)]  # fmt: skip
    rows += [Row("", "Quoted", published={KEY: QUOTED}), Row("absent", "Absent", reason=f"not run; {labels[0]}")]
    section = Section(COLUMNS, rows, 0.95, footnotes=[labels[0]])
    compare(section)
    section.blocks += published_block(section)
    return Table("any table", labels[0], [section], warning=labels[0])


def page_of(table: Table, folder: Path) -> Element:
    with charts.style():
        group = content.group_of(table, [], content.Place(folder, formats=()))
    group = dataclasses.replace(group, pictures=[Picture(SCRIPT, SCRIPT, "data:image/webp;base64,AA==", 1, 1)])
    text = render.html(SCRIPT, table.caption, [group], [SCRIPT])
    return Parser(text).open[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Element:
    return page_of(table_of([SCRIPT, "ProxyNCA", "Triplet"]), tmp_path_factory.mktemp("results"))


def test_markup_in_a_text_of_the_records_is_shown_as_text(page: Element) -> None:
    (script,) = page.all("script")
    assert script.text == (Path(render.__file__).parent / "page.js").read_text()
    for tag in ("title", "h1", "h2", "li", "th", "p", "figcaption", "text"):
        assert any("<script>alert(1)</script>" in element.text for element in page.all(tag)), tag


def test_no_attribute_runs_code_and_nothing_is_loaded(page: Element) -> None:
    for element in page.all():
        assert not [name for name in element.given if name.startswith("on")], element
        for name in ("src", "href", "xlink:href"):
            value = element.given.get(name) or "#"
            assert value.startswith(("#", "data:", "figures/")), value
        assert "url(http" not in str(element.given.get("style"))
    (policy,) = [element.given["content"] for element in page.all("meta") if "http-equiv" in element.given]
    assert str(policy).startswith("default-src 'none'") and "script-src 'sha256-" in str(policy)


def test_hostile_texts_leave_the_structure_alone_and_show_what_is_invisible(page: Element, tmp_path: Path) -> None:
    table = table_of(["\u202e<b>\n</svg>\x00", "ProxyNCA", "Triplet"])
    table.sections[0].footnotes = hostile.ALL
    found = page_of(table, tmp_path)
    shape = [[tag for tag in outside_figures(each) if tag != "p"] for each in (page, found)]
    assert shape[0] == shape[1]
    notes = [element.text for element in found.all("p")]
    assert {"\\u202eright to left", "<!-- x", "&lt;", "中文"} <= set(notes)
    assert all(char.isprintable() or char in "\n\u00a0" for char in found.text)


def test_headings_are_in_order_and_ids_are_unique_and_found(page: Element) -> None:
    levels = [int(element.tag[1]) for element in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels
    ids = [element.given["id"] for element in page.all() if "id" in element.given]
    assert len(ids) == len(set(ids))
    links = [str(element.given["href"]) for element in page.all("a")]
    targets = {link[1:] for link in links if link.startswith("#")}
    named = {str(element.given.get("aria-labelledby") or "content") for element in page.all()}
    assert targets | named <= set(ids)


def test_tables_can_be_read_and_sorted_without_a_mouse(page: Element) -> None:
    for table in page.all("table"):
        assert len(table.all("caption")) == 1
        assert all(element.given.get("scope") for element in table.all("th"))
        heads = [element for element in table.all("th") if "data-column" in element.given]
        assert [element.given["data-column"] for element in heads] == [str(n) for n in range(len(heads))]
        assert all(element.given["aria-sort"] == "none" and len(element.all("button")) == 1 for element in heads)
        for line in table.all("tbody")[0].all("tr"):
            assert len(line.all("th", "td")) == len(heads)
    regions = [element for element in page.all("div") if element.given.get("class") == "scroll"]
    assert len(regions) == len(page.all("table")) and all(element.given["tabindex"] == "0" for element in regions)


def test_figures_and_images_have_a_text(page: Element) -> None:
    assert len(page.all("figure")) == 3  # intervals, differences, image
    for figure in page.all("figure"):
        assert figure.all("figcaption")[0].text.strip()
    assert all(str(element.given.get("aria-label")).strip() for element in page.all("svg"))
    assert all(str(element.given.get("alt")).strip() for element in page.all("img"))


def test_the_cells_are_the_means_worked_out_by_hand_with_published_numbers_beside(page: Element) -> None:
    """Means of 40, 41, 42.5 minus n; the half width is 4.303 x 1.2583 / sqrt(3) = 3.126."""
    table = page.all("table")[0]
    heads = [element.all("button")[0] for element in table.all("th") if "data-column" in element.given]
    full = "Concatenated (512-d)"
    assert [head.given["aria-label"] for head in heads[1:]] == [
        f"{full} MAP@R",
        f"{full} MAP@R, published",
        f"{full} P@1",
    ]
    lines = {line.all("th")[0].text.strip(): line.all("td") for line in table.all("tbody")[0].all("tr")}
    texts = {label: [re.sub(r"\s+", " ", cell.text).strip() for cell in cells] for label, cells in lines.items()}
    assert texts["ProxyNCA"] == ["40.17 ± 3.13", "31.50 ± 0.25", "40.17 ± 3.13"]
    assert texts["Triplet"] == ["39.17 ± 3.13", "", "39.17 ± 3.13"]
    assert texts["Quoted q"] == ["31.50 ± 0.25", "", ""] and texts["Absent"] == ["", "", ""]
    assert float(str(lines["Triplet"][0].given["data-value"])) == pytest.approx(39 + 1 / 6)
    assert lines["Absent"][0].given["data-value"] == ""


def test_rows_that_cannot_be_told_from_the_best_are_marked_by_more_than_a_colour(page: Element) -> None:
    lines = page.all("table")[0].all("tbody")[0].all("tr")
    marked = [line.all("th")[0].text.strip()[:8] for line in lines if line.all("td")[0].all("b")]
    assert marked == ["<script>"]  # the others are exactly 1 and 2 below in every run


def test_regions_that_scroll_have_names_of_their_own_in_each_part(tmp_path: Path) -> None:
    table = table_of(["ProxyNCA", "Triplet"])
    table.sections.append(table_of(["Contrastive", "Margin"]).sections[0])
    page = page_of(table, tmp_path)
    regions = [one.given["aria-labelledby"] for one in page.all("div") if one.given.get("role") == "region"
               and "aria-labelledby" in one.given]  # fmt: skip
    named = {one.given["id"]: one.text for one in page.all("caption")}
    names = [named[region] for region in regions]
    assert len(names) >= 4 and len(set(names)) == len(names), names
