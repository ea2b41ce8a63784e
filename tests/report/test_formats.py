"""The three formats as other programs read them; pdflatex reads a table alone, and in papers of one and two columns."""

import csv
import dataclasses
import io
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from benchmark.core import escape
from benchmark.experiment.layouts import describing
from benchmark.protocol.statistics import Interval, t_interval
from benchmark.report import formats
from benchmark.report import group_table as tables
from benchmark.report.differences import compare
from benchmark.report.effort import effort_block
from benchmark.report.published import published_block
from benchmark.report.table import Column, Effort, Published, Row, Section, Table
from benchmark.report.table_layout import Layout
from benchmark.study.study import Study
from tests import fake_results, hostile

Compose = Callable[..., Study]
RUNS = [0.40, 0.42, 0.44, 0.46]  # mean 43.00, half width 4.11: worked out in test_tables.py
PAPER = (
    r"\documentclass[%s]{article}\usepackage{booktabs}\begin{document}Before. \input{table.tex} After."
    r" See Table~\ref{tab:any}.\end{document}"
)
PAPERS = {"alone": None, "one column": PAPER % "", "two columns": PAPER % "twocolumn"}

pytestmark = pytest.mark.usefixtures("no_fsync")
needs_pdflatex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="pdflatex is not installed: apt-get install texlive-latex-base texlive-latex-recommended",
)


def table_of(name: str, studies: Sequence[Study], layout: Layout | None = None) -> Table:
    """The table of studies on disk, in this order."""
    folders = [study.directory for study in studies]
    entries = [tables.read_entry(folder, folders) for folder in folders]
    return tables.make_table(name, entries, layout or Layout())


def compiled(folder: Path, table: str, paper: str | None) -> tuple[str, str | None]:
    """pdflatex's log and, where pdftotext is installed, the text of the PDF."""
    (folder / "table.tex").write_text(table)
    (folder / "main.tex").write_text(table if paper is None else paper)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"]
    for _ in range(2):  # the second time for the reference
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout[-2000:]
    log = (folder / "main.log").read_text(errors="replace").replace("\n", " ")
    if shutil.which("pdftotext") is None:
        return log, None
    command = ["pdftotext", "-layout", "main.pdf", "-"]
    return log, subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def check_log(log: str) -> None:
    """No error, nothing undefined, and nothing that sticks out by more than a point."""
    assert "! " not in log and "undefined" not in log and "multiply defined" not in log
    too_wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert all(points < 1 for points in too_wide), too_wide


def row_of(text: str, label: str) -> list[str]:
    """What stands right of a row's label."""
    line = next(line for line in text.splitlines() if re.match(rf"\s*{re.escape(label)}(\s+\d|\s+MAP|\s*$)", line))
    return line.replace(label, "", 1).split()


@pytest.fixture(scope="module")
def nine_rows(compose_study_in: Compose, tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The table of the glyphs experiment with a failed, an unfinished and an absent row."""
    results_dir = tmp_path_factory.mktemp("nine_rows")
    layout = describing("glyphs-small_conv-hpl", Path("results"), ["proxy_nca"])
    studies = []
    for loss in [line.study for line in layout.lines][:-1]:
        study = compose_study_in(results_dir, f"loss={loss}", "protocol.num_runs=4")
        studies.append(study)
        if loss == "hpl_nca_eq3":
            fake_results.start(study, trials=range(5))
        elif loss == "hpl_nca":
            fake_results.finish(study, [0.4, "fold 2: the training loss is nan in epoch 1", None, 0.5])
        else:
            fake_results.finish(study, [value + 0.01 * (loss == "hpl_pa") for value in RUNS])
    return table_of("any", studies, layout)


@pytest.mark.slow
@needs_pdflatex
@pytest.mark.parametrize("where", PAPERS)
def test_nine_losses_fit_the_page_and_the_pdf_holds_the_numbers_and_the_reasons(
    nine_rows: Table, tmp_path: Path, where: str
) -> None:
    assert len(nine_rows.rows) == 9
    log, text = compiled(tmp_path, formats.latex(nine_rows), PAPERS[where])
    check_log(log)
    if text is None:
        return
    assert "Concatenated (512-d)" in text and "Separated (128-d)" in text
    assert row_of(text, "Loss") == ["MAP@R", "P@1", "RP"] * 2
    for label, more in {"Contrastive": 0, "ProxyNCA (Eq. 3)": 0, "HPL-PA": 1}.items():
        means = [f"{43 + lower + higher + more}.00" for lower in (0, -5) for higher in (0, 30, 10)]
        assert row_of(text, label) == [part for mean in means for part in (mean, "±4.11")]
    assert [row_of(text, label) for label in ("HPL-NCA", "HPL-NCA (Eq. 3)", "HPL-PA-GT")] == [[], [], []]
    plain = " ".join(text.split())  # a PDF's underscore may be a rule, which is no text
    assert "Mean ± 95 % t-interval over n = 4 runs, in percent" in plain
    for words in (
        "HPL-NCA: run.01 has no score .fold 2: the training loss is nan in epoch 1.; 1 of 4 runs is missing: 2;",
        "make final-eval DATASET=glyphs LOSS=hpl.nca",
        r"HPL-NCA \(Eq. 3\): its search is unfinished, with 5 trials done; make bo final-eval DATASET=glyphs",
        "HPL-PA-GT: not run; make bo final-eval DATASET=glyphs LOSS=hpl.pa.gt",
    ):
        assert re.search(words, plain), words
    assert where == "alone" or "See Table 1." in plain


def test_rows_that_were_not_run_share_a_sentence_if_they_are_many() -> None:
    absent = [Row(name, name.upper(), reason=f"not run; make bo LOSS={name}") for name in "abcd"]
    other = Row("e", "E", reason="1 of 4 runs is missing: 2")
    assert Section([], [*absent[:3], other], 0.95).notes()[1:] == [
        "A: not run; make bo LOSS=a", "B: not run; make bo LOSS=b", "C: not run; make bo LOSS=c",
        "E: 1 of 4 runs is missing: 2",
    ]  # fmt: skip
    assert Section([], [absent[0], other, *absent[1:]], 0.95).notes()[1:] == [
        "E: 1 of 4 runs is missing: 2", "Not run: A, B, C, D. The first: make bo LOSS=a",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_best_mean_is_set_in_bold(nine_rows: Table) -> None:
    table = formats.latex(nine_rows)
    line = next(line for line in table.splitlines() if line.startswith("HPL-PA &"))
    assert re.findall(r"\\textbf\{([\d.]+)\}", line) == ["44.00", "74.00", "54.00", "39.00", "69.00", "49.00"]
    assert table.count(r"\textbf") == 6


@needs_pdflatex
def test_one_run_keeps_the_columns_in_place(compose_study: Compose, tmp_path: Path) -> None:
    study = compose_study("loss=hpl_pa", "protocol.num_runs=1")
    fake_results.finish(study, [0.4])
    log, text = compiled(tmp_path, formats.latex(table_of("any", [study])), None)
    check_log(log)
    assert text is None or row_of(text, "HPL-PA") == ["40.00", "70.00", "50.00", "35.00", "65.00", "45.00"]


@needs_pdflatex
def test_a_table_without_a_complete_row_compiles(compose_study: Compose, tmp_path: Path) -> None:
    study = compose_study("loss=hpl_pa")
    fake_results.start(study)
    log, text = compiled(tmp_path, formats.latex(table_of("any", [study])), None)
    check_log(log)
    assert text is None or "No row is complete yet." in " ".join(text.split())


@needs_pdflatex
def test_two_tables_fit_into_one_paper(compose_study: Compose, tmp_path: Path) -> None:
    study = compose_study("loss=hpl_pa", "protocol.num_runs=4")
    fake_results.finish(study, RUNS)
    (tmp_path / "other.tex").write_text(formats.latex(table_of("other", [study])))
    paper = PAPER.replace("After.", r"\input{other.tex} And Table~\ref{tab:other}.") % ""
    log, text = compiled(tmp_path, formats.latex(table_of("any", [study])), paper)
    check_log(log)
    assert text is None or ("And Table 2. See Table 1." in " ".join(text.split()) and text.count("43.00") == 2)


def two_sections(rows: list[Row] | None = None, name: str = "any") -> Table:
    """A table with two sections, with 2 and 3 runs, columns of text, and footnotes."""
    columns = [Column(("x", "y"), "X", "Block"), Column(("z",), "Z", "Block")]
    first = rows or [Row("a", "A"), Row("b", "B")]
    for number, row in enumerate(first):
        row.cells, row.num_runs = {("x", "y"): Interval(-5.0 - number, 1.0, 2), ("z",): Interval(40.0, None, 2)}, 2
        row.values = {("x", "y"): {0: -5.5 - number, 1: -4.5 - number}, ("z",): {0: 40.0, 1: 40.0}}
        row.settings = {"Epochs": str(30 * number), "Batch": "128"}
    other = Row("c", "C", {("x", "y"): Interval(10.0, 2.0, 3)}, 3, "a reason")
    return Table(name, "Caption.", [
        Section(columns, first, 0.95, footnotes=["Devices: cpu for A."]),
        Section(columns[:1], [other], 0.9, differences=["a.b: 1 here, 2 in the first table", "and 3 more"]),
    ])  # fmt: skip


def test_each_section_has_its_own_number_of_runs_and_its_own_best_means() -> None:
    table = two_sections()
    statistics = [section.notes()[0] for section in table.sections]
    assert "95 % t-interval over n = 2 runs" in statistics[0] and "90 % t-interval over n = 3 runs" in statistics[1]
    main, other = formats.markdown(table).split("Not comparable with the first table: ")
    assert "| A | 0 | 128 | **-5.00** ± 1.00 | **40.00** |" in main
    assert "| B | 30 | 128 | -6.00 ± 1.00 | **40.00** |" in main
    assert main.rstrip().endswith("Devices: cpu for A.") and main.startswith("Caption.\n\n| Loss | Epochs | Batch |")
    assert other.startswith("a.b: 1 here, 2 in the first table; and 3 more.\n\n| Loss | Block X |")
    assert "| C | 10.00 ± 2.00 |" in other and "C: a reason" in other


def test_a_section_refuses_rows_with_different_numbers_of_runs() -> None:
    table = two_sections()
    table.sections[0].rows[0].num_runs = 7
    with pytest.raises(AssertionError, match=r"different numbers of runs in a section: \[2, 7\]"):
        formats.markdown(table)


def test_the_csv_numbers_the_sections_and_repeats_their_notes_in_each_row() -> None:
    lines = list(csv.DictReader(io.StringIO(formats.as_csv(two_sections()))))
    assert list(lines[0]) == [
        "part", "loss", "label", "epochs", "batch", "num_runs", "x_y", "x_y_half_width", "z", "z_half_width",
        "x_y_in_best_group", "z_in_best_group", "reason", "notes",
    ]  # fmt: skip
    assert [line["part"] for line in lines] == ["1", "1", "2"] and [line["x_y"] for line in lines] == [
        "-5.0",
        "-6.0",
        "10.0",
    ]
    assert lines[0]["notes"] == "Devices: cpu for A." and lines[2]["z"] == lines[2]["epochs"] == ""
    assert lines[2]["notes"] == "Not comparable with the first table: a.b: 1 here, 2 in the first table; and 3 more."


def test_the_csv_has_the_length_of_a_training_beside_the_epochs_of_all_runs() -> None:
    rows = [Row("a", "A"), Row("b", "B", effort=EFFORT)]
    (_, line, _) = csv.DictReader(io.StringIO(formats.as_csv(two_sections(rows))))
    assert (line["epochs"], line["total_epochs"]) == ("30", "316")


def test_the_csv_refuses_two_columns_of_the_same_name() -> None:
    table = two_sections()
    table.rows[0].settings["Num_runs"] = "7"
    with pytest.raises(ValueError, match="two columns of the same name: num_runs"):
        formats.as_csv(table)


def test_the_csv_has_the_numbers_that_texts_round() -> None:
    table = two_sections()
    table.rows[0].settings["Gain"], table.rows[0].exact["Gain"] = "+0.12", 0.123456
    assert "| A | 0 | 128 | +0.12 |" in formats.markdown(table)
    assert next(csv.DictReader(io.StringIO(formats.as_csv(table))))["gain"] == "0.123456"


def test_a_table_of_one_section_without_footnotes_has_neither_parts_nor_notes() -> None:
    section = Section([Column(("x",), "X")], [Row("a", "A")], 0.95)
    text = formats.as_csv(Table("any", "Caption.", [section]))
    assert text == "loss,label,num_runs,x,x_half_width,reason\na,A,0,,,\n"


KEYS = [(mode, metric) for mode in ("concatenated", "separated") for metric in ("map_at_r", "p_at_1", "rp")]
EFFORT = Effort(10, 16, 2, 31_600, 316, 0.28, 10, 1.0, 29.3, 28.7, 16.9, (), 1, all_trials=10)


def full_table() -> Table:
    """A table with everything: six columns, marks, a quoted row, published numbers, differences and efforts."""
    columns = [Column(key, key[1], f"{key[0]} (512-d)", is_main=key[1] == "map_at_r") for key in KEYS]
    noise = [0.0, 0.3, -0.1, 0.2]
    rows = [Row("", "HTL & co_1", published={KEYS[0]: Published(61.5, None, "HPL_T3")})]
    for name, mean in {"proxy_nca": 20.0, "hpl_nca": 20.2, "hpl_nca_eq3": 30.0}.items():
        row = Row(name, f"{name}, |P|", num_runs=4, effort=EFFORT, base="proxy_nca")
        for key in KEYS:
            row.values[key] = {run: mean + noise[(run + len(name)) % 4] for run in range(4)}
            row.cells[key] = t_interval(list(row.values[key].values()))
        row.published = {KEYS[0]: Published(21.5, 0.25, "HPL_T3"), KEYS[3]: Published(19.0, None, "S")}
        rows.append(row)
    rows[1].effort = dataclasses.replace(EFFORT, on_bounds=("proxy_lr = 1",))
    rows[2].effort = dataclasses.replace(EFFORT, idle=1, num_folds=1, codes=2)
    rows[3].over_searches = {KEYS[0]: Interval(29.5, 1.75, 3)}
    section = Section(columns, rows, 0.95, budget="Compared at a fixed budget.")
    compare(section)
    section.blocks += [*published_block(section), *effort_block(section)]
    return Table("any", "Caption.", [section], warning="Not for reporting: budget=small.")


def test_a_quoted_row_is_in_italics_with_its_mark_and_never_bold_or_compared() -> None:
    text = formats.markdown(full_table())
    quoted = next(line for line in text.splitlines() if line.startswith("| *HTL"))
    assert quoted == "| *HTL & co_1* <sup>q</sup> | 61.50 |  |  |  |  |  |  |"
    assert text.count("HTL") == 1 and "q: quoted from a paper, not run here." in text
    assert r"\emph{HTL \& co\_1}\textsuperscript{q} & 61.50 & " in formats.latex(full_table())


def test_published_numbers_stand_beside_ours_with_the_difference() -> None:
    text = formats.markdown(full_table()).split("**Published numbers")[1]
    assert "| Loss | concatenated (512-d) map_at_r | separated (512-d) map_at_r |" in text
    # Ours is 20 plus the mean of 0.0, 0.3, -0.1 and 0.2, which is 0.1.
    assert r"| proxy_nca, \|P\| | 21.50 ± 0.25 (-1.40) | 19.00 (+1.10) |" in text
    assert "Sources: HPL_T3, S." in text
    line = list(csv.DictReader(io.StringIO(formats.as_csv(full_table()))))[1]
    assert (line["concatenated_map_at_r_published"], line["concatenated_map_at_r_published_half_width"]) == (
        "21.5",
        "0.25",
    )
    assert float(line["concatenated_map_at_r_minus_published"]) == pytest.approx(-1.4)
    assert line["concatenated_map_at_r_source"] == "HPL_T3"


def test_published_times_and_counts_stand_below_the_table_for_quoted_rows_too() -> None:
    time, count = ("seconds_per_iteration",), ("num_proxies",)
    quoted = Row("", "HDML", published={time: Published(1.1, None, "T1")})
    effort = dataclasses.replace(EFFORT, resources={"seconds_per_iteration": 0.5})
    ours = Row("hier", "HIER", effort=effort)
    ours.published = {time: Published(0.25, None, "T1"), count: Published(11830.0, None, "T2")}
    (block,) = published_block(Section([Column(KEYS[0], "MAP@R")], [quoted, ours], 0.95))
    assert [head.title for head in block.heads] == ["Loss", "Proxies", "s / iteration"]
    assert block.groups == {"": [["HDML", "", "1.10"], ["HIER", "11,830", "0.25 (+0.25)"]]}
    text = formats.as_csv(Table("any", "", [Section([], [quoted, ours], 0.95)]))
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["seconds_per_iteration_published"], first["seconds_per_iteration"]) == ("1.1", "")
    assert (second["seconds_per_iteration"], second["num_proxies_published"]) == ("0.5", "11830.0")


def test_a_table_that_is_not_for_reporting_says_so_in_every_format() -> None:
    warning = "Not for reporting: budget=small."
    assert formats.markdown(full_table()).startswith(
        f"**{warning}**\n\nCaption.\n\nCompared at a fixed budget.\n\n| Loss |"
    )
    tex = formats.latex(full_table())
    assert tex.count(rf"\caption{{\textbf{{{warning}}} ") == tex.count(r"\caption{") == 4
    assert all(line["notes"].startswith(warning) for line in csv.DictReader(io.StringIO(formats.as_csv(full_table()))))


def test_marks_stand_at_their_rows_and_those_of_all_rows_are_stated_once() -> None:
    text = formats.markdown(full_table())
    assert r"| proxy_nca, \|P\| <sup>b</sup> |" in text and r"| hpl_nca, \|P\| <sup>i,c</sup> |" in text
    assert "b: the chosen setting is on a bound of its search space: proxy_nca," in text and "(proxy_lr = 1)." in text
    assert "The search is shorter than its protocol's (10 of 16 trials): all rows." in text
    assert "More than half of the folds were stopped by the limit of epochs, not by patience: all rows." in text
    words = [line["marks"] for line in csv.DictReader(io.StringIO(formats.as_csv(full_table())))]
    assert words[0] == "Quoted from a paper, not run here" and "10 of 16 trials" in words[1]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], "all rows"),
        ([("not run", None, False)], "all rows with results"),
        ([("half a search", ("proxy_lr = 9",), False)], "all rows with results"),
        ([("unsearched", (), True)], "all searched rows with results"),
        ([("not run", None, False), ("unsearched", (), True)], "all searched rows with results"),
        ([("within", (), True)], ""),
    ],
)
def test_a_mark_of_searches_counts_the_rows_that_were_searched_and_have_results(
    others: list[tuple[str, tuple[str, ...] | None, bool]], said: str
) -> None:
    rows = [Row("", "quoted", published={KEYS[0]: Published(61.5, None, "T")})]
    for name, bounds, is_complete in [("a", ("proxy_lr = 1",), True), ("b", ("proxy_lr = 1",), True), *others]:
        trials, searched = (None, 0) if name == "unsearched" else (16, 2)
        own = bounds is not None and dataclasses.replace(EFFORT, trials=trials, searched=searched, on_bounds=bounds)
        cells = {KEYS[0]: Interval(30.0, 1.0, 4)} if is_complete else {}
        rows.append(Row(name, name, cells=cells, num_runs=4 * is_complete, effort=own or None))
    section = Section([Column(KEYS[0], "MAP@R")], rows, 0.95)
    (note,) = [note for note in section.notes() if "on a bound" in note]
    meaning = "on a bound of its search space"
    assert note.endswith(
        f"{meaning} (proxy_lr = 1): {said}." if said else f"{meaning}: a (proxy_lr = 1), b (proxy_lr = 1)."
    )
    assert [section.marks_at(row) for row in rows[1:3]] == ["" if said else "b"] * 2


def test_an_interval_over_searches_has_a_column_of_its_own() -> None:
    table = full_table()
    text = formats.markdown(table)
    assert "| separated (512-d) rp | concatenated (512-d) map_at_r over searches |" in text
    assert next(line for line in text.splitlines() if line.startswith("| hpl_nca_eq3")).endswith("| 29.50 ± 1.75 |")
    assert "which covers the luck of the search; the other intervals cover" in table.sections[0].notes()[0]
    table.sections[0].rows[3].over_searches = {}
    assert "training noise only, one search for each row." in table.sections[0].notes()[0]
    line = list(csv.DictReader(io.StringIO(formats.as_csv(full_table()))))[3]
    assert line["concatenated_map_at_r_over_searches_half_width"] == "1.75"


def test_the_csv_has_the_comparisons_of_every_column() -> None:
    line = list(csv.DictReader(io.StringIO(formats.as_csv(full_table()))))[2]
    assert line["compared_with"] == "proxy_nca" and line["separated_rp_in_best_group"] == "0"
    assert float(line["separated_rp_difference"]) == pytest.approx(0.2)
    assert line["separated_rp_p"] and line["iterations"] == "31600" and line["looks_at_test_classes"] == "10"


@pytest.mark.slow
@needs_pdflatex
@pytest.mark.parametrize("where", PAPERS)
def test_a_table_with_everything_fits_the_page(tmp_path: Path, where: str) -> None:
    log, text = compiled(tmp_path, formats.latex(full_table()), PAPERS[where])
    check_log(log)
    assert text is None or "Not for reporting" in text


def many_columns() -> Table:
    """Two rows with the eleven columns of a table of corruptions."""
    titles = ["None", "Gaussian noise", "Salt and pepper", "Uniform noise", "Cutout", "Coarse dropout", "Rotation",
              "Perspective", "Blur", "JPEG", "Mean"]  # fmt: skip
    columns = [Column((title,), title) for title in titles]
    rows = [Row(name, f"{name}, last epoch", num_runs=2, settings={"Epochs": "60"}) for name in "ab"]
    for row in rows:
        row.cells = {column.key: Interval(50.0 + number, 1.5, 2) for number, column in enumerate(columns)}
    return Table("any", "Many.", [Section(columns, rows, confidence=0.95)])


def test_many_columns_go_on_below_in_latex_with_every_row() -> None:
    lines = formats.latex(many_columns()).splitlines()
    heads = [re.findall(r"c@\{\}\}\{(.+?)\}", line) for line in lines if line.startswith("Loss &")]
    assert [len(each) for each in heads] == [6, 5] and heads[-1][-1] == "Mean"
    means = [re.findall(r"(\d\d\.00)", line) for line in lines if line.startswith("b, last epoch &")]
    assert [*itertools.chain(*means)] == [f"{50 + number}.00" for number in range(11)]
    assert sum(line.startswith(r"\caption") for line in lines) == 1 and "Epochs" not in " ".join(lines)


@pytest.mark.slow
@needs_pdflatex
@pytest.mark.parametrize("where", PAPERS)
def test_a_table_with_many_columns_fits_the_page(tmp_path: Path, where: str) -> None:
    log, _ = compiled(tmp_path, formats.latex(many_columns()), PAPERS[where])
    check_log(log)


@needs_pdflatex
@pytest.mark.parametrize("where", PAPERS)
def test_every_section_is_a_table_with_its_own_label(tmp_path: Path, where: str) -> None:
    paper = PAPERS[where]
    paper = paper and paper.replace("See Table", r"Not Table~\ref{tab:any:2}. See Table")
    log, text = compiled(tmp_path, formats.latex(two_sections()), paper)
    check_log(log)
    if text is not None:
        assert row_of(text, "A") == ["0", "128", "-5.00", "±1.00", "40.00"] and row_of(text, "C") == ["10.00", "±2.00"]
        assert where == "alone" or "Not Table 2. See Table 1." in " ".join(text.split())


@needs_pdflatex
def test_any_sign_in_a_label_a_caption_or_a_reason_is_printed_as_it_is(tmp_path: Path) -> None:
    signs = "a_b 5% R&D #1 $x {y} ^z ~t <u> |v| back\\slash [w] *"
    row = Row("x", signs, reason=signs)
    table = Table("any", signs, [Section([Column(("x",), "X")], [row], confidence=0.95)])
    log, text = compiled(tmp_path, formats.latex(table), None)
    check_log(log)
    if text is not None:
        plain = " ".join(text.replace("ˆ", "^").replace("˜", "~").split())
        assert plain.count("5% R&D #1 $x {y} ^z ~t <u> |v| back\\slash [w] *") == 4


@needs_pdflatex
@pytest.mark.parametrize("name", ["any", "a}b\\input{x}%\n\n#1 \x1b\udcff"])
def test_hostile_text_compiles_wherever_it_stands(tmp_path: Path, name: str) -> None:
    """In labels, reasons, kinds, columns of text, captions, footnotes and differences, in papers and alone."""
    rows = [Row(text, text, reason=text, kind=text) for text in hostile.ALL]
    table = two_sections(rows, name)
    for row in rows:
        row.settings = {"Epochs": row.label}
    table.caption = " ".join(hostile.ALL)
    table.sections[1].differences = table.sections[0].footnotes = hostile.ALL
    table.sections[0].rows, table.sections[1].rows = rows[::2], rows[1::2]
    paper = None if name == "any" else PAPER.replace(r"See Table~\ref{tab:any}.", "") % ""
    log, _ = compiled(tmp_path, formats.latex(table), paper)
    assert "! " not in log and "multiply defined" not in log


def test_written_tables_have_no_control_characters_and_read_back(tmp_path: Path) -> None:
    rows = [Row(text, text, reason=text) for text in hostile.ALL]
    table = two_sections(rows)
    table.sections[0].footnotes = list(hostile.ALL)
    texts = {path.suffix: path.read_text(encoding="utf-8") for path in formats.write_table(table, tmp_path)}
    for text in texts.values():
        assert all(char.isprintable() or char in "\n\u00a0" for char in text)
    lines = list(csv.DictReader(io.StringIO(texts[".csv"])))
    assert [line["label"].removeprefix("'") for line in lines] == [
        escape.one_line(text).removeprefix("'") for text in (*hostile.ALL, "C")
    ]
    assert lines[0]["x_y"] == "-5.0", "a negative number is no formula"
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(texts[".md"])
    cells = [token for before, token in itertools.pairwise(tokens) if before.type == "td_open"]
    assert [cell.content for cell in cells[1::5]][: len(rows)] == [row.settings["Epochs"] for row in rows]
