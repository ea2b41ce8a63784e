"""How the papers train: the numbers of their tables, written out here by hand, against conf/recipe as it is merged."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.study.recipes import authors_recipe, optimizer_options, with_recipe
from benchmark.study.study import Study

NAMES = ("hpl", "proxy_anchor", "hist", "hier", "proxygml", "smooth_ap", "recall_at_k")
FASTER_HEAD = {"smooth_ap": 5}  # its rate over the trunk's
DATASETS = ("cub", "cars196", "sop", "inshop", "inaturalist2019", "glyphs", "glyphs_small")
TRUNKS = tuple(sorted(path.stem for path in (conf_dir() / "trunk").glob("*.yaml")))
TRANSFORMERS = ("vit_small", "deit_small", "deit_small_distilled", "dino_vit_small")
TRADITIONAL = yaml.safe_load((conf_dir() / "training" / "traditional.yaml").read_text())


@functools.cache
def read(name: str) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load((conf_dir() / "recipe" / f"{name}.yaml").read_text())
    return recipe


def training(name: str, dataset: str, trunk: str) -> dict[str, Any]:
    return with_recipe(TRADITIONAL, read(name), dataset, trunk)


def step(every: int, factor: float) -> dict[str, Any]:
    return {"kind": "step", "every": every, "factor": factor}


def at(*epochs: int) -> dict[str, Any]:
    return {"kind": "milestones", "epochs": [*epochs], "factor": 0.3}


CONSTANT, MILESTONES = {}, {"kind": "milestones", "epochs": [20, 40], "factor": 0.1}

AFTER = {"skip": 1}  # HIST's schedule starts after the warm-up epoch

# HIER's scripts ask for trained statistics on SOP and In-Shop, but its code parses `--bn_freeze False` as true.
# recipe, data set, trunk: optimiser, trunk's rate, weight decay, batch, epochs, warm-up, frozen statistics, decay
TABLE = [
    ("hpl", "cub", "resnet50", "AdamW", 1e-4, 1e-4, 128, 30, 0, True, step(5, 0.5)),
    ("hpl", "cars196", "resnet50", "AdamW", 1e-4, 1e-4, 128, 30, 0, True, step(10, 0.5)),
    ("hpl", "sop", "resnet50", "AdamW", 1e-4, 1e-4, 128, 30, 0, False, step(20, 0.25)),
    ("hpl", "inshop", "resnet50", "AdamW", 1e-4, 1e-4, 128, 30, 0, False, step(20, 0.25)),
    ("hpl", "inaturalist2019", "resnet50", "AdamW", 1e-4, 1e-4, 128, 30, 0, True, step(10, 0.5)),
    ("hpl", "cub", "bn_inception", "AdamW", 1e-4, 1e-4, 128, 30, 0, True, step(10, 0.5)),
    ("proxy_anchor", "cub", "bn_inception", "AdamW", 1e-4, 1e-4, 180, 60, 1, True, step(10, 0.5)),
    ("proxy_anchor", "cars196", "bn_inception", "AdamW", 1e-4, 1e-4, 180, 60, 1, True, step(20, 0.5)),
    ("proxy_anchor", "sop", "bn_inception", "AdamW", 6e-4, 1e-4, 180, 60, 1, False, step(20, 0.25)),
    ("proxy_anchor", "inshop", "bn_inception", "AdamW", 6e-4, 1e-4, 180, 60, 1, False, step(20, 0.25)),
    ("proxy_anchor", "cub", "resnet50", "AdamW", 1e-4, 1e-4, 120, 60, 5, True, step(5, 0.5)),
    ("proxy_anchor", "cars196", "resnet50", "AdamW", 1e-4, 1e-4, 120, 60, 5, True, step(10, 0.5)),
    ("proxy_anchor", "sop", "resnet50", "AdamW", 6e-4, 1e-4, 120, 60, 5, False, step(20, 0.25)),
    ("proxy_anchor", "inshop", "resnet50", "AdamW", 6e-4, 1e-4, 120, 60, 5, False, step(20, 0.25)),
    ("hist", "cub", "resnet50", "Adam", 1.2e-4, 5e-5, 32, 40 + 1, 1, True, step(5, 0.5) | AFTER),
    ("hist", "cars196", "resnet50", "Adam", 1e-4, 1e-4, 32, 50 + 1, 1, True, step(10, 0.5) | AFTER),
    ("hist", "sop", "resnet50", "Adam", 1e-4, 1e-4, 32, 60 + 1, 1, False, step(10, 0.5) | AFTER),
    ("hist", "cub", "bn_inception", "AdamW", 1e-4, 1e-4, 32, 30 + 1, 1, True, step(5, 0.5) | AFTER),
    ("hist", "cars196", "bn_inception", "AdamW", 1e-4, 5e-5, 32, 60 + 1, 1, True, step(10, 0.5) | AFTER),
    ("hist", "sop", "bn_inception", "AdamW", 1e-4, 1e-4, 32, 60 + 1, 1, False, step(10, 0.5) | AFTER),
    ("hier", "cub", "vit_small", "AdamW", 1e-5, 1e-2, 180, 50, 1, True, CONSTANT),
    ("hier", "cars196", "deit_small_distilled", "AdamW", 1e-5, 1e-2, 180, 50, 1, True, CONSTANT),
    ("hier", "cars196", "dino_vit_small", "AdamW", 5e-6, 1e-2, 180, 50, 1, True, CONSTANT),
    ("hier", "sop", "vit_small", "AdamW", 1e-5, 1e-4, 180, 150, 5, True, CONSTANT),
    ("hier", "inshop", "dino_vit_small", "AdamW", 5e-6, 1e-4, 180, 150, 5, True, CONSTANT),
    ("hier", "cub", "resnet50", "AdamW", 1e-4, 1e-2, 180, 50, 1, True, step(5, 0.5)),
    ("hier", "cars196", "resnet50", "AdamW", 1e-4, 1e-2, 180, 50, 1, True, step(10, 0.5)),
    ("hier", "sop", "resnet50", "AdamW", 6e-4, 1e-4, 180, 150, 5, True, step(25, 0.3)),
    ("hier", "inshop", "resnet50", "AdamW", 6e-4, 1e-4, 180, 150, 5, True, step(20, 0.3)),
    ("proxygml", "cub", "bn_inception", "Adam", 1e-4, 1e-4, 32, 50, 1, True, MILESTONES),
    ("proxygml", "cars196", "bn_inception", "Adam", 1e-4, 1e-4, 32, 50, 1, True, MILESTONES),
    ("proxygml", "sop", "bn_inception", "Adam", 1e-4, 1e-4, 32, 50, 1, False, MILESTONES),
    ("smooth_ap", "inaturalist2019", "resnet50", "Adam", 1e-5, 4e-4, 112, 90, 0, True, at(40, 70)),
    ("recall_at_k", "cub", "resnet50", "Adam", 1e-4, 4e-4, 400, 40, 0, True, at(10, 20, 30)),
    ("recall_at_k", "cars196", "resnet50", "Adam", 1e-4, 4e-4, 392, 170, 0, True, at(80, 140)),
    ("recall_at_k", "sop", "resnet50", "Adam", 2e-4, 4e-4, 4000, 55, 0, True, at(25, 50)),
    ("recall_at_k", "inaturalist2019", "resnet50", "Adam", 1e-4, 4e-4, 2000, 90, 0, True, at(40, 70)),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: "-".join(row[:3]))
def test_a_recipe_holds_the_numbers_of_its_paper(row: tuple[Any, ...]) -> None:
    name, dataset, trunk, optimizer, rate, weight_decay, batch, epochs, warmup, frozen, decay = row
    made = training(name, dataset, trunk)
    assert made["optimizers"]["trunk"].items() >= {
        "_target_": f"torch.optim.{optimizer}", "lr": rate, "weight_decay": weight_decay,
    }.items()  # fmt: skip
    assert made["optimizers"]["loss"]["_target_"] == f"torch.optim.{optimizer}"
    found = [made[key] for key in ("batch_size", "epochs", "warmup_epochs", "freeze_batchnorm", "decay")]
    assert found == [batch, epochs, warmup, frozen, decay]


def test_what_a_paper_clips_and_the_eps_of_proxygmls_adam() -> None:
    clips = {name: training(name, "cub", "resnet50")["clip"] for name in NAMES}
    assert clips == {
        "hpl": {"value": 10},
        "proxy_anchor": {"value": 10},
        "hist": {},
        "hier": {"value": 10},
        "proxygml": {},
        "smooth_ap": {},
        "recall_at_k": {},
    }
    assert {part["eps"] for part in training("proxygml", "sop", "bn_inception")["optimizers"].values()} == {0.01}


@pytest.mark.parametrize("name", NAMES)
def test_the_head_learns_as_the_trunk_but_for_smooth_ap_and_hiers_transformers_on_two_data_sets(name: str) -> None:
    for dataset, trunk in itertools.product(DATASETS, TRUNKS):
        optimizers = training(name, dataset, trunk)["optimizers"]
        faster = name == "hier" and dataset in ("sop", "inshop") and trunk in TRANSFORMERS
        times = 100 if faster else 1 if trunk == "small_conv" else FASTER_HEAD.get(name, 1)
        assert optimizers["head"]["lr"] == pytest.approx(optimizers["trunk"]["lr"] * times)
        assert optimizers["head"]["weight_decay"] == optimizers["trunk"]["weight_decay"]


def test_every_recipe_is_in_this_test_and_every_case_names_what_there_is() -> None:
    assert sorted(path.stem for path in (conf_dir() / "recipe").glob("*.yaml")) == sorted(NAMES)
    for name in NAMES:
        for case in read(name)["cases"]:
            assert set(case["when"].get("dataset", ())) <= set(DATASETS)
            assert set(case["when"].get("trunk", ())) <= set(TRUNKS)
            assert set(case["set"]) <= set(read(name)) - {"cases"}


def test_only_the_large_batches_of_one_paper_have_a_gradient_in_chunks() -> None:
    chunks = {(name, dataset): training(name, dataset, "resnet50")["gradient_chunk"]
              for name, dataset in itertools.product(NAMES, DATASETS)}  # fmt: skip
    given = {dataset: chunk for (name, dataset), chunk in chunks.items() if chunk is not None}
    assert {name for (name, _), chunk in chunks.items() if chunk is not None} == {"recall_at_k"}
    assert given.items() >= {"cub": 100, "cars196": 98, "sop": 200, "inaturalist2019": 200}.items()
    assert training("recall_at_k", "glyphs", "small_conv")["gradient_chunk"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_leaves_nothing_open_and_lets_a_laptop_train_from_random_weights(name: str) -> None:
    for dataset, trunk in itertools.product(DATASETS, TRUNKS):
        made = training(name, dataset, trunk)
        assert set(made) - {"protocol"} == set(TRADITIONAL)
        assert None not in [value for key, value in made.items() if key != "gradient_chunk"]
        assert all(None not in node.values() for node in made["optimizers"].values())
    glyphs = training(name, "glyphs", "small_conv")
    assert [glyphs[key] for key in ("freeze_batchnorm", "shift", "warmup_epochs")] == [False, 2, 0]
    assert glyphs["optimizers"]["trunk"]["lr"] == glyphs["optimizers"]["head"]["lr"] == 2e-3


# -- merging ----------------------------------------------------------------------------------------------------------

OPTIONS = {"_target_": "torch.optim.Adam", "lr": 1.0, "eps": 0.5}
RECIPE = {
    "epochs": 60,
    "decay": {"kind": "step", "every": 10, "factor": 0.5},
    "optimizers": {"trunk": OPTIONS, "loss": {"_target_": "torch.optim.Adam"}},
    "cases": [
        {"when": {"dataset": ["cub", "sop"]}, "set": {"epochs": 40, "optimizers": {"trunk": {"lr": 2.0}}}},
        {"when": {"dataset": ["cub"], "trunk": ["resnet50"]}, "set": {"epochs": 30, "decay": {"kind": "cosine"}}},
    ],
}  # fmt: skip


def test_matching_cases_are_merged_in_their_order() -> None:
    epochs = {
        where: with_recipe({}, RECIPE, *where)["epochs"]
        for where in itertools.product(("cub", "sop", "glyphs"), ("resnet50", "vit_small"))
    }
    assert list(epochs.values()) == [30, 40, 40, 40, 60, 60]
    made = with_recipe({}, RECIPE, "cub", "resnet50")
    assert made["optimizers"]["trunk"] == OPTIONS | {"lr": 2.0}  # option by option
    assert made["decay"] == {"kind": "cosine"}  # as a whole
    assert "cases" not in made


def test_what_the_training_gives_wins_and_null_takes_the_recipes() -> None:
    given = {
        "name": "mine",
        "epochs": 7,
        "decay": {},
        "optimizers": {"trunk": {"lr": 9.0, "eps": None}, "loss": {"lr": None}},
    }
    made = with_recipe(given, RECIPE, "cub", "resnet50")
    assert (made["name"], made["epochs"], made["decay"]) == ("mine", 7, {})
    assert made["optimizers"] == {"trunk": OPTIONS | {"lr": 9.0}, "loss": {"_target_": "torch.optim.Adam"}}
    assert with_recipe({"epochs": None}, RECIPE, "cub", "vit_small")["epochs"] == 40


def test_merging_twice_changes_nothing_and_leaves_the_recipe_as_it_was() -> None:
    before = yaml.safe_dump(RECIPE)
    once = with_recipe({"epochs": None}, RECIPE, "cub", "resnet50")
    assert with_recipe(once, RECIPE, "cub", "resnet50") == once
    assert yaml.safe_dump(RECIPE) == before


def test_a_case_may_ask_for_data_set_and_trunk_only() -> None:
    recipe = {"cases": [{"when": {"loss": ["hpl_pa"]}, "set": {}}]}
    with pytest.raises(UserError, match="depends on loss; allowed are dataset, trunk"):
        with_recipe({}, recipe, "cub", "resnet50")


# -- rates of a loss's own parameters ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authors_study(compose_study_in: Callable[..., Study]) -> Callable[..., Study]:
    """A loss as a recipe trains it: `authors_study("hist", "cub", "resnet50", "hist")`; no weights, no data."""
    composed = functools.cache(
        lambda loss, dataset: compose_study_in(Path("results"), f"loss={loss}", f"dataset={dataset}").raw
    )

    def make(loss: str, dataset: str, trunk: str, recipe: str) -> Study:
        raw = dict(composed(loss, dataset))
        raw["trunk"] = raw["trunk"] | {"name": trunk}
        raw["protocol"] = raw["protocol"] | {"loss_optimizer": "authors"}
        keys = ("freeze_batchnorm", "shift", "optimizers")
        raw["training"] = {"name": "traditional"} | {key: training(recipe, dataset, trunk)[key] for key in keys}
        return Study.of(raw)

    return make


@pytest.mark.parametrize(
    ("dataset", "trunk", "distributions", "network", "weight_decay"),
    [
        ("cub", "resnet50", 1e-1, 6e-4, 5e-5),
        ("cars196", "resnet50", 1e-1, 1e-3, 1e-4),
        ("sop", "resnet50", 1e-2, 1e-3, 1e-4),
        ("cub", "bn_inception", 5e-2, 5e-4, 1e-4),
        ("cars196", "bn_inception", 1e-1, 5e-4, 5e-5),
        ("sop", "bn_inception", 1e-2, 1e-3, 1e-4),
        ("glyphs", "small_conv", 1e-1, 1e-3, 1e-4),
    ],
)
def test_hists_rates_are_those_of_its_supplement(
    authors_study: Callable[..., Study],
    dataset: str,
    trunk: str,
    distributions: float,
    network: float,
    weight_decay: float,
) -> None:
    options = optimizer_options(authors_study("hist", dataset, trunk, "hist").config)
    assert options["lr"] == pytest.approx(distributions, rel=1e-3)
    assert options["groups"]["hgnn"]["lr"] == pytest.approx(network, rel=1e-3)
    assert options["weight_decay"] == weight_decay


@pytest.mark.parametrize(
    ("loss", "recipe", "dataset", "trunk", "rate"),
    [
        ("proxy_anchor", "proxy_anchor", "cub", "resnet50", 1e-2),
        ("proxy_anchor", "proxy_anchor", "sop", "resnet50", 6e-2),
        ("proxy_nca", "proxy_anchor", "cub", "resnet50", 1e-4),
        ("hpl_pa", "hpl", "inshop", "resnet50", 1e-2),
        ("proxygml", "proxygml", "cars196", "bn_inception", 3e-2),
        ("proxygml", "proxygml", "sop", "bn_inception", 3e-1),
        ("hier", "hier", "cub", "vit_small", 1e-1),
        ("hier", "hier", "glyphs", "small_conv", 1e-1),
    ],
)
def test_the_rates_of_proxies_are_those_of_their_papers(
    authors_study: Callable[..., Study], loss: str, recipe: str, dataset: str, trunk: str, rate: float
) -> None:
    assert optimizer_options(authors_study(loss, dataset, trunk, recipe).config)["lr"] == pytest.approx(rate)


def test_the_recipe_says_how_long_the_trunk_rests_not_the_loss(authors_study: Callable[..., Study]) -> None:
    for loss in ("proxy_anchor", "hpl_pa", "hist", "hier", "proxygml"):
        assert "warmup_epochs" not in authors_recipe(authors_study(loss, "cub", "resnet50", "hpl").config)
