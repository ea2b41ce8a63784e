"""How every row of the papers' tables is trained: numbers typed from the papers against the composed configuration."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from hydra import initialize_config_dir

from benchmark.core.conf_files import content, names
from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.study.passes import in_passes
from benchmark.study.recipes import composed_training, optimizer_options
from benchmark.study.study import Study
from tests import command_line
from tests.cases import slow_except

pytestmark = pytest.mark.slow
Compose = Callable[[str], Study]


@pytest.fixture(scope="module")
def compose() -> Compose:
    @functools.cache
    def composed(overrides: str) -> Study:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = command_line.compose("config", overrides.split())
        return Study.of(command_line.adapted(config, overrides.split()))

    return composed


def rows(table: Mapping[str, Any]) -> list[ParameterSet]:
    return [pytest.param(row, id=name) for name, row in table.items()]


# -- HPL (Yang et al., WACV 2022) -------------------------------------------------------------------------------------

# Section 4.2, MLRC's protocol: RMSprop at 1e-6, batch 128, BN-Inception with average and max pooling, 128 dimensions.
MLRC = {"optimizer": "RMSprop", "trunk_lr": 1e-6, "head_lr": 1e-6, "batch_size": 128, "pooling": "avg+max",
        "embedding_dim": 128, "epochs": None, "warmup_epochs": 0, "decay": {}, "clip": {}}  # fmt: skip
# Section 4.2, conventional protocol: "each model" has AdamW at 1e-4, batch 128, 30 epochs; 512 dimensions; in the first
# 3 epochs "P0 and the embedding network" are trained, so that nothing is frozen.
HPL = {"recipe": "hpl", "optimizer": "AdamW", "trunk_lr": 1e-4, "head_lr": 1e-4, "batch_size": 128, "epochs": 30,
       "pooling": "avg+max", "embedding_dim": 512, "warmup_epochs": 0, "sampler": "shuffled"}  # fmt: skip
HPL |= {"loss_lr": 1e-2}  # Kim et al., CVPR 2020, section 4.2: proxies at 100 times the network's rate
BASE = "protocol=traditional training.recipe=hpl"

HPL_ROWS = {
    "table 1, SOP": ("dataset=sop loss=proxy_nca", MLRC),
    "table 2, Cars": ("dataset=cars196 loss=hpl_nca", MLRC),
    "table 3, CUB": ("dataset=cub loss=hpl_pa", MLRC),
    "table 4, SOP, ProxyNCA": (f"{BASE} dataset=sop trunk=resnet50 loss=proxy_nca", HPL),
    "table 4, SOP, HPL-NCA": ("protocol=traditional dataset=sop trunk=resnet50 loss=hpl_nca", HPL),
    "table 4, SOP, Proxy-Anchor": (f"{BASE} dataset=sop trunk=resnet50 loss=proxy_anchor", HPL),
    "table 4, SOP, HPL-PA": ("protocol=traditional dataset=sop trunk=resnet50 loss=hpl_pa", HPL),
    "table 4 and supplement 1, In-Shop, ProxyNCA": (f"{BASE} dataset=inshop trunk=resnet50 loss=proxy_nca", HPL),
    "table 4 and supplement 1, In-Shop, HPL-NCA": (f"{BASE} dataset=inshop trunk=resnet50 loss=hpl_nca", HPL),
    "table 4 and supplement 1, In-Shop, Proxy-Anchor": (f"{BASE} dataset=inshop trunk=resnet50 loss=proxy_anchor", HPL),
    "table 4 and supplement 1, In-Shop, HPL-PA": (f"{BASE} dataset=inshop trunk=resnet50 loss=hpl_pa", HPL),
    "table 5 and supplement 3, SOP, HPL-NCA-GT": (f"{BASE} dataset=sop trunk=resnet50 loss=hpl_nca_gt", HPL),
    "table 5 and supplement 4, iNat, ProxyNCA": (f"{BASE} dataset=inaturalist2019 trunk=resnet50 loss=proxy_nca", HPL),
    "table 5 and supplement 4, iNat, HPL-NCA": (f"{BASE} dataset=inaturalist2019 trunk=resnet50 loss=hpl_nca", HPL),
    "table 5 and supplement 4, iNat, HPL-NCA-GT": (
        f"{BASE} dataset=inaturalist2019 trunk=resnet50 loss=hpl_nca_gt", HPL),
    "figure 5 and supplement figure 2, Cars, HPL-NCA": (f"{BASE} dataset=cars196 trunk=resnet50 loss=hpl_nca", HPL),
    "figure 5 and supplement figure 2, Cars, ProxyNCA": (f"{BASE} dataset=cars196 trunk=resnet50 loss=proxy_nca", HPL),
    "section 4.2, BN-Inception, ProxyNCA": (f"{BASE} dataset=sop trunk=bn_inception loss=proxy_nca", HPL),
    "section 4.2, BN-Inception, HPL-PA": (f"{BASE} dataset=cub trunk=bn_inception loss=hpl_pa", HPL),
}  # fmt: skip


def assert_trains(study: Study, expected: dict[str, Any]) -> None:
    found = composed_training(study.config)
    for key, value in expected.items():
        near = pytest.approx(value, rel=1e-3) if isinstance(value, float) else value
        assert getattr(found, key) == near, key


@pytest.mark.parametrize("row", rows(HPL_ROWS))
def test_a_row_of_hpl_is_trained_as_section_4_2_says(row: tuple[str, dict[str, Any]], compose: Compose) -> None:
    assert_trains(compose(row[0]), row[1])


def test_the_rows_of_hpl_differ_in_their_number_of_groups(compose: Compose) -> None:
    """Section 4.2: 500 groups on SOP, In-Shop and iNaturalist; table 5 has 12 on SOP and 48 on iNaturalist, too."""
    groups = {}
    for dataset, given in (
        ("sop", ""), ("inshop", ""), ("inaturalist2019", ""), ("sop", " loss.schedule.num_coarse=12"),
        ("inaturalist2019", " loss.schedule.num_coarse=48"), ("inaturalist2019", " loss.setting.num_coarse=48"),
    ):  # fmt: skip
        study = in_passes(compose(f"{BASE} dataset={dataset} trunk=resnet50 loss=hpl_nca{given}"), 60_000)
        groups[dataset + given] = study.config.loss.module["num_coarse"]
    assert list(groups.values()) == [500, 500, 500, 12, 48, 48]


def test_hpl_starts_after_3_passes_and_changes_its_groups_after_each(compose: Compose) -> None:
    """Section 4.2, also for glyphs: 62 batches of 128 in a pass over Cars' 8,054 images, 97 for 12,500 of glyphs."""
    for dataset, images, batches in (("cars196", 8054, 62), ("glyphs", 12_500, 97), ("glyphs_small", 1_600, 12)):
        module = in_passes(compose(f"protocol=traditional dataset={dataset} loss=hpl_nca"), images).config.loss.module
        assert module["update_every"] == batches and abs(module["warmup_iterations"] - 3 * batches) <= 1


@pytest.mark.parametrize("key", ["loss.schedule", "loss.setting"])
def test_an_update_interval_on_the_command_line_is_used_as_given(key: str, compose: Compose) -> None:
    """Supplement, figure 2: T = 10, 20, 40, 80 optimiser steps on Cars."""
    given = f"{key}.update_every=10" + " loss.schedule.warmup_iterations=7" * (key == "loss.schedule")
    study = in_passes(compose(f"{BASE} dataset=cars196 trunk=resnet50 loss=hpl_nca {given}"), 8054)
    assert study.config.loss.module["update_every"] == 10
    assert study.config.loss.module["warmup_iterations"] == (7 if key == "loss.schedule" else 186)


def test_hpl_nca_starts_from_its_bases_proxies_of_norm_1(compose: Compose) -> None:
    """Proxy-Anchor, section 4.2: proxies lie on the unit hypersphere; its repository draws ProxyNCA's from N(0, 1)."""

    def proxies(overrides: str) -> torch.Tensor:
        study = compose(f"dataset=cars196 trunk=resnet50 protocol.embedding_dim=16 {overrides}")
        return study.make_loss(98, 3, torch.arange(98).numpy() // 9, 8054).proxies.detach()

    hpl, base = (proxies(f"{BASE} loss={loss}") for loss in ("hpl_nca", "proxy_nca"))
    assert torch.equal(hpl, base) and torch.allclose(hpl.norm(dim=1), torch.ones(98))
    normal = proxies("protocol=traditional loss=proxy_nca")
    assert 3 < float(normal.norm(dim=1).mean()) < 5  # sqrt(16)
    assert torch.allclose(torch.nn.functional.normalize(normal), hpl)
    assert torch.equal(proxies(f"{BASE} loss=hpl_nca loss.module.proxy_init=normal"), normal)


WITHOUT_PUBLISHED_RATE = ("arcface", "cosface", "normalized_softmax", "circle_class", "center_contrastive")
OF_HPL = ("hpl_cosface", "hpl_circle_class", "hpl_center_contrastive")


@pytest.mark.parametrize("name", slow_except(("cosface", "hpl_cosface"), WITHOUT_PUBLISHED_RATE + OF_HPL))
def test_class_vectors_without_a_published_rate_start_and_learn_as_proxy_anchors(name: str, compose: Compose) -> None:
    """Proxy-Anchor, section 4.2: on the unit hypersphere, with 100 times the trunk's rate."""
    for recipe in ("", "training.recipe=hpl"):
        study = compose(f"protocol=traditional dataset=cub trunk=resnet50 loss={name} {recipe}")
        parameters = dict(study.make_loss(98, 3, torch.arange(98).numpy() // 9, 5864).named_parameters())
        (vectors,) = (one for one in parameters.values() if one.ndim == 2 and len(one) == 98)
        assert torch.allclose(vectors.norm(dim=1), torch.ones(98))
        assert optimizer_options(study.config)["lr"] == pytest.approx(
            100 * study.config.training.optimizers["trunk"]["lr"]
        )
    searched = compose(f"dataset=cub loss={name}").make_loss(98, 3, torch.arange(98).numpy() // 9, 5864)
    (vectors,) = (one for one in searched.parameters() if one.ndim == 2 and len(one) == 98)
    assert vectors.norm(dim=1).mean() > 8  # N(0, 1) in 128 dimensions


# -- HIST (Lim et al., CVPR 2022), supplement -------------------------------------------------------------------------

# Tables 2 and 3: optimiser, rate, of distributions, of the network, weight decay, tau, alpha, epochs, decay every.
HIST = {
    "table 3, CUB": ("cub", "resnet50", "Adam", 1.2e-4, 1e-1, 6e-4, 5e-5, 32.0, 1.1, 40, 5),
    "table 3, Cars": ("cars196", "resnet50", "Adam", 1e-4, 1e-1, 1e-3, 1e-4, 32.0, 0.9, 50, 10),
    "table 3, SOP": ("sop", "resnet50", "Adam", 1e-4, 1e-2, 1e-3, 1e-4, 16.0, 2.0, 60, 10),
    "table 2, CUB": ("cub", "bn_inception", "AdamW", 1e-4, 5e-2, 5e-4, 1e-4, 16.0, 1.0, 30, 5),
    "table 2, Cars": ("cars196", "bn_inception", "AdamW", 1e-4, 1e-1, 5e-4, 5e-5, 24.0, 0.9, 60, 10),
    "table 2, SOP": ("sop", "bn_inception", "AdamW", 1e-4, 1e-2, 1e-3, 1e-4, 16.0, 1.6, 60, 10),
}


@pytest.mark.parametrize("row", rows(HIST))
def test_a_row_of_hist_is_trained_as_its_supplement_says(row: tuple[Any, ...], compose: Compose) -> None:
    dataset, trunk, optimizer, rate, distributions, network, decay, tau, alpha, epochs, every = row
    study = compose(f"protocol=traditional loss=hist dataset={dataset} trunk={trunk}")
    assert_trains(study, {
        "optimizer": optimizer, "trunk_lr": rate, "head_lr": rate, "loss_lr": distributions, "weight_decay": decay,
        "loss_weight_decay": decay, "batch_size": 32, "embedding_dim": 512, "pooling": "avg+max", "clip": {},
        "epochs": epochs + 1, "warmup_epochs": 1, "sampler": "shuffled",  # the warm-up epoch comes in addition
        "decay": {"kind": "step", "every": every, "factor": 0.5, "skip": 1},
    })  # fmt: skip
    assert composed_training(study.config).group_lrs["hgnn"] == pytest.approx(network, rel=1e-3)
    assert (study.config.loss.module["tau"], study.config.loss.module["alpha"]) == (tau, alpha)


def test_what_the_command_line_says_of_hist_wins_and_a_search_keeps_its_default(compose: Compose) -> None:
    given = compose("protocol=traditional loss=hist dataset=cars196 trunk=resnet50 loss.setting.tau=16")
    assert (given.config.loss.setting["tau"], given.config.loss.setting["alpha"]) == (16, 0.9)
    assert Study.of(given.raw).config == given.config  # a worker reads it again
    assert compose("loss=hist dataset=cars196 trunk=resnet50").config.loss.setting["tau"] == 16.0


def test_hists_preset_is_that_of_the_trunk_and_another_trunk_is_refused(compose: Compose) -> None:
    found = {
        trunk: compose(f"loss=hist dataset=cars196 trunk={trunk} preset=authors").config.loss.setting
        for trunk in ("resnet50", "bn_inception")
    }
    assert {trunk: (s["tau"], s["hgnn_lr"]) for trunk, s in found.items()} == {
        "resnet50": (32.0, 1e-3),
        "bn_inception": (24.0, 5e-4),
    }
    with pytest.raises(
        UserError, match=r"cars196 with the trunk vit_small\. It has preset=authors with resnet50 for cub"
    ):
        compose("loss=hist dataset=cars196 trunk=vit_small preset=authors")


# -- HIER (Kim et al., CVPR 2023), supplement, table 1, and the scripts for transformers ------------------------------

# Rate, epochs, warm-up, rate of the last layer, weight decay.
HIER = {
    "table 1, CUB, ViT-S": ("cub", "vit_small", 1e-5, 50, 1, 1e-5, 1e-2),
    "table 1, CUB, DeiT-S": ("cub", "deit_small_distilled", 1e-5, 50, 1, 1e-5, 1e-2),
    "table 1, Cars, DINO": ("cars196", "dino_vit_small", 5e-6, 50, 1, 5e-6, 1e-2),
    "table 1, SOP, DeiT-S": ("sop", "deit_small_distilled", 1e-5, 150, 5, 1e-3, 1e-4),
    "table 1, In-Shop, DINO": ("inshop", "dino_vit_small", 5e-6, 150, 5, 5e-4, 1e-4),
}


@pytest.mark.parametrize("loss", ["hier", "soft_triple"])
@pytest.mark.parametrize("row", rows(HIER))
def test_a_row_of_hier_is_trained_as_table_1_says_and_so_is_table_2s_soft_triple(
    row: tuple[Any, ...], loss: str, compose: Compose
) -> None:
    dataset, trunk, rate, epochs, warmup, head, weight_decay = row
    study = compose(f"protocol=traditional training.recipe=hier loss={loss} dataset={dataset} trunk={trunk}")
    assert_trains(study, {
        "optimizer": "AdamW", "trunk_lr": rate, "head_lr": head, "loss_lr": 1e4 * rate, "weight_decay": weight_decay,
        "loss_weight_decay": weight_decay, "batch_size": 180, "sampler": "x 2 per class, no class twice",
        "embedding_dim": 128, "epochs": epochs, "warmup_epochs": warmup, "decay": {}, "clip": {"value": 10.0},
    })  # fmt: skip


def test_hiers_resnet50_has_512_dimensions_and_a_value_on_the_command_line_wins(compose: Compose) -> None:
    resnet = "protocol=traditional loss=hier dataset=cub trunk=resnet50"
    assert_trains(compose(resnet), {"embedding_dim": 512, "decay": {"kind": "step", "every": 5, "factor": 0.5}})
    assert_trains(compose(f"{resnet} protocol.embedding_dim=64"), {"embedding_dim": 64})


# -- ProxyGML (Zhu et al., NeurIPS 2020), supplement ------------------------------------------------------------------

# N, r, lambda, rate of the proxies, factor of the cosines (the repository's issue 2).
# In-Shop, which they did not try, is trained as SOP.
PROXYGML = {"cub": (12, 0.05, 0.3, 3e-2, 1.0), "cars196": (12, 0.05, 0.3, 3e-2, 1.0), "sop": (1, 0.05, 0.0, 3e-1, 20.0)}
PROXYGML["inshop"] = PROXYGML["sop"]


@pytest.mark.parametrize(("dataset", "row"), PROXYGML.items(), ids=lambda part: str(part)[:4])
def test_proxygml_is_trained_as_its_supplement_says(dataset: str, row: tuple[Any, ...], compose: Compose) -> None:
    study = compose(f"protocol=traditional loss=proxygml dataset={dataset}")
    assert_trains(study, {
        "optimizer": "Adam", "trunk_lr": 1e-4, "loss_lr": row[3], "weight_decay": 1e-4, "batch_size": 32,
        "embedding_dim": 512, "pooling": "avg", "epochs": 50, "warmup_epochs": 1, "clip": {}, "sampler": "shuffled",
    })  # fmt: skip
    module, base = study.config.loss.module, study.config.loss.module["base"]
    assert (module["centres_per_class"], base["r"], base["reg_weight"], base["scale"]) == (*row[:3], row[4])
    assert base["replicate_k"] is True  # figure 1: with too small an r, no negative proxy is selected
    searched = compose(f"loss=proxygml dataset={dataset}").config.loss
    assert searched.module["base"]["replicate_k"] is False
    assert (searched.setting["proxies_per_class"], searched.setting["scale"]) == (row[0], row[4])


# -- what authors publish by data set ---------------------------------------------------------------------------------

AUTHORS = {name: found for name in names("loss") if (found := content("loss", name).get("presets", {}).get("authors"))}
PRESETS = {
    f"{name}, {dataset}, {trunk}": (name, dataset, trunk, setting)
    for name, preset in AUTHORS.items()
    for trunk, settings in preset.get("trunks", {"bn_inception": preset}).items()
    for dataset, setting in settings.items()
}
# Other values that a data set has: authors' code or paper, or for data sets that they did not try those of a like one.
BY_DATASET = {
    "PFML, CUB": ("potential_field", "cub", {"proxies_per_class": 15}, 0.05),
    "PFML, Cars": ("potential_field", "cars196", {"proxies_per_class": 15}, 0.01),
    "PFML, SOP": ("potential_field", "sop", {"proxies_per_class": 2}, 0.05),
    "HPL-PFML, CUB": ("hpl_potential_field", "cub", {"proxies_per_class": 15}, 0.05),
    "HAPPIER_inat.yaml": ("happier", "inaturalist2019", {"module.offset": 1.0, "module.start": 0.0}, None),
    "HAPPIER_SOP.yaml": ("happier", "sop", {"module.offset": 1.44, "module.start": 0.5}, None),
    "HIST, In-Shop as SOP": ("hist", "inshop", {"tau": 16.0, "alpha": 1.6}, 0.01),
    "HIST, iNaturalist as SOP": ("hist", "inaturalist2019", {"tau": 16.0, "alpha": 1.6}, 0.01),
    "ranked list, In-Shop": ("ranked_list", "inshop", {"module.queries": "weighted"}, None),
    "ranked list, SOP": ("ranked_list", "sop", {"module.queries": "equal"}, None),
    "margin, CUB": ("margin", "cub", {}, 5e-4),  # Roth et al.: 5e-4 for beta
    "margin, SOP": ("margin", "sop", {}, 5e-4),
    "margin per class, SOP": ("margin_class", "sop", {}, 5e-4),
    "anti-collapse, CUB": ("anti_collapse_proxy_anchor", "cub", {}, 0.02),  # 2000 x 1e-5
    "anti-collapse over ProxyNCA, SOP": ("anti_collapse_proxy_nca", "sop", {}, 0.02),
    "SoftTriple, SOP": ("soft_triple", "sop", {"reg_weight": 0.2}, 100 * 6e-4),
}


@pytest.mark.parametrize("row", rows(PRESETS))
def test_the_traditional_protocol_takes_what_authors_publish_for_data_set_and_trunk(
    row: tuple[str, str, str, dict[str, Any]], compose: Compose
) -> None:
    name, dataset, trunk, published = row
    found = compose(f"protocol=traditional loss={name} dataset={dataset} trunk={trunk}").config
    rates = {key: value for key, value in published.items() if key.endswith("_lr")}
    expected = {key: value for key, value in published.items() if key not in rates}
    assert {key: found.loss.setting[key] for key in expected} == expected
    trained = composed_training(found)
    own = [trained.loss_lr, *trained.group_lrs.values()]
    # HAPPIER's rate on SOP is a multiple of a trunk's rate that Proxy-Anchor's recipe does not have.
    assert name == "happier" or own[: len(rates)] == pytest.approx([*rates.values()], rel=1e-3)


@pytest.mark.parametrize("row", rows(BY_DATASET))
def test_the_traditional_protocol_takes_other_values_by_data_set(row: tuple[Any, ...], compose: Compose) -> None:
    name, dataset, expected, rate = row
    found = compose(f"protocol=traditional loss={name} dataset={dataset} trunk=bn_inception").config
    for key, value in expected.items():
        part, _, last = key.rpartition(".")
        assert (found.loss.module if part else found.loss.setting)[last] == value, key
    assert composed_training(found).loss_lr == pytest.approx(rate) or rate is None


@pytest.mark.parametrize("loss", ["soft_triple", "hpl_soft_triple", "proxy_nca_pp"])
def test_a_rate_that_its_authors_chose_for_a_large_eps_of_adam_comes_with_it(loss: str, compose: Compose) -> None:
    """SoftTriple's train.py: --eps 0.01; Proxy-NCA++: 1."""
    for dataset in ("cub", "sop"):
        options = optimizer_options(compose(f"protocol=traditional loss={loss} dataset={dataset}").config)
        assert options["eps"] == (1.0 if loss == "proxy_nca_pp" else 0.01)


def test_hiers_soft_triple_is_the_librarys_without_a_regulariser_and_with_the_recipes_eps(compose: Compose) -> None:
    study = compose("protocol=traditional training.recipe=hier loss=soft_triple dataset=cub trunk=deit_small_distilled")
    assert study.config.loss.module["base"]["reg_weight"] == 0 and "eps" not in optimizer_options(study.config)
    own = compose("protocol=traditional loss=soft_triple dataset=cub trunk=deit_small_distilled")
    assert own.config.loss.module["base"]["reg_weight"] == 0.2


def test_a_row_describes_itself_in_words(compose: Compose) -> None:
    cells = composed_training(compose("protocol=traditional loss=hist dataset=cub trunk=resnet50").config).cells()
    assert cells["lr loss"] == "0.09996, hgnn 0.0006" and cells["decay"] == "step every 5 factor 0.5 skip 1"
    assert (cells["epochs"], cells["batch"], cells["clip"], cells["dim"]) == ("41", "32 shuffled", "none", "512")
    assert composed_training(compose("loss=contrastive").config).cells()["lr loss"] == "-"
