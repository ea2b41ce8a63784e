"""A loss with an added term keeps its base's schedule, diagnostics, record fields, warnings, memory and checkpoints."""

from functools import partial

import torch

from benchmark.losses import HasAfterStep
from benchmark.losses.anti_collapse import AntiCollapse
from benchmark.losses.contrastive import Contrastive
from benchmark.losses.cost import fill_memory
from benchmark.losses.hpl import HPL
from benchmark.losses.proxy_nca import proxy_nca
from benchmark.losses.threshold_margin import ThresholdMargin
from benchmark.losses.xbm import XBM

LEVELS = [{"scale": 9.0}, {"scale": 9.0}]
HIERARCHY = partial(HPL, base=proxy_nca, levels=LEVELS, weights=[1.0, 0.1], warmup_iterations=1, update_every=2,
                    proxy_init="normal", num_coarse=3, centres_per_class=1)  # fmt: skip
SIZES = {"num_classes": 7, "embedding_dim": 5, "seed": 4}
HISTORY = [{"epoch": 0, "diagnostics": {"kmeans_done": 1.0, "coarse_updates": 1.0}}]


def test_a_hierarchy_with_an_added_term_is_updated_and_reports_as_alone(batch):
    embeddings, labels, _ = batch
    alone, twice = HIERARCHY(**SIZES), AntiCollapse(partial(ThresholdMargin, HIERARCHY), base_weight=0.5, **SIZES)
    for _ in range(3):
        alone(embeddings.float(), labels), twice(embeddings.float(), labels)
        alone.after_step(), twice.after_step()
    ours = twice.diagnostics()
    assert ours.pop("loss_threshold_margin") > 0 and ours.pop("loss_anti_collapse") > 0
    assert ours == alone.diagnostics() and ours["coarse_updates"] == 1
    assert twice.record_fields(HISTORY, 0) == alone.record_fields(HISTORY, 0)
    assert twice.record_fields(HISTORY, 0)["coarse_updates"] == 1


def test_warnings_are_those_of_the_base():
    assert ThresholdMargin(HIERARCHY, **SIZES).warnings() == HIERARCHY(**SIZES).warnings() != []


def test_a_base_without_schedule_and_reports_has_empty_ones():
    module = ThresholdMargin(Contrastive)
    module.after_step()
    assert (module.diagnostics(), module.record_fields(HISTORY, 0), module.warnings()) == ({}, {}, [])
    assert isinstance(module, HasAfterStep) and not isinstance(Contrastive(), HasAfterStep)


def test_the_memory_of_a_base_is_filled_where_costs_are_measured():
    module = ThresholdMargin(XBM, embedding_dim=5, num_images=20, memory_fraction=0.5)
    fill_memory(module, num_classes=7)
    assert module.diagnostics() == {"memory_rows": 10.0}


def test_a_base_resumes_from_a_checkpoint(batch):
    embeddings, labels, _ = batch
    module, fresh = (ThresholdMargin(XBM, embedding_dim=5, num_images=20, memory_fraction=0.5) for _ in range(2))
    module(embeddings.float(), labels)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(embeddings.float(), labels), module(embeddings.float(), labels))
