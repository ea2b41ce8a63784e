"""How the numbers of a row came about, recounted from the JSON of committed studies."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.core.records import Record
from benchmark.protocol.statistics import Interval
from benchmark.report import group_table as tables
from benchmark.report.effort import _resources, budget, effort_block, pretraining, read_effort
from benchmark.report.published import published_block
from benchmark.report.table import MARKS, Column, Effort, Published, Row, Section
from benchmark.report.table_layout import Layout
from benchmark.study.identity import short_digest
from benchmark.study.stored import StoredStudy, read_study

STUDIES = Path(__file__).parents[2] / "results" / "reference" / "studies" / "glyphs-small_conv-hpl"
PLAIN = Effort(10, 10, 2, 100, 1, 0.1, 10, 0.0, None, None, None, (), 1, all_trials=10)


def used(name: str) -> tuple[StoredStudy, list[Record]]:
    stored = read_study(STUDIES / name)
    return stored, tables.records_of(stored, STUDIES / name)


@pytest.fixture(scope="module")
def hpl_nca() -> tuple[StoredStudy, list[Record]]:
    return used("hpl_nca")


def bodies(name: str, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((STUDIES / name).glob(pattern))]


def test_trials_iterations_hours_and_looks_are_those_of_the_records(hpl_nca: tuple[StoredStudy, list[Record]]) -> None:
    effort = read_effort(hpl_nca[0], STUDIES / "hpl_nca", hpl_nca[1])
    trials, runs = bodies("hpl_nca", "bo/trial_*.json"), bodies("hpl_nca", "final_eval/trial_006/run_*.json")
    epochs = [fold["last_epoch"] for body in trials + runs for fold in body["result"]["folds"]]
    assert (effort.trials, effort.asked, effort.searched) == (len(trials), 16, 5) == (10, 16, 5)
    assert (effort.epochs, effort.iterations) == (sum(epochs), 100 * sum(epochs))
    seconds = [sum(body["provenance"]["seconds"].values()) for body in trials + runs]
    assert effort.hours == pytest.approx(sum(seconds) / 3600) and effort.looks == len(runs) == 10
    assert effort.at_limit == 1.0 and effort.codes == 0 and effort.idle == 0


def test_validation_and_test_scores_are_those_of_the_records(hpl_nca: tuple[StoredStudy, list[Record]]) -> None:
    effort = read_effort(hpl_nca[0], STUDIES / "hpl_nca", hpl_nca[1])
    runs = [body["result"] for body in bodies("hpl_nca", "final_eval/trial_006/run_*.json")]
    (choice,) = [b["result"] for b in bodies("hpl_nca", "bo/trial_*.json") if b["result"]["index"] == 6]
    validation = [fold["map_at_r"] for run in runs for fold in run["folds"]]
    assert effort.validation_of_choice == pytest.approx(100 * choice["map_at_r"])
    assert effort.validation == pytest.approx(100 * sum(validation) / len(validation))
    assert effort.separated == pytest.approx(sum(10 * run["separated"]["map_at_r"] for run in runs))


@pytest.mark.parametrize(
    ("name", "on_bounds"),
    [
        ("hpl_nca", ("proxy_lr = 1", "scale_1 = 0.02", "num_coarse = 5", "update_every = 10")),
        ("contrastive", ("pos_margin = -0.2",)),
        ("proxy_nca", ()),  # a rate of 0.003 between 1e-6 and 1, on a logarithmic scale
        ("hpl_pa", ()),  # 72.4 of 100, 161 of 200 and 0.05 of 1 are inside
    ],
)
def test_values_on_a_bound_of_their_space_are_named(name: str, on_bounds: tuple[str, ...]) -> None:
    stored, found = used(name)
    assert read_effort(stored, STUDIES / name, found).on_bounds == on_bounds


@pytest.mark.parametrize("where", ["warnings", "fold"])
def test_a_hierarchy_is_idle_where_a_record_says_so(hpl_nca: tuple[StoredStudy, list[Record]], where: str) -> None:
    stored, found = hpl_nca
    last, num_runs = found[-1], sum(record.kind == "run" for record in found)
    if where == "warnings":
        warnings = [[], ["the groups of level 1 never changed"], [], []]
        changed = dataclasses.replace(last, provenance=last.provenance | {"warnings": warnings})
    else:
        folds = [fold | {"idle_hierarchy": fold["fold"] == 2} for fold in last.result["folds"]]
        changed = dataclasses.replace(last, result=last.result | {"folds": folds})
    assert read_effort(stored, STUDIES / "hpl_nca", [*found[:-1], changed]).marks["i"] == f"1 of {4 * num_runs} folds"


@pytest.mark.parametrize("where", ["warnings", "fold"])
def test_a_part_of_a_loss_was_off_where_a_record_says_so(hpl_nca: tuple[StoredStudy, list[Record]], where: str) -> None:
    stored, found = hpl_nca
    last, num_runs = found[-1], sum(record.kind == "run" for record in found)
    assert read_effort(stored, STUDIES / "hpl_nca", found).off == 0
    if where == "warnings":
        warnings = [[], ["the memory never came on: it starts after start_iteration=9 steps"], [], []]
        changed = dataclasses.replace(last, provenance=last.provenance | {"warnings": warnings})
    else:
        folds = [fold | {"best_epoch_in_warmup": fold["fold"] == 2} for fold in last.result["folds"]]
        changed = dataclasses.replace(last, result=last.result | {"folds": folds})
    effort = read_effort(stored, STUDIES / "hpl_nca", [*found[:-1], changed])
    assert effort.marks["o"] == f"1 of {4 * num_runs} folds"


def test_a_study_without_a_ledger_has_no_number_of_looks(
    hpl_nca: tuple[StoredStudy, list[Record]], tmp_path: Path
) -> None:
    assert read_effort(hpl_nca[0], tmp_path, hpl_nca[1]).looks is None


def test_a_preset_searches_nothing(hpl_nca: tuple[StoredStudy, list[Record]]) -> None:
    stored = dataclasses.replace(hpl_nca[0], config=hpl_nca[0].config | {"preset": "default"})
    runs = [record for record in hpl_nca[1] if record.kind == "run"]
    effort = read_effort(stored, STUDIES / "hpl_nca", runs)
    assert (effort.trials, effort.asked, effort.searched, effort.on_bounds) == (None, None, 0, ())
    assert effort.validation_of_choice is None and effort.validation is not None and "s" not in effort.marks


def test_each_mark_has_its_condition() -> None:
    assert PLAIN.marks == {}
    changes: dict[str, dict[str, Any]] = {
        "b": {"on_bounds": ("x = 1",)}, "m": {"at_limit": 0.51}, "i": {"idle": 1}, "o": {"off": 1},
        "s": {"trials": 9}, "f": {"stopped": 0}, "r": {"rule": "model"}, "c": {"codes": 2},
        "p": {"seen": ("WebLI, images of the web",)}, "d": {"keeps_features": True},
    }  # fmt: skip
    for mark, change in changes.items():
        assert set(dataclasses.replace(PLAIN, **change).marks) == {mark}
    assert set(changes) | {"q"} == set(MARKS)
    assert dataclasses.replace(PLAIN, at_limit=0.5, trials=11).marks == {}


@pytest.mark.parametrize(
    ("trunk", "dataset", "seen"),
    [
        ({}, {}, ()),  # small_conv on glyphs
        ({"name": "bn_inception"}, {"name": "cub"}, ("ImageNet-1k, birds as classes, and 23 equal files",)),
        ({"name": "bn_inception", "module": {"weights": None}}, {"name": "cub"}, ()),
        ({"name": "bn_inception"}, {"name": "inaturalist2019"}, ()),
        ({"name": "bn_inception"}, {"name": "mine", "overlaps": {"imagenet1k": "all"}}, ("ImageNet-1k, all",)),
        ({"name": "vit_small"}, {"name": "cub"}, ("ImageNet-21k, birds as classes, and 23 equal files",)),
        ({"name": "dinov2_small"}, {"name": "glyphs"}, ("LVD-142M, images of the web",)),
        ({"name": "x", "network": "convnext_tiny.fb_in1k", "pretrained_on": None}, {"name": "glyphs"}, ()),
        (
            {"name": "x", "network": "a.b", "pretrained_on": None},
            {"name": "sop"},
            ("unknown images, images of the web",),
        ),
        ({"name": "x", "network": 3, "pretrained_on": None}, {}, ("unknown images, images of the web",)),
        ({"pretrained_on": 7}, {"overlaps": 7}, ("unknown images, images of the web",)),
    ],
)
def test_a_row_says_what_its_trunk_was_pretrained_on_if_that_may_show_the_test_classes(
    hpl_nca: tuple[StoredStudy, list[Record]], trunk: dict[str, Any], dataset: dict[str, Any], seen: tuple[str, ...]
) -> None:
    stored, groups = hpl_nca[0], {"trunk": trunk, "dataset": dataset}
    science = stored.science | {key: stored.science[key] | value for key, value in groups.items() if value}
    config = stored.config | {"trunk": trunk or stored.config["trunk"], "dataset": {"label": "D"} | dataset}
    changed = dataclasses.replace(stored, science=science, config=config, identity=short_digest(science))
    assert pretraining(changed) == seen


@pytest.mark.parametrize(
    ("space", "asked"),
    [
        ({"num_bins": {"bounds": [2, 32], "scale": "linear", "type": "int"}}, 31),  # FastAP's, of 50
        ({"a": {"bounds": [1, 3], "type": "int"}, "b": {"bounds": [0, 4], "type": "int"}}, 15),
        ({"a": {"bounds": [1, 3], "type": "int"}, "b": {"bounds": [0, 4], "type": "float"}}, 50),
        ({"num_bins": {"bounds": [1, 100], "type": "int"}}, 50),
        ({"num_bins": {"bounds": [3, 1], "type": "int"}}, 50),
        ({"num_bins": {"bounds": ["x"], "type": "int"}}, 50),
        ({"num_bins": None}, 50), ({}, 50), (None, 50),
    ],
)  # fmt: skip
def test_a_search_that_tried_its_whole_space_is_not_short(
    hpl_nca: tuple[StoredStudy, list[Record]], space: object, asked: int
) -> None:
    stored, found = hpl_nca
    science = stored.science | {"loss": stored.science["loss"] | {"space": space}}
    config = stored.config | {"protocol": stored.config["protocol"] | {"trials": 50}}
    changed = dataclasses.replace(stored, config=config, science=science, identity=short_digest(science))
    effort = read_effort(changed, STUDIES / "hpl_nca", found)
    assert effort.asked == asked
    assert "s" not in dataclasses.replace(effort, trials=asked).marks
    assert "s" in dataclasses.replace(effort, trials=asked - 1).marks


def section(*efforts: Effort) -> Section:
    key = ("x",)
    rows = [Row(str(n), f"L{n}", {key: Interval(1.0, None, 1)}, 1, effort=effort) for n, effort in enumerate(efforts)]
    return Section([Column(key, "X")], rows, 0.95)


def test_a_budget_is_fixed_if_most_folds_reached_the_limit_of_epochs() -> None:
    limited = dataclasses.replace(PLAIN, at_limit=0.9, trials=6)
    fixed = budget(section(limited, dataclasses.replace(limited, trials=10)))
    assert (
        fixed
        == "Compared at a fixed budget: searches of 6 to 10 trials; 90 % of the folds reached the limit of epochs."
    )
    converged = budget(section(PLAIN, dataclasses.replace(PLAIN, at_limit=0.1)))
    assert converged == "Compared after convergence: searches of 10 trials; 95 % of the folds were stopped by patience."
    assert budget(section(dataclasses.replace(PLAIN, at_limit=None))) == "Every training has a fixed length."
    assert budget(section()) == ""


def test_the_table_has_only_columns_that_some_row_fills() -> None:
    traditional = dataclasses.replace(
        PLAIN, trials=None, asked=None, all_trials=None, iterations=None, epochs=1200, at_limit=None
    )
    (block,) = effort_block(section(traditional))
    assert [head.title for head in block.heads] == ["Loss", "Epochs", "Hours", "Looks"]
    assert block.groups[""] == [["L0", "1,200", "0.10", "10"]] and "Gap" not in block.notes[0]
    scored = dataclasses.replace(PLAIN, validation=40.0, separated=25.5)
    (block,) = effort_block(section(scored))
    assert block.groups[""] == [["L0", "10", "2", "100", "0.10", "10", "40.00", "25.50", "14.50"]]
    assert effort_block(section()) == []


def traditional_run(scores, seconds, **origin):
    history = [{"epoch": epoch, "watched": {"precision_at_1": score}} for epoch, score in enumerate(scores)]
    return Record("traditional", {"history": history}, {"seconds": {"train": seconds}} | origin, None)


def test_time_and_memory_are_means_over_the_runs_of_the_traditional_protocol():
    runs = [
        traditional_run([0.1, 0.5, 0.795, 0.8], 3 * 3600, seconds_per_iteration=0.2, peak_memory_bytes=3_000_000_000),
        traditional_run([0.1, 0.6, 0.5, 0.6], 6 * 3600, seconds_per_iteration=0.4, peak_memory_bytes=1_000_000_000),
    ]
    found = _resources(runs)
    assert found["seconds_per_iteration"] == pytest.approx(0.3)
    assert found["hours_to_convergence"] == pytest.approx((2 + 2) / 2), "2 of 3 epochs of 3 h, and 1 of 3 of 6 h"
    assert found["max_memory_gb"] == pytest.approx(2.0)
    assert _resources([*runs, traditional_run([0.1, 0.2], 60)]) == {}, "a record that lacks them"


def test_proxies_and_the_cost_of_folds_are_read_from_final_runs_too() -> None:
    folds: list[dict[str, Any]] = [{"num_proxies": 500}, {"num_proxies": 510}]
    cost = {"seconds_per_iteration": 0.5, "peak_memory_bytes": 2_000_000_000}
    run = Record("run", {"folds": folds}, {"seconds": {"train": 9.0}} | cost, None)
    expected = {"num_proxies": 505, "seconds_per_iteration": 0.5, "max_memory_gb": 2.0}
    assert _resources([run, run]) == expected
    older = Record("run", {"folds": [{}, folds[0]]}, run.provenance, None)
    assert _resources([older]) == {key: value for key, value in expected.items() if key != "num_proxies"}
    block = effort_block(section(dataclasses.replace(PLAIN, resources={"num_proxies": 11830.0})))[0]
    assert block.groups[""][0][5] == "11,830" and "Proxies: " in block.notes[0]


def test_a_layout_shows_counts_and_times_in_the_main_table_for_quoted_rows_too() -> None:
    keys = [("num_proxies",), ("max_memory_gb",), ("recall_at_1",)]
    layout = Layout(columns=keys)
    quoted = Row("", "HDML", published={("max_memory_gb",): Published(8.96, None, "T1")})
    ours = Row("x", "X", effort=dataclasses.replace(PLAIN, resources={"num_proxies": 1000, "max_memory_gb": 2.5}))
    quoted, ours, bare = (
        tables.with_resources(row, shown)
        for row, shown in ((quoted, layout), (ours, layout), (ours, Layout(columns=keys[2:])))
    )
    assert quoted.settings == {"Proxies": "", "Memory, GB": "8.96"} and quoted.exact == {"Memory, GB": 8.96}
    assert ours.settings == {"Proxies": "1,000", "Memory, GB": "2.5"}
    assert ours.exact == {"Proxies": 1000.0, "Memory, GB": 2.5} and bare.settings == {}
    ours.published = {("num_proxies",): Published(980, None, "T2")}
    (block,) = published_block(Section([Column(("recall_at_1",), "R@1")], [ours], 0.95))
    assert block.groups[""] == [["X", "980 (+20)"]]
