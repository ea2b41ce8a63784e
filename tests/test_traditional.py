"""The traditional protocol: what trains, what is monitored, which epochs are reported, who opens test classes when."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import traditional as command
from benchmark.bo import bo
from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.datasets.glyphs import Glyphs
from benchmark.jobs import train_unit as worker
from benchmark.jobs.session import Session
from benchmark.samplers.random import Random
from benchmark.study import contents
from benchmark.study.assemble import make_schedule
from benchmark.study.model_files import read_weights
from benchmark.study.passes import held_out_classes, in_passes, select
from benchmark.study.study import Study
from benchmark.traditional import traditional
from tests import fake_results
from tests.command_line import TINY, Diverging, Ended, assert_refused, run, tiny, trainings
from tests.study import examples

Compose = Callable[..., Study]
FOLDER = Path("studies") / "glyphs_small-small_conv-traditional" / "proxy_nca"
SHORT = ("training.batch_size=256", "training.epochs=2", "protocol.num_runs=1")

pytestmark = pytest.mark.usefixtures("no_fsync")


def short(results_dir: Path, *overrides: str) -> Ended:
    """Run the command for a tiny study that names no protocol."""
    keys = {override.split("=")[0] for override in overrides}
    base = [override for override in SHORT if override.split("=")[0] not in keys]
    return tiny(traditional, results_dir, *base, *overrides, protocol="traditional")


@pytest.fixture(scope="module")
def tiny_study(compose_study_in: Compose) -> dict[str, Any]:
    """The configuration of `short`."""
    choices = (*TINY, *SHORT, "protocol=traditional")
    return compose_study_in(Path("results"), *(choice for choice in choices if choice != "protocol.num_runs=2")).raw


def result(results_dir: Path, run: int = 0, folder: Path = FOLDER) -> dict[str, Any]:
    return records.read_record(results_dir / folder / "traditional" / "setting" / f"run_{run:02d}.json").result


def accesses(results_dir: Path, folder: Path = FOLDER) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (results_dir / folder / "test_ledger.jsonl").read_text().splitlines()]


# -- a whole study ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_of_a_loss_with_a_schedule_belong_to_their_study(tmp_path: Path) -> None:
    ended = short(tmp_path, "loss=hpl_pa", "training.epochs=1")
    own = result(tmp_path, folder=FOLDER.with_name("hpl_pa"))["setting"]["update_every"]
    assert ended.status == 0 and own != 5, own  # 5 iterations, converted to passes over the images
    assert "does not belong" not in ended.out and "R@1" in ended.out.partition("test classes:")[2], ended.out


@pytest.mark.slow
def test_every_epoch_is_scored_on_the_test_classes_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    parts: list[Any] = []
    with trainings(lambda number, made: parts.append(made)) as trained:
        ended = short(tmp_path)
        left = tmp_path / FOLDER / "traditional" / "setting" / "run_00" / "checkpoint.pt"
        left.write_bytes(b"of a worker that was killed after its record")
        assert short(tmp_path).status == 0
    assert ended.status == 0 and trained == ["setting/run_00"] and not left.exists(), ended
    found = result(tmp_path)
    assert [row["epoch"] for row in found["history"]] == [0, 1, 2]
    metrics = {"map_at_r", "r_precision", "precision_at_1", *(f"recall_at_{k}" for k in (1, 2, 4, 8))}
    assert all(row["watched"].keys() == metrics for row in found["history"])
    assert found["selected"]["last_epoch"] == {"epoch": 2} | found["history"][2]["watched"]
    assert found["selected"]["held_out"] is None and found["status"] == "completed"
    # All classes of the first half train, and none of the second.
    data = Glyphs(size=32, every=8)
    assert len(parts[0].labels) == len(data.trainval().labels) and parts[0].validation is None
    assert np.array_equal(parts[0].monitored.labels.numpy(), data.test().labels)
    assert "best epoch on test (as papers report)" in ended.out and "last epoch" in ended.out
    assert "chosen by looking at the answer" in ended.out


def test_a_finished_unit_returns_its_record_and_opens_no_test_class(tiny_study: dict[str, Any], tmp_path: Path) -> None:
    session = Session(Study.of(tiny_study | {"results_dir": str(tmp_path)}), "traditional", halves=())
    session.fingerprint, session.opened = examples.FINGERPRINT, fake_results.opened(session.study, "traditional")
    unit = command.unit_of(session, run=4)
    path = tmp_path / FOLDER / "traditional" / "setting" / "run_04.json"
    assert unit.directory.with_suffix(".json") == path
    _, example = examples.good()[contents.Traditional][1]
    result = example.result | {"setting": unit.setting}
    record = replace(example, result=result, identity=unit.identity("traditional").to_json())
    records.write_record(path, record)
    left = [unit.directory / name for name in ("checkpoint.pt", ".checkpoint.pt.7.tmp", "alive.json")]
    for file in left:  # by a worker that was killed at the very end
        records.write_whole(file, b"")
    answer = command.run_unit(unit.to_json(), lambda message: None)
    assert answer == {
        "result": record.result,
        "provenance": record.provenance,
        "identity": record.identity,
        "notes": [],
    }
    assert not (tmp_path / FOLDER / "test_ledger.jsonl").exists() and not any(file.exists() for file in left)


def test_an_access_is_logged_before_the_test_classes_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[dict[str, Any]]] = []

    def refuse(self: Glyphs) -> None:
        seen.append(accesses(tmp_path))
        raise ValueError("not today")

    monkeypatch.setattr(Glyphs, "test", refuse)
    ended = short(tmp_path, "seed=31")
    assert ended.status == 1 and "not today" in ended.err
    (line,) = seen[0]
    assert (line["run"], line["story"]) == (0, "traditional") and "every epoch" in line["looks"]
    assert accesses(tmp_path) == [line]


@pytest.mark.slow
def test_held_out_classes_choose_an_epoch_and_are_never_trained_on(tmp_path: Path) -> None:
    parts: list[Any] = []
    with trainings(lambda number, made: parts.append(made)):
        assert short(tmp_path, "protocol.held_out=0.25").status == 0
    (made,) = parts
    split = Glyphs(size=32, every=8).trainval()
    kept_out = split.class_ids[-round(0.25 * len(split.class_ids)) :]
    assert set(made.validation.labels.tolist()) == set(kept_out.tolist())
    rows = np.flatnonzero(~np.isin(split.labels, kept_out))
    assert torch.equal(made.images.plain(np.arange(len(rows)))[:, 0], torch.from_numpy(split.images[rows]))
    assert len(made.labels.unique()) == len(split.class_ids) - len(kept_out)
    found = result(tmp_path)
    assert len(found["history"]) == 3  # patience does not end a training
    scores = [row["map_at_r"] for row in found["history"][1:]]
    chosen = found["history"][1 + int(np.argmax(scores))]
    assert found["selected"]["held_out"] == {"epoch": chosen["epoch"]} | chosen["watched"]


@pytest.mark.slow
def test_several_runs_differ_and_have_an_interval(tmp_path: Path) -> None:
    ended = short(tmp_path, "protocol.num_runs=2", "training.epochs=1")
    assert ended.status == 0 and "n = 2 runs" in ended.out and "+-" in ended.out
    assert result(tmp_path, 0)["history"][1]["loss"] != result(tmp_path, 1)["history"][1]["loss"]
    assert [line["run"] for line in accesses(tmp_path)] == [0, 1]


@pytest.mark.slow
def test_a_training_that_diverges_has_no_last_epoch_and_says_why(tmp_path: Path) -> None:
    def break_it(number: int, parts: Any) -> None:
        parts.loss = Diverging(parts.loss, after=8)  # 1 epoch is 6 iterations

    with trainings(break_it):
        ended = short(tmp_path, "training.epochs=3")
    found = result(tmp_path)
    assert (found["status"], found["reason"]) == ("diverged", "the training loss is nan in epoch 2")
    assert found["selected"]["best_on_test"]["epoch"] == 1 and found["selected"]["last_epoch"] is None
    assert "diverged: the training loss is nan in epoch 2" in ended.out and ended.status == 0


@pytest.mark.slow
def test_an_interrupted_training_resumes_and_ends_as_an_undisturbed_one_with_all_that_it_keeps(tmp_path: Path) -> None:
    own = ("loss=hpl_nca", "keep=best", "keep_epochs=[1,2]", "loss.schedule.warmup_iterations=2",
           "loss.setting.update_every=2", "protocol.held_out=0.25")  # fmt: skip
    folder = FOLDER.with_name("hpl_nca")
    assert short(tmp_path / "a", *own).status == 0
    train_fold = worker.train_fold

    def interrupted(parts: Any, schedule: Any, checkpoint: Any, on_epoch: Any) -> Any:
        def stop(history: list[dict[str, Any]]) -> None:
            if len(history) == 2:
                raise KeyboardInterrupt

        return train_fold(parts, schedule, checkpoint, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "train_fold", interrupted)
        assert short(tmp_path / "b", *own).status == 130
    assert short(tmp_path / "b", *own).status == 0
    found = result(tmp_path / "a", folder=folder)
    assert result(tmp_path / "b", folder=folder) == found
    assert len(accesses(tmp_path / "b", folder)) == 2  # every attempt opens them
    runs = [tmp_path / name / folder / "traditional" / "setting" / "run_00" for name in "ab"]
    names = ("embeddings.npz", "embeddings_epoch_1.npz", "embeddings_epoch_2.npz")
    one, other = ([dict(np.load(run / name)) for name in names] for run in runs)
    for ours, theirs in zip(one, other, strict=True):
        assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)
    reported = one[0], one[found["selected"]["best_on_test"]["epoch"]]
    assert np.array_equal(*(kept["embeddings"] for kept in reported)) and reported[0]["embeddings"].shape[0] == 1
    assert not np.array_equal(one[1]["embeddings"], one[2]["embeddings"])
    assert reported[0]["fold_0.owners_0"].dtype == np.int64 and len(np.unique(reported[0]["fold_0.owners_0"])) > 1
    assert {"fold_0.proxies", "fold_0.centres_1", "labels", "neighbours"} <= reported[0].keys()
    assert found["idle_hierarchy"] in (True, False)
    for file, rule in (("weights.safetensors", "best_on_test"), ("weights_held_out.safetensors", "held_out")):
        kept = read_weights(runs[1] / file, torch.device("cpu"), lambda _: "")
        per_pass = int(kept["loss"]["counters"][0]) / found["selected"][rule]["epoch"]
        assert per_pass == round(per_pass) and len(kept["loss"]["owners_0"]) == len(kept["loss"]["proxies"])
    provenance = records.read_record(runs[0].with_suffix(".json")).provenance
    assert provenance["seconds_per_iteration"] > 0 and provenance["peak_memory_bytes"] > 1e7
    content = (runs[0] / "embeddings.npz").read_bytes()
    assert provenance["embeddings_sha256"] == hashlib.sha256(content).hexdigest()


def test_an_epoch_that_is_not_trained_cannot_be_kept(tmp_path: Path) -> None:
    assert_refused(short(tmp_path, "keep_epochs=[1,3]"), "keep_epochs=[1, 3]", "ends after 2 epochs", "no epoch 3")


@pytest.mark.slow
def test_a_preset_has_a_folder_of_its_own(tmp_path: Path) -> None:
    assert short(tmp_path, "preset=default", "training.epochs=1").status == 0
    path = tmp_path / FOLDER.with_name("proxy_nca-default") / "traditional" / "default" / "run_00.json"
    assert records.read_record(path).kind == "traditional"


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_search_under_this_protocol_and_this_command_under_another_one_are_refused(tmp_path: Path) -> None:
    assert_refused(tiny(bo, tmp_path, "protocol=traditional"), "protocol=traditional", "make traditional")
    assert_refused(tiny(traditional, tmp_path, "protocol=hpl"), "protocol=hpl", "make bo")
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    ("key", "value", "phrase"),
    [
        ("training.batch_size", 100_000, "A batch of 100000 images exceeds the"),
        ("protocol.held_out", 0.001, "protocol.held_out=0.001: 0 of"),
        ("protocol.held_out", 1.0, "protocol.held_out=1: "),
        ("protocol.held_out", -0.5, "protocol.held_out=-0.5: "),
        ("training.epochs", 0, "training.epochs=0: must be at least 1"),
        ("training.warmup_epochs", -1, "training.warmup_epochs=-1: must be at least 0"),
        ("training.decay", {"kind": "linear"}, "training.decay="),
        ("training.clip", {"valu": 1.0}, "training.clip="),
        ("training.clip", {"norm": 0.0}, "training.clip="),
        ("training.clip", {"norm": 1.0, "value": 1.0}, "training.clip="),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(
    tiny_study: dict[str, Any], tmp_path: Path, key: str, value: Any, phrase: str
) -> None:
    group, name = key.split(".")
    raw = tiny_study | {"results_dir": str(tmp_path), group: tiny_study[group] | {name: value}}
    with trainings() as trained, pytest.raises((UserError, ValueError), match=re.escape(phrase)):
        traditional(Study.of(raw), [])
    assert not trained and not list(tmp_path.rglob("study.yaml"))


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    allowed = "allowed are hier, hist, hpl, proxy_anchor, proxygml"
    assert_refused(short(tmp_path, "training.recipe=typo"), "training.recipe='typo'", allowed)


# -- its parts --------------------------------------------------------------------------------------------------------


def row(epoch: int, recall: float, map_at_r: float = 0.5) -> dict[str, Any]:
    return {"epoch": epoch, "watched": {"precision_at_1": recall, "recall_at_1": recall, "map_at_r": map_at_r}}


def test_the_best_epoch_on_test_is_the_earliest_with_the_highest_recall_at_1_and_was_trained() -> None:
    history = [row(0, 0.9), row(1, 0.3, 0.8), row(2, 0.6, 0.1), row(3, 0.6, 0.7), row(4, 0.5)]
    chosen = select(history, None, completed=True)
    assert chosen["best_on_test"] == {"epoch": 2, "precision_at_1": 0.6, "recall_at_1": 0.6, "map_at_r": 0.1}
    assert chosen["last_epoch"]["epoch"] == 4 and chosen["held_out"] is None
    assert select(history, 3, completed=True)["held_out"]["map_at_r"] == 0.7
    assert select(history, 1, completed=False)["last_epoch"] is None
    assert select(history[:1], None, completed=False) == {"best_on_test": None, "last_epoch": None, "held_out": None}


def test_the_last_classes_are_held_out() -> None:
    ids = np.array([4, 9, 2, 7, 30, 11, 3, 5])
    assert held_out_classes(ids, 0.25).tolist() == [11, 30]
    assert held_out_classes(ids, 0.5).tolist() == [7, 9, 11, 30]
    assert held_out_classes(ids, 0.0).tolist() == []


def test_an_epoch_is_a_pass_over_the_data_and_what_hpl_counts_in_epochs_follows(compose_study: Compose) -> None:
    study = in_passes(compose_study("protocol=traditional", "dataset=cub", "loss=hpl_pa", "trunk=resnet50"), 5864)
    # 5,864 images in batches of 128: 45 and an incomplete one. 3 epochs of 100 iterations are 3 of 45.
    assert study.config.protocol.iterations_per_epoch == 45
    assert study.config.loss.module["warmup_iterations"] == 135
    assert study.config.loss.setting["update_every"] == 45
    assert isinstance(study.make_sampler(np.repeat([0, 1], 100), seed=0), Random)
    schedule = make_schedule(study, 0)
    assert (schedule.max_epochs, schedule.evaluate_every, schedule.warmup_epochs) == (30, 1, 0)
    assert schedule.patience >= 30 and schedule.clip == {"value": 10.0}
    given = compose_study("protocol=traditional", "dataset=cub", "loss=hpl_pa", "loss.setting.update_every=20")
    assert in_passes(given, 5864).config.loss.setting["update_every"] == 20


@pytest.mark.slow
def test_losses_over_pairs_keep_their_batches_and_inaturalist_gets_the_papers_500_groups(
    compose_study: Compose,
) -> None:
    contrastive = compose_study("protocol=traditional", "loss=contrastive")
    assert in_passes(contrastive, 1000).config.loss.sampler == {"m": 4}
    hier = compose_study("protocol=traditional", "loss=hier")
    assert in_passes(hier, 1000).config.loss.sampler == {"m": 2, "fresh_classes": True}
    species = compose_study("protocol=traditional", "loss=hpl_pa", "dataset=inaturalist2019")
    assert in_passes(species, 100_000).config.loss.setting["num_coarse"] == 500


def test_a_training_without_epochs_keeps_the_data_sets(compose_study: Compose) -> None:
    study = in_passes(compose_study("protocol=traditional", "training=from_scratch", "protocol.batch_size=32"), 1000)
    assert study.config.protocol.iterations_per_epoch == 100  # those of glyphs
    assert (study.config.dataset.max_epochs, study.config.protocol.batch_size) == (6, 32)


def test_a_pass_holds_every_image_at_most_once(compose_study: Compose) -> None:
    study = in_passes(compose_study("protocol=traditional", "loss=proxy_anchor", "training.batch_size=30"), 100)
    sampler = study.make_sampler(np.repeat(np.arange(10), 10), seed=3)
    rows = np.concatenate([sampler.batch(i) for i in range(study.config.protocol.iterations_per_epoch)])
    assert len(rows) == 90 and len(set(rows.tolist())) == 90


# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_recipe_is_filled_in_for_data_set_and_trunk_and_the_command_line_wins(compose_study: Compose) -> None:
    cub = ("protocol=traditional", "dataset=cub", "trunk=resnet50")
    training = compose_study(*cub, "loss=hist").config.training
    assert (training.name, training.batch_size, training.epochs, training.warmup_epochs) == ("traditional", 32, 41, 1)
    assert training.optimizers["trunk"] == {"_target_": "torch.optim.Adam", "lr": 1.2e-4, "weight_decay": 5e-5}
    mine = compose_study(*cub, "loss=hist", "training.epochs=7", "training.optimizers.trunk.lr=0.5", "training.clip={}")
    assert (mine.config.training.epochs, mine.config.training.optimizers["trunk"]["lr"]) == (7, 0.5)
    assert mine.config.training.optimizers["trunk"]["weight_decay"] == 5e-5 and mine.config.training.clip == {}
    assert Study.of(mine.raw).config == mine.config  # a worker reads it again
    assert make_schedule(compose_study(*cub, "loss=proxy_nca_pp"), 0).warmup_epochs == 5  # its authors'


@pytest.mark.slow
def test_images_are_cropped_as_the_papers_crop_them_and_sop_has_its_own_classes(compose_study: Compose) -> None:
    study = compose_study("protocol=traditional", "dataset=sop", "loss=hpl_pa", "trunk=resnet50")
    images = study.config.dataset.images
    assert (images["crop"], images["short_side"], images["resize_first"]) == (224, 256, False)
    assert images["scale"] == [0.08, 1.0] and images["ratio"] == pytest.approx([3 / 4, 4 / 3])
    assert study.config.dataset.module["sop_cut"] is None
    assert compose_study("dataset=sop").config.dataset.module["sop_cut"] == 11317
    assert study.config.dataset.recall_at == [1, 10, 100, 1000]
    assert compose_study("dataset=inshop").config.dataset.recall_at == [1, 10, 20, 30, 40, 50]


def test_which_recalls_are_recorded_makes_a_study_under_this_protocol_only(tiny_study: dict[str, Any]) -> None:
    def identity(story: str, recalls: list[int]) -> str:
        dataset, protocol = tiny_study["dataset"] | {"recall_at": recalls}, tiny_study["protocol"] | {"story": story}
        return Study.of(tiny_study | {"dataset": dataset, "protocol": protocol}).identity("any data")

    assert identity("traditional", [1, 2]) != identity("traditional", [1, 2, 3])
    assert identity("search", [1, 2]) == identity("search", [1, 2, 3])


def test_the_command_needs_no_protocol_and_says_so(tmp_path: Path) -> None:
    ended = run(traditional, "--cfg", "job", "dataset=cub", "loss=hpl_pa", protocol="traditional")
    assert ended.status == 0 and "story: traditional" in ended.out and "name: traditional" in ended.out
    assert command.__doc__ and "make traditional" in command.__doc__
