"""Options of the training loop: learning-rate decay, clipping, frozen layers, monitored images, and no validation."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.images.in_memory import InMemoryImages
from benchmark.training.components import EvaluationSet, TrainingComponents
from benchmark.training.loop import Outcome, train_fold
from tests.training.small_fold import a_checkpoint, a_fold, a_schedule, nothing


def trained(parts: TrainingComponents, folder: Path, **changes: Any) -> Outcome:
    return train_fold(parts, a_schedule(**changes), a_checkpoint(folder / "checkpoint.pt"), nothing)


def rates(parts: TrainingComponents) -> list[float]:
    return [parts.optimizers[name].param_groups[0]["lr"] for name in ("trunk", "head", "loss")]


def test_every_rate_decays_from_its_initial_value(tmp_path: Path) -> None:
    parts = a_fold()
    trained(parts, tmp_path, max_epochs=5, decay={"kind": "step", "every": 2, "factor": 0.5})
    assert rates(parts) == [0.01 / 4, 0.001 / 4, 0.01 / 4]  # epochs 1, 2 | 3, 4 | 5


def test_resumed_training_decays_like_uninterrupted_training(tmp_path: Path) -> None:
    decay = {"kind": "milestones", "epochs": [1, 3], "factor": 0.1}
    whole = trained(a_fold(), tmp_path / "whole", max_epochs=5, decay=decay)
    (tmp_path / "cut").mkdir()
    trained(a_fold(), tmp_path / "cut", max_epochs=2, decay=decay)
    assert trained(a_fold(seed=9), tmp_path / "cut", max_epochs=5, decay=decay).result == whole.result


def test_gradients_are_clipped_by_value_or_by_the_norm_of_network_and_loss(tmp_path: Path) -> None:
    free, by_value, by_norm = a_fold(), a_fold(), a_fold()
    trained(free, tmp_path / "a", max_epochs=1)
    trained(by_value, tmp_path / "b", max_epochs=1, clip={"value": 1e-3})
    trained(by_norm, tmp_path / "c", max_epochs=1, clip={"norm": 1e-2})
    whole = [p.grad.flatten() for part in (free.trunk, free.head) for p in part.parameters()]
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in whole))
    assert norm > 0.02 and max(float(g.abs().max()) for g in whole) > 2e-3  # otherwise nothing would be clipped
    for part, clipped in ((free.trunk, by_value.trunk), (free.loss, by_value.loss)):
        for before, after in zip(part.parameters(), clipped.parameters(), strict=True):
            torch.testing.assert_close(after.grad, before.grad.clamp(-1e-3, 1e-3))
    for before, after in zip(free.head.parameters(), by_norm.head.parameters(), strict=True):
        torch.testing.assert_close(after.grad, before.grad * (0.01 / norm), rtol=1e-3, atol=1e-9)
    loss_norm = float(free.loss.proxies.grad.norm())
    torch.testing.assert_close(by_norm.loss.proxies.grad, free.loss.proxies.grad * min(1, 0.01 / loss_norm),
                               rtol=1e-3, atol=1e-9)  # fmt: skip


@pytest.mark.parametrize("clip", [{"value": 1.0}, {"norm": 1.0}], ids=str)
def test_a_loss_without_parameters_has_nothing_to_clip(clip: dict[str, float], tmp_path: Path) -> None:
    parts = a_fold()
    parts.loss = Triplets()
    del parts.optimizers["loss"]
    assert trained(parts, tmp_path, max_epochs=1, clip=clip).result["last_epoch"] == 1


class Triplets(torch.nn.Module):
    """A triplet loss over each embedding and the next two."""

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.triplet_margin_loss(embeddings, embeddings.roll(1, 0), embeddings.roll(2, 0))


def batch_norms(parts: TrainingComponents) -> list[dict[str, torch.Tensor]]:
    layers = [m for m in parts.trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert layers
    return [copy.deepcopy(layer.state_dict()) for layer in layers]


def moved(before: list[dict[str, torch.Tensor]], after: list[dict[str, torch.Tensor]]) -> set[str]:
    return {key for b, a in zip(before, after, strict=True) for key in b if not torch.equal(a[key], b[key])}


def test_batch_norm_is_trained_keeps_its_statistics_or_is_fully_frozen(tmp_path: Path) -> None:
    expected = {
        False: {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"},
        True: {"weight", "bias"},
        "all": set(),
    }
    for freeze, moving in expected.items():
        parts = a_fold()
        before = batch_norms(parts)
        trained(parts, tmp_path / str(freeze), max_epochs=2, freeze_batchnorm=freeze)
        assert moved(before, batch_norms(parts)) == moving


def test_monitored_images_are_scored_at_every_evaluation_and_change_nothing(tmp_path: Path) -> None:
    plain, monitoring = a_fold(), a_fold()
    other = InMemoryImages(np.random.default_rng(5).integers(0, 256, (9, 8, 8), dtype=np.uint8))
    monitoring.monitored = EvaluationSet(other, torch.arange(9) % 3, recall_at=(1, 4))
    expected, found = trained(plain, tmp_path / "a", max_epochs=3), trained(monitoring, tmp_path / "b", max_epochs=3)
    rows = found.result["history"]
    assert [set(row["watched"]) for row in rows] == 4 * [
        {"map_at_r", "r_precision", "precision_at_1", "recall_at_1", "recall_at_4"}
    ]
    assert len({row["watched"]["map_at_r"] for row in rows}) > 1
    for row in rows:
        del row["watched"]
    assert found.result == expected.result


def test_without_validation_images_training_runs_to_its_last_epoch_and_chooses_none(tmp_path: Path) -> None:
    parts = a_fold()
    parts.monitored, parts.validation = parts.validation, None
    result = trained(parts, tmp_path, max_epochs=3).result
    assert result["last_epoch"] == 3 and result["stopped"] == "max_epochs"
    assert result["best_epoch"] is None and result["map_at_r"] is None
    assert [row["epoch"] for row in result["history"]] == [0, 1, 2, 3]


def test_queries_are_searched_among_the_other_images_only(tmp_path: Path) -> None:
    parts = a_fold()
    images = parts.validation.images
    is_query = torch.arange(15) % 5 == 0  # one query and four others in each of the three classes
    parts.monitored = EvaluationSet(images, parts.validation.labels, is_query, recall_at=(12,))
    watched = trained(parts, tmp_path, max_epochs=1).result["history"][-1]["watched"]
    assert watched["recall_at_12"] == 1.0  # there are twelve others: a query among its own would not be found
