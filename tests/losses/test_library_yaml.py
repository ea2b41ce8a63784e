"""The losses of the documentation: each file is built, checked as before a search, and trained."""

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from benchmark.study.assemble import build
from benchmark.study.preflight import check_parts
from benchmark.study.study import Study
from benchmark.training.loop import set_train_mode, train_epoch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extend" / "loss.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


SECTION = PAGE.split("\n## With pytorch-metric-learning\n")[1].split("\n## ")[0]
FILES = {node["name"]: node for node in map(yaml.safe_load, blocks(SECTION, "yaml"))}


@pytest.fixture
def study(compose_study: Callable[..., Study]) -> Callable[..., Study]:
    """A small study with a loss whose file has the given content."""
    options = (
        "dataset=glyphs_small", "trunk.width=8", "protocol.batch_size=16", "dataset.iterations_per_epoch=2",
        "searcher=sobol",
    )  # fmt: skip

    def of(node: dict[str, object]) -> Study:
        made = compose_study(*options)
        return Study.of(made.raw | {"loss": node})

    return of


def train(study: Study) -> torch.nn.Module:
    """Train the study's loss for two steps; its parameters and those of the head must change."""
    fingerprint = study.make_dataset().fingerprint
    parts, schedule = build(study, {}, fingerprint=fingerprint, kind="trial", index=0, fold=0)
    parameters = [*parts.loss.parameters(), *parts.head.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    set_train_mode(parts, schedule.freeze_batchnorm)
    train_epoch(parts, schedule, range(2))
    assert all(p.isfinite().all() and not torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    return parts.loss


def test_the_page_has_a_loss_with_vectors_and_one_with_a_miner_and_a_distance() -> None:
    assert [*FILES] == ["regularface", "batch_hard"]


@pytest.mark.parametrize("name", FILES)
def test_a_loss_of_the_page_passes_the_checks_before_a_search_and_trains(
    name: str, study: Callable[..., Study]
) -> None:
    made = study(FILES[name])
    check_parts(made)
    loss = train(made)
    sizes = [made.config.protocol.embedding_dim in parameter.shape for parameter in loss.parameters()]
    assert sizes == ([True] if "num_classes" in FILES[name].get("needs", ()) else [])


def test_xbm_trains_a_loss_and_a_miner_of_the_library(study: Callable[..., Study]) -> None:
    hard = FILES["batch_hard"]
    inner = {key: value for key, value in hard["module"]["loss"].items() if key != "_partial_"}
    module = {
        "_target_": "benchmark.losses.xbm.XBM", "flavour": "pml", "memory_fraction": 0.5, "loss": inner,
        "miner": hard["module"]["miner"],
    }  # fmt: skip
    loss = train(study(hard | {"module": module, "needs": ["embedding_dim", "num_images"]}))
    assert loss.diagnostics()["memory_rows"] == 32
    assert {type(part).__name__ for part in (loss.loss, loss.miner)} == {"TripletMarginLoss", "BatchHardMiner"}


@pytest.mark.parametrize(("text", "shapes"), [(README, [(100, 128)]), (PAGE, [])], ids=["README", "docs"])
def test_the_example_of_a_new_loss_passes_the_checks_before_a_search_and_trains(
    text: str, shapes: list[tuple[int, int]], study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = blocks(text, "python")
    node = yaml.safe_load(blocks(text, "yaml")[0])
    module = types.ModuleType(f"benchmark.losses.{node['name']}")
    exec(code, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    made = study(node)
    check_parts(made)
    assert [tuple(parameter.shape) for parameter in train(made).parameters()] == shapes
