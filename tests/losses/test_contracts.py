"""What every loss of conf/loss must keep; a new file there is tested without a change here."""

import functools
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

FOLDER = Path(__file__).parents[2] / "conf" / "loss"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
CLASSES, DIM = 8, 6
DATASET = {"hpl": {"warmup_iterations": 2, "num_coarse": 3, "num_coarse_bounds": [2, 4],
                   "update_every": 2, "update_every_bounds": [1, 4]}}  # fmt: skip
OFFERED = {
    "num_classes": CLASSES,
    "embedding_dim": DIM,
    "seed": 5,
    "class_to_super": np.array([4, 4, 2, 2, 9, 9, 9, 4]),
}
every_loss = pytest.mark.parametrize("name", NAMES)


@functools.cache
def load(path):
    return OmegaConf.load(path)


def config(name, folder=FOLDER, **setting):
    """The file with the rest of the configuration that it refers to, resolved, in plain containers."""
    loss = load(folder / f"{name}.yaml")
    whole = OmegaConf.create({"dataset": DATASET, "protocol": {"embedding_dim": DIM}, "loss": loss})
    for key, value in setting.items():
        whole.loss.setting[key] = value
    return OmegaConf.to_container(whole, resolve=True)["loss"]


def build(name, folder=FOLDER, **setting):
    node = config(name, folder, **setting)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module = hydra.utils.instantiate(
            node["module"], **{key: OFFERED[key] for key in node["needs"]}, _convert_="all"
        )
    return module, node


def toy_batch(seed=0):
    """12 samples of 4 classes, of lengths from 1e-3 to 1e3, two of them equal."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(12, DIM, generator=generator) * torch.logspace(-3, 3, 12)[:, None]
    embeddings[4] = embeddings[0]
    return embeddings, torch.tensor([0, 1, 2, 3] * 3)


def train(module, node, steps):
    """RMSprop on the loss's own parameters; the loss of every step."""
    parameters = list(module.parameters())
    optimizer = torch.optim.RMSprop(parameters, lr=node["optimizer"]["lr"]) if parameters else None
    losses = []
    for step in range(steps):
        embeddings, labels = toy_batch(step)
        loss = module(embeddings.requires_grad_(), labels)
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        if optimizer:
            optimizer.step()
        getattr(module, "after_step", lambda: None)()
        assert loss.isfinite(), f"step {step}"
        assert embeddings.grad.isfinite().all(), f"step {step}"
        assert all(p.isfinite().all() for p in parameters), f"step {step}"
        losses.append(loss.item())
    return losses


def sobol_settings(space, num):
    """Scrambled Sobol points of the space, then its two extreme corners."""
    points = torch.quasirandom.SobolEngine(len(space), scramble=True, seed=0).draw(num)
    points = torch.cat([points, torch.zeros(1, len(space)), torch.ones(1, len(space))]).double()
    for point in points.tolist():
        setting = {}
        for (key, parameter), u in zip(space.items(), point, strict=True):
            low, high = parameter["bounds"]
            value = low * (high / low) ** u if parameter["scale"] == "log" else low + (high - low) * u
            setting[key] = round(value) if parameter["type"] == "int" else value
        yield setting


def test_the_list_of_losses_has_at_least_the_nine_of_the_papers():
    assert set(NAMES) >= {"contrastive", "proxy_nca", "proxy_nca_eq3", "proxy_anchor"}
    assert set(NAMES) >= {"hpl_nca", "hpl_nca_eq3", "hpl_pa", "hpl_nca_gt", "hpl_pa_gt"}


@every_loss
def test_says_what_it_is_and_where_it_comes_from(name):
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


@every_loss
def test_has_only_the_known_keys(name):
    node = config(name)
    required = {"name", "label", "description", "source", "needs", "module", "sampler", "optimizer", "setting", "space"}
    assert required <= node.keys() <= required | {"retrieval"}
    assert set(node["needs"]) <= OFFERED.keys()
    assert node["sampler"]["m"] >= 1


@every_loss
def test_published_setting_lies_inside_its_space(name):
    node = config(name)
    assert node["space"]
    assert node["space"].keys() <= node["setting"].keys()
    for key, parameter in node["space"].items():
        low, high = parameter["bounds"]
        assert parameter.keys() == {"bounds", "scale", "type"}
        assert low <= node["setting"][key] <= high, key
        assert low < high
        assert parameter["scale"] == "linear" or (parameter["scale"] == "log" and low > 0)
        assert parameter["type"] == "float" or all(isinstance(v, int) for v in (low, high, node["setting"][key]))


@every_loss
def test_every_setting_reaches_the_constructor_or_the_optimizer(name):
    before = config(name)
    for key in before["setting"]:
        after = config(name, **{key: before["setting"][key] + 1})
        assert (before["module"], before["optimizer"]) != (after["module"], after["optimizer"]), key


@every_loss
def test_parameters_come_with_a_learning_rate_and_no_parameters_without(name):
    module, node = build(name)
    assert bool(list(module.parameters())) == bool(node["optimizer"] and node["optimizer"]["lr"])


@every_loss
def test_is_finite_and_reaches_embeddings_and_parameters(name):
    module, _ = build(name)
    embeddings, labels = toy_batch()
    loss = module(embeddings.requires_grad_(), labels)
    loss.backward()
    assert loss.shape == ()
    assert loss.isfinite()
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.abs().max() > 0
    for parameter in module.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0


@every_loss
@pytest.mark.parametrize("steps", [0, 4])
def test_order_of_the_batch_does_not_matter(name, steps):
    module, node = build(name)
    train(module, node, steps)
    embeddings, labels = toy_batch()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    assert module(embeddings[order], labels[order]).item() == pytest.approx(module(embeddings, labels).item(), rel=1e-5)


@every_loss
def test_a_few_optimizer_steps_lower_it(name):
    module, _ = build(name)
    embeddings, labels = toy_batch()
    embeddings = torch.nn.functional.normalize(embeddings, dim=1).requires_grad_()
    optimizer = torch.optim.Adam([embeddings, *module.parameters()], lr=0.05)
    losses = []
    for _ in range(30):
        loss = module(embeddings, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        getattr(module, "after_step", lambda: None)()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1 * abs(losses[0])


@every_loss
def test_stays_finite_in_float32_all_over_its_space(name):
    for setting in sobol_settings(config(name)["space"], 100):
        module, node = build(name, **setting)
        try:
            train(module, node, 4)
        except AssertionError as error:
            raise AssertionError(f"not finite at {setting}") from error


@every_loss
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_goes_on_after_a_checkpoint_as_if_nothing_had_happened(name, steps):
    module, node = build(name)
    train(module, node, steps)
    twin, _ = build(name)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.load_state_dict(module.state_dict())
    assert train(twin, node, 5) == train(module, node, 5)


@every_loss
def test_diagnostics_are_plain_numbers(name):
    module, node = build(name)
    train(module, node, 4)
    diagnostics = getattr(module, "diagnostics", dict)()
    assert all(type(key) is str and type(value) is float for key, value in diagnostics.items())


def test_a_hierarchy_of_three_levels_is_only_yaml(tmp_path):
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
