"""Every golden file replayed, in float64 to 1e-8 and in float32 to 1e-4; see `tests/golden/PROVENANCE.md`."""

import csv
import json

import numpy as np
import pytest
import torch

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
        assert results <= golden.compared, f"nothing was compared with {sorted(results - golden.compared)}"


class Recording(Golden):
    """A golden file whose `compare` keeps results instead of comparing them."""

    def compare(self, key, actual, index=...):
        self.arrays[f"found_{key}"] = actual.detach()


@pytest.mark.parametrize(
    "path", sorted(OWN_DIR.glob("margin*/*.npz")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_golden_file_without_a_stored_beta_uses_its_hyper_parameter(path, tmp_path, monkeypatch):
    with np.load(path) as file:
        arrays = dict(file)
    hyper = json.loads(str(arrays["meta"]))["hyper"]
    arrays["beta"] = np.full_like(arrays["beta"], hyper["beta"])
    np.savez(tmp_path / "with.npz", **arrays)
    np.savez(tmp_path / "without.npz", **{key: array for key, array in arrays.items() if key != "beta"})
    for dtype in TOLERANCE:
        found = [Recording(tmp_path / f"{name}.npz", dtype) for name in ("with", "without")]
        for golden in found:
            CHECKS[path.parent.name](golden, monkeypatch)
        assert "beta" not in found[1].arrays
        for key in ("found_value", "found_grad_embeddings"):
            assert torch.equal(*(golden.arrays[key] for golden in found))


def test_there_are_golden_files_for_each_loss_and_the_index_agrees_with_them():
    with open(OWN_DIR / "INDEX.csv", newline="") as file:
        rows = {(row["loss"], row["case"]): row for row in csv.DictReader(file)}
    assert {loss for loss, _ in rows} >= set(CHECKS)
    assert set(rows) == {(path.parent.name, path.stem) for path in OWN_DIR.glob("*/*.npz")}
    assert FILES, f"no golden files in {GOLDEN_DIR}"
    for (loss, case), row in rows.items():
        with np.load(OWN_DIR / loss / f"{case}.npz") as file:
            assert float(row["value"]) == pytest.approx(float(np.ravel(file["value"])[-1]), rel=1e-12)
