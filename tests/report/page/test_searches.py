"""The page of the searches: Ax's analyses as data that cannot become code."""

import json
from pathlib import Path

import pytest

from benchmark.report.group_table import read_entry
from benchmark.report.page.searches import Analysis, Search, analysed, html
from tests import chromium
from tests.report.page.test_page import Parser

STUDY = Path(__file__).parents[3] / "results/reference/studies/glyphs-small_conv-hpl/contrastive"
HOSTILE = "</script><script>alert(1)</script>"


def test_a_name_in_a_figure_stays_data_and_plotly_stands_there_once() -> None:
    figure = json.dumps({"data": [{"name": HOSTILE}], "layout": {}})
    text = html(HOSTILE, [Search(HOSTILE, HOSTILE, [Analysis(HOSTILE, HOSTILE, figure)] * 2, "")])
    scripts = Parser(text).open[0].all("script")
    assert [script.given.get("type") for script in scripts] == ["application/json"] * 2 + [None] * 2
    assert json.loads(scripts[0].text) == json.loads(figure)
    assert 4_000_000 < len(text) < 6_000_000


@pytest.mark.slow
@pytest.mark.skipif(chromium.program() is None, reason="Chromium is not installed: apt-get install chromium")
def test_every_analysis_of_a_committed_search_is_drawn(tmp_path: Path) -> None:
    found = analysed(read_entry(STUDY, [STUDY]))
    assert found is not None and not found.note
    assert [analysis.title for analysis in found.analyses] == [
        "Parallel coordinates", "Importance", "Cross-validation of the surrogate", "Slice: pos_margin",
        "Slice: neg_margin",
    ]  # fmt: skip
    lines = json.loads(found.analyses[0].figure)["data"][0]["dimensions"]
    assert len(lines[0]["values"]) == 10 and max(lines[-1]["values"]) == pytest.approx(42.59, abs=0.005)
    (tmp_path / "search.html").write_text(html("any", [found]), encoding="utf-8")
    with chromium.page() as page:
        page.open(tmp_path / "search.html", 390)
        assert page.run("document.querySelectorAll('.js-plotly-plot .main-svg').length") >= 5
        assert page.run("document.documentElement.scrollWidth") <= 390
        assert not [text for text in page.console if "WebGL" not in text]
