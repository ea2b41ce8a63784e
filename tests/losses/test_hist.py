"""HIST, compared with its equations in loops over floats and values worked out by hand; incomplete batches."""

import math
import re

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.losses.hist import HIST, incidence, propagation, squared_distances
from benchmark.study.passes import in_passes
from tests.cases import slow_except

SETTINGS = {"tau": 6.0, "alpha": 0.8, "hidden": 4, "semantic_weight": 0.7, "logvar_clamp": (0.0, 6.0), "seed": 1}
BATCHES = {
    "several classes": [3, 0, 3, 5, 0, 3, 6, 1],
    "one class": [4, 4, 4, 4, 4, 4, 4, 4],
    "singletons": [6, 5, 4, 3, 2, 1, 0, 7],
}


def hist(num_classes=8, embedding_dim=5, **changes):
    """Build HIST in float64 without neutral parameters: log-variances from -1.5 to 4, batch norm not 1 and 0."""
    module = HIST(num_classes, embedding_dim, **(SETTINGS | changes)).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        module.log_vars.uniform_(-1.5, 4, generator=generator)
        module.hgnn.bn1.weight.uniform_(0.5, 2, generator=generator)
        module.hgnn.bn1.bias.uniform_(-1, 1, generator=generator)
    return module


def embeddings_of(num, embedding_dim=5, seed=3):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.linspace(0.5, 3, num, dtype=torch.float64)[:, None]
    return torch.randn(num, embedding_dim, generator=generator, dtype=torch.float64) * lengths


def unit(vector):
    return [v / math.hypot(*vector) for v in vector]


def distances_by_loops(embeddings, means, log_vars, clamp):
    low, high = clamp or (-math.inf, math.inf)
    rows = []
    for z in map(unit, embeddings):
        row = []
        for mu, v in zip(map(unit, means), log_vars, strict=True):
            terms = zip(z, mu, v, strict=True)
            row.append(sum((a - b) ** 2 / math.exp(min(max(c, low), high)) for a, b, c in terms))
        rows.append(row)
    return rows


def graph_by_loops(distances, labels, alpha):
    """Compute G: the sum over hyperedges e of h_ie h_je / (d_e sqrt(d_i d_j)), present classes only."""
    edges = sorted(set(labels))
    h = [[1 if y == c else math.exp(-alpha * row[c]) for c in edges] for row, y in zip(distances, labels, strict=True)]
    node = [sum(row) for row in h]
    edge = [sum(row[e] for row in h) for e in range(len(edges))]
    return [[sum(a * b / d for a, b, d in zip(first, second, edge, strict=True)) / math.sqrt(m * n)
             for second, n in zip(h, node, strict=True)] for first, m in zip(h, node, strict=True)]  # fmt: skip


def layer_by_loops(rows, weight, bias, graph):
    moved = [[sum(a * b for a, b in zip(row, w, strict=True)) + c for w, c in zip(weight, bias, strict=True)]
             for row in rows]  # fmt: skip
    return [[sum(g * moved[j][k] for j, g in enumerate(edge)) for k in range(len(bias))] for edge in graph]


def normalise_by_loops(rows, scale, shift):
    """Apply batch normalisation with the batch's own statistics, then leaky ReLU."""
    columns = []
    for column, a, b in zip(zip(*rows, strict=True), scale, shift, strict=True):
        mean = sum(column) / len(column)
        variance = sum((v - mean) ** 2 for v in column) / len(column)
        values = [a * (v - mean) / math.sqrt(variance + 1e-5) + b for v in column]
        columns.append([v if v > 0 else 0.1 * v for v in values])
    return list(map(list, zip(*columns, strict=True)))


def cross_entropy_by_loops(scores, labels):
    total = 0.0
    for row, label in zip(scores, labels, strict=True):
        total += math.log(sum(math.exp(s - row[label]) for s in row))
    return total / len(labels)


def loss_by_loops(module, embeddings, labels):
    state = {name: tensor.tolist() for name, tensor in module.state_dict().items()}
    rows = embeddings.tolist()
    distances = distances_by_loops(rows, state["means"], state["log_vars"], module.logvar_clamp)
    first = cross_entropy_by_loops([[-module.tau * d for d in row] for row in distances], labels)
    graph = graph_by_loops(distances, labels, module.alpha)
    rows = layer_by_loops(rows, state["hgnn.theta1.weight"], state["hgnn.theta1.bias"], graph)
    rows = normalise_by_loops(rows, state["hgnn.bn1.weight"], state["hgnn.bn1.bias"])
    scores = layer_by_loops(rows, state["hgnn.theta2.weight"], state["hgnn.theta2.bias"], graph)
    return first + module.semantic_weight * cross_entropy_by_loops(scores, labels)


@pytest.mark.parametrize("clamp", [(0.0, 6.0), None, (-1.0, 2.0)])
@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
def test_agrees_with_the_equations_in_loops(labels, clamp):
    module, embeddings = hist(logvar_clamp=clamp), embeddings_of(8)
    expected = loss_by_loops(module, embeddings, labels)
    assert module(embeddings, torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-12)
    single = module.float()(embeddings.float(), torch.tensor(labels))
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-5)


def test_two_classes_and_exact_duplicates_agree_with_the_loops():
    module, embeddings, labels = hist(num_classes=2), embeddings_of(6), [0, 1, 1, 0, 0, 1]
    embeddings[3], embeddings[5] = embeddings[0], embeddings[0]
    leaf = embeddings.requires_grad_()
    loss = module(leaf, torch.tensor(labels))
    assert loss.item() == pytest.approx(loss_by_loops(module, embeddings, labels), rel=1e-12)
    assert loss.item() > 0.5
    assert torch.autograd.grad(loss, leaf)[0].isfinite().all()


@pytest.mark.parametrize("labels", [BATCHES["several classes"][:5], [2, 2, 2]], ids=["several classes", "one class"])
def test_gradients_agree_with_finite_differences(labels):
    module, embeddings = hist(embedding_dim=3, hidden=3), embeddings_of(len(labels), 3).requires_grad_()
    names = [name for name, _ in module.named_parameters()]
    targets = torch.tensor(labels)

    def loss(z, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (z, targets))

    assert torch.autograd.gradcheck(loss, (embeddings, *module.parameters()), atol=1e-6)


def test_distances_worked_out_by_hand():
    # z = (0.6, 0.8). To (1, 0) with variances (2, 4): 0.16/2 + 0.64/4 = 0.24. To (0, 1): 0.36 + 0.04 = 0.4, since a
    # log-variance of -3 is clamped to 0; without clamping e^3 (0.36 + 0.04).
    z, means = torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0, 0.0], [0.0, 0.1]])
    log_vars = torch.tensor([[math.log(2), math.log(4)], [-3.0, -3.0]])
    cut = squared_distances(z, means, log_vars, (0.0, 6.0))
    free = squared_distances(z, means, log_vars, None)
    assert cut.tolist() == [pytest.approx([0.24, 0.4], rel=1e-6)]
    assert free.tolist() == [pytest.approx([0.24, 0.4 * math.exp(3)], rel=1e-6)]


def test_a_hypergraph_worked_out_by_hand():
    # Classes 0 and 2 are present, e^-D is 1/2 across. Rows sum to 3/2; edges to 1 + 1 + 1/2 and 1/2 + 1/2 + 1.
    # G_00 = (1/2.5 + 1/4/2)/1.5 = 0.35, G_02 = (0.5/2.5 + 0.5/2)/1.5 = 0.3, G_22 = (1/4/2.5 + 1/2)/1.5 = 0.4.
    distance = torch.tensor([[0.1, 9.0, 1.0], [0.7, 9.0, 1.0], [1.0, 9.0, 3.0]])
    edges = incidence(distance, torch.tensor([0, 0, 2]), math.log(2))
    torch.testing.assert_close(edges, torch.tensor([[1, 0, 0.5], [1, 0, 0.5], [0.5, 0, 1]]))
    expected = torch.tensor([[0.35, 0.35, 0.3], [0.35, 0.35, 0.3], [0.3, 0.3, 0.4]])
    torch.testing.assert_close(propagation(edges), expected)


def test_float32_keeps_every_distance_to_a_millionth_and_none_below_zero():
    embeddings, means = embeddings_of(64, 128), embeddings_of(40, 128, seed=4)
    embeddings[:40] = means * 3  # distance 0
    log_vars = embeddings_of(40, 128, seed=5)
    found = squared_distances(embeddings.float(), means.float(), log_vars.float(), (0.0, 6.0))
    z, mu = (torch.nn.functional.normalize(v, dim=1) for v in (embeddings, means))
    expected = ((z[:, None] - mu) ** 2 / log_vars.clamp(0, 6).exp()).sum(dim=2)
    assert found.min() >= 0
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_sample_opposite_to_its_class_keeps_its_loss_and_its_gradient_in_float32():
    # Means (1, 0) and (-1, 0), variances 1, tau = 64. The first sample lies on its mean: log(1 + e^-256) = 0. The
    # second lies on the other one: 64 * 4 = 256, although e^-256 is 0 in float32; its slope in z is 64 * 4 over B = 2.
    module = HIST(2, 2, **(SETTINGS | {"tau": 64.0, "semantic_weight": 0.0}))
    with torch.no_grad():
        module.means.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        module.log_vars.zero_()
    embeddings = torch.tensor([[2.0, 0.0], [-math.cos(0.1), math.sin(0.1)]], requires_grad=True)
    loss = module(embeddings, torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(128 * math.cos(0.1), rel=1e-5)  # D_own - D_other = 4 cos(0.1)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert gradient[1].norm().item() == pytest.approx(128 * math.sin(0.1), rel=1e-3)


def test_only_log_variances_within_their_bounds_get_a_gradient():
    labels = torch.tensor(BATCHES["several classes"])
    for clamp in ((0.0, 3.0), None):
        module = hist(logvar_clamp=clamp)
        with torch.no_grad():
            module.log_vars[0, :2] = torch.tensor([0.0, 3.0])  # at the bounds, as in ReLU6, no gradient either
        module(embeddings_of(8), labels).backward()
        inside = (module.log_vars > 0) & (module.log_vars < 3) if clamp else torch.ones_like(module.log_vars) > 0
        assert torch.equal(module.log_vars.grad != 0, inside)
        assert 0.2 < module.diagnostics()["free_logvar_share"] <= 1
        assert module.diagnostics()["free_logvar_share"] == pytest.approx(inside.double().mean().item())


def test_the_network_reaches_the_distributions_through_the_hypergraph():
    module = hist(semantic_weight=0.0)
    arguments = embeddings_of(8), torch.tensor(BATCHES["several classes"])
    without = torch.autograd.grad(module(*arguments), [module.means, module.log_vars])
    module.semantic_weight = 1.0
    with_it = torch.autograd.grad(module(*arguments), [module.means, module.log_vars])
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(with_it, without, strict=True))


def test_diagnostics_hold_the_parts_of_the_last_loss():
    module = hist()
    assert module.diagnostics().keys() == {"free_logvar_share"}
    loss = module(embeddings_of(8), torch.tensor(BATCHES["several classes"]))
    report = module.diagnostics()
    assert loss.item() == pytest.approx(report["loss_distribution"] + 0.7 * report["loss_semantic"], rel=1e-12)


def test_a_single_sample_has_the_distribution_loss_only():
    module, embeddings = hist(), embeddings_of(1)
    loss = module(embeddings, torch.tensor([3]))
    state = {name: tensor.tolist() for name, tensor in module.state_dict().items()}
    distances = distances_by_loops(embeddings.tolist(), state["means"], state["log_vars"], (0.0, 6.0))
    expected = cross_entropy_by_loops([[-6 * d for d in row] for row in distances], [3])
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert module.means.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in module.hgnn.parameters())
    assert "loss_semantic" not in module.diagnostics()


def test_evaluation_mode_and_earlier_batches_change_nothing():
    module, arguments = hist(), (embeddings_of(8), torch.tensor(BATCHES["several classes"]))
    first = module(*arguments)
    module(100 * embeddings_of(8, seed=9), arguments[1])
    assert torch.equal(module(*arguments), first)
    assert torch.equal(module.eval()(*arguments), first)
    assert not list(module.buffers())


@pytest.mark.parametrize("tau", [1.0, 64.0])
@pytest.mark.parametrize("alpha", [0.1, 4.0])
@pytest.mark.parametrize("clamp", [(0.0, 6.0), None])
def test_is_finite_in_float32_at_the_ends_of_its_space(tau, alpha, clamp):
    module = HIST(300, 16, **(SETTINGS | {"tau": tau, "alpha": alpha, "logvar_clamp": clamp}))
    embeddings = embeddings_of(32, 16).float()
    embeddings[5], embeddings[6] = embeddings[4], 0
    leaves = [embeddings.requires_grad_(), *module.parameters()]
    loss = module(embeddings, torch.arange(32) % 11 * 27)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, leaves))


def test_autocast_changes_no_bit_and_the_embeddings_decide_the_type():
    module, labels = HIST(8, 5, **SETTINGS), torch.tensor(BATCHES["several classes"])
    embeddings = embeddings_of(8)
    plain = module(embeddings.float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(embeddings.float(), labels), plain)
        double = module(embeddings, labels)
        assert module(embeddings.bfloat16(), labels).dtype == torch.float32
    assert double.dtype == torch.float64
    assert double.item() == pytest.approx(loss_by_loops(module, embeddings, labels.tolist()), rel=1e-12)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_initial_values_depend_on_the_seed_alone_and_follow_the_authors():
    before = torch.get_rng_state()
    first, again, other = (HIST(200, 64, **(SETTINGS | {"hidden": 100, "seed": seed})) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    for name, tensor in first.named_parameters():
        assert torch.equal(tensor, again.get_parameter(name))
        assert torch.equal(tensor, other.get_parameter(name)) == name.startswith("hgnn.bn1"), name
    for distribution in (first.means, first.log_vars):  # kaiming-normal, fan_out: sqrt(2 / 200) = 0.1
        assert distribution.std().item() == pytest.approx(0.1, rel=0.03)
    assert not torch.equal(first.means, first.log_vars)
    for layer, bound in ((first.hgnn.theta1, 1 / 8), (first.hgnn.theta2, 1 / 10)):
        for tensor in (layer.weight, layer.bias):
            assert 0.9 * bound < tensor.abs().max().item() <= bound


@pytest.mark.parametrize(
    ("name", "value"),
    [("tau", 0.0), ("tau", math.inf), ("alpha", -1.0), ("alpha", math.nan), ("hidden", 0), ("hidden", 2.5),
     ("num_classes", 0), ("embedding_dim", 0), ("semantic_weight", -0.1), ("semantic_weight", math.inf),
     ("logvar_clamp", (6.0, 0.0)), ("logvar_clamp", (0.0,))],
)  # fmt: skip
def test_an_argument_out_of_range_is_named(name, value):
    with pytest.raises(UserError, match=re.escape(f"{name}={value} of HIST")):
        HIST(**({"num_classes": 8, "embedding_dim": 5} | SETTINGS | {name: value}))


# -- the supplement's ablations ---------------------------------------------------------------------------------------


def by_numpy(
    state, embeddings, labels, *, tau=6.0, alpha=0.8, lambda_d=1.0, lambda_s=0.7, relations, variances="learned"
):
    """The loss of an ablation, written out with numpy arrays and the attention of Vaswani et al. (equation 1)."""
    num = len(labels)
    z = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    mu = state["means"] / np.linalg.norm(state["means"], axis=1, keepdims=True)
    scale = np.exp(np.clip(state["log_vars"], 0, 6)) if variances == "learned" else np.ones_like(mu)
    distance = np.array([[np.sum((a - b) ** 2 / c) for b, c in zip(mu, scale, strict=True)] for a in z])
    same = np.array([[float(a == b) for b in labels] for a in labels])
    if relations == "none":
        graph = np.identity(num)
    elif relations == "positive":  # a class of n images: each is the mean of all n
        graph = same / same.sum(axis=1, keepdims=True)
    elif relations == "attention":
        q = embeddings @ state["hgnn.query.weight"].T + state["hgnn.query.bias"]
        k = embeddings @ state["hgnn.key.weight"].T + state["hgnn.key.bias"]
        exponentials = np.exp(q @ k.T / math.sqrt(q.shape[1]))
        graph = exponentials / exponentials.sum(axis=1, keepdims=True)
    else:
        graph = np.array(graph_by_loops(distance.tolist(), labels, alpha))
    hidden = graph @ (embeddings @ state["hgnn.theta1.weight"].T + state["hgnn.theta1.bias"])
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    hidden = hidden * state["hgnn.bn1.weight"] + state["hgnn.bn1.bias"]
    hidden = np.where(hidden > 0, hidden, 0.1 * hidden)
    scores = graph @ (hidden @ state["hgnn.theta2.weight"].T + state["hgnn.theta2.bias"])
    first, second = (cross_entropy_by_loops(x.tolist(), labels) for x in (-tau * distance, scores))
    return lambda_d * first + lambda_s * second


@pytest.mark.parametrize("relations", ["semantic", "positive", "attention", "none"])
@pytest.mark.parametrize("variances", ["learned", "unit"])
@pytest.mark.parametrize("lambda_d", [0.0, 1.0, 0.3])
def test_each_ablation_agrees_with_its_equations_in_numpy(relations, variances, lambda_d):
    labels, embeddings = BATCHES["several classes"], embeddings_of(8)
    module = HIST(8, 5, **SETTINGS, relations=relations, variances=variances, distribution_weight=lambda_d).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.linspace(-0.7, 1.9, parameter.numel(), dtype=torch.float64).view_as(parameter))
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    expected = by_numpy(state, embeddings.numpy(), labels, lambda_d=lambda_d, relations=relations, variances=variances)
    assert module(embeddings, torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-12)


def test_without_the_distribution_loss_the_distributions_learn_from_semantic_tuples_alone():
    labels = torch.tensor(BATCHES["several classes"])
    for relations in ("semantic", "positive", "attention", "none"):
        module = hist(relations=relations, distribution_weight=0.0)
        module(embeddings_of(8), labels).backward()
        assert (module.means.grad is not None) == (relations == "semantic"), relations
        assert "loss_distribution" not in module.diagnostics()
        used = {name: p for name, p in module.hgnn.named_parameters() if name not in ("theta1.bias", "key.bias")}
        assert all(parameter.grad.abs().max() > 0 for parameter in used.values()), relations  # the others can cancel


def test_an_ablation_starts_from_the_weights_of_the_full_method():
    full = HIST(8, 5, **SETTINGS).state_dict()
    assert set(full) == set(HIST(8, 5, **SETTINGS, relations="positive").state_dict())
    attention, unit = (HIST(8, 5, **SETTINGS, **{key: value}).state_dict()
                       for key, value in (("relations", "attention"), ("variances", "unit")))  # fmt: skip
    assert {*attention} - {*full} == {
        f"hgnn.{layer}.{part}" for layer in ("query", "key") for part in ("weight", "bias")
    }
    assert {*full} - {*unit} == {"log_vars"}
    for other in (attention, unit):
        assert all(torch.equal(other[name], full[name]) for name in {*other} & {*full})
    assert not torch.equal(attention["hgnn.query.weight"], attention["hgnn.key.weight"])


def test_unit_variances_are_proxies_and_report_no_log_variances():
    module = HIST(2, 2, **SETTINGS, variances="unit")
    with torch.no_grad():
        module.means.copy_(torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
    # z = (0.6, 0.8): 0.16 + 0.64 to (1, 0), and 0.36 + 0.04 to (0, 1)
    found = squared_distances(torch.tensor([[3.0, 4.0]]), module.means, module.log_vars, (1.0, 6.0))
    assert found.tolist() == [pytest.approx([0.8, 0.4], rel=1e-6)]
    module(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([1, 0]))
    assert module.diagnostics().keys() == {"loss_distribution", "loss_semantic"}


def test_switches_that_leave_no_loss_are_refused():
    with pytest.raises(UserError, match=r"semantic_weight=0\.0 and distribution_weight=0\.0 of HIST leave no loss"):
        HIST(8, 5, **(SETTINGS | {"semantic_weight": 0.0}), distribution_weight=0.0)
    with pytest.raises(UserError, match="a batch of one image"):
        hist(distribution_weight=0.0)(embeddings_of(1), torch.tensor([3]))


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [("relations", "all", "semantic, positive, attention, none"), ("variances", "fixed", "learned, unit")],
)
def test_an_unknown_switch_is_refused_with_its_choices(name, value, choices):
    with pytest.raises(UserError, match=f"{name}='{value}' of HIST must be one of {choices}"):
        HIST(8, 5, **SETTINGS, **{name: value})


TABLES = {  # by the rows of the supplement's tables 4 to 6
    "Baseline": {"loss.module.relations": "none", "loss.module.distribution_weight": 0.0},
    "TF-like": {"loss.module.relations": "attention", "loss.module.distribution_weight": 0.0},
    "H-Pos": {"loss.module.relations": "positive", "loss.module.distribution_weight": 0.0},
    "w.o. L_D": {"loss.module.distribution_weight": 0.0},
    "proxies": {"loss.module.variances": "unit"},
    "balanced": {"loss.sampler.m": 4},
    "HIST": {},
}


@pytest.mark.parametrize("row", slow_except(["Baseline", "proxies"], TABLES))
def test_the_overrides_of_a_row_reach_the_loss_and_the_sampler(row, compose_study):
    overrides = TABLES[row]
    study = compose_study("protocol=traditional", "dataset=cub", "trunk=resnet50", "loss=hist", "preset=authors",
                          *(f"{key}={value}" for key, value in overrides.items()))  # fmt: skip
    study = in_passes(study, 5864)
    loss = study.make_loss(100, 0, np.zeros(100, np.int64), 5864)
    wanted = {key.rpartition(".")[2]: value for key, value in overrides.items()}
    assert (loss.relations, loss.distribution_weight) == (
        wanted.get("relations", "semantic"), wanted.get("distribution_weight", 1.0)
    )  # fmt: skip
    assert (loss.log_vars is None) == (row == "proxies")
    labels = np.repeat(np.arange(100), 50)
    counts = [np.unique(labels[study.make_sampler(labels, seed=0).batch(i)], return_counts=True)[1] for i in range(3)]
    assert study.config.protocol.batch_size == 32
    assert all((c.tolist() == [4] * 8) == (row == "balanced") for c in counts)
