"""Numbers that papers print, read from `published_results.csv`.

Each line is one cell of a published table: its source (paper and table), data set, method and variant, mode, metric,
value and half width of the 95 % interval in percent (empty if none is printed), trunk and embedding dimension as far as
they are stated, and a note. Numbers that one paper quotes from another stand under the paper that prints them. Those of
`PapersWithCode` were read in the lists of that site, and those of `PFML_summary` in a summary, not in the papers, which
they may misquote; the note says where.
"""

import csv
import functools
from collections.abc import Sequence
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.report.table import Key, Published

PATH = Path(__file__).with_name("published_results.csv")


@functools.cache
def sources() -> dict[str, dict[str, dict[str, dict[Key, Published]]]]:
    """All published cells, by source, data set, method and column.

    A method's variant follows its name after a comma: `HPL-NCA, |P1|=48`.
    """
    found: dict[str, dict[str, dict[str, dict[Key, Published]]]] = {}
    with PATH.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            method = ", ".join(filter(None, (row["method"], row["variant"])))
            cells = found.setdefault(row["source"], {}).setdefault(row["dataset"], {}).setdefault(method, {})
            half_width = float(row["half_width"]) if row["half_width"] else None
            key = tuple(filter(None, (row["mode"], row["metric"])))
            cells[key] = Published(float(row["value"]), half_width, row["source"])
    return found


def cells_of(method: str, dataset: str, where: Sequence[str]) -> dict[Key, Published]:
    """The published cells of a method on a data set, by column; the first source that has a cell provides it.

    Args:
        method: as in `sources`.
        dataset: name of the data set, as in `conf/dataset`.
        where: names of sources; one that lacks the data set is passed over.

    Raises:
        UserError: a source does not exist.
    """
    found: dict[Key, Published] = {}
    for source in where:
        if source not in sources():
            raise UserError(f"published: {source} is no source of {PATH.name}; these are {', '.join(sources())}.")
        found = sources()[source].get(dataset, {}).get(method, {}) | found
    return found
