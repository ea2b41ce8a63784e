"""Search spaces fit the training and the data set; what is given on the command line wins, and published ones stay."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from benchmark.core.conf_files import content
from benchmark.core.errors import UserError
from benchmark.searchers import Parameter, Setting
from benchmark.searchers.sobol import Sobol
from benchmark.study import cli, spaces
from benchmark.study.config import Node
from benchmark.study.preflight import check_space
from benchmark.study.study import Study
from benchmark.study.unused import check_used
from tests.cases import for_each, slow_except
from tests.losses.every_loss import FAST, NAMES, config

Compose = Callable[..., Study]
# XBM's base has wider margins.
METHODS = sorted(name for name in NAMES if content("loss", name).get("base") and name != "xbm")
HEAD = """
defaults: [finetune, searched/head_lr@_global_.loss, _self_]
searched: [head_lr]
optimizers: {head: {lr: "${loss.setting.head_lr}"}}
"""


@pytest.fixture
def adapted(compose_study: Compose) -> Callable[..., DictConfig]:
    """Adapt a loss's own file to the training and the data set of a composed study: `adapted("ms", "dataset=cub")`."""

    def adapt(name: str, *options: str, preset: str = "") -> DictConfig:
        whole = compose_study("loss=contrastive", *options).raw
        loss = {key: config(name)[key] for key in ("name", "setting", "space")}
        groups = {group: whole[group] for group in ("training", "dataset", "protocol", "searcher")}
        found = OmegaConf.create(groups | {"loss": loss, "preset": preset})
        spaces.adapt(found, options)
        return found

    return adapt


def start_of(found: DictConfig) -> Setting:
    return {name: node.get("default", found.loss.setting[name]) for name, node in found.loss.space.items()}


@for_each("name", NAMES, fast=FAST)
def test_every_losss_default_lies_inside_its_space_on_glyphs_where_it_is_tried_first(
    name: str, adapted: Callable[..., DictConfig]
) -> None:
    found = adapted(name)
    assert found.protocol.defaults_first is True
    for key, value in start_of(found).items():
        low, high = found.loss.space[key].bounds
        assert low <= value <= high, f"{key}={value} is outside [{low}, {high}]"
    rates = {key: value for key, value in start_of(found).items() if key.endswith("_lr")}
    assert all(1e-4 <= value <= 1 for value in rates.values()) and rates.get("proxy_lr", 0.02) == 0.02


@for_each("name", NAMES, fast=FAST)
def test_wide_ranges_of_positive_numbers_are_searched_on_a_log_scale_from_scratch_and_no_other_scale_changes(
    name: str, adapted: Callable[..., DictConfig]
) -> None:
    found, before = adapted(name), config(name)["space"]
    for key, old in before.items():
        low, high = found.loss.space[key].bounds
        is_log = old["scale"] == "log" or key == "tau" or (low > 0 and high >= 100 * low)
        assert found.loss.space[key].scale == ("log" if is_log else "linear"), key
        if not key.endswith("_lr"):
            assert [low, high] == old["bounds"]
        elif key != "hgnn_lr":
            assert [low, high] == [1e-4, 1.0]


@pytest.mark.parametrize("protocol", slow_except(["mlrc_2020"], ["hpl", "mlrc_2020"]))
def test_published_spaces_of_fine_tuned_trunks_stay_as_they_are(
    protocol: str, adapted: Callable[..., DictConfig]
) -> None:
    for name in NAMES if protocol == "hpl" else ("arcface", "ms", "soft_triple"):
        found = adapted(name, "dataset=cub", f"protocol={protocol}")
        assert OmegaConf.to_container(found.loss.space) == config(name)["space"], name
        assert not found.protocol.defaults_first and OmegaConf.is_interpolation(found.searcher.module, "defaults")


def test_the_scales_of_cosines_are_logarithmic_from_scratch_or_when_asked(compose_study: Compose) -> None:
    def scales(*options: str) -> dict[str, str]:
        return {name: p.scale for name, p in compose_study(*options).make_space().items() if p.type == "float"}

    plain = {"proxy_lr": "log", "scale_0": "linear", "scale_1": "linear", "margin_0": "linear", "margin_1": "linear"}
    wide = plain | {"scale_0": "log", "scale_1": "log"}
    assert scales("loss=hpl_pa", "dataset=cub", "training.space_scales=log") == wide
    assert scales("loss=hpl_pa", "training.space_scales=published") == plain


def adapted_alpha(
    given: str = "", training: Node | None = None, dataset: Node | None = None, own: Node | None = None
) -> tuple[Any, ...]:
    """Bounds and scale of a hyper-parameter on the data set `toys`, after what each part of the configuration says."""
    alpha = {"bounds": [0.01, 100.0], "scale": "linear", "type": "float"} | ({"datasets": {"toys": own}} if own else {})
    found = OmegaConf.create({
        "loss": {"setting": {"alpha": 32.0}, "space": {"alpha": alpha}}, "searcher": {"module": {}},
        "training": {"space_scales": "log", "space": {"alpha": training} if training else {}},
        "dataset": {"name": "toys", "space": {"alpha": dataset} if dataset else {}},
    })  # fmt: skip
    if given:
        OmegaConf.update(found, *given.split("="))
    spaces.adapt(found, [given])
    node = found.loss.space.alpha
    here = spaces.for_dataset(node.get("datasets"), "toys")
    return (
        *OmegaConf.to_object(OmegaConf.create(here)).get("bounds", list(node.bounds)),
        here.get("scale", node.scale),
    )  # type: ignore[union-attr, call-overload]


def test_the_more_specific_wins_and_the_command_line_in_the_end() -> None:
    training, dataset = {"bounds": [1, 50]}, {"bounds": [2, 60], "scale": "linear"}
    assert adapted_alpha() == adapted_alpha(training={"bounds": None}) == (0.01, 100, "log")
    assert adapted_alpha(training=training) == (1, 50, "linear"), "a ratio of 50 is not wide"
    assert adapted_alpha(training={"bounds": [3, 700]}) == (3, 700, "log")
    assert adapted_alpha(training=training, dataset=dataset) == (2, 60, "linear")
    assert adapted_alpha("loss.space.alpha.scale=log", training, dataset) == (2, 60, "log")
    assert adapted_alpha("loss.space.alpha.scale=linear") == (0.01, 100, "linear")
    own = {"bounds": [3, 700]}
    assert adapted_alpha(own=own) == (3, 700, "log")
    assert adapted_alpha(own={"scale": "linear"}) == (0.01, 100, "linear")
    assert adapted_alpha(training=training, own=own) == (1, 50, "linear"), "those of the loss are the first"
    assert adapted_alpha("loss.space.alpha.datasets.toys.scale=linear", {"scale": "log"}, None, own) == (
        3,
        700,
        "linear",
    )


def test_a_losss_values_for_one_data_set_may_have_a_scale(compose_study: Compose) -> None:
    own = "+loss.space.alpha.datasets={cub: {scale: log}, sop: [5.0, 7.0]}"
    found = {data: compose_study("loss=proxy_anchor", f"dataset={data}", own) for data in ("cub", "sop")}
    assert found["cub"].make_space()["alpha"] == Parameter((0.01, 100), "log")
    assert found["sop"].make_space()["alpha"] == Parameter((5, 7), "linear")
    assert found["cub"].science("f")["loss"]["space"]["alpha"] == {
        "bounds": [0.01, 100.0], "scale": "log", "type": "float"
    }  # fmt: skip
    bounds = "loss.space.alpha.bounds=[2,3]"
    given = compose_study("loss=ms", "dataset=cub", bounds)  # whose own bounds are others
    check_used(given, [bounds], lambda rest: pytest.fail("composed again"))
    assert given.make_space()["alpha"].bounds == (2, 3)


def test_the_value_that_is_tried_first_can_be_given_and_the_published_setting_stays(compose_study: Compose) -> None:
    study = compose_study("loss=proxy_nca")
    assert study.first_trial == {"proxy_lr": 0.02, "softmax_scale": study.config.loss.setting["softmax_scale"]}
    assert study.config.loss.setting["proxy_lr"] == 0.00604
    assert study.make_searcher().ask([]) == study.first_trial
    assert compose_study("loss=proxy_nca", "loss.setting.proxy_lr=0.3").first_trial["proxy_lr"] == 0.3
    assert compose_study("loss=proxy_nca", "training.space.proxy_lr.default=0.1").first_trial["proxy_lr"] == 0.1
    outside = compose_study("loss=proxy_nca", "training.space.proxy_lr.default=5")
    with pytest.raises(UserError, match="proxy_lr=5 lies outside its space"):
        check_space(outside)
    later = compose_study("loss=soft_triple", "training.defaults_first=false")  # whose default is then not tried
    check_space(later)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_and_its_base_start_from_the_same_values(name: str, adapted: Callable[..., DictConfig]) -> None:
    base = config(name)["base"]
    ours, theirs = adapted(name), adapted(base["loss"])
    first = dict.fromkeys(base["setting"].values(), "")
    for here, there in base["setting"].items():
        factor = base.get("times", {}).get(here, 1)
        mine, other = ours.loss.space[here], theirs.loss.space[there]
        assert mine.scale == other.scale and mine.type == other.type
        assert list(mine.bounds) == pytest.approx([factor * bound for bound in other.bounds])
        if not first[there]:  # the first of several levels; the others may have their own published values
            first[there] = here
            assert start_of(ours)[here] == pytest.approx(factor * start_of(theirs)[there], rel=1e-3), here


def test_hpl_shares_the_design_of_its_base_on_log_scales(compose_study: Compose) -> None:
    options = ("searcher=sobol", "seed=3")
    ours, theirs = (compose_study(f"loss={name}", *options).make_searcher() for name in ("hpl_nca", "proxy_nca"))
    seen: list[Setting] = []
    for _ in range(4):
        mine = ours.ask([], seen)
        seen.append(mine)
        other = theirs.ask([], [{"proxy_lr": 1.0, "softmax_scale": 1.0}] * (len(seen) - 1))
        assert mine["proxy_lr"] == other["proxy_lr"] >= 1e-4
        assert mine["scale_0"] == pytest.approx(2 * other["softmax_scale"])
    assert min(setting["scale_0"] for setting in seen) < 2, "half of a log scale from 0.02 to 200 lies below 2"


@pytest.mark.slow
@for_each("name", NAMES)
def test_without_a_search_a_loss_has_the_setting_that_a_search_tries_first(
    name: str, adapted: Callable[..., DictConfig]
) -> None:
    for dataset in ("glyphs", "grocery", "grocery_finetuned", "cub"):
        first = start_of(adapted(name, f"dataset={dataset}"))
        setting = adapted(name, f"dataset={dataset}", preset="default").loss.setting
        assert first == {key: setting[key] for key in first}, dataset


PUBLISHED = ("cub", "cars196", "sop", "inshop", "inaturalist2019")


@pytest.mark.slow
@for_each("name", NAMES)
def test_every_losss_default_can_be_tried_first_on_every_published_data_set(name: str, compose_study: Compose) -> None:
    for dataset in PUBLISHED:
        for protocol in ("hpl", "mlrc_2020") if dataset == "sop" else ("hpl",):  # whose spaces differ on SOP most
            study = compose_study(
                f"loss={name}", f"dataset={dataset}", f"protocol={protocol}", "training.defaults_first=true",
                "protocol.defaults_first=true",
            )  # fmt: skip
            check_space(study)
            assert study.first_trial.keys() == study.make_space().keys()


@pytest.mark.slow
def test_a_number_for_a_data_set_fixes_a_hyper_parameter_there(compose_study: Compose) -> None:
    for name in ("soft_triple", "hpl_soft_triple"):
        where = (f"loss={name}", "dataset=sop")
        study = compose_study(*where)
        assert "reg_weight" not in study.make_space() and study.config.loss.setting["reg_weight"] == 0
        assert compose_study(*where, "preset=default").config.loss.setting["reg_weight"] == 0
        assert compose_study(*where, "protocol=traditional").config.loss.setting["reg_weight"] == 0.2, "the authors'"
        assert "reg_weight" in compose_study(f"loss={name}", "dataset=inshop").make_space()
        for given in ("loss.setting.reg_weight=0.3", "loss.space.reg_weight.bounds=[0.1,0.5]"):
            study = compose_study(*where, given)
            check_used(study, [given], lambda rest: pytest.fail("composed again"))
            searched = study.make_space().get("reg_weight")
            assert searched == (Parameter((0.1, 0.5)) if "bounds" in given else None)
    shared = compose_study("loss=hpl_soft_triple", "dataset=sop", "searcher=sobol", "searcher.share_design=true")
    base = compose_study("loss=soft_triple", "dataset=sop", "searcher=sobol")
    ours, theirs = (study.make_searcher().ask([]) for study in (shared, base))
    assert [ours[key] for key in ("proxy_lr", "la_0", "gamma", "margin_0")] == pytest.approx(
        [theirs[key] for key in ("proxy_lr", "la", "gamma", "margin")]
    )


def test_a_value_of_the_command_line_replaces_the_default_of_a_training(compose_study: Compose) -> None:
    where = ("dataset=grocery", "loss=soft_triple", "preset=default")
    assert compose_study(*where).config.loss.setting["proxy_lr"] == 0.01
    study = compose_study(*where, given := "loss.setting.proxy_lr=0.5")
    assert study.config.loss.setting["proxy_lr"] == 0.5
    check_used(study, [given], cli.study_of)
    traditional = ("dataset=grocery", "loss=hier", "protocol=traditional", "training=traditional")
    assert compose_study(*traditional).config.loss.setting["num_hierarchy_proxies"] == 64
    assert compose_study("dataset=cub", *traditional[1:]).config.loss.setting["num_hierarchy_proxies"] == 512


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("+training.space.proxy_rl.bounds=[1,2]",), r"training\.space\.proxy_rl: no loss searches.*mean proxy_lr"),
        (("+dataset.space.proxy_rl.bounds=[1,2]",), r"dataset\.space\.proxy_rl: no loss searches"),
        (("+training.space.margin_0.scale=log",), r"margin_0\.bounds=\[0, 1\]: a log scale needs a lower bound above"),
        (("+training.space.margin_0.scale=ln",), "scale=ln may be linear or log"),
    ],
)
def test_a_table_that_fits_no_space_is_refused(options: Sequence[str], message: str, compose_study: Compose) -> None:
    with pytest.raises(UserError, match=message):
        check_space(compose_study("loss=hpl_pa", *options))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("+training.space.proxy_lr.bound=[1,2]", "bound"),
        ("training.space=3", "training.space"),
        ("training.space.proxy_lr=null", "training.space.proxy_lr"),
        ("training.space.proxy_lr.bounds=[a,b]", "bounds"),
    ],
)
def test_a_table_of_a_wrong_form_is_refused_by_its_key(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        cli.study_of(["loss=proxy_nca", option])


def test_a_training_may_add_a_hyper_parameter_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "frozen_like.yaml").write_text(HEAD, encoding="utf-8")
    chosen = ["dataset=glyphs", "training=frozen_like", "loss.space.head_lr.bounds=[1e-5,1e-3]", "searcher=sobol",
              "searcher.share_design=true"]  # fmt: skip
    ours, base = (Study.of(cli._compose([*chosen, f"loss={name}"], [tmp_path])) for name in ("hpl_nca", "proxy_nca"))
    assert list(ours.make_space())[-1] == "head_lr"
    assert ours.make_space()["head_lr"] == Parameter((1e-5, 1e-3), "log")
    check_space(ours)
    assert ours.with_setting({"head_lr": 5e-4}).config.training.optimizers["head"]["lr"] == 5e-4
    assert ours.with_setting({"head_lr": 5e-4}).config.training.optimizers["trunk"]["lr"] == 1e-6
    assert ours.make_searcher().ask([])["head_lr"] == base.make_searcher().ask([])["head_lr"], "the design is shared"
    check_used(ours, ["loss.space.head_lr.bounds=[1e-5,1e-3]"], lambda rest: pytest.fail("composed again"))


@pytest.mark.parametrize(
    ("options", "identity"),
    [
        (("loss=hpl_nca",), "966bdb85a74317bd"),
        (("loss=hpl_nca", "dataset=glyphs", "protocol=mlrc_2020"), "f0bd7d63e259677b"),
        (("loss=ms", "dataset=cub"), "d02ca90783053d05"),
    ],
)
def test_a_stored_study_keeps_its_space_and_its_identity(
    options: Sequence[str], identity: str, compose_study: Compose
) -> None:
    """Identities computed before spaces were adapted, of configurations without the keys that adapt them."""
    published = ["training.space_scales=published", "~training.space", "protocol.defaults_first=false"]
    if "dataset=cub" not in options:
        published += ["dataset.max_epochs=4", "trunk.width=128", "trunk.module.strides=[2,2,2,1,2]"]
    raw: dict[str, Any] = json.loads(json.dumps(compose_study(*options, *published).raw))
    for key in ("space", "space_scales", "defaults_first", "searched"):
        del raw["training"][key]
    del raw["dataset"]["space"]
    stored = Study.of(raw)
    assert stored.identity("f" * 64) == identity
    assert "linear" in {p.scale for p in stored.make_space().values()}
    adapted = compose_study(*options).identity("f" * 64)
    assert (adapted == identity) == ("dataset=cub" in options), "an adapted space is another study"


def test_sobol_needs_no_default(compose_study: Compose) -> None:
    assert isinstance(compose_study("searcher=sobol", "loss=proxy_nca").make_searcher(), Sobol)
