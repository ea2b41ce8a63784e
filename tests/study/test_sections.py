"""A configuration that is put together from sections is what OmegaConf merges at once, mistakes included."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmark.study import study as module
from benchmark.study.config import schema
from benchmark.study.study import Study


@pytest.fixture(scope="module")
def raw(compose_study_in: Callable[..., Study]) -> dict[str, Any]:
    return compose_study_in(Path("results"), "loss=proxy_nca", "dataset=cub", "protocol=traditional").raw


def outcome(merge: Callable[[dict[str, Any]], Any], raw: dict[str, Any]) -> tuple[object, ...]:
    """The merged values with their types, or the error with its key and its words."""
    try:
        merged = merge(raw)
        return OmegaConf.to_container(merged), repr(OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        return type(error), str(error), error.full_key, error.msg


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 3), ("seed", "x"), ("seed", None), ("unit", [1]), ("head", None), ("head", True), ("executor", {}),
        ("executor.retries", "x"), ("executor.mine", 1), ("loss.module", {1: {"a": [0.5]}}), ("loss.setting", 3),
        ("loss.space", {"lr": {"bounds": "x"}}), ("dataset.trials", "${nothing}"), ("dataset.trials", "${"),
        ("typo", 1), ("loss.typo", 1), ("training.shift", True),
    ],
)  # fmt: skip
def test_the_outcome_is_that_of_one_merge_whether_or_not_it_can_be_used(
    raw: dict[str, Any], key: str, value: object
) -> None:
    changed = copy.deepcopy(raw)
    *above, last = key.split(".")
    (changed[above[0]] if above else changed)[last] = value

    assert outcome(module._merged, changed) == outcome(lambda raw: OmegaConf.merge(schema(), raw), changed)


def test_of_two_mistakes_the_first_is_named(raw: dict[str, Any]) -> None:
    changed = copy.deepcopy(raw) | {"seed": "x"}
    changed["loss"]["typo"] = 1

    with pytest.raises(OmegaConfBaseException) as found:
        module._merged(changed)

    assert found.value.full_key == "loss.typo"


def test_what_is_done_to_one_study_reaches_no_other(raw: dict[str, Any]) -> None:
    first = module._merged(raw)
    first.loss.label = "another"
    first.dataset.recall_at.append(99)

    assert OmegaConf.to_container(module._merged(raw)) == OmegaConf.to_container(OmegaConf.merge(schema(), raw))


def test_a_study_in_another_folder_is_what_is_composed_for_that_folder(compose_study_in: Callable[..., Study]) -> None:
    choices = ("loss=hpl_pa", "dataset=cub", "protocol=traditional")
    made, expected = compose_study_in(Path("there"), *choices), compose_study_in(Path("results"), *choices).raw

    study = Study.of(expected | {"results_dir": "there"})

    assert (made.raw, made.config, made.science("f")) == (study.raw, study.config, study.science("f"))
    assert made._resolved == study._resolved
