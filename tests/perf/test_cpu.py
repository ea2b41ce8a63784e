from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from benchmark.core import records
from benchmark.images.batches import to_batch
from benchmark.perf import cpu
from benchmark.perf.timing import Row
from benchmark.study import layout
from benchmark.study.study import Study
from tests.training.small_fold import a_fold, a_schedule

Compose = Callable[..., Study]


def searched(study: Study, sittings: list[tuple[float, float]], seconds: list[float]) -> Study:
    """A finished search on disk: (wall, compute) seconds of its sittings on two workers, and seconds of each trial."""
    layout.open_study(study, "0123456789abcdef")
    layout.write_choice(study, layout.Choice(0, {"x": 1.0}, 0.4, 0.0, len(seconds), "raw"))
    for index, spent in enumerate(seconds):
        provenance = {"seconds": {"train": spent - 5, "evaluate": 5.0}}
        records.write_record(layout.trial_path(study, index), records.Record("trial", {"index": index}, provenance))
    for wall, compute in sittings:
        line = {"wall_seconds": wall, "compute_seconds": compute, "workers": 2}
        records.append_line(study.directory / "bo" / "sessions.jsonl", line)
    return study


def by_name(rows: Iterator[Row]) -> dict[str, Row]:
    return {row.what: row for row in rows}


def test_overhead_is_the_share_of_the_workers_time_that_is_not_training() -> None:
    # Two workers for 100 s and three for 50 s have 350 s; 180 + 135 = 315 of them are training, a tenth is not.
    sittings = [
        {"wall_seconds": 100.0, "compute_seconds": 180.0, "workers": 2},
        {"wall_seconds": 50.0, "compute_seconds": 135.0, "workers": 3},
    ]
    assert cpu.overhead(sittings) == pytest.approx(0.1)


def test_without_a_search_it_says_which_command_to_run(compose_study: Compose) -> None:
    rows = list(cpu.searches(compose_study()))
    assert [row.verdict() for row in rows] == ["not measured", "not measured"]
    assert all(row.compared == "run make bo DATASET=glyphs LOSS=hpl_pa first" for row in rows)


@pytest.mark.usefixtures("no_fsync")
def test_a_finished_search_is_measured_over_all_its_sittings(compose_study: Compose) -> None:
    study = searched(compose_study(), [(100.0, 190.0), (20.0, 38.0)], [100.0, 128.0])
    rows = by_name(cpu.searches(study))
    assert rows["harness, make bo DATASET=glyphs LOSS=hpl_pa"].values == pytest.approx([5.0])  # 228 of 240 s
    assert rows["length, make bo DATASET=glyphs LOSS=hpl_pa"].values == [2.0]  # minutes


@pytest.mark.usefixtures("no_fsync")
def test_the_length_is_unknown_when_a_sitting_was_killed(compose_study: Compose) -> None:
    study = searched(compose_study(), [(100.0, 180.0)], [100.0, 128.0])  # 48 s of training are in no sitting
    rows = by_name(cpu.searches(study))
    length = rows["length, make bo DATASET=glyphs LOSS=hpl_pa"]
    assert not length.values and "killed" in length.compared
    assert rows["harness, make bo DATASET=glyphs LOSS=hpl_pa"].values == pytest.approx([10.0])


@pytest.mark.usefixtures("no_fsync")
def test_several_finished_searches_share_a_line_and_unfinished_ones_are_left_out(compose_study: Compose) -> None:
    searched(compose_study("loss=contrastive"), [(100.0, 200.0)], [200.0])
    searched(compose_study("loss=proxy_nca"), [(100.0, 160.0)], [160.0])
    unfinished = searched(compose_study("loss=proxy_anchor"), [(100.0, 20.0)], [20.0])
    (unfinished.directory / "bo" / "best.yaml").unlink()
    assert by_name(cpu.searches(compose_study()))["harness, 2 finished searches"].values == pytest.approx([0.0, 20.0])


def test_the_peer_is_given_the_pictures_that_our_loop_makes() -> None:
    parts = a_fold()
    parts.images.shift = 0
    pictures = cpu.LibraryDataset(parts)
    ours = to_batch(parts.images.plain(np.arange(20)), parts.trunk.mean, parts.trunk.std)
    assert len(pictures) == len(ours) == 20
    for index, expected in enumerate(ours):
        image, label = pictures[index]
        assert torch.equal(image, expected) and label == int(parts.labels[index])


def test_the_peer_s_pictures_are_shifted_by_every_step_and_no_further() -> None:
    parts = a_fold()
    pictures = cpu.LibraryDataset(parts)
    padded = np.pad(parts.images.images[3, 0].numpy().astype(np.float64), 1)
    windows = [padded[d : d + 8, r : r + 8] / 255 / 0.27 - 0.1 / 0.27 for d in range(3) for r in range(3)]
    torch.manual_seed(0)
    drawn = [pictures[3][0][0].numpy() for _ in range(200)]
    seen = [[n for n, window in enumerate(windows) if np.allclose(window, picture, atol=1e-5)] for picture in drawn]
    assert all(len(found) == 1 for found in seen) and {found[0] for found in seen} == set(range(9))


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")  # by its progress bar
@pytest.mark.parametrize(("size", "m"), [(6, 1), (4, 2)])  # 4 classes are too few for 6 different ones, or enough
def test_both_sides_train_every_part(
    compose_study: Compose, monkeypatch: pytest.MonkeyPatch, size: int, m: int
) -> None:
    monkeypatch.setattr(cpu, "ITERATIONS", 3)
    study = compose_study("loss=contrastive", f"protocol.batch_size={size}", f"loss.sampler.m={m}")
    for make in (lambda *fold: cpu.our_loop(*fold), lambda *fold: cpu.their_trainer(study, *fold)):
        parts, seen = a_fold(), []
        before = [p.detach().clone() for part in (parts.trunk, parts.head, parts.loss) for p in part.parameters()]
        parts.trunk.register_forward_pre_hook(lambda _, images, seen=seen: seen.append(len(images[0])))
        go_on = make(parts, a_schedule())
        go_on()
        go_on()
        after = [p for part in (parts.trunk, parts.head, parts.loss) for p in part.parameters()]
        assert len(seen) == 6 and len(set(seen)) == 1
        assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_our_loop_goes_on_with_new_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "ITERATIONS", 3)
    parts, asked = a_fold(), []
    batch = parts.sampler.batch
    monkeypatch.setattr(parts.sampler, "batch", lambda iteration: asked.append(iteration) or batch(iteration))
    go_on = cpu.our_loop(parts, a_schedule())
    go_on()
    go_on()
    assert asked == [0, 1, 2, 3, 4, 5]


def test_both_sides_score_made_up_vectors_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cpu.CLASSES, 300, 20)
    vectors, labels = cpu.made_up(300)
    assert torch.bincount(labels).tolist() == [15] * 20
    assert torch.allclose(vectors.norm(dim=1), torch.ones(300))
    found = {side: cpu.scorer(side, vectors, labels)() for side in ("ours", "peer", "inputs")}
    cpu.check_equal(found["ours"], found["peer"])
    assert 0.5 < found["ours"]["map_at_r"] < 1 and found["inputs"] == {}


@pytest.mark.parametrize("value", [0.25 + 2e-6, float("nan")])
def test_a_peer_that_finds_another_value_is_an_error_and_not_a_ratio(value: float) -> None:
    ours = {"precision_at_1": 0.5, "r_precision": 0.25, "map_at_r": 0.125}
    peer = {"precision_at_1": 0.5, "r_precision": value, "mean_average_precision_at_r": 0.125}
    with pytest.raises(ValueError, match=r"r_precision is 0\.25, but"):
        cpu.check_equal(ours, peer)


def test_it_prints_one_table_of_everything(
    compose_study: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ("start_up", "trainings", "metrics", "large_metrics", "image_inputs", "loss_steps", "dispatch_costs",
             "search_costs", "searches")  # fmt: skip
    for number, part in enumerate(parts):
        row = Row(part, ("<=", 1.0), [0.5 + number] if number else [], "a fake")
        monkeypatch.setattr(cpu, part, lambda *_, row=row: iter([row]))
    threads = torch.get_num_threads()
    cpu.bench(compose_study(), [])
    torch.set_num_threads(threads)
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in table] == ["measured", *parts]
    assert table[1].split()[-4:] == ["not", "measured", "a", "fake"] and "6.50 x" in table[7]


@pytest.mark.slow
def test_a_fresh_process_says_what_scoring_found_and_what_it_took() -> None:
    found = cpu.in_child("inputs")
    assert found["metrics"] == {} and 0 <= found["cpu"] <= found["wall"] + 0.1 and 100 < found["megabytes"] < 2000
