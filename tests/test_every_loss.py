"""Every loss of conf/loss runs through cross-validation and into the tables; new files are tested automatically."""

from pathlib import Path

import pytest

from benchmark.bo import bo
from benchmark.core import records
from benchmark.final_eval import final_eval
from benchmark.study.study import read_loss
from benchmark.tables import tables
from benchmark.traditional import traditional
from tests.command_line import run, study_dir, tiny
from tests.losses.every_loss import NAMES, config


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_searched_retrained_scored_and_tabulated(name: str, tmp_path: Path) -> None:
    starts = [f"loss.schedule.{start}=2" for start in read_loss(name).get("schedule", {}).get("starts", [])]
    overrides = (f"loss={name}", "trials=1", "protocol.num_runs=1", "dataset.max_epochs=3", *starts)
    assert tiny(bo, tmp_path, *overrides).status == 0
    assert tiny(final_eval, tmp_path, *overrides).status == 0
    (path,) = study_dir(tmp_path, name).glob("final_eval/*/run_00.json")
    result = records.read_record(path).result
    for mode in ("separated", "concatenated"):
        assert 0 < result[mode]["map_at_r"] < 1
    assert "Mean over n = 1 run" in run(tables, f"results_dir={tmp_path}").out


ONE_OF_EACH_CLASS = {config(name)["module"]["_target_"]: name for name in NAMES}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH_CLASS.values())
def test_a_loss_goes_through_the_traditional_protocol(name: str, tmp_path: Path) -> None:
    ended = run(traditional, "dataset=glyphs_small", f"loss={name}", "trunk.width=8", "training.epochs=1",
                "training.batch_size=64", "executor=inline", "display=plain", f"results_dir={tmp_path}",
                protocol="traditional")  # fmt: skip
    assert ended.status == 0, ended.err
    (path,) = tmp_path.rglob("run_00.json")
    for chosen in ("best_on_test", "last_epoch"):
        assert 0 < records.read_record(path).result["selected"][chosen]["recall_at_1"] < 1
