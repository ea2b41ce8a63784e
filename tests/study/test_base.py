"""A method at its base's optimum: the setting that the base's finished search chose, by the method's own names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmark.bo import bo
from benchmark.core import conf_files, invocation, records
from benchmark.core.conf_files import content
from benchmark.core.errors import UserError
from benchmark.final_eval import final_eval
from benchmark.study.base import at_base
from benchmark.study.opening import open_study
from benchmark.study.preflight import check_values
from benchmark.study.stored import read_study
from benchmark.study.study import Study
from tests import fake_results
from tests.cases import slow_except
from tests.command_line import assert_refused, study_dir, tiny
from tests.study import examples

Compose = Callable[..., Study]
LOSSES = {name: content("loss", name) for name in conf_files.names("loss")}
WITH_BASE = sorted(name for name, body in LOSSES.items() if "base" in body)


@pytest.fixture
def searched_base(compose_study: Compose, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """Write a finished search of ProxyNCA with a choice: `searched_base(scale=30.0, "search=1")`."""

    def write(*overrides: str, scale: float = 30.0) -> Study:
        monkeypatch.setattr(fake_results, "SETTING", {"proxy_lr": 0.25, "softmax_scale": scale})
        study = compose_study("loss=proxy_nca", *overrides)
        fake_results.finish(study, [])
        return study

    return write


def test_every_method_over_another_loss_has_a_base_of_the_search_space_that_its_yaml_says() -> None:
    added = [name for name in LOSSES if name.startswith(("hpl_", "tcm_", "anti_collapse_"))]
    assert sorted(["xbm", *added]) == WITH_BASE
    for name in WITH_BASE:
        own, taken = LOSSES[name], LOSSES[name]["base"]
        base = LOSSES[taken["loss"]]
        assert list(dict.fromkeys(taken["setting"].values())) == list(base["space"]), name
        for here, there in taken["setting"].items():
            factor = taken.get("times", {}).get(here, 1)
            published = base["setting"][there]
            if isinstance(published, str):  # ${loss.usual.NAME}
                published = base["usual"][there]
            assert own["setting"][here] == factor * published, f"{name}: the published {here}"
            bounds = [factor * bound for bound in base["space"][there]["bounds"]]
            if name != "xbm":  # which does without negative margins
                assert own["space"][here]["bounds"] == bounds, f"{name}: the bounds of {here}"


def test_a_method_and_its_base_are_trained_and_compared_alike_except_for_batches_which_tables_report() -> None:
    alike = ("optimizer", "head", "retrieval", "retrieval_options")
    for name in WITH_BASE:
        base = LOSSES[LOSSES[name]["base"]["loss"]]
        assert [LOSSES[name].get(key) for key in alike] == [base.get(key) for key in alike], name


def test_the_setting_is_that_of_the_base_and_the_rest_is_published(
    searched_base: Callable[..., Study], compose_study: Compose
) -> None:
    base = searched_base()
    found = at_base(compose_study("loss=hpl_nca", "preset=base"))
    published = compose_study("loss=hpl_nca").config.loss.setting
    # A cosine scale is twice the scale of the squared distance: |x - y|^2 = 2 - 2 cos.
    expected = {"proxy_lr": 0.25, "scale_0": 60.0, "scale_1": 60.0}
    assert found.study.config.loss.setting == published | expected
    assert found.folder == base.directory and found.trial == fake_results.TRIAL
    assert found.study.directory.name == "hpl_nca-base"
    chosen = found.study.config.loss.base.chosen
    assert chosen == {"study": read_study(base.directory).identity, "trial": fake_results.TRIAL}
    assert found.study.identity("f") != compose_study("loss=hpl_nca").identity("f")
    found.check_data(examples.FINGERPRINT)
    with pytest.raises(UserError, match="other data"):
        found.check_data("f")


def test_a_repetition_takes_the_choice_of_the_bases_repetition(
    searched_base: Callable[..., Study], compose_study: Compose
) -> None:
    searched_base(scale=30.0)
    searched_base("search=1", scale=40.0)
    found = at_base(compose_study("loss=hpl_nca", "preset=base", "search=1"))
    assert found.study.config.loss.setting["scale_0"] == 80.0
    assert found.study.directory.name == "hpl_nca-base-search1"


def test_the_base_of_the_same_variant_comes_before_the_one_without(
    searched_base: Callable[..., Study], compose_study: Compose
) -> None:
    searched_base(scale=30.0)
    searched_base("variant=wide", scale=40.0)

    def scale(variant: str) -> float:
        study = compose_study("loss=hpl_nca", "preset=base", f"variant={variant}")
        return float(at_base(study).study.config.loss.setting["scale_0"])

    assert (scale("wide"), scale("other")) == (80.0, 60.0)


def test_without_a_finished_search_of_the_base_the_message_has_its_command(
    searched_base: Callable[..., Study], compose_study: Compose
) -> None:
    study = compose_study("loss=hpl_nca", "preset=base")
    with pytest.raises(
        UserError, match=r"a search of proxy_nca chose.*Run make bo DATASET=glyphs LOSS=proxy_nca first"
    ):
        at_base(study)
    base = searched_base()
    (base.directory / "bo" / "best.yaml").unlink()
    with pytest.raises(UserError, match=r"no best\.yaml.*make bo STUDY=.*proxy_nca to finish"):
        at_base(study)


def test_a_base_with_other_options_is_not_taken(searched_base: Callable[..., Study], compose_study: Compose) -> None:
    searched_base("protocol.batch_size=64")
    with pytest.raises(UserError, match=r"has others:\n  protocol\.batch_size: 64 there, 128 now"):
        at_base(compose_study("loss=hpl_nca", "preset=base"))


@pytest.mark.parametrize(
    "option",
    slow_except(
        ["searcher=sobol"],
        ["searcher=sobol", "searcher.round=4", "protocol.defaults_first=true", "protocol.noise=fold_sem"],
    ),
)
def test_options_of_the_search_may_be_given_to_the_base_only(
    option: str, searched_base: Callable[..., Study], compose_study: Compose
) -> None:
    """A study with a preset has no search: the same option would be refused there."""
    base = searched_base(option)
    assert at_base(compose_study("loss=hpl_nca", "preset=base")).folder == base.directory


def test_another_choice_of_the_base_is_noticed(searched_base: Callable[..., Study], compose_study: Compose) -> None:
    searched_base(scale=30.0)
    study = compose_study("loss=hpl_nca", "preset=base")
    open_study(at_base(study).study, "final-eval", examples.FINGERPRINT)
    assert at_base(study).trial == fake_results.TRIAL
    searched_base(scale=31.0)
    with pytest.raises(UserError, match=r"another choice of its base.*\n  scale_0: 60\.0 there, 62\.0 now"):
        at_base(study)


def test_a_value_that_comes_from_the_base_cannot_be_given_too(compose_study: Compose) -> None:
    study = compose_study("loss=hpl_nca", "preset=base")
    with (
        invocation.overridden(["loss=hpl_nca", "preset=base", "loss.setting.scale_1=3"]),
        pytest.raises(UserError, match=r"loss\.setting\.scale_1 is given, but preset=base takes it from proxy_nca"),
    ):
        at_base(study)


def test_a_loss_without_a_base_and_a_protocol_without_searches_are_refused(compose_study: Compose) -> None:
    with pytest.raises(UserError, match=r"proxy_nca adds nothing to another loss") as refused:
        compose_study("loss=proxy_nca", "preset=base")
    assert f"Allowed with preset=base: {', '.join(WITH_BASE)}. To search instead: make bo " in str(refused.value)
    with pytest.raises(UserError, match="preset=base: protocol=traditional has no searches"):
        check_values(compose_study("loss=hpl_nca", "preset=base", "protocol=traditional"), "traditional")


@pytest.mark.slow
def test_final_runs_are_trained_at_the_bases_choice_without_a_search(results: Path) -> None:
    def evaluated(*overrides: str) -> object:
        return tiny(final_eval, results, "loss=hpl_nca", "preset=base", "protocol.num_runs=1", *overrides)

    assert_refused(tiny(bo, results, "loss=hpl_nca", "preset=base"), "needs no search")
    ended = evaluated()
    assert ended.status == 0 and "the setting is that of trial_00" in ended.out, ended
    base, folder = study_dir(results), study_dir(results, "hpl_nca-base")
    choice = yaml.safe_load((base / "bo" / "best.yaml").read_text())["setting"]
    setting = records.read_record(folder / "final_eval" / "base" / "run_00.json").result["setting"]
    assert setting["proxy_lr"] == choice["proxy_lr"]
    assert setting["scale_0"] == setting["scale_1"] == 2 * choice["softmax_scale"]
    assert read_study(folder).facts.setting == setting and not (folder / "bo").exists()
