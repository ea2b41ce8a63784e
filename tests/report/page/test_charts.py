"""The figures of a page: what stands where, and how they become SVG."""

import re
from xml.etree import ElementTree

import pytest

from benchmark.report.differences import compare
from benchmark.report.figures.palette import ACCENT, MUTED, PAPER, WARM
from benchmark.report.page import charts
from benchmark.report.page.svg import to_svg
from benchmark.report.table import Effort, Section
from tests.report.page.test_page import COLUMNS, QUOTED, row

FIRST = COLUMNS[0]


def effort(hours: float, validation: float, separated: float) -> Effort:
    return Effort(6, 6, 2, 10, 10, hours, 3, 0.0, validation, validation, separated, (), 1)


@pytest.fixture(scope="module")
def section() -> Section:
    rows = [
        row("worst", "worst", [30.0, 31.0, 32.0], effort=effort(0.1, 40.0, 20.0)),
        row("best", "best", [40.0, 41.0, 42.0], effort=effort(0.4, 50.0, 30.0), published={FIRST.key: QUOTED}),
        row("near", "near", [39.0, 41.5, 41.6], effort=effort(2.0, 45.0, 25.0)),
    ]
    found = Section(COLUMNS, rows, 0.95)
    compare(found)
    return found


def test_the_best_row_is_on_top_and_filled_are_those_that_cannot_be_told_from_it(section: Section) -> None:
    with charts.style():
        figure = charts.forest(section, FIRST)
    assert figure is not None
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["worst", "near", "best"]
    points = {float(line.get_ydata()[0]): line for line in axes.lines if line.get_marker() == "o"}
    assert [float(points[place].get_xdata()[0]) for place in (0, 2)] == [31.0, 41.0]
    assert [points[place].get_markerfacecolor() for place in (0, 1, 2)] == [PAPER, ACCENT, ACCENT]
    (published,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert (published.get_xdata()[0], published.get_ydata()[0]) == (QUOTED.value, 2)


def test_differences_are_filled_only_where_the_adjusted_test_tells_them(section: Section) -> None:
    with charts.style():
        figure = charts.differences(section, FIRST)
    assert figure is not None
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["near\n− best", "worst\n− best"]
    near, worst = [line for line in axes.lines if line.get_marker() == "o"]
    assert (float(worst.get_xdata()[0]), worst.get_markerfacecolor(), worst.get_color()) == (-10.0, WARM, WARM)
    assert float(near.get_xdata()[0]) == pytest.approx(-0.3) and near.get_markerfacecolor() == PAPER
    assert near.get_color() == MUTED


def test_cost_and_validation_have_one_named_point_for_each_row(section: Section) -> None:
    with charts.style():
        cost, validation = charts.cost(section, FIRST), charts.validation(section)
    assert cost is not None and validation is not None
    assert cost.axes[0].lines[0].get_xydata().tolist() == [[0.1, 31.0], [0.4, 41.0], [2.0, pytest.approx(40.7)]]
    assert validation.axes[0].lines[0].get_xydata().tolist() == [[40.0, 20.0], [50.0, 30.0], [45.0, 25.0]]
    assert {text.get_text() for text in cost.axes[0].texts} == {"worst", "best", "near"}
    assert [label.get_text() for label in cost.axes[0].get_xticklabels()] == ["0.1", "0.2", "0.5", "1", "2"]


def test_a_training_that_stopped_counts_up_to_its_last_epoch() -> None:
    history = charts.History("any", [{0: 1.0, 1: 5.0}, {0: 3.0, 1: 7.0, 2: 9.0}], "score")
    with charts.style():
        (axes, _) = charts.training([history]).axes
    assert axes.lines[0].get_xydata().tolist() == [[0, 2.0], [1, 6.0], [2, 9.0]]


def test_without_two_complete_rows_there_is_nothing_to_draw() -> None:
    section = Section(COLUMNS, [row("one", "one", [30.0, 31.0])], 0.95)
    assert charts.forest(section, FIRST) is None and charts.differences(section, FIRST) is None
    assert charts.cost(section, FIRST) is None and charts.validation(section) is None


def test_a_label_stays_text_and_only_colours_of_the_palette_become_variables() -> None:
    from matplotlib.figure import Figure

    label = f'<b> style="{ACCENT}" $x_1$ url(#a) 中'
    with charts.style():
        figure = Figure(figsize=(2, 1))
        axes = figure.subplots()
        axes.plot([0, 1], color=ACCENT)
        axes.plot([1, 0], color="#123456")
        axes.set_title(label)
        text = to_svg(figure, "one", "a figure")
    root = ElementTree.fromstring(text)
    assert label in [element.text for element in root.iter() if element.tag.endswith("}text")]
    styles = " ".join(element.get("style", "") for element in root.iter())
    assert "var(--accent)" in styles and ACCENT not in styles and "#123456" in styles
    assert not [element for element in root.iter() if element.tag.endswith(("}style", "}metadata"))]
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(str(name).startswith("one-") for name in ids)
    links = re.findall(r'url\(#([^)"]+)\)|href="#([^"]+)"', text.replace("url(#a)", ""))
    assert {first or second for first, second in links} <= set(ids) and links
    assert root.get("aria-label") == "a figure" and root.get("width") is None


def test_a_text_beyond_the_figure_is_not_cut_off() -> None:
    from matplotlib.figure import Figure

    def width(label: str) -> float:
        figure = Figure(figsize=(1, 1))
        figure.text(0.5, 0.5, label)
        return float(ElementTree.fromstring(to_svg(figure, "one", "a figure")).get("viewBox", "").split()[2])

    assert width("sets of trials, each searched with other seeds") > 2 * width("sets")
