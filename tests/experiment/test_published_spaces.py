"""The search spaces of the Reality Check's experiments: its plots, written out here, against what each study searches.

Source: the plots in powerful-benchmarker, `docs/papers/mlrc_plots` (Musgrave et al., ECCV 2020): the bounds at the end
of a search, some of which were widened during it. Its weight of SoftTriple's regulariser counts twice here.
"""

import itertools
from typing import Any

import pytest
from hydra import initialize_config_dir

from benchmark.core.paths import conf_dir
from benchmark.experiment import spec
from benchmark.study.study import Study
from tests import command_line
from tests.cases import slow_except

Space = dict[str, tuple[float, float, str]]
RATE, WIDE, UNIT, MARGIN = (1e-6, 1, "log"), (0.01, 100, "linear"), (0, 1, "linear"), (-0.2, 2, "linear")
POSITIVE = (0, 2, "linear")
# Bounds and scale of each hyper-parameter with batches of 32 on CUB, Cars and SOP; below, what differs.
SPACES: dict[str, Space] = {
    "contrastive": {"pos_margin": MARGIN, "neg_margin": MARGIN},
    "triplet": {"margin": MARGIN},
    "ntxent": {"temperature": (1e-5, 100, "log")},
    "proxy_nca": {"proxy_lr": RATE, "softmax_scale": WIDE},
    "margin": {"beta_lr": RATE, "margin": MARGIN, "beta": MARGIN},
    "margin_class": {"beta_lr": RATE, "margin": MARGIN, "beta": MARGIN},
    "normalized_softmax": {"proxy_lr": RATE, "temperature": (0.01, 100, "log")},
    "cosface": {"proxy_lr": RATE, "scale": (0.01, 200, "linear"), "margin": UNIT},
    "arcface": {"proxy_lr": RATE, "scale": (0.01, 200, "linear"), "margin": (0, 90, "linear")},
    "fastap": {"num_bins": (2, 32, "linear")},
    "snr": {"pos_margin": POSITIVE, "neg_margin": POSITIVE, "regularizer_weight": UNIT},
    "ms": {"alpha": WIDE, "beta": WIDE, "base": UNIT},
    "ms_miner": {"alpha": WIDE, "beta": WIDE, "base": UNIT, "epsilon": UNIT},
    "soft_triple": {"proxy_lr": RATE, "la": WIDE, "gamma": WIDE, "margin": UNIT, "reg_weight": (0, 2, "linear")},
}
DIFFERING: dict[str, dict[str, dict[str, tuple[float, float, str] | None]]] = {  # None: not searched
    "mlrc_cars196": {},
    "mlrc_cub": {
        "ntxent": {"temperature": (1e-4, 100, "log")},
        "ms": {"alpha": (1e-3, 100, "linear")},
        "soft_triple": {"gamma": (1e-4, 100, "linear")},
    },
    "mlrc_sop": {
        "arcface": {"scale": (0.01, 300, "linear")},
        "fastap": {"num_bins": (3, 32, "linear")},
        "ms_miner": {"beta": (0.01, 200, "linear")},
        "soft_triple": {"la": (0.01, 200, "linear"), "reg_weight": None},
    },
    "mlrc_cub_batch_256": {
        "ntxent": {"temperature": (0.01, 100, "log")},
        "cosface": {"scale": WIDE},
        "arcface": {"scale": WIDE},
        "fastap": {"num_bins": (2, 250, "linear")},
        "ms_miner": {"alpha": (1e-5, 100, "linear")},
        "soft_triple": {"gamma": (1e-5, 100, "linear")},
    },
}
FAST = [("mlrc_sop", "soft_triple"), ("mlrc_cub_batch_256", "fastap"), ("mlrc_cub_batch_256", "ms")]


@pytest.mark.parametrize("case", slow_except(FAST, itertools.product(DIFFERING, SPACES)), ids="-".join)
def test_an_experiment_searches_what_the_reality_check_searched(case: tuple[str, str]) -> None:
    experiment, loss = case
    chosen = spec.read(experiment)
    (member,) = [one for one in chosen.members(chosen.datasets[0]) if one.loss == loss]
    overrides = [f"{key}={value}" for key, value in member.options.items()]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        study = Study.of(command_line.adapted(command_line.compose("config", overrides), overrides))
    published: dict[str, Any] = SPACES[loss] | DIFFERING[experiment].get(loss, {})
    expected = {name: bounds for name, bounds in published.items() if bounds is not None}
    assert {name: (*p.bounds, p.scale) for name, p in study.make_space().items()} == expected
    fixed = {name: study.config.loss.setting[name] for name in published.keys() - expected.keys()}
    assert fixed == dict.fromkeys(fixed, 0)
    integers = expected.get("num_bins")
    assert study.num_trials == min(50, int(integers[1] - integers[0]) + 1 if integers else 50)


def test_every_loss_of_these_experiments_is_in_this_test() -> None:
    for name in DIFFERING:
        assert [entry.loss for entry in spec.read(name).studies] == [*SPACES]
