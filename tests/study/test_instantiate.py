"""A plug-in that refuses a setting is the user's to fix; any other exception in it is a defect and passes through."""

import sys
import types
from collections.abc import Callable

import pytest
from torch import nn

from benchmark.core.errors import UserError
from benchmark.study.instantiate import build
from benchmark.study.preflight import check_parts
from benchmark.study.study import Study

DEFECTS: dict[str, Callable[[], object]] = {
    "too many values to unpack": lambda: (lambda a, b: None)(*[1, 2, 3]),
    "invalid literal for int": lambda: int("x"),
    "not in list": lambda: [].index(3),
}


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module `benchmark.losses.broken` with a loss whose constructor runs `work`."""

    class Broken(nn.Module):
        def __init__(self, proxy_lr: float = 1.0) -> None:
            super().__init__()
            module.work()

    module = types.ModuleType("benchmark.losses.broken")
    Broken.__module__ = module.__name__
    module.Broken = Broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_a_defect_in_the_constructor_of_a_plug_in_passes_through(
    defect: Callable[[], object], plug_in: types.ModuleType
) -> None:
    plug_in.work = defect  # type: ignore[attr-defined]
    with pytest.raises((TypeError, ValueError)) as caught:
        build({"_target_": "benchmark.losses.broken.Broken"})
    assert caught.traceback[-1].path.samefile(__file__)


def test_a_defect_in_a_loss_passes_through_the_checks_before_a_search(
    plug_in: types.ModuleType, compose_study: Callable[..., Study]
) -> None:
    plug_in.work = DEFECTS["invalid literal for int"]  # type: ignore[attr-defined]
    study = compose_study("dataset=glyphs_small", "trunk.width=8", "loss=proxy_nca")
    module = {"_target_": "benchmark.losses.broken.Broken"}
    raw = study.raw | {"loss": study.raw["loss"] | {"module": module, "needs": []}}
    with pytest.raises(ValueError, match="invalid literal"):
        check_parts(Study.of(raw))


def test_a_setting_that_a_plug_in_refuses_is_reported_with_its_place_in_the_space(
    plug_in: types.ModuleType, compose_study: Callable[..., Study]
) -> None:
    def refuse() -> None:
        raise UserError("proxy_lr is too high")

    plug_in.work = refuse  # type: ignore[attr-defined]
    study = compose_study("dataset=glyphs_small", "trunk.width=8", "loss=proxy_nca")
    module = {"_target_": "benchmark.losses.broken.Broken"}
    raw = study.raw | {"loss": study.raw["loss"] | {"module": module, "needs": []}}
    with pytest.raises(UserError, match=r"proxy_nca cannot be built at its setting.*100 training classes.*too high"):
        check_parts(Study.of(raw))


def test_arguments_that_a_target_does_not_take_are_the_user_s() -> None:
    with pytest.raises(UserError, match=r"Linear cannot be built: .*'widht'.*It takes in_features"):
        build({"_target_": "torch.nn.Linear", "widht": 2}, in_features=1, out_features=1)


def test_settings_that_a_library_refuses_are_the_user_s() -> None:
    with pytest.raises(UserError, match=r"torch\.nn\.Linear does not accept out_features='x'"):
        build({"_target_": "torch.nn.Linear", "out_features": "x"}, in_features=1)


def test_an_import_that_fails_inside_a_plug_in_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="Check its spelling"):
        build({"_target_": "benchmark.losses.no_such_module.X"})
    monkeypatch.setattr("importlib.import_module", _import_of_nothing)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        build({"_target_": "benchmark.losses.cosface.CosFace"})


def _import_of_nothing(name: str) -> types.ModuleType:
    raise ModuleNotFoundError("No module named 'no_such_library'", name="no_such_library")
