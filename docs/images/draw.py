"""Draw the picture of the README from committed records: `.venv/bin/python -m docs.images.draw`."""

import dataclasses
import io
import sys
from pathlib import Path

import matplotlib

from benchmark.core import records
from benchmark.experiment.tables import of_folder
from benchmark.report.page import charts
from benchmark.study.stored import all_studies

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "grocery"
PICTURE = Path(__file__).with_name("grocery.svg")
SHOWN = (
    "arcface", "contrastive", "cosface", "fastap", "hist", "hpl_pa", "margin", "ms", "normalized_softmax", "ntxent",
    "proxy_anchor", "proxy_nca", "proxygml", "snr", "soft_triple", "triplet", "xbm", "none-default",
)  # fmt: skip


def drawn() -> bytes:
    """Return the SVG: mean MAP@R of some losses with its interval, concatenated embeddings."""
    (made,) = of_folder(RESULTS, all_studies(RESULTS), False, 0).made
    section = made.table.sections[0]
    section = dataclasses.replace(section, rows=[row for row in section.rows if row.name in SHOWN])
    buffer = io.BytesIO()
    with charts.style(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": PICTURE.stem}):
        figure = charts.forest(section, section.main_columns()[0])
        assert figure is not None, "there are several losses"
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


if __name__ == "__main__":
    records.write_whole(PICTURE, drawn())
    sys.stdout.write(f"wrote {PICTURE.relative_to(ROOT)}\n")
