"""The contract of every loss in conf/loss; new files are tested automatically."""

import dataclasses
import functools

import pytest
import torch
from omegaconf import OmegaConf

from benchmark.losses import (
    HasAfterStep,
    HasDiagnostics,
    HasDistributions,
    HasMemory,
    HasRecordFields,
    HasWarnings,
    contract,
)
from benchmark.losses.proxies import ProxyLoss
from benchmark.losses.proxy_nca import ProxyNCA
from benchmark.losses.regularized import Regularized
from benchmark.study.config import LossConfig
from tests.cases import for_each
from tests.losses.every_loss import (
    CLASSES,
    FAST,
    FOLDER,
    NAMES,
    OFFERED,
    build,
    config,
    subject,
    train,
)  # fmt: skip

REQUIRED = {"name", "label", "description", "source", "needs", "module", "sampler", "optimizer", "setting", "space"}
OPTIONAL = {"base", "head", "retrieval", "retrieval_options", "authors", "presets", "recipe", "schedule", "unread",
            "usual"}  # fmt: skip
RECIPE = {"lr", "lr_multiplier", "weight_decay", "eps", "groups"}
DATASETS = {"cub", "cars196", "sop", "inshop", "inaturalist2019"}
PAPERS = {
    "contrastive", "triplet", "triplet_semihard", "ntxent", "margin", "margin_class", "fastap", "snr", "ms", "ms_miner",
    "xbm", "proxy_nca", "proxy_nca_eq3", "proxy_nca_pp", "proxy_anchor", "normalized_softmax", "cosface", "arcface",
    "soft_triple", "proxygml", "hist", "hier", "happier", "hpl_nca", "hpl_nca_eq3", "hpl_pa", "hpl_nca_gt", "hpl_pa_gt",
    "smooth_ap", "roadmap", "recall_at_k", "supcon", "circle", "circle_class", "hyp", "lifted_structure", "n_pairs",
    "histogram", "ranked_list", "potential_field", "center_contrastive", "tcm_contrastive", "tcm_proxy_anchor",
    "anti_collapse_proxy_anchor", "anti_collapse_proxy_nca", "dcl", "group",
}  # fmt: skip
LABELS = torch.arange(200).remainder(20).numpy()


@functools.cache
def course(name):
    """One training of a loss, which the tests share; nothing in it may be changed."""
    return contract.course_of(subject(name))


def test_every_loss_of_the_papers_is_there():
    assert set(NAMES) >= PAPERS


@for_each("name", NAMES)
def test_has_a_name_a_description_and_a_source(name):
    node = config(name)
    assert node["name"] == name
    assert node["description"].endswith(".")
    assert len(node["source"]) > 20
    assert node["label"]
    header = [line for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    assert any(f"LOSS={name}" in line for line in header)
    assert any("easured" in line for line in header)


def test_no_two_losses_share_a_label():
    labels = [config(name)["label"] for name in NAMES]
    assert sorted(set(labels)) == sorted(labels)


@for_each("name", NAMES)
def test_has_only_the_known_keys(name):
    node = config(name)
    assert REQUIRED <= node.keys() <= REQUIRED | OPTIONAL
    assert set(node["needs"]) <= OFFERED.keys()
    assert (FOLDER.parent / "recipe" / f"{node.get('recipe', 'proxy_anchor')}.yaml").is_file()
    assert node["retrieval"] in ("l2", "hyperbolic") if "retrieval" in node else "retrieval_options" not in node


@pytest.fixture(scope="module")
def study(compose_study_in, tmp_path_factory):
    return compose_study_in(tmp_path_factory.mktemp("results"), "protocol.batch_size=12")


@functools.cache
def schema():
    return OmegaConf.structured(LossConfig)


@for_each("name", NAMES, fast=FAST)
def test_its_sampler_draws_batches(name, study):
    loss = OmegaConf.to_object(OmegaConf.merge(schema(), config(name)))  # every file has the schema
    sampler = dataclasses.replace(study, config=dataclasses.replace(study.config, loss=loss)).make_sampler(LABELS, 0)
    assert len(set(sampler.batch(3).tolist())) == 12


@for_each("name", NAMES)
def test_published_setting_lies_inside_its_space(name):
    node = config(name)
    assert node["space"]
    assert node["space"].keys() <= node["setting"].keys()
    for key, parameter in node["space"].items():
        assert {"bounds", "scale", "type"} <= parameter.keys() <= {"bounds", "scale", "type", "datasets"}
        low, high = parameter["bounds"]
        assert low <= node["setting"][key] <= high, key
        of_datasets = parameter.get("datasets", {}).values()
        for low, high in (parameter["bounds"], *(own for own in of_datasets if isinstance(own, list))):
            assert low < high
            assert parameter["scale"] == "linear" or (parameter["scale"] == "log" and low > 0)
            assert parameter["type"] == "float" or all(isinstance(v, int) for v in (low, high, node["setting"][key]))
        assert parameter.get("datasets", {}).keys() <= DATASETS


@for_each("name", NAMES)
def test_presets_are_settings_within_the_bounds_of_their_data_set(name):
    node = config(name)
    presets = [
        part for preset in node.get("presets", {}).values() for part in preset.get("trunks", {"": preset}).values()
    ]
    for preset in presets:
        assert set(preset) <= DATASETS
        for dataset, setting in preset.items():
            assert setting and setting.keys() <= node["setting"].keys()
            for key, value in setting.items():
                if key in node["space"]:
                    parameter = node["space"][key]
                    own = parameter.get("datasets", {}).get(dataset, parameter["bounds"])  # a number: not searched
                    low, high = own if isinstance(own, list) else (own, own)
                    assert low <= value <= high, (dataset, key)


@for_each("name", NAMES, fast=FAST)
def test_every_setting_reaches_the_constructor_or_the_optimizer(name):
    before = config(name)
    for key in before["setting"]:
        after = config(name, **{key: before["setting"][key] + 1})
        assert any(before[part] != after[part] for part in ("module", "optimizer")), key


@for_each("name", NAMES, fast=FAST)
def test_a_loss_has_a_learning_rate_exactly_if_it_has_parameters(name):
    module, node = build(name)
    assert not contract.has_a_learning_rate_if_it_learns(course(name))
    names = [parameter for parameter, _ in module.named_parameters()]
    for prefix in (node["optimizer"] or {}).get("groups", {}):
        assert 0 < sum(parameter.startswith(prefix) for parameter in names) < len(names), prefix


@for_each("name", NAMES, fast=FAST)
def test_an_authors_recipe_fits_the_parameters(name):
    module, node = build(name)
    names = [parameter for parameter, _ in module.named_parameters()]
    recipe = node.get("authors", {})
    assert {"lr", "lr_multiplier"} & recipe.keys() or not names or name not in PAPERS
    trunks, recipes = recipe.get("trunks", {}), recipe.get("recipes", {})
    nodes = (recipe, *trunks.values(), *recipes.values())
    by_dataset = [part for part in nodes for part in part.get("datasets", {}).values()]
    for part in (*nodes, *by_dataset):
        assert part.keys() <= RECIPE | {"warmup_epochs", "datasets", "trunks", "recipes", "usual"}
        assert part.get("usual", {}).keys() <= node.get("usual", {}).keys()
        for prefix, group in part.get("groups", {}).items():
            assert group.keys() <= RECIPE
            assert any(parameter.startswith(prefix) for parameter in names)
    assert set().union(*(part.get("datasets", {}) for part in nodes)) <= DATASETS
    assert all((FOLDER.parent / "trunk" / f"{trunk}.yaml").exists() for trunk in trunks)
    assert all((FOLDER.parent / "recipe" / f"{name}.yaml").exists() for name in recipes)


@for_each("name", NAMES, fast=FAST)
def test_is_finite_and_reaches_embeddings_and_parameters(name):
    assert not contract.is_finite_and_reaches_what_is_trained(course(name))


@for_each("name", NAMES, fast=FAST)
@pytest.mark.parametrize("steps", [0, contract.TRAINED])
def test_order_of_the_batch_does_not_matter(name, steps):
    assert not contract.does_not_depend_on_order(course(name), [steps])


@for_each("name", NAMES, fast=FAST)
def test_a_few_optimizer_steps_lower_the_loss(name):
    assert not contract.falls_in_a_few_steps(course(name))


@for_each("name", NAMES, fast=FAST)
def test_an_unusual_batch_has_a_finite_loss_and_finite_gradients(name):
    assert not contract.is_finite_for_unusual_batches(course(name))


@for_each("name", NAMES, fast=FAST)
def test_autocast_changes_no_bit(name):
    results = []
    for cast in (False, True):
        module, (features, labels) = course(name).module(), contract.toy_batch()
        embeddings = course(name).subject.head(features).detach().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            loss = module(embeddings, labels)
        results.append((loss, *torch.autograd.grad(loss, [embeddings, *module.parameters()])))
    assert all(torch.equal(plain, other) for plain, other in zip(*results, strict=True))


@for_each("name", NAMES, fast=FAST)
def test_resumes_from_a_checkpoint_bit_for_bit(name):
    assert not contract.resumes(course(name))


@for_each("name", NAMES, fast=FAST)
def test_draws_nothing_from_the_global_generators(name):
    assert not contract.draws_nothing(course(name))


@for_each("name", NAMES, fast=FAST)
def test_diagnostics_record_fields_and_warnings_are_plain_values(name):
    assert not contract.reports_plain_values(course(name))
    module = course(name).module()
    diagnostics = module.diagnostics() if isinstance(module, HasDiagnostics) else {}
    history = [{"epoch": 0, "diagnostics": diagnostics}]
    fields = module.record_fields(history, 0) if isinstance(module, HasRecordFields) else {}
    vectors = [p for key, p in module.named_parameters() if key.endswith(("proxies", "means"))]
    assert not vectors or fields["num_proxies"] >= sum(len(p) for p in vectors) > 0


@pytest.mark.slow
def test_protocols_recognise_the_optional_methods():
    modules = {name: course(name).after[0][0] for name in NAMES}

    def which(part):
        return {name for name, module in modules.items() if isinstance(module, part)}

    offered = {part: which(part) for part in (HasAfterStep, HasDiagnostics, HasMemory, HasRecordFields, HasWarnings)}
    hpl = {name for name in NAMES if name.startswith("hpl_")}
    with_proxies = which((ProxyLoss, ProxyNCA)) | {"group", "happier", "hier", "hist"}
    added = which(Regularized)  # passes on what its base offers
    assert offered == {
        HasAfterStep: hpl | added | {"group", "hier", "n_pairs"}, HasDiagnostics: hpl | added | {"hier", "hist", "xbm"},
        HasMemory: {"xbm"}, HasRecordFields: hpl | added | with_proxies | {"xbm"},
        HasWarnings: hpl | added | {"xbm"},
    }  # fmt: skip


def test_optional_interfaces_have_methods_only():
    # From Python 3.12 on, isinstance() does not see what a module finds by __getattr__: parameters and buffers.
    interfaces = (HasAfterStep, HasDiagnostics, HasDistributions, HasMemory, HasRecordFields, HasWarnings)
    assert not any(interface.__annotations__ for interface in interfaces)


def test_a_hierarchy_of_three_levels_needs_only_yaml(tmp_path):
    text = (FOLDER / "hpl_nca.yaml").read_text()
    text = text.replace('    - {scale: "${loss.setting.scale_1}"}\n', "    - {scale: 30.0}\n    - {scale: 4.0}\n")
    text = text.replace("weights: [1.0, 0.1]", "weights: [1.0, 0.1, 0.1]")
    text = text.replace("num_coarse: ${loss.setting.num_coarse}", "num_coarse: [4, 2]")
    (tmp_path / "three.yaml").write_text(text)
    module, node = build("three", tmp_path)
    train(module, node, 5)
    report = module.diagnostics()
    assert {"loss_level_0", "loss_level_1", "loss_level_2", "owner_changes_level_2"} <= report.keys()
    assert [len(vectors) for vectors in module.level_proxies()] == [CLASSES, 4, 2]
