"""The command `report`, and its page in a real browser."""

import html
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from benchmark.html_report import report
from tests import chromium
from tests.command_line import assert_refused, run

ROOT = Path(__file__).parents[1]
AXE = "AXE_CORE"  # environment variable with the path of axe.min.js
needs_chromium = pytest.mark.skipif(
    chromium.program() is None, reason="Chromium is not installed: apt-get install chromium"
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with a committed search whose final runs are missing."""
    group = "studies/glyphs-small_conv-hpl"
    shutil.copytree(ROOT / "results/one_of_each" / group / "contrastive", tmp_path / group / "contrastive")
    shutil.rmtree(tmp_path / group / "contrastive" / "final_eval")
    return tmp_path


@pytest.mark.slow
def test_the_page_of_a_search_without_final_runs_says_what_is_missing(results: Path) -> None:
    ended = run(report, f"results_dir={results}")
    assert ended.status == 0, ended
    text = (results / "report.html").read_text(encoding="utf-8")
    assert f"wrote {results}/report.html" in ended.out
    assert re.search(r"<dd>0 complete rows; incomplete: Contrastive(; \d+ not run)?</dd>", text)
    assert "Contrastive: 3 of 3 runs are missing: 0-2" in text
    drawn = {f"figures/glyphs-small_conv-hpl-search.{kind}" for kind in ("pdf", "png")}
    assert {f"figures/{path.name}" for path in (results / "figures").iterdir()} == drawn
    assert all(f'href="{name}"' in text for name in drawn)
    assert f"make trace CELL=glyphs-small_conv-hpl/contrastive ARGS=results_dir={results}</code>" in text
    assert "contrastive: bo/trial_*.json" in text


@pytest.mark.slow
def test_the_same_records_make_the_same_page_and_figures(results: Path) -> None:
    assert run(report, f"results_dir={results}").status == 0
    before = {path: path.read_bytes() for path in (results / "report.html", *(results / "figures").iterdir())}
    assert run(report, f"results_dir={results}").status == 0
    assert {path: path.read_bytes() for path in before} == before


def test_a_single_study_and_an_empty_folder_are_refused_with_the_next_command(results: Path, tmp_path: Path) -> None:
    assert_refused(run(report, f"results_dir={results}", "loss=proxy_nca"), "results folder", "make report ARGS=")
    nothing = run(report, f"results_dir={tmp_path / 'none'}")
    assert_refused(nothing, "There are no studies to read", "make bo final-eval")
    assert_refused(run(report, f"results_dir={results}", "bootstrap=1"), "bootstrap=1", "1000")


@pytest.mark.slow
def test_the_page_names_the_command_that_draws_what_a_study_keeps(results: Path) -> None:
    (study,) = results.glob("studies/*/contrastive")
    kept = study / "final_eval/trial_000/run_01/embeddings.npz"
    kept.parent.mkdir(parents=True)
    with zipfile.ZipFile(kept, "w") as file:
        file.writestr("fold_0.owners_0.npy", b"")
    assert run(report, f"results_dir={results}").status == 0
    text = html.unescape((results / "report.html").read_text(encoding="utf-8"))
    command = f"make figures STUDY={study} 'ARGS=figure=[retrieval,embeddings,hierarchy] run=1'"
    assert f"<code>{command}</code>" in text
    (study / "figures").mkdir()
    Image.new("L", (8, 8)).save(study / "figures" / "run_01_retrieval.png")
    assert run(report, f"results_dir={results}").status == 0
    text = (results / "report.html").read_text(encoding="utf-8")
    assert "make figures" not in text and "Contrastive, run 1. Retrieved images" in text


def test_a_damaged_study_is_named_on_the_page(results: Path) -> None:
    (study,) = results.glob("studies/*/contrastive")
    damaged = shutil.copytree(study, study.with_name("damaged"))
    (damaged / "study.yaml").write_text("{")
    assert run(report, f"results_dir={results}").status == 0
    assert f"{damaged} is left out" in (results / "report.html").read_text(encoding="utf-8")


# -- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of committed records."""
    folder = tmp_path_factory.mktemp("page")
    group = "studies/glyphs-small_conv-hpl"
    for loss in ("proxy_nca", "hpl_nca", "proxy_anchor", "hpl_pa"):
        shutil.copytree(ROOT / "results" / "reference" / group / loss, folder / group / loss)
    (folder / group / "hpl_pa" / "figures").mkdir()
    for name, size in (("retrieval", (2000, 400)), ("embeddings_tsne", (600, 400)), ("hierarchy", (1500, 3000))):
        Image.new("L", size, 90).save(folder / group / "hpl_pa" / "figures" / f"run_00_{name}.png")
    assert run(report, f"results_dir={folder}").status == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Page]:
    with chromium.page() as page:
        yield page


# Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3), as pairs of a text and the contrast.
CONTRAST = """(() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const found = parts(getComputedStyle(e).backgroundColor); if (found.length < 4 || found[3] > 0) return found; } };
  const bad = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || e.closest("script, style")) continue;
    const style = getComputedStyle(e), color = e instanceof SVGElement ? style.fill : style.color;
    const [x, y] = [light(parts(color)), light(behind(e))].sort((a, b) => b - a);
    count += 1;
    if ((x + 0.05) / (y + 0.05) < 4.5) bad.push([texts.currentNode.data, (x + 0.05) / (y + 0.05)]);
  }
  return [count, bad];
})()"""


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_quiet_fits_its_window_and_can_be_read(
    committed: Path, browser: chromium.Page, width: int, dark: bool
) -> None:
    assert committed.stat().st_size < 3_000_000
    browser.open(committed, width, dark=dark)
    assert browser.console == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    count, bad = browser.run(CONTRAST)
    assert count > 300 and bad == []


@pytest.mark.slow
@needs_chromium
def test_everything_is_reached_by_tab_in_the_order_of_the_page(committed: Path, browser: chromium.Page) -> None:
    browser.open(committed, 1280)
    focusable = "[...document.querySelectorAll('a[href], button, summary, [tabindex=\"0\"]')]"
    shown = f"{focusable}.filter((e) => e.checkVisibility())"
    places = []
    for _ in range(40):
        browser.press("Tab")
        places.append(browser.run(f"{shown}.indexOf(document.activeElement)"))
        outline = browser.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", browser.run("document.activeElement.outerHTML")
    assert places == list(range(40))


@pytest.mark.slow
@needs_chromium
def test_a_column_is_sorted_by_keyboard_and_a_link_opens_the_records(committed: Path, browser: chromium.Page) -> None:
    browser.open(committed, 1280)
    column = "[...document.querySelector('tbody').rows].map((row) => Number(row.cells[1].dataset.value))"
    column += ".filter((value) => value)"  # rows without a number stay at the end
    before = browser.run(column)
    browser.run("document.querySelector('th[data-column=\"1\"] button').focus()")
    for order, state in ((sorted(before, reverse=True), "descending"), (sorted(before), "ascending")):
        browser.press("Enter")
        assert browser.run(column) == order != before
        assert browser.run("document.activeElement.closest('th').ariaSort") == state
    assert browser.run("document.querySelectorAll('th[aria-sort=ascending]').length") == 1
    browser.run("document.querySelector('tbody th a').click()")
    browser.run("new Promise((done) => setTimeout(done, 100))")
    assert browser.run("document.querySelector('details').open")
    assert re.match("make trace CELL=", browser.run("document.querySelector(':target code').textContent"))


@pytest.mark.slow
@needs_chromium
def test_the_button_changes_the_theme(committed: Path, browser: chromium.Page) -> None:
    browser.open(committed, 390)
    paper = "getComputedStyle(document.body).backgroundColor"
    assert (browser.run(paper), browser.run("theme.textContent")) == ("rgb(255, 255, 255)", "Dark theme")
    browser.run("theme.click()")
    assert (browser.run(paper), browser.run("theme.textContent")) == ("rgb(17, 22, 28)", "Light theme")
    assert browser.run(CONTRAST)[1] == []


@pytest.mark.slow
@needs_chromium
@pytest.mark.skipif(not os.environ.get(AXE), reason=f"{AXE} does not name axe.min.js: npm install axe-core")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_fault(committed: Path, browser: chromium.Page, dark: bool) -> None:
    browser.open(committed, 390, dark=dark)
    browser.run(Path(os.environ[AXE]).read_text(encoding="utf-8") + ";0")
    found = browser.run("axe.run().then((found) => found.violations.map((v) => [v.id, v.nodes[0].html]))")
    assert found == []
