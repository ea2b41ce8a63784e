"""What a loss adds to a fold's record: fields of its own, and warnings that reach the terminal, also after a kill."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.bo import bo
from benchmark.core import records
from benchmark.core.provenance import hardware
from benchmark.final_eval import final_eval
from benchmark.jobs import train_unit as worker
from benchmark.traditional import traditional
from benchmark.training import trial_batch
from tests.command_line import assert_refused, study_dir, tiny, trainings

CPU = {"kind": "cpu", "name": hardware()["cpu"], "earlier": []}
IDLE = "a part of the loss never ran"


class Idle(nn.Module):
    """A loss that adds a field to the records and warns about every training."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.loss(embeddings, labels)
        return loss

    def record_fields(self, history: Sequence[Mapping[str, Any]], best_epoch: int | None) -> dict[str, Any]:
        return {"epochs_and_best": [len(history), best_epoch], "coarse_updates": 7.0}

    def warnings(self) -> list[str]:
        return [IDLE]


def in_fold_1(number: int, parts: Any) -> None:
    if number % 2:
        parts.loss = Idle(parts.loss)


def record(results: Path, fold: int) -> records.Record:
    return records.read_record(study_dir(results) / "bo" / "trial_000" / f"fold_{fold}" / "record.json")


def trained_on(path: Path) -> dict[str, Any]:
    """Kind and name of the device in the record of a fold or run."""
    device = records.read_record(path).provenance["device"]
    return {key: device[key] for key in CPU}


def test_a_loss_adds_fields_and_other_losses_have_those_of_version_1(tmp_path: Path) -> None:
    with trainings(in_fold_1):
        assert tiny(bo, tmp_path, "trials=1").status == 0
    plain, idle = record(tmp_path, 0), record(tmp_path, 1)
    assert (plain.result["best_epoch_in_warmup"], plain.result["coarse_updates"]) == (False, None)
    assert idle.result["epochs_and_best"] == [2, 1] and idle.result["coarse_updates"] == 7.0
    assert plain.provenance["warnings"] == [] and idle.provenance["warnings"] == [IDLE]


def test_memory_that_a_step_frees_is_kept_from_the_first_step_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(worker, "keep_freed_memory", lambda: order.append("kept"))
    with trainings(lambda number, parts: order.append("trained")):
        tiny(bo, tmp_path, "trials=1")
    assert order[:2] == ["kept", "trained"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_fsync")
def test_a_warning_is_printed_with_its_folds_and_survives_a_kill_before_the_trial_s_record(tmp_path: Path) -> None:
    with trainings(in_fold_1):
        first = tiny(bo, tmp_path, "trials=1")
    assert f"WARNING: {IDLE} (fold 1)" in first.out
    path = study_dir(tmp_path) / "bo" / "trial_000.json"
    path.unlink()
    with trainings() as trained:
        again = tiny(bo, tmp_path, "trials=1")
    assert not trained and f"WARNING: {IDLE} (fold 1)" in again.out
    assert records.read_record(path).provenance["warnings"] == [[], [IDLE]]


@pytest.mark.slow
@pytest.mark.usefixtures("no_fsync")
def test_final_runs_and_traditional_ones_print_warnings_and_keep_them_with_their_devices(results: Path) -> None:
    with trainings(in_fold_1):
        ended = tiny(final_eval, results)
    assert ended.status == 0 and f"WARNING: {IDLE} (fold 1)" in ended.out, ended
    path = next(study_dir(results).glob("final_eval/*/run_00.json"))
    assert records.read_record(path).provenance["warnings"] == [[], [IDLE]]
    levels = records.read_record(path).result["levels"]["concatenated"]
    assert 0 < levels["class_map_at_r"] < levels["super_map_at_r"] < levels["ndcg"] < 1
    assert [trained_on(path), *records.read_record(path).provenance["devices"]] == [CPU] * 3
    with trainings(lambda number, parts: in_fold_1(1, parts)):
        ended = tiny(traditional, results, "training.batch_size=256", "training.epochs=1", "protocol.num_runs=1",
                     protocol="traditional")  # fmt: skip
    assert ended.status == 0 and f"WARNING: {IDLE}" in ended.out, ended
    assert trained_on(next(results.rglob("traditional/setting/run_00.json"))) == CPU


def full(*_: Any) -> float:
    """A training for which the GPU has too little memory."""
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has 3 GiB free.")


def test_a_gpu_without_the_memory_is_a_sentence_of_the_user_s_and_no_retries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "TRIED", ("cpu",))
    monkeypatch.setattr(trial_batch, "train_epoch", full)
    with trainings() as trained:
        ended = tiny(bo, tmp_path)
    assert_refused(
        ended, "too little memory for trial_000/fold_0", "a trial batch with protocol.batch_size=16 failed",
        "CUDA out of memory. Tried to allocate 20.00 GiB.", "protocol.batch_size=8 variant=NAME", "log: ",
    )  # fmt: skip
    log = (study_dir(tmp_path) / "bo" / "trial_000" / "fold_0" / "log").read_text()
    assert not trained and log.count("start: ") == 1


@pytest.mark.parametrize(
    ("executor", "fewer"),
    [
        (("executor.workers_per_gpu=4",), "executor.workers_per_gpu=2"),
        (("executor.workers_per_gpu=auto",), "executor.workers_per_gpu=1"),
        (("executor.workers=3",), "executor.workers=1"),  # perhaps on one GPU
        (("executor.workers=1", "executor.workers_per_gpu=4"), ""),
        ((), ""),
        (("executor=inline",), ""),
        (("executor=ray", "executor.gpus_per_worker=0.3"), "executor.gpus_per_worker=0.6"),
        (("executor=ray", "executor.gpus_per_worker=0.6"), "executor.gpus_per_worker=1"),
        (("executor=ray",), ""),
        (("executor=slurm", "executor.prefix=[no-such-launcher]"), ""),
    ],
    ids=str,
)
def test_workers_that_share_a_gpu_are_told_to_be_fewer_by_the_key_of_their_executor(
    executor: tuple[str, ...], fewer: str, compose_study: Any
) -> None:
    study = compose_study("protocol.batch_size=64", *executor)
    said = worker.out_of_memory(SimpleNamespace(study=study, kind="trial", name="trial_001/fold_2"), "CUDA ...")
    assert "protocol.batch_size=64" in said and "protocol.batch_size=32 variant=NAME" in said
    assert said.count("executor.") == bool(fewer)
    assert not fewer or f'let fewer do so ({fewer}): "make bo ' in said


def test_passes_over_the_images_name_their_own_batch(compose_study: Any) -> None:
    study = compose_study("protocol=traditional", "training.batch_size=90", "executor=inline")
    said = worker.out_of_memory(SimpleNamespace(study=study, kind="run", name="run_00"), "CUDA ...")
    assert "training.batch_size=90" in said and "training.batch_size=45 variant=NAME" in said
