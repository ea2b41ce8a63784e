"""A method and its base try the same values of what they share in the initial design, and the rest is a design too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.protocol.seeds import stable_seed
from benchmark.searchers import Parameter, Searcher, Setting
from benchmark.searchers.ax import Ax
from benchmark.searchers.sobol import Sobol, value_at
from benchmark.study.study import Study

BASE = {"lr": Parameter((1e-6, 1.0), "log"), "scale": Parameter((0.01, 100.0))}
OWN = {"coarse": Parameter((0.0, 1.0)), "scale_0": Parameter((0.02, 200.0)), "scale_1": Parameter((0.02, 200.0)),
       "lr": Parameter((1e-6, 1.0), "log"), "num": Parameter((2, 50), "log", "int")}  # fmt: skip
SHARED = ["lr", "scale_0"]
SEARCHERS = [Sobol, pytest.param(Ax, marks=pytest.mark.slow)]
Compose = Callable[..., Study]


def design(searcher: Searcher, num_points: int) -> list[Setting]:
    settings: list[Setting] = []
    for _ in range(num_points):
        settings.append(searcher.ask([], settings))
    return settings


@pytest.mark.parametrize("kind", SEARCHERS)
def test_shared_parameters_take_the_values_of_the_other_design(kind: Any) -> None:
    other, own = design(kind(BASE, 7), 5), design(kind(OWN, 7, shared=SHARED), 5)
    assert [setting["lr"] for setting in own] == [setting["lr"] for setting in other]
    assert [setting["scale_0"] for setting in own] == pytest.approx([2 * setting["scale"] for setting in other])
    assert all(list(setting) == list(OWN) for setting in own)
    assert len({setting["scale_1"] for setting in own} | {setting["scale_0"] for setting in own}) == 10
    assert [setting["lr"] for setting in design(kind(OWN, 7), 5)] != [setting["lr"] for setting in other]


def test_the_remaining_parameters_take_the_dimensions_after_those_of_the_other_design() -> None:
    seed, rest = stable_seed("own design", 7), ["coarse", "scale_1", "num"]
    points = torch.quasirandom.SobolEngine(5, scramble=True, seed=seed).draw(8, None, torch.float64).tolist()
    expected = [{name: value_at(OWN[name], u) for name, u in zip(rest, row[2:], strict=True)} for row in points]
    found = design(Sobol(OWN, 7, shared=SHARED), 8)
    assert [{name: setting[name] for name in rest} for setting in found] == expected
    halves = {(u["scale_0"] > 100, u["scale_1"] > 100) for u in found}
    assert len(halves) == 4, "eight points of a scrambled Sobol design lie in all quarters of two dimensions"


def test_without_the_option_the_design_is_that_of_the_whole_space() -> None:
    points = torch.quasirandom.SobolEngine(5, scramble=True, seed=7).draw(6, None, torch.float64).tolist()
    expected = [{name: value_at(p, u) for (name, p), u in zip(OWN.items(), row, strict=True)} for row in points]
    assert design(Sobol(OWN, 7), 6) == expected


def test_a_parameter_that_is_not_searched_cannot_be_shared() -> None:
    with pytest.raises(UserError, match=r"margin is not searched.*searcher\.share_design=false"):
        Sobol(OWN, 7, shared=["lr", "margin"])


@pytest.mark.parametrize(
    ("own", "base", "equal"),
    [
        ("hpl_nca", "proxy_nca", {"proxy_lr": ("proxy_lr", 1), "scale_0": ("softmax_scale", 2)}),
        ("hpl_pa", "proxy_anchor", {"proxy_lr": ("proxy_lr", 1), "scale_0": ("alpha", 1), "margin_0": ("margin", 1)}),
    ],
)
def test_searches_on_glyphs_start_from_the_points_of_their_base(
    own: str, base: str, equal: dict[str, tuple[str, int]], compose_study: Compose
) -> None:
    options = ("searcher=sobol", "search=1")
    first, second = (compose_study(f"loss={name}", *options).make_searcher() for name in (own, base))
    for here, there in zip(design(first, 5), design(second, 5), strict=True):
        for name, (other, factor) in equal.items():
            assert here[name] == pytest.approx(factor * there[other], rel=1e-12)


@pytest.mark.slow
def test_published_data_sets_share_no_design_unless_asked_and_identities_tell_them_apart(
    compose_study: Compose,
) -> None:
    def identity(*overrides: str) -> str:
        return compose_study("loss=hpl_nca", *overrides).identity("f")

    shared, not_shared = "searcher.share_design=true", "searcher.share_design=false"
    assert identity() == identity(shared) != identity(not_shared)
    assert identity("dataset=cub") == identity("dataset=cub", not_shared) != identity("dataset=cub", shared)
    base = [compose_study("loss=proxy_nca", option).science("f") for option in (shared, not_shared)]
    assert base[0] == base[1], "a base's own design does not change"
    assert "share_design" not in base[0]["searcher"] and "share_design" not in base[0]["dataset"]


def test_a_narrower_space_has_its_own_design_unless_a_shared_one_is_asked_for(compose_study: Compose) -> None:
    narrow = ["loss=hpl_nca", "searcher=sobol", "~loss.space.scale_0"]
    whole = compose_study(*narrow, "searcher.share_design=false")
    assert compose_study(*narrow).identity("f") == whole.identity("f")
    with pytest.raises(UserError, match="scale_0 is not searched"):
        compose_study(*narrow, "searcher.share_design=true").make_searcher()
