"""Presets, the authors' learning rates, the warm-up, and what a loss asks of its head and its search space."""

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.bo import bo
from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.final_eval import final_eval
from benchmark.study.recipes import make_optimizers, parameter_groups
from benchmark.study.stored import value_at
from benchmark.study.study import Study
from benchmark.tables import tables
from benchmark.training.loop import train_fold
from tests.command_line import assert_refused, run, study_dir, tiny, trainings
from tests.training.small_fold import a_checkpoint, a_fold, a_schedule

RECIPE = {"lr_multiplier": 100.0, "weight_decay": 0.5, "warmup_epochs": 2, "groups": {"a": {"lr_multiplier": 5.0}}}
PRESETS = {"published": {"cub": {"alpha": 12.5, "proxy_lr": 0.25}, "sop": {"alpha": 1.0}}}
PRESET = {"published": {"glyphs_small": {"softmax_scale": 3.5, "proxy_lr": 0.125}}}


class TwoKinds(nn.Module):
    """Parameters a.weight, a.bias and b."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Parameter(torch.zeros(3))


@pytest.fixture
def proxy_anchor(compose_study: Callable[..., Study]) -> Callable[..., Study]:
    """Proxy-Anchor with other keys in its file, and other choices."""

    def make(*overrides: str, dataset: str = "glyphs", preset: str = "", **keys: Any) -> Study:
        raw = copy.deepcopy(compose_study("loss=proxy_anchor", *overrides).raw)
        raw["loss"] |= keys
        raw["dataset"]["name"], raw["preset"] = dataset, preset
        return Study.of(raw)

    return make


def rates(optimizer: torch.optim.Optimizer) -> list[tuple[int, float, float]]:
    """Number of parameters, learning rate and weight decay of each group."""
    return [(len(g["params"]), g["lr"], g["weight_decay"]) for g in optimizer.param_groups]


# -- optimisers -------------------------------------------------------------------------------------------------------


def test_searched_rates_come_from_the_loss_and_a_group_takes_its_own(proxy_anchor: Callable[..., Study]) -> None:
    optimizer = {"lr": 0.3, "weight_decay": 0.0, "groups": {"b": {"lr": 0.7}}}
    study = proxy_anchor("training=finetune", optimizer=optimizer, authors=RECIPE)
    made = make_optimizers(study.config, {"trunk": nn.Linear(2, 2), "loss": TwoKinds()})
    assert rates(made["trunk"]) == [(2, 1e-6, 1e-4)]
    assert rates(made["loss"]) == [(2, 0.3, 0.0), (1, 0.7, 0.0)]
    assert type(made["loss"]) is torch.optim.RMSprop
    assert made["loss"].param_groups[1]["momentum"] == 0.9


def test_authors_rates_are_multiples_of_the_trunks(proxy_anchor: Callable[..., Study]) -> None:
    choices = ("protocol.loss_optimizer=authors", "training.optimizers.trunk.lr=0.001")
    study = proxy_anchor(*choices, authors=RECIPE | {"datasets": {"sop": {"lr_multiplier": 7.0}}})
    assert rates(make_optimizers(study.config, {"loss": TwoKinds()})["loss"]) == [(1, 0.1, 0.5), (2, 0.005, 0.5)]
    sop = proxy_anchor(*choices, dataset="sop", authors=RECIPE | {"datasets": {"sop": {"lr_multiplier": 7.0}}})
    assert rates(make_optimizers(sop.config, {"loss": TwoKinds()})["loss"]) == [(1, 0.007, 0.5), (2, 0.005, 0.5)]


def test_a_loss_without_parameters_has_no_optimizer(proxy_anchor: Callable[..., Study]) -> None:
    study = proxy_anchor(optimizer=None)
    assert list(make_optimizers(study.config, {"head": nn.Linear(1, 1), "loss": nn.Identity()})) == ["head"]


@pytest.mark.parametrize("choice", ["searched", "authors"])
def test_parameters_without_a_rate_are_refused(proxy_anchor: Callable[..., Study], choice: str) -> None:
    study = proxy_anchor(f"protocol.loss_optimizer={choice}", optimizer=None, authors={})
    with pytest.raises(UserError, match=r"conf/loss/proxy_anchor.yaml has parameters but n.*lr"):
        make_optimizers(study.config, {"loss": TwoKinds()})


def test_a_group_without_a_parameter_is_refused() -> None:
    with pytest.raises(UserError, match=r"group 'c' matches no parameter; the names are b, a.weight, a.bias"):
        parameter_groups(TwoKinds(), {"c": {"lr": 1.0}})


# -- warm-up ----------------------------------------------------------------------------------------------------------


def test_the_trunk_rests_during_the_warm_up_and_everything_else_moves(tmp_path: Path) -> None:
    fold, seen = a_fold(), []

    def remember(history: list[dict[str, Any]]) -> None:
        weights = (fold.trunk, fold.head, fold.loss)
        seen.append([[p.clone() for p in part.parameters()] for part in weights])

    train_fold(fold, a_schedule(max_epochs=3, warmup_epochs=2), a_checkpoint(tmp_path / "checkpoint.pt"), remember)
    moved = [
        [any(not torch.equal(p, q) for p, q in zip(a, b, strict=True)) for a, b in zip(before, after, strict=True)]
        for before, after in itertools.pairwise(seen[1:])
    ]
    assert moved == [[False, True, True], [False, True, True], [True, True, True]]


def test_only_the_authors_recipe_warms_up(proxy_anchor: Callable[..., Study]) -> None:
    from benchmark.study.assemble import make_schedule

    searched = proxy_anchor(authors=RECIPE)
    theirs = proxy_anchor("protocol.loss_optimizer=authors", authors=RECIPE)
    assert [make_schedule(study, 0).warmup_epochs for study in (searched, theirs)] == [0, 2]


# -- presets ----------------------------------------------------------------------------------------------------------


def test_a_preset_replaces_the_setting_for_its_data_set(proxy_anchor: Callable[..., Study]) -> None:
    study = proxy_anchor(preset="published", dataset="cub", presets=PRESETS)
    assert study.config.loss.setting == {"alpha": 12.5, "proxy_lr": 0.25, "margin": 0.1}
    assert study.config.loss.optimizer == {"lr": 0.25}
    sop = proxy_anchor(preset="published", dataset="sop", presets=PRESETS)
    assert sop.config.loss.setting == {"alpha": 1.0, "proxy_lr": 0.01, "margin": 0.1}
    assert Study.of(study.raw).config == study.config  # a worker reads it again


def test_a_preset_that_is_not_there_names_those_that_are(proxy_anchor: Callable[..., Study]) -> None:
    with pytest.raises(UserError, match=r"preset=published: .*no such setting for glyphs.*for cub, sop.*make bo"):
        proxy_anchor(preset="published", presets=PRESETS)
    with pytest.raises(UserError, match=r"preset=typo: .*It has preset=published for cub, sop"):
        proxy_anchor(preset="typo", dataset="cub", presets=PRESETS)
    assert proxy_anchor(preset="default", presets=PRESETS).config.loss.setting["alpha"] == 32.0


def test_presets_and_recipes_that_are_not_used_are_not_part_of_a_study(proxy_anchor: Callable[..., Study]) -> None:
    plain = proxy_anchor(authors={}, presets={})
    assert proxy_anchor(authors=RECIPE, presets=PRESETS).identity("x") == plain.identity("x")
    others = [
        proxy_anchor("protocol.loss_optimizer=authors", authors=RECIPE),
        proxy_anchor("protocol.loss_optimizer=authors", authors=RECIPE | {"lr_multiplier": 2.0}),
        proxy_anchor(preset="published", presets={"published": {"glyphs": {"alpha": 2.0}}}),
    ]
    assert len({study.identity("x") for study in [plain, *others]}) == 4


@pytest.mark.slow
def test_final_eval_of_a_preset_needs_no_search_and_stands_in_the_table_next_to_it(results: Path) -> None:
    overrides = ("preset=published", f"+loss.presets={PRESET}".replace("'", ""))
    with trainings() as trained:
        ended = tiny(final_eval, results, *overrides)
    assert ended.status == 0, ended
    folder = study_dir(results, "proxy_nca-published") / "final_eval" / "published"
    found = records.read_record(folder / "run_01.json").result
    assert (found["trial"], found["setting"]) == (None, PRESET["published"]["glyphs_small"])
    assert len(trained) == 4
    assert not (study_dir(results, "proxy_nca-published") / "bo").exists()
    with trainings() as again:
        assert tiny(final_eval, results, *overrides).status == 0
        assert tiny(final_eval, results, "loss=proxy_nca").status == 0
    assert len(again) == 4  # those of the search's choice; the preset's are done
    text = run(tables, f"results_dir={results}").out
    assert "| ProxyNCA (published) | " in text
    assert "| ProxyNCA | " in text


def test_a_search_with_a_preset_is_refused(tmp_path: Path) -> None:
    assert_refused(tiny(bo, tmp_path, "preset=default"), "needs no search", "make final-eval", "PRESET=default")
    assert_refused(tiny(final_eval, tmp_path, "preset=published", "loss=xyz"), "xyz")
    assert_refused(tiny(final_eval, tmp_path, "preset=a/b"), "preset=a/b", "holds no such setting")


def test_a_preset_that_a_loss_lacks_is_refused_with_the_command_without_it(compose_study: Callable[..., Study]) -> None:
    base = "It has preset=base at what its base's search chose; "
    with pytest.raises(UserError, match=base + ".*To search instead: make bo DATASET=glyphs_small TRUNK="):
        compose_study("dataset=glyphs_small", "loss=hpl_nca", "preset=foo")
    with pytest.raises(
        UserError, match=r"It has none; .*To train instead: make traditional DATASET=glyphs_small TRUNK="
    ):
        compose_study("dataset=glyphs_small", "loss=hpl_nca", "preset=foo", "protocol=traditional")


# The losses that the Reality Check's library (pytorch-metric-learning 0.9) computed otherwise: key, its value, ours.
OF_LIBRARY = {"arcface": ("base.fallback", False, True), "ntxent": ("saturate", 1e-20, "none")}


@pytest.mark.parametrize("loss", OF_LIBRARY)
@pytest.mark.parametrize("protocol", ["hpl", "traditional", "mlrc_2020"])
def test_a_loss_has_the_form_of_the_reality_checks_library_under_its_protocol_only(
    protocol: str, loss: str, compose_study: Callable[..., Study]
) -> None:
    key, library, ours = OF_LIBRARY[loss]
    expected, other = (library, ours) if protocol == "mlrc_2020" else (ours, library)
    study = (f"loss={loss}", "dataset=sop", f"protocol={protocol}")
    assert value_at(compose_study(*study).raw, f"loss.module.{key}", None) == expected
    given = compose_study(*study, f"loss.module.{key}={json.dumps(other)}")
    assert value_at(given.raw, f"loss.module.{key}", None) == other
    if protocol == "mlrc_2020":
        assert value_at(compose_study(*study, "preset=published").raw, f"loss.module.{key}", None) == library


def test_every_file_of_a_loss_for_the_reality_checks_protocol_is_in_this_test() -> None:
    assert {path.parent.name for path in (conf_dir() / "loss").rglob("mlrc_2020.yaml")} == set(OF_LIBRARY)


# -- what a loss asks of other parts ----------------------------------------------------------------------------------


def test_a_loss_may_ask_for_options_of_the_head_or_for_another_head(proxy_anchor: Callable[..., Study]) -> None:
    assert isinstance(proxy_anchor().make_head(4, 0).norm, nn.Identity)
    assert isinstance(proxy_anchor(head={"layer_norm": True}).make_head(4, 0).norm, nn.LayerNorm)
    other = {"_target_": "benchmark.heads.hyperbolic.Hyperbolic", "curvature": 0.1}
    with pytest.raises(UserError, match=r"missing .*'clip_radius'"):  # built without the linear head's options
        proxy_anchor(head=other).make_head(4, 0)


def test_bounds_may_differ_between_data_sets(proxy_anchor: Callable[..., Study]) -> None:
    space = {"alpha": {"bounds": [1.0, 2.0], "scale": "linear", "type": "float", "datasets": {"sop": [1.0, 9.0]}}}
    here, there = proxy_anchor(space=space), proxy_anchor(space=space, dataset="sop")
    assert [study.make_space()["alpha"].bounds for study in (here, there)] == [(1.0, 2.0), (1.0, 9.0)]
    assert here.science("x")["loss"]["space"] == {"alpha": {"bounds": [1.0, 2.0], "scale": "linear", "type": "float"}}
