"""Training, evaluation, checkpoints and metrics on a pretended CUDA device: no mismatch, and no wait in the loop."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional

from benchmark.core.paths import conf_dir
from benchmark.images import batches
from benchmark.images.batches import to_batch, to_device
from benchmark.images.cropped import CroppedImages
from benchmark.images.crops import Crops
from benchmark.losses import proxy_anchor
from benchmark.losses.hier import HIER
from benchmark.losses.pretended_device import Claimed, PretendedDevice
from benchmark.protocol.levels import score_levels
from benchmark.protocol.modes import score
from benchmark.protocol.neighbours import nearest_neighbours
from benchmark.protocol.retrieval import retrieval_metrics
from benchmark.study.instantiate import build as build_node
from benchmark.training import loop
from benchmark.training.components import EvaluationSet, Schedule, TrainingComponents
from benchmark.training.loop import set_train_mode, train_epoch, train_fold
from tests.cases import slow_except
from tests.losses.every_loss import every_loss
from tests.losses.test_resume import fold_with
from tests.training.small_fold import a_checkpoint, nothing

FILES = sorted((conf_dir() / "trunk").glob("*.yaml"))
TRUNKS = [path.stem for path in FILES if path.stem == "timm" or "\nnetwork:" not in path.read_text(encoding="utf-8")]
SAME_NETWORK = {"deit_small", "dino_vit_small"}  # of another file, with other weights
POOLS = "max_pool2d_with_indices_backward"
# Sums whose order CUDA does not fix, by loss and trunk: the file and the operation.
UNORDERED = {
    "hier": {"losses/hier.py index_add"},
    "bn_inception": {f"trunks/bn_inception.py {POOLS}"},
    "resnet50": {f"trunks/resnet50.py {POOLS}"},
}
ONCE_AN_EPOCH = {"training/loop.py item"}  # its mean loss


@pytest.fixture(autouse=True)
def constants_of_their_own_device() -> Iterator[None]:
    """Forget cached tensors on the pretended device."""
    batches._normalisation.cache_clear()
    yield
    batches._normalisation.cache_clear()


@functools.cache
def sampler() -> Any:
    return fold_with("ms")[0].sampler


def a_fold(name: str) -> tuple[TrainingComponents, Schedule]:
    """The small fold with a loss, and its schedule; all share a sampler, whose list of batches takes long to draw."""
    fold, schedule = fold_with(name)
    fold.sampler = sampler()
    return fold, schedule


def move(fold: TrainingComponents) -> TrainingComponents:
    """Move a fold to `cuda`, and give it new optimisers, as for a new training."""
    for module in fold.modules.values():
        module.to("cuda")
    assert fold.validation is not None
    for images in (fold.images, fold.validation.images):
        images._take(images.images.to("cuda"), images.shift)
    fold.labels = fold.labels.to("cuda")
    fold.validation = EvaluationSet(fold.validation.images, fold.validation.labels.to("cuda"))
    fold.optimizers = {
        part: torch.optim.RMSprop(fold.modules[part].parameters(), lr=1e-3, momentum=0.9) for part in fold.optimizers
    }
    return fold


def files(events: Any) -> set[str]:
    """Places and operations without the number of the line: `losses/snr.py nonzero`."""
    return {f"{place.partition(':')[0]} {place.rpartition(' ')[2]}" for place in events}


def epoch_on_device(name: str) -> PretendedDevice:
    """The events of two iterations with a loss whose hierarchy or memory is in use."""
    fold, schedule = a_fold(name)
    set_train_mode(fold, freeze_batchnorm=False)
    train_epoch(fold, schedule, range(3))
    with PretendedDevice() as device:
        train_epoch(move(fold), schedule, range(3, 4))  # moves the constants of the normalisation
        device.clear()
        train_epoch(fold, schedule, range(4, 6))
    return device


@every_loss
def test_training_mixes_no_devices_and_waits_for_none(name: str) -> None:
    device = epoch_on_device(name)
    assert not device.events["mismatch"]
    assert files(device.events["wait"]) == ONCE_AN_EPOCH, device.events["wait"]
    assert device.events["wait"].total() == 1, device.events["wait"]
    assert files(device.events["order"]) == UNORDERED.get(name, set()), device.events["order"]


@pytest.mark.parametrize("optimizer", slow_except(["AdamW", "RMSprop"], ["Adam", "AdamW", "RMSprop", "SGD"]))
@pytest.mark.parametrize("clip", [{"norm": 1.0}, {"value": 0.1}], ids=str)
def test_optimisers_clipping_warm_up_and_decay_wait_for_nothing(optimizer: str, clip: dict[str, float]) -> None:
    fold, schedule = a_fold("proxy_anchor")
    schedule = dataclasses.replace(schedule, clip=clip, warmup_epochs=1)
    with PretendedDevice() as device:
        move(fold).optimizers = {
            part: getattr(torch.optim, optimizer)(fold.modules[part].parameters(), lr=1e-3) for part in fold.optimizers
        }
        train_epoch(fold, schedule, range(1))
        device.clear()
        train_epoch(fold, schedule, range(1, 2))  # with the trunk frozen
        loop._set_rates(fold, 0.5)
        train_epoch(fold, schedule, range(2, 4))
    assert not device.events["mismatch"] and not device.events["order"]
    assert files(device.events["wait"]) == ONCE_AN_EPOCH, device.events["wait"]
    assert device.events["wait"].total() == 2


def test_a_gradient_in_chunks_waits_for_nothing() -> None:
    fold, schedule = a_fold("recall_at_k")
    schedule = dataclasses.replace(schedule, gradient_chunk=5, freeze_batchnorm=True)
    set_train_mode(fold, freeze_batchnorm=True)
    with PretendedDevice() as device:
        train_epoch(move(fold), schedule, range(1))
        device.clear()
        train_epoch(fold, schedule, range(1, 3))
    assert not device.events["mismatch"] and not device.events["order"]
    assert files(device.events["wait"]) == ONCE_AN_EPOCH and device.events["wait"].total() == 1


@pytest.mark.parametrize(
    "name", slow_except(["small_conv", "bn_inception"], (name for name in TRUNKS if name not in SAME_NETWORK))
)
def test_a_trunk_mixes_no_devices_and_waits_for_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = OmegaConf.create(
        {"protocol": {"pooling": "avg+max"}, "trunk": OmegaConf.load(conf_dir() / f"trunk/{name}.yaml")}
    )
    whole.trunk.width = 8
    if name == "timm":
        whole.trunk.network, whole.trunk.images.crop = "test_vit.r160_in1k", 32
    node = OmegaConf.to_container(whole, resolve=True)["trunk"]["module"]
    node |= {key: value for key, value in {"weights": None, "any_size": True}.items() if key in node}
    for init in ("kaiming_uniform_", "kaiming_normal_", "trunc_normal_"):  # slow, and the values do not matter
        monkeypatch.setattr(torch.nn.init, init, lambda tensor, *_, **__: tensor.detach().fill_(0.01))
    trunk = build_node(node, "trunk", in_channels=3)
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with PretendedDevice() as device:
        trunk.to("cuda")
        images = images.to("cuda")
        to_batch(images, trunk.mean, trunk.std)
        device.clear()
        trunk(to_batch(images, trunk.mean, trunk.std)).sum().backward()
    assert all(isinstance(parameter.grad, Claimed) for parameter in trunk.parameters() if parameter.requires_grad)
    assert not device.events["mismatch"] and not device.events["wait"]
    assert files(device.events["order"]) == UNORDERED.get(name, set())


@pytest.mark.parametrize("name", slow_except(["hpl_pa"], ["hpl_pa", "hier"]))
def test_a_fold_is_evaluated_saved_and_resumed_on_the_device(name: str, tmp_path: Path) -> None:
    def fold_of() -> tuple[TrainingComponents, Schedule]:
        fold, schedule = a_fold(name)
        if isinstance(fold.loss, HIER):
            fold.loss.noise = "none"  # drawn on the device, one number for each triplet
        return fold, schedule

    def kill(history: list[Any]) -> None:
        if len(history) == 3:  # two of four epochs are trained
            raise InterruptedError

    alone = train_fold(*fold_of(), a_checkpoint(tmp_path / "alone.pt"), nothing)
    with PretendedDevice() as device:
        for on_epoch in (kill, nothing):
            fold, schedule = fold_of()
            try:
                outcome = train_fold(move(fold), schedule, a_checkpoint(tmp_path / "killed.pt"), on_epoch)
            except InterruptedError:
                continue
    assert not device.events["mismatch"]
    assert outcome.devices == ("cuda",)
    for key, first in {"map_at_r": 0, "loss": 1}.items():
        found, expected = ([row[key] for row in of.result["history"][first:]] for of in (outcome, alone))
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "l2", "hyperbolic"])
def test_metrics_on_the_device_are_those_of_the_cpu(metric: str) -> None:
    points, labels = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) * 0.05, torch.arange(60) % 7
    ball = {"curvature": 0.1} if metric == "hyperbolic" else {}

    def scored(x: Tensor, y: Tensor) -> list[dict[str, float]]:
        split = x[:20], y[:20], x[20:], y[20:]
        return [retrieval_metrics(x, y, metric=metric, recall_at=(1, 10), **ball),
                retrieval_metrics(*split, metric=metric, **ball)]  # fmt: skip

    with PretendedDevice() as device:
        found = scored(points.to("cuda"), labels.to("cuda"))
    assert found == scored(points, labels)
    assert not device.events["mismatch"]


@pytest.mark.parametrize("metric", slow_except(["cosine"], ["cosine", "l2", "hyperbolic"]))
def test_both_modes_of_a_final_evaluation_on_the_device_are_those_of_the_cpu(metric: str) -> None:
    folds = functional.normalize(torch.randn(3, 40, 6, generator=torch.Generator().manual_seed(0)), dim=2) * 0.5
    labels, is_query = torch.arange(40) % 7, torch.arange(40) < 15
    ball = {"curvature": 0.1} if metric == "hyperbolic" else {}

    def scored(device: str) -> list[Any]:
        x, y = folds.to(device), labels.to(device)
        asked = [None, is_query.to(device)]
        found: list[Any] = [score(x, y, ["map_at_r"], metric=metric, is_query=queries, **ball) for queries in asked]
        found += [score_levels(x, y, y // 3, metric=metric, is_query=queries, **ball) for queries in asked]
        return [*found, *(nearest_neighbours(x, some, 5, metric=metric, **ball).tolist() for some in asked)]

    with PretendedDevice() as device:
        found = scored("cuda")
    assert found == scored("cpu")
    assert not device.events["mismatch"]


class Noise:
    """A source of images of different sizes."""

    short_side = None

    def pixels(self, row: int) -> np.ndarray:
        return np.random.default_rng(row).integers(0, 256, (40 + row, 52, 3), dtype=np.uint8)


def test_crops_reach_the_device_without_a_wait() -> None:
    crops = Crops(short_side=40, crop=40, scale=(0.16, 1.0), ratio=(0.75, 1.33), flip=0.5, resize_first=False)

    def batches_on(device: str) -> list[Tensor]:
        images = CroppedImages(Noise(), np.arange(16), crops, torch.device(device))
        return [images.augmented(np.arange(16), torch.Generator().manual_seed(0)), images.plain(np.arange(16))]

    with PretendedDevice() as device:
        found = batches_on("cuda")
    assert not any(device.events.values())
    for batch, expected in zip(found, batches_on("cpu"), strict=True):
        assert isinstance(batch, Claimed) and torch.equal(batch.inner, expected)


def planted(monkeypatch: pytest.MonkeyPatch, fault: Callable[[Tensor], object]) -> PretendedDevice:
    """The events of Proxy-Anchor with a fault in its loss, which gets the similarities (B, C)."""
    original = proxy_anchor.cosine_similarity

    def faulty(*arguments: Tensor) -> Tensor:
        cosines = original(*arguments)
        fault(cosines)
        return cosines

    monkeypatch.setattr(proxy_anchor, "cosine_similarity", faulty)
    return epoch_on_device("proxy_anchor")


def zeros(like: Tensor) -> Tensor:
    """Zeros (B,) as an index on the device of a matrix (B, C)."""
    return torch.zeros(len(like), dtype=torch.long, device=like.device)


def slope(function: Callable[[Tensor], Tensor], matrix: Tensor) -> Tensor:
    return torch.autograd.grad(function(matrix).sum(), matrix)[0]


FAULTS: dict[str, tuple[str, Callable[[Tensor], object]]] = {
    "item": ("wait", lambda s: s.max().item()),
    "bool": ("wait", lambda s: bool(s.isfinite().all())),
    "tolist": ("wait", lambda s: s.tolist()),
    "nonzero": ("wait", lambda s: (s > 0).nonzero()),
    "unique": ("wait", lambda s: s.unique()),
    "a mask": ("wait", lambda s: s[s > 0]),
    "a mask that is written": ("wait", lambda s: s.detach().index_put_((s > 9,), s.new_zeros(0))),
    "where of a mask": ("wait", lambda s: torch.where(s > 0)),
    "repeat_interleave by a tensor": ("wait", lambda s: s.repeat_interleave(zeros(s), dim=1)),
    "an index of the host": ("wait", lambda s: s[torch.tensor([0, 1])]),
    "a list as index": ("wait", lambda s: s[[0, 1]]),
    "a tensor of values": ("wait", lambda s: torch.tensor([1.0, 2.0], device=s.device)),
    "new_tensor": ("wait", lambda s: s.new_tensor([1.0, 2.0])),
    "a blocking copy to the device": ("wait", lambda s: torch.ones(2).to(s.device)),
    "a large unpinned copy": ("wait", lambda s: torch.ones(2**15).to(s.device, non_blocking=True)),
    "a copy into a tensor": ("wait", lambda s: torch.zeros(2, device=s.device).copy_(torch.ones(2))),
    "a copy to the host": ("wait", lambda s: s.cpu()),
    "a copy into the host": ("wait", lambda s: torch.empty(s.shape).copy_(s.detach())),
    "an operand of the host": ("mismatch", lambda s: s * torch.ones(s.shape)),
    "a matrix of the host": ("mismatch", lambda s: s @ torch.ones(s.shape[1], 2)),
    "a generator of the host": ("mismatch", lambda s: torch.rand(2, device=s.device, generator=torch.Generator())),
    "a generator of the device": ("mismatch", lambda s: torch.rand(2, generator=torch.Generator(s.device))),
    "numpy": ("mismatch", lambda s: s.detach().numpy()),
    "an index of the device for the host": ("mismatch", lambda s: torch.ones(9)[zeros(s)]),
    "index_add": ("order", lambda s: torch.zeros_like(s).index_add(0, zeros(s), s)),
    "scatter_add": ("order", lambda s: torch.zeros_like(s).scatter_add(1, torch.zeros_like(s, dtype=torch.long), s)),
    "cumsum": ("order", lambda s: s.cumsum(dim=1)),
    "the gradient of gather": ("order", lambda s: slope(lambda m: m.gather(1, zeros(m).expand_as(m)), s)),
}
HARMLESS: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda s: s * 2 + torch.tensor(1.0),
    "a small array": lambda s: to_device(torch.arange(3).numpy(), s.device),
    "a large pinned copy": lambda s: torch.ones(2**15).pin_memory().to(s.device, non_blocking=True),
    "a mask that is filled": lambda s: s.detach().masked_fill_(s > 9, 0.0).index_put_((s > 9,), s.new_zeros(())),
    "sizes": lambda s: (len(s), s.shape, s.device, s.dtype, s.is_cuda, torch.zeros(len(s), device=s.device)),
    "gather without repetition": lambda s: slope(lambda m: m.gather(1, m.argmax(dim=1, keepdim=True)), s),
    "one_hot": lambda s: functional.one_hot(s.argmax(dim=1), s.shape[1]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    kind, fault = FAULTS[name]
    with PretendedDevice() as device:
        fault(torch.rand(6, 6, device="cuda", requires_grad=True) * 1)
    assert [found for found, events in device.events.items() if events] == [kind]
    (place,) = device.events[kind]
    assert place.startswith("training/test_pretended_device.py:")


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_wait_is_not_noted(name: str) -> None:
    with PretendedDevice() as device:
        HARMLESS[name](torch.rand(6, 6, device="cuda", requires_grad=True) * 1)
    assert not any(device.events.values())


def test_a_fault_in_a_loss_fails_the_test_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    device = planted(monkeypatch, lambda s: (s.max().item(), s * torch.ones(s.shape)))
    assert files(device.events["wait"]) == ONCE_AN_EPOCH | {"losses/proxy_anchor.py item"}
    assert files(device.events["mismatch"]) != set()


def test_a_wait_in_the_loop_is_found_at_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "to_device", lambda rows, device: torch.from_numpy(rows).to(device))
    device = epoch_on_device("ms")
    assert device.events["wait"].total() == 3
