"""Every golden file replayed: float64 to 1e-8, float32 to 1e-4; `tests/golden/PROVENANCE.md` tells their origin."""

import csv

import numpy as np
import pytest

from tests.losses import (
    golden_graphs,
    golden_hier,
    golden_hpl,
    golden_pairs,
    golden_proxies,
    golden_proxygml,
    golden_xbm,
)
from tests.losses.golden_file import GOLDEN_DIR, OWN_DIR, TOLERANCE, Golden

FAMILIES = (golden_pairs, golden_proxies, golden_proxygml, golden_xbm, golden_graphs, golden_hier, golden_hpl)
CHECKS = {kind: check for family in FAMILIES for kind, check in family.CHECKS.items()}
FILES = sorted(GOLDEN_DIR.glob("*/*.npz"))


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}/{path.stem}" for path in FILES])
def test_every_number_of_a_golden_file_is_reproduced(path, monkeypatch):
    check = CHECKS[path.parent.name]
    for dtype in TOLERANCE:
        golden = Golden(path, dtype)
        check(golden, monkeypatch)
        results = {key for key in golden.arrays if key.startswith(("grad_", "value", "new_", "empty_", "level_losses"))}
        results |= {key for key in golden.arrays if key.endswith("_after")}
        assert results <= golden.compared, f"nothing was held against {sorted(results - golden.compared)}"


def test_there_are_golden_files_for_each_loss_and_the_index_agrees_with_them():
    with open(OWN_DIR / "INDEX.csv", newline="") as file:
        rows = {(row["loss"], row["case"]): row for row in csv.DictReader(file)}
    assert {loss for loss, _ in rows} >= set(CHECKS)
    assert set(rows) == {(path.parent.name, path.stem) for path in OWN_DIR.glob("*/*.npz")}
    assert FILES, f"no golden files in {GOLDEN_DIR}"
    for (loss, case), row in rows.items():
        with np.load(OWN_DIR / loss / f"{case}.npz") as file:
            assert float(row["value"]) == pytest.approx(float(np.ravel(file["value"])[-1]), rel=1e-12)
