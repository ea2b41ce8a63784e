"""The comparisons of `make bench`: both sides do equal work, and finished searches are measured correctly."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core import records
from benchmark.images.batches import to_batch
from benchmark.perf import cpu
from benchmark.perf.timing import Row
from benchmark.study.study import Study
from tests import fake_results
from tests.losses.library import only_in_version_2
from tests.training.small_fold import a_fold, a_schedule

Compose = Callable[..., Study]


def searched(study: Study, sessions: list[tuple[float, float]], seconds: list[float]) -> Study:
    """A finished search on disk: (wall, compute) seconds of its sessions on two workers, and seconds of each trial."""
    for index, spent in enumerate(seconds):
        fake_results.start(study, [index], {"train": spent - 5, "evaluate": 5.0})
    fake_results.choose(study)
    for wall, compute in sessions:
        line = {"wall_seconds": wall, "compute_seconds": compute, "workers": 2}
        records.append_line(study.directory / "bo" / "sessions.jsonl", line)
    return study


@pytest.mark.usefixtures("no_fsync")
def test_finished_searches_have_an_overhead_and_a_length_unless_a_session_was_killed(compose_study: Compose) -> None:
    whole, other, unfinished = (compose_study(f"loss={loss}") for loss in ("contrastive", "proxy_nca", "proxy_anchor"))
    assert all(not row.values for row in cpu.searches(whole))
    searched(whole, [(100.0, 190.0), (20.0, 38.0)], [100.0, 128.0])
    overhead, length = cpu.searches(whole)
    assert overhead.values == pytest.approx([5.0]) and length.values == [2.0]  # 228 of 240 s; minutes
    searched(other, [(100.0, 180.0)], [100.0, 128.0])  # 48 s of training are in no session
    (searched(unfinished, [(100.0, 20.0)], [20.0]).directory / "bo" / "best.yaml").unlink()
    together, overhead, length = cpu.searches(other)
    assert together.what == "harness, 2 finished searches" and together.values == pytest.approx([5.0, 10.0])
    assert overhead.values == pytest.approx([10.0]) and not length.values and "killed" in length.compared


def test_the_baseline_gets_the_images_that_our_loop_makes_with_every_shift() -> None:
    parts = a_fold()
    dataset = cpu.LibraryDataset(parts)
    padded = np.pad(parts.images.images[3, 0].numpy(), 1)
    windows = np.stack([padded[d : d + 8, r : r + 8] for d in range(3) for r in range(3)])[:, None]
    expected = to_batch(torch.from_numpy(windows), parts.trunk.mean, parts.trunk.std)
    torch.manual_seed(0)
    drawn = [dataset[3][0] for _ in range(200)]
    found = [[n for n, image in enumerate(expected) if torch.equal(image, one)] for one in drawn]
    assert all(len(shifts) == 1 for shifts in found) and {n for (n,) in found} == set(range(9))
    assert dataset[3][1] == int(parts.labels[3])


@only_in_version_2
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")  # its progress bar
@pytest.mark.parametrize(("size", "m"), [(6, 1), (4, 2)])  # more, or no more, classes in a batch than the fold has
def test_both_sides_train_every_module(
    compose_study: Compose, monkeypatch: pytest.MonkeyPatch, size: int, m: int
) -> None:
    monkeypatch.setattr(cpu, "ITERATIONS", 3)
    study = compose_study("loss=contrastive", f"protocol.batch_size={size}", f"loss.sampler.m={m}")
    for make in (lambda *fold: cpu.our_loop(*fold), lambda *fold: cpu.their_trainer(study, *fold)):
        parts, seen = a_fold(), []
        before = [p.detach().clone() for module in parts.modules.values() for p in module.parameters()]
        parts.trunk.register_forward_pre_hook(lambda _, images, seen=seen: seen.append(len(images[0])))
        train = make(parts, a_schedule())
        train()
        train()
        after = [p for module in parts.modules.values() for p in module.parameters()]
        assert len(seen) == 6 and len(set(seen)) == 1
        assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")  # its progress bar
def test_both_sides_evaluate_all_validation_images_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, sizes = a_fold(), []
    evaluated = parts.validation
    assert evaluated is not None
    parts.trunk.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    ours, peer = cpu.our_evaluation(parts, evaluated), cpu.their_tester(parts, evaluated)
    cpu.check_equal(found := ours(), peer())
    assert sum(sizes) == 2 * len(evaluated.labels) and sizes[: len(sizes) // 2] == sizes[len(sizes) // 2 :]
    assert 0 < found["map_at_r"] < 1
    monkeypatch.setattr(evaluated.images, "images", evaluated.images.images.roll(1, 0))
    with pytest.raises(ValueError, match="by BaseTester"):
        cpu.check_equal(ours(), peer(), "BaseTester")


@pytest.mark.parametrize("value", [0.25 + 2e-6, float("nan")])
def test_a_baseline_that_finds_another_value_is_an_error_and_not_a_ratio(value: float) -> None:
    ours = {"precision_at_1": 0.5, "r_precision": 0.25, "map_at_r": 0.125}
    peer = {"precision_at_1": 0.5, "r_precision": value, "mean_average_precision_at_r": 0.125}
    with pytest.raises(ValueError, match=r"r_precision is 0\.25, but"):
        cpu.check_equal(ours, peer)


@only_in_version_2
def test_both_sides_score_the_random_vectors_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cpu.CLASSES, 300, 20)
    vectors, labels = cpu.made_up(300)
    found = {side: cpu.scorer(side, vectors, labels)() for side in ("ours", "peer", "inputs")}
    cpu.check_equal(found["ours"], found["peer"])
    assert 0.5 < found["ours"]["map_at_r"] < 1 and found["inputs"] == {}


@only_in_version_2
def test_the_metrics_are_measured_against_the_bare_product_and_every_library_that_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "REPEATS", 1)
    monkeypatch.setitem(cpu.CLASSES, 300, 20)
    small, seen = cpu.made_up(300), []
    monkeypatch.setattr(cpu, "made_up", lambda num_images: seen.append(num_images) or small)
    rows = list(cpu.metrics())
    assert seen == [1_466, 5_924] and len(rows) == 6
    assert [row.target for row in rows[::3]] == [("<=", 3.5), ("<=", 1.8)] and all(row.values for row in rows[::3])
    assert [row.verdict() == "not measured" for row in rows[2::3]] == [importlib.util.find_spec("oml") is None] * 2


def test_without_version_2_of_the_library_its_rows_say_what_they_need_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, compose_study: Compose
) -> None:
    monkeypatch.setattr(cpu, "REPEATS", 1)
    monkeypatch.setattr(cpu, "PEER", "no_such_package")
    monkeypatch.setitem(cpu.CLASSES, 300, 20)
    small = cpu.made_up(300)
    monkeypatch.setattr(cpu, "made_up", lambda num_images: small)
    monkeypatch.setattr(cpu, "prepare", lambda *_: "no data")
    asked, child = [], {"cpu": 1.0, "wall": 1.0, "megabytes": 1.0, "product": [1.0, 1.0], "metrics": {}}
    monkeypatch.setattr(cpu, "in_child", lambda side: asked.append(side) or child)
    rows = [*cpu.trainings(compose_study()), *cpu.metrics(), *cpu.large_metrics()]
    found = {row.what: row for row in rows}
    peers = [f"metrics of {number} x 128" for number in ("1,466", "5,924", "60,502")]
    for what in ("training a fold, proxy_anchor", "training a fold, contrastive", *peers):
        assert not found[what].values and "needs pytorch-metric-learning 2: pip install" in found[what].compared
    assert all(found[f"{what}, limit"].values for what in peers) and "peer" not in asked


def test_the_bare_product_covers_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, shapes, matmul = torch.randn(300, 4), [], np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b, out: shapes.append((a.shape, b.shape)) or matmul(a, b, out=out))
    cpu.bare_product(vectors)()
    assert shapes == [((256, 4), (4, 300)), ((44, 4), (4, 300))]


def test_all_measurements_become_one_table(
    compose_study: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ("start_up", "search_costs", "trainings", "evaluations", "metrics", "large_metrics", "image_inputs",
             "kept_memory", "loss_steps", "dispatch_costs", "searches", "grown")  # fmt: skip
    for number, part in enumerate(parts):
        row = Row(part, ("<=", 1.0), [0.5 + number] if number else [], "a fake")
        monkeypatch.setattr(cpu, part, lambda *_, row=row: iter([row]))
    threads = torch.get_num_threads()
    monkeypatch.setattr(cpu.scaling, "draw", lambda found, stem: [stem.with_suffix(".pdf")])
    cpu.bench(study := compose_study(), [])
    torch.set_num_threads(threads)
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in table] == ["measured", *parts, "Written:", "Written:"]
    assert [path.suffix for path in (Path(study.config.results_dir) / "bench").iterdir()] == [".csv"]
    assert table[1].split()[-4:] == ["not", "measured", "a", "fake"] and "7.50 x" in table[8]
