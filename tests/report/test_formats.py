"""The LaTeX table as pdflatex reads it: alone, and in papers of one and of two columns."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark import tables
from benchmark.report import formats
from benchmark.study.study import Study
from tests import fake_results

Compose = Callable[..., Study]
RUNS = [0.40, 0.42, 0.44, 0.46]  # mean 43.00, half width 4.11: worked out in test_tables.py
PAPER = (
    r"\documentclass[%s]{article}\usepackage{booktabs}\begin{document}Before. \input{table.tex} After."
    r" See Table~\ref{tab:any}.\end{document}"
)
PAPERS = {"alone": None, "one column": PAPER % "", "two columns": PAPER % "twocolumn"}

pytestmark = [
    pytest.mark.usefixtures("no_fsync"),
    pytest.mark.skipif(
        shutil.which("pdflatex") is None,
        reason="pdflatex is not installed: apt-get install texlive-latex-base texlive-latex-recommended",
    ),
]


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
    return tables.make_table("any", studies, experiment)


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


def test_one_run_keeps_the_columns_in_place(compose_study: Compose, tmp_path: Path) -> None:
    study = compose_study("loss=hpl_pa", "protocol.num_runs=1")
    fake_results.finish(study, [0.4])
    log, text = compiled(tmp_path, formats.latex(tables.make_table("any", [study], {})), None)
    check_log(log)
    assert text is None or row_of(text, "HPL-PA") == ["40.00", "70.00", "50.00", "35.00", "65.00", "45.00"]


def test_a_table_without_a_complete_row_compiles(compose_study: Compose, tmp_path: Path) -> None:
    study = compose_study("loss=hpl_pa")
    fake_results.start(study)
    log, text = compiled(tmp_path, formats.latex(tables.make_table("any", [study], {})), None)
    check_log(log)
    assert text is None or "No row is complete yet." in " ".join(text.split())


def test_two_tables_fit_into_one_paper(compose_study: Compose, tmp_path: Path) -> None:
    study = compose_study("loss=hpl_pa", "protocol.num_runs=4")
    fake_results.finish(study, RUNS)
    (tmp_path / "other.tex").write_text(formats.latex(tables.make_table("other", [study], {})))
    paper = PAPER.replace("After.", r"\input{other.tex} And Table~\ref{tab:other}.") % ""
    log, text = compiled(tmp_path, formats.latex(tables.make_table("any", [study], {})), paper)
    check_log(log)
    assert text is None or ("And Table 2. See Table 1." in " ".join(text.split()) and text.count("43.00") == 2)


def test_any_sign_in_a_label_a_caption_or_a_reason_is_printed_as_it_is(tmp_path: Path) -> None:
    signs = "a_b 5% R&D #1 $x {y} ^z ~t <u> |v| back\\slash 3 +- 1"
    row = formats.Row("x", signs, reason=signs)
    table = formats.Table("any", signs, [formats.Column(("x",), "X")], [row], confidence=0.95)
    log, text = compiled(tmp_path, formats.latex(table), None)
    check_log(log)
    if text is not None:
        plain = " ".join(text.replace("ˆ", "^").replace("˜", "~").split())
        assert plain.count("5% R&D #1 $x {y} ^z ~t <u> |v| back\\slash 3 ± 1") == 4
