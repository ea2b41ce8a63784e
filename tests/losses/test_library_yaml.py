"""The README's losses of pytorch-metric-learning: each file is built, checked as before a search, and trained."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from benchmark.study.assemble import build
from benchmark.study.preflight import check_parts
from benchmark.study.study import Study
from benchmark.training.loop import set_train_mode, train_epoch

README = Path(__file__).parents[2] / "README.md"
SECTION = README.read_text(encoding="utf-8").split("\n### With pytorch-metric-learning\n")[1].split("\n### ")[0]
FILES = {node["name"]: node for node in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL))}


@pytest.fixture
def study(compose_study: Callable[..., Study]) -> Callable[..., Study]:
    """A small study with a loss whose file has the given content."""
    options = ("dataset=glyphs_small", "trunk.width=8", "protocol.batch_size=16", "dataset.iterations_per_epoch=2")

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


def test_the_readme_has_a_loss_with_vectors_and_one_with_a_miner_and_a_distance() -> None:
    assert [*FILES] == ["regularface", "batch_hard"]


@pytest.mark.parametrize("name", FILES)
def test_a_loss_of_the_readme_passes_the_checks_before_a_search_and_trains(
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
