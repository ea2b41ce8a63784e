"""Every file of `experiments/`: each of its studies can be composed, and is what the file says."""

import copy
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig, open_dict

from benchmark.core.conf_files import content
from benchmark.core.errors import UserError
from benchmark.core.invocation import key_of
from benchmark.core.paths import conf_dir
from benchmark.experiment import spec
from benchmark.experiment.selected import Selected, StudyOf
from benchmark.report.comparison import leaves
from benchmark.study import lengths
from benchmark.study.preflight import check_values
from benchmark.study.recipes import composed_training
from benchmark.study.study import Study
from benchmark.study.unused import check_used
from tests import command_line
from tests.cases import for_each

pytestmark = pytest.mark.slow
NAMES = spec.names()
WHOLE = ("mlrc_cub", "hpl_table_3")
BUDGET = {"trials", "protocol.num_runs", "training.epochs"}
# What another data set brings: itself, its trunk and training (a recipe's cases depend on both), and its images.
OF_DATASET = re.compile(
    r"(dataset|trunk|head|training|loss\.schedule|(loss|protocol)\.usual)\.(?!recipe$)|protocol\.images|results_dir"
    r"|loss\.(setting|space)(\.head_lr.*)?$"  # a training may search the rate of the head
)


@pytest.fixture(scope="module", autouse=True)
def hydra_once() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


@functools.cache
def node(*choices: str) -> DictConfig:
    return command_line.compose("config", list(choices))


@functools.cache
def composed(overrides: tuple[str, ...], with_spaces: bool = False) -> Study:
    """A study whose loss and whose other choices are composed once each, since Hydra takes 0.2 s for a combination.

    With `with_spaces`, training and data set adapt its search space, as in a command.
    """
    choices = [entry for entry in overrides if (conf_dir() / key_of(entry)).is_dir()]
    loss = next(entry for entry in choices if entry.startswith("loss="))
    others = [entry for entry in choices if entry != loss]
    by_choice = "defaults" in content("loss", loss.partition("=")[2])  # of a data set or a protocol
    of_loss = [loss, *(entry for entry in others if entry.startswith("training="))]  # which may add to what is searched
    of_loss += [entry for entry in others if by_choice and entry.startswith(("dataset=", "protocol="))]
    config = copy.deepcopy(node(*others))
    with open_dict(config):
        config.loss = copy.deepcopy(node(*of_loss).loss)
    config = command_line.with_values(config, [entry for entry in overrides if entry not in choices])
    (command_line.adapted if with_spaces else lengths.adapt)(config, overrides)
    return Study.of(config)


@functools.cache
def selected(name: str, dataset: str = "", budget: str = "full") -> Selected:
    experiment = spec.read(name).pointed_at(dataset, budget)
    return Selected(experiment, (), experiment.folder)


@functools.cache
def sample(name: str, dataset: str = "", budget: str = "full") -> list[StudyOf]:
    """Studies of an experiment on its first data set: the first and the last row, and one row for each kind of options.

    Of a swept row, they are the first and the last value. In `WHOLE`, they are all rows.
    """
    chosen = selected(name, dataset, budget)
    rows: dict[tuple[str, str], list[StudyOf]] = {}
    for study in chosen.studies[chosen.experiment.datasets[0]]:
        rows.setdefault((study.member.loss, study.member.label), []).append(study)
    listed = {(entry.loss, entry.label): entry for entry in chosen.experiment.studies}
    kinds = {(*sorted(entry.set), bool(entry.preset)): row for row, entry in reversed(listed.items()) if row in rows}
    kept = {*kinds.values(), next(iter(rows)), next(reversed(rows))}
    whole = name in WHOLE and not dataset
    return [study for row, found in rows.items() if whole or row in kept for study in (found[0], *found[1:][-1:])]


@for_each("name", NAMES)
def test_elsewhere_its_caption_names_the_data_set_the_trunk_that_is_composed_and_the_budget(name: str) -> None:
    config = composed(sample(name, "glyphs", "small")[0].overrides).config
    chosen = selected(name, "glyphs", "small")
    what = f"{config.dataset.label}, trunk {config.trunk.name}, protocol {config.protocol.name}: "
    assert chosen.caption("glyphs").startswith(what)
    assert chosen.caption("glyphs").endswith(
        f" {chosen.experiment.paper or f'the experiment {name}'}, on a small budget."
    )


def row_of(study: StudyOf) -> tuple[str, str, bool]:
    return study.member.loss, study.member.label, bool(study.member.preset)


def flat(study: Study) -> dict[str, Any]:
    return leaves(study.raw)


def test_a_composition_in_parts_is_what_hydra_composes_at_once() -> None:
    study = sample("hpl_table_4_sop")[1]
    at_once = command_line.compose_anew("config", list(study.overrides))
    lengths.adapt(at_once, study.overrides)
    assert composed(study.overrides).raw == Study.of(at_once).raw


@pytest.mark.parametrize("name", NAMES)
def test_its_studies_are_where_and_as_many_as_the_outline_says(name: str) -> None:
    for study in sample(name):
        config = (found := composed(study.overrides)).config
        assert study.directory == found.directory
        runs, folds = config.protocol.num_runs, config.protocol.num_folds
        searched = 0 if config.preset else found.num_trials
        searches = config.searches if config.protocol.story != "traditional" else 1
        expected = runs if config.protocol.story == "traditional" else searches * (searched + runs) * folds
        assert study.num_trainings == expected
        assert composed_training(config).cells()["dim"] == str(config.protocol.embedding_dim)  # a row of make plan
        assert study.verbs[-1] == ("traditional" if config.protocol.story == "traditional" else "final-eval")


@pytest.mark.parametrize("name", NAMES)
def test_small_and_on_glyphs_it_differs_in_data_set_and_budget_only(name: str) -> None:
    experiment = spec.read(name)
    swept = {sweep.key.lstrip("+") for sweep in experiment.sweep}
    full, small = sample(name), sample(name, "glyphs", "small")
    for there in small:
        row = [
            entry
            for entry in experiment.studies
            if (entry.loss, entry.label) == (there.member.loss, there.member.label)
        ]
        here = next(s for s in full if row_of(s) == row_of(there))
        one, other = flat(composed(here.overrides)), flat(composed(there.overrides))
        differing = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
        own = {key.lstrip("+") for entry in row for key in entry.elsewhere}
        of_preset = {
            key for key in differing if here.member.preset and (key.startswith("loss.setting.") or key == "preset")
        }
        allowed = BUDGET | swept | own | of_preset | ({"variant"} if swept else set())
        assert not {key for key in differing - allowed if not OF_DATASET.match(key)}
        assert other["dataset.name"] == "glyphs" and other["trunk.name"] == "small_conv"
        set_here = {key.lstrip("+") for key in (*experiment.common, *(key for entry in row for key in entry.set))}
        kept = {key for key in set_here - BUDGET - own if key.startswith("training.")}
        assert not kept & differing, "another data set keeps what the experiment says about the training"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_allowed_and_reaches_what_is_built(name: str) -> None:
    for study in (*sample(name), *sample(name, "glyphs", "small")):
        found = composed(study.overrides, with_spaces=True)
        check_values(found, found.config.protocol.story)
        check_used(found, study.overrides, lambda _: pytest.fail("an option has no effect"))
        for key, value in ((key.lstrip("+"), value) for key, value in study.member.options.items()):
            if not (conf_dir() / key).is_dir():
                assert _at(found._resolved, key) == value, f"{study.name}: {key}"


@pytest.mark.parametrize("option", ["loss.setting.proxy_lr=0.5", "loss.setting.scale_0=3", "dataset.max_epochs=3"])
def test_an_option_that_reaches_nothing_would_be_noticed(option: str) -> None:
    study = next(s for s in sample("hpl_fig_5_coarse", "glyphs", "small") if s.member.loss == "hpl_nca")
    found = composed((*study.overrides, option))
    if option.startswith("loss.setting.scale"):
        check_used(found, [*study.overrides, option], composed_anew)
    else:
        with pytest.raises(UserError, match="has no effect"):
            check_used(found, [*study.overrides, option], composed_anew)


def composed_anew(overrides: Sequence[str]) -> Study:
    return composed(tuple(overrides))


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


@pytest.mark.parametrize("name", [name for name in NAMES if spec.read(name).sweep])
def test_each_value_of_a_sweep_makes_another_study(name: str) -> None:
    studies = [s for s in sample(name, "glyphs", "small") if s.member.swept]
    identities = {composed(study.overrides).identity("data") for study in studies}
    assert len(identities) == len(studies) > 1


def test_studies_that_share_a_folder_are_one_study() -> None:
    owners: dict[str, dict[tuple[str, ...], str]] = {}
    for name in NAMES:
        for dataset in selected(name).experiment.datasets:
            studies = selected(name).studies[dataset]
            assert len({study.directory for study in studies}) == len(studies), name
            for study in studies:
                owners.setdefault(str(study.directory), {}).setdefault(study.overrides, name)
    for folder, variants in owners.items():
        identities = (
            {composed(overrides).identity("data"): name for overrides, name in variants.items()}
            if len(variants) > 1
            else {}
        )
        assert len(identities) <= 1, f"{folder}: {', '.join(identities.values())}"


@for_each("name", NAMES)
def test_what_it_quotes_is_in_the_table_of_published_numbers(name: str) -> None:
    experiment = spec.read(name)
    rows = [member for dataset in experiment.datasets for member in experiment.members(dataset)]
    for entry in experiment.studies:
        cells = [m.published for m in rows if m.loss == entry.loss and m.label == entry.label]
        assert any(cells) == bool(entry.published), f"{name}: {entry.published or entry.loss}"
    quoted = {method for dataset in experiment.datasets for method in experiment.quoted_rows(dataset)}
    assert quoted == {*experiment.quoted}


def test_there_are_experiments_of_every_paper() -> None:
    papers = {name.partition("_")[0] for name in NAMES}
    assert papers >= {"hpl", "hist", "hier", "proxygml", "mlrc", "glyphs", "axis"} and len(NAMES) > 30
