"""The traditional protocol learns something with each paper's recipe, and runs on every published layout."""

from pathlib import Path
from typing import Any

import pytest

from benchmark.core import records
from benchmark.tables import tables
from benchmark.traditional import traditional
from tests.command_line import results_of, run, trainings
from tests.datasets import published_layouts

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("loss", ["hpl_pa", "hist", "proxygml"])
def test_every_papers_recipe_learns_on_glyphs(tmp_path: Path, loss: str) -> None:
    ended = run(traditional, "dataset=glyphs_small", f"loss={loss}", "training.epochs=8", "executor=inline",
                "display=quiet", f"results_dir={tmp_path}", protocol="traditional")  # fmt: skip
    assert ended.status == 0, ended
    (found,) = results_of(tmp_path).values()
    untrained, last = found["history"][0]["watched"], found["selected"]["last_epoch"]
    assert last["recall_at_1"] > 2 * untrained["recall_at_1"] and last["map_at_r"] > 2 * untrained["map_at_r"]
    assert found["selected"]["best_on_test"]["recall_at_1"] >= last["recall_at_1"]


IMAGES = (
    "loss=hpl_pa", "trunk=small_conv", "trunk.width=8", "protocol.images.short_side=36", "protocol.images.crop=32",
    "training.batch_size=16", "training.epochs=2", "executor=inline", "display=plain", "loss.setting.num_coarse=3",
)  # fmt: skip


@pytest.mark.parametrize("name", ["cub", "cars196", "sop", "inshop", "inaturalist2019"])
def test_every_published_layout_goes_through_with_its_own_recalls(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))
    dataset = published_layouts.write_small(name, tmp_path / "a", num_classes=16, per_class=6)
    seen: list[Any] = []
    with trainings(lambda number, parts: seen.append(parts.monitored)):
        ended = run(traditional, *dataset, *IMAGES, f"results_dir={tmp_path}", protocol="traditional")
    assert ended.status == 0, ended.err
    (record,) = (records.read_record(path) for path in tmp_path.rglob("run_00.json"))
    recalls = {"sop": (1, 10, 100, 1000), "inshop": (1, 10, 20, 30, 40, 50)}.get(name, (1, 2, 4, 8, 16, 32))
    best = record.result["selected"]["best_on_test"]
    assert {f"recall_at_{k}" for k in recalls} <= best.keys() and 0 < best["map_at_r"] <= 1
    assert (seen[0].is_query is None) == (name != "inshop")
    assert len(record.provenance["test_contents"]) == 64
    assert run(tables, f"results_dir={tmp_path}").status == 0
