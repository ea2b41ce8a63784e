"""The three formats as other programs read them; pdflatex reads a table alone, and in papers of one and two columns."""

import csv
import io
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from benchmark import tables
from benchmark.core import escape
from benchmark.protocol.statistics import Interval
from benchmark.report import formats
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


def table_of(name: str, studies: Sequence[Study], experiment: tables.Experiment | None = None) -> formats.Table:
    """The table of studies on disk, in this order."""
    folders = [study.directory for study in studies]
    entries = [tables.read_entry(folder, folders) for folder in folders]
    return tables.make_table(name, entries, experiment or tables.Experiment())


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
def nine_rows(compose_study_in: Compose, tmp_path_factory: pytest.TempPathFactory) -> formats.Table:
    """The table of the glyphs experiment with a failed, an unfinished and an absent row."""
    results_dir = tmp_path_factory.mktemp("nine_rows")
    experiment = tables.read_experiment("glyphs-small_conv-hpl", Path("results"))
    studies = []
    for loss in experiment["rows"][:-1]:
        study = compose_study_in(results_dir, f"loss={loss}", "protocol.num_runs=4")
        studies.append(study)
        if loss == "hpl_nca_eq3":
            fake_results.start(study, trials=range(5))
        elif loss == "hpl_nca":
            fake_results.finish(study, [0.4, "fold 2: the training loss is nan in epoch 1", None, 0.5])
        else:
            fake_results.finish(study, [value + 0.01 * (loss == "hpl_pa") for value in RUNS])
    return table_of("any", studies, experiment)


@pytest.mark.slow
@needs_pdflatex
@pytest.mark.parametrize("where", PAPERS)
def test_nine_losses_fit_the_page_and_the_pdf_holds_the_numbers_and_the_reasons(
    nine_rows: formats.Table, tmp_path: Path, where: str
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
        "HPL-NCA: run.01 has no score .fold 2: the training loss is nan in epoch 1.; of 4 runs, run.02 missing;",
        "make final-eval DATASET=glyphs LOSS=hpl.nca",
        r"HPL-NCA \(Eq. 3\): its search is unfinished, with 5 trials done; make bo final-eval DATASET=glyphs",
        "HPL-PA-GT: not run; make bo final-eval DATASET=glyphs LOSS=hpl.pa.gt",
    ):
        assert re.search(words, plain), words
    assert where == "alone" or "See Table 1." in plain


def test_the_best_mean_is_set_in_bold(nine_rows: formats.Table) -> None:
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


def two_sections(rows: list[formats.Row] | None = None, name: str = "any") -> formats.Table:
    """A table with two sections, with 2 and 3 runs, columns of text, and footnotes."""
    columns = [formats.Column(("x", "y"), "X", "Block"), formats.Column(("z",), "Z", "Block")]
    first = rows or [formats.Row("a", "A"), formats.Row("b", "B")]
    for number, row in enumerate(first):
        row.cells, row.num_runs = {("x", "y"): Interval(-5.0 - number, 1.0, 2), ("z",): Interval(40.0, None, 2)}, 2
        row.settings = {"Epochs": str(30 * number), "Batch": "128"}
    other = formats.Row("c", "C", {("x", "y"): Interval(10.0, 2.0, 3)}, 3, "a reason")
    return formats.Table(name, "Caption.", [
        formats.Section(columns, first, 0.95, footnotes=["Devices: cpu for A."]),
        formats.Section(columns[:1], [other], 0.9, differences=["a.b: 1 here, 2 in the first table", "and 3 more"]),
    ])  # fmt: skip


def test_each_section_has_its_own_number_of_runs_and_its_own_best_means() -> None:
    table = two_sections()
    statistics = [section.notes()[0] for section in table.sections]
    assert "95 % t-interval over n = 2 runs" in statistics[0] and "90 % t-interval over n = 3 runs" in statistics[1]
    main, other = formats.markdown(table).split("Not comparable with the first table: ")
    assert "| A | 0 | 128 | **-5.00** ± 1.00 | **40.00** |" in main and "| B | 30 | 128 | -6.00 ± 1.00 |" in main
    assert main.rstrip().endswith("Devices: cpu for A.") and main.startswith("Caption.\n\n| Loss | Epochs | Batch |")
    assert other.startswith("a.b: 1 here, 2 in the first table; and 3 more.\n\n| Loss | Block X |")
    assert "| C | **10.00** ± 2.00 |" in other and "C: a reason" in other


def test_a_section_refuses_rows_with_different_numbers_of_runs() -> None:
    table = two_sections()
    table.sections[0].rows[0].num_runs = 7
    with pytest.raises(AssertionError, match=r"different numbers of runs in a section: \[2, 7\]"):
        formats.markdown(table)


def test_the_csv_numbers_the_sections_and_repeats_their_notes_in_each_row() -> None:
    lines = list(csv.DictReader(io.StringIO(formats.as_csv(two_sections()))))
    assert list(lines[0]) == [
        "part", "loss", "label", "epochs", "batch", "num_runs", "x_y", "x_y_half_width", "z", "z_half_width", "reason",
        "notes",
    ]  # fmt: skip
    assert [line["part"] for line in lines] == ["1", "1", "2"] and [line["x_y"] for line in lines] == [
        "-5.0",
        "-6.0",
        "10.0",
    ]
    assert lines[0]["notes"] == "Devices: cpu for A." and lines[2]["z"] == lines[2]["epochs"] == ""
    assert lines[2]["notes"] == "Not comparable with the first table: a.b: 1 here, 2 in the first table; and 3 more."


def test_a_table_of_one_section_without_footnotes_has_neither_parts_nor_notes() -> None:
    section = formats.Section([formats.Column(("x",), "X")], [formats.Row("a", "A")], 0.95)
    text = formats.as_csv(formats.Table("any", "Caption.", [section]))
    assert text == "loss,label,num_runs,x,x_half_width,reason\na,A,0,,,\n"


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
    row = formats.Row("x", signs, reason=signs)
    table = formats.Table("any", signs, [formats.Section([formats.Column(("x",), "X")], [row], confidence=0.95)])
    log, text = compiled(tmp_path, formats.latex(table), None)
    check_log(log)
    if text is not None:
        plain = " ".join(text.replace("ˆ", "^").replace("˜", "~").split())
        assert plain.count("5% R&D #1 $x {y} ^z ~t <u> |v| back\\slash [w] *") == 4


@needs_pdflatex
@pytest.mark.parametrize("name", ["any", "a}b\\input{x}%\n\n#1 \x1b\udcff"])
def test_hostile_text_compiles_wherever_it_stands(tmp_path: Path, name: str) -> None:
    """In labels, reasons, kinds, columns of text, captions, footnotes and differences, in papers and alone."""
    rows = [formats.Row(text, text, reason=text, kind=text) for text in hostile.ALL]
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
    rows = [formats.Row(text, text, reason=text) for text in hostile.ALL]
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
