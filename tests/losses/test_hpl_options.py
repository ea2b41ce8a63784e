"""HPL's options: learnable coarse proxies, other groupings, centres of unit norm, and purity."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from benchmark.losses.hpl import HPL
from benchmark.losses.proxy_nca import proxy_nca
from benchmark.losses.soft_triple import soft_triple
from benchmark.study.recipes import parameter_groups
from tests.cases import slow_except

CLASSES, DIM = 12, 6
SUPERS = [40, 7, 40, 7, 7, 7, 40, 7, 40, 7, 99, 99]
RENUMBERED = [1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 2, 2]


def make(num_levels=2, **options):
    defaults = {
        "base": proxy_nca, "levels": [{"scale": 9.0}] * num_levels, "weights": [1.0, 0.5, 0.5][:num_levels],
        "warmup_iterations": 2, "update_every": 3, "proxy_init": "normal", "seed": 0, "kmeans_restarts": 2,
    }  # fmt: skip
    if "class_to_super" not in options:
        defaults["num_coarse"] = [4, 2][: num_levels - 1]
    if options.get("centres_per_class", 1) > 1:
        defaults |= {"base": soft_triple, "levels": [{"la": 9.0, "gamma": 0.5, "margin": 0.0}] * num_levels}
    return HPL(CLASSES, DIM, **defaults | options)


def optimizer_of(module, kind=torch.optim.AdamW):
    options = {"momentum": 0.9} if kind is torch.optim.RMSprop else {}
    return kind(module.parameters(), lr=0.3, weight_decay=0.2, **options)


def train(module, optimizer, steps, first=0):
    """Train, and return the losses of steps first+1, ...; the batch depends only on the step."""
    losses = []
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        embeddings = torch.randn(16, DIM, generator=generator)
        loss = module(embeddings, torch.randint(CLASSES, (16,), generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        module.after_step()
        losses.append(loss.item())
    return losses


def unit(row):
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def mean(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def update_by_loops(vectors, centres, owners, options):
    """Apply Algorithm 1's update to every level in plain Python: new centres and owners, fine to coarse."""
    normalized = options.get("cluster_space", "normalized") == "normalized"
    scaled = unit if normalized else list
    points = [mean([scaled(r) for r in rows]) if isinstance(rows[0], list) else scaled(rows) for rows in vectors]
    result = []
    for start, given in zip(centres, owners, strict=True):
        if options.get("coarse_update") == "gradient":
            start = [scaled(row) for row in start]
        gaps = [[sum((x - y) ** 2 for x, y in zip(p, c, strict=True)) for c in start] for p in points]
        found = given if "class_to_super" in options else [row.index(min(row)) for row in gaps]
        moved = []
        for j, old in enumerate(start):
            members = [p for p, owner in zip(points, found, strict=True) if owner == j]
            new = mean(members) if members else old
            moved.append(unit(new) if members and options.get("normalize_centroids") else new)
        result.append((moved, found))
        points = [scaled(row) for row in moved]
    return result


CASES = [
    {"num_levels": levels, "coarse_update": update, "normalize_centroids": spherical, "clustering": clustering}
    for levels, update, (spherical, clustering) in itertools.product(
        [2, 3], ["centroid", "tied", "gradient"], [(False, "agglomerative"), (True, "gmm"), (True, "kmeans")]
    )
]
CASES += [
    {"class_to_super": SUPERS, "coarse_update": update, "normalize_centroids": spherical}
    for update, spherical in itertools.product(["centroid", "tied", "gradient"], [False, True])
]
CASES += [{"num_levels": 3, "coarse_update": u, "centres_per_class": 2} for u in ("centroid", "tied", "gradient")]
CASES += [{"num_levels": 3, "coarse_update": u, "cluster_space": "raw"} for u in ("centroid", "gradient")]
# Each clustering, update, number of levels and kind of groups at least once.
FAST = [CASES[i] for i in (0, 4, 8, 11, 13, 15, 18, 22, 25, 28)]


@pytest.mark.parametrize("options", slow_except(FAST, CASES), ids=str)
def test_every_option_makes_groups_whose_updates_agree_with_loops(options):
    module = make(warmup_iterations=0, **options)
    optimizer = optimizer_of(module)
    train(module, optimizer, 1)
    for step in range(1, 8):
        coarse = range(1, module.num_levels)
        vectors = [v.tolist() for v in module.level_proxies()]
        owners = [module.owners(level - 1).tolist() for level in coarse]
        expected = update_by_loops(vectors[0], vectors[1:], owners, options)
        copied = copy.deepcopy(module)
        with torch.no_grad():
            copied._update()
        for level, (centres, found) in enumerate(expected, start=1):
            assert copied.owners(level - 1).tolist() == found
            torch.testing.assert_close(copied.centres(level).detach(), torch.tensor(centres), rtol=1e-5, atol=1e-6)
        train(module, optimizer, 1, first=step)
    assert module.diagnostics()["coarse_updates"] == 3
    if "class_to_super" in options:
        assert module.owners(0).tolist() == RENUMBERED


@pytest.mark.parametrize("groups", [{"num_levels": 3}, {"class_to_super": SUPERS}], ids=str)
@pytest.mark.parametrize("coarse_update", ["centroid", "tied", "gradient"])
@pytest.mark.parametrize("normalize_centroids", [False, True])
def test_normalized_centroids_have_unit_norm_from_the_start_and_others_are_shorter(
    groups, coarse_update, normalize_centroids
):
    module = make(coarse_update=coarse_update, normalize_centroids=normalize_centroids, **groups)
    train(module, optimizer_of(module), 2)
    module(torch.ones(1, DIM), torch.tensor([0]))  # creates the groups
    for vectors in (*module.level_proxies()[1:], *(module.centres(level) for level in range(1, module.num_levels))):
        lengths = [math.hypot(*row) for row in vectors.tolist()]
        assert max(lengths) < 1.00001
        assert (min(lengths) > 0.99999) == normalize_centroids


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD])
def test_learnable_coarse_proxies_stay_at_zero_until_the_start_and_learn_afterwards(kind):
    module = make(num_levels=3, coarse_update="gradient", update_every=100)
    optimizer = optimizer_of(module, kind)
    assert [name for name, _ in module.named_parameters()] == ["proxies", "centres_1", "centres_2"]
    train(module, optimizer, 2)
    assert all(module.centres(level).grad is None for level in (1, 2))
    assert not any(module.centres(level).any() for level in (1, 2))
    twin = make(num_levels=3, update_every=100)
    twin.load_state_dict(module.state_dict())
    batch = torch.randn(16, DIM, generator=torch.Generator().manual_seed(0)), torch.arange(16) % CLASSES
    module(*batch)
    twin(*batch)
    for level in (1, 2):
        assert torch.equal(module.centres(level), twin.centres(level))
    train(module, optimizer, 3, first=2)
    for level in (1, 2):
        assert module.centres(level).grad.abs().max() > 0
        assert (module.centres(level) - twin.centres(level)).abs().max() > 1e-3


def test_learnable_coarse_proxies_get_the_gradient_of_their_own_level():
    module = make(coarse_update="gradient", warmup_iterations=0).double()
    embeddings = torch.randn(9, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(9)
    module(embeddings, labels).backward()
    centres, step = module.centres(1).detach(), 1e-6
    for i, d in itertools.product(range(4), range(DIM)):
        ends = []
        for sign in (1, -1):
            moved = centres.clone()
            moved[i, d] += sign * step
            ends.append(0.5 * proxy_nca(embeddings, module.owners(0)[labels], moved, scale=9.0).item())
        assert module.centres(1).grad[i, d].item() == pytest.approx((ends[0] - ends[1]) / 2 / step, abs=1e-7)


def test_the_norm_of_a_learned_centre_does_not_affect_the_grouping():
    module = make(coarse_update="gradient", warmup_iterations=0)
    train(module, optimizer_of(module), 1)
    longer = copy.deepcopy(module)
    with torch.no_grad():
        longer.centres_1[0] *= 50
        for each in (module, longer):
            each._update()
    assert torch.equal(module.owners(0), longer.owners(0))


@pytest.mark.parametrize("stop", slow_except([4], [1, 2, 3, 4, 7]))
@pytest.mark.parametrize(
    "options",
    [
        {"coarse_update": "gradient", "num_levels": 3},
        {"coarse_update": "gradient", "class_to_super": SUPERS},
        {"clustering": "gmm", "centres_per_class": 2, "normalize_centroids": True},
        {"clustering": "agglomerative", "empty": "reseed_farthest"},
    ],
    ids=str,
)
def test_resumes_from_a_checkpoint_bit_for_bit(stop, options):
    whole = make(**options)
    expected = train(whole, optimizer_of(whole), 10)
    part = make(**options)
    optimizer = optimizer_of(part)
    train(part, optimizer, stop)
    resumed = make(**options)
    again = optimizer_of(resumed)
    resumed.load_state_dict(copy.deepcopy(part.state_dict()))
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(resumed, again, 10 - stop, first=stop) == expected[stop:]
    assert resumed.diagnostics() == whole.diagnostics()


def test_learnable_centres_can_have_a_learning_rate_of_their_own():
    module = make(num_levels=3, coarse_update="gradient")
    groups = parameter_groups(module, {"centres": {"lr": 0.5}})
    names = [[name for name, p in module.named_parameters() if any(p is q for q in g["params"])] for g in groups]
    assert names == [["proxies"], ["centres_1", "centres_2"]]


def test_reseed_farthest_gives_an_emptied_group_the_farthest_proxy():
    unit_rows = torch.nn.functional.normalize(make().proxies.detach(), dim=1)
    owners = {}
    for empty in ("keep", "reseed_farthest"):
        module = make(warmup_iterations=0, update_every=1, empty=empty)
        centres = torch.cat([unit_rows[:3], torch.full((1, DIM), 50.0)])
        state = {"counters": torch.tensor([5, 4, 1]), "centres_1": centres}
        module.load_state_dict(module.state_dict() | state)
        module.after_step()
        owners[empty] = module.owners(0).tolist()
        assert module.diagnostics()["empty_clusters_level_1"] == (empty == "keep")
    rows, kept = unit_rows.tolist(), owners["keep"]
    means = {j: mean([row for row, owner in zip(rows, kept, strict=True) if owner == j]) for j in set(kept)}
    gaps = [math.dist(row, means[owner]) for row, owner in zip(rows, kept, strict=True)]
    taken = gaps.index(max(gaps))
    assert owners["reseed_farthest"] == [3 if i == taken else owner for i, owner in enumerate(kept)]
    torch.testing.assert_close(module.centres(1)[3], unit_rows[taken])


def test_purity_is_the_fraction_of_classes_in_the_majority_of_their_cluster():
    # Clusters of the classes, and the true groups of their members:
    #   0: 40 40 7 -> 2 of 3      1: 7 7 -> 2 of 2      2: 7 40 99 99 -> 2 of 4      3: 40 7 7 -> 2 of 3: 8 of 12
    # One level up 0 and 3 join, 1 and 2 join: 40 40 7 40 7 7 -> 3 of 6, 7 7 7 40 99 99 -> 3 of 6: 6 of 12
    owners = [0, 1, 0, 0, 1, 2, 2, 3, 3, 3, 2, 2]
    module = make(num_levels=3, true_groups=np.array(SUPERS))
    state = {"counters": torch.tensor([9, 1, 1]), "owners_0": torch.tensor(owners)}
    module.load_state_dict(module.state_dict() | state | {"owners_1": torch.tensor([0, 1, 1, 0])})
    report = module.diagnostics()
    assert report["purity_level_1"] == pytest.approx(8 / 12)
    assert report["purity_level_2"] == pytest.approx(6 / 12)
    assert not any("purity" in key for key in make().diagnostics())


def test_true_groups_affect_diagnostics_only():
    plain, informed = make(), make(true_groups=SUPERS)
    assert train(plain, optimizer_of(plain), 8) == train(informed, optimizer_of(informed), 8)
    assert plain.state_dict().keys() == informed.state_dict().keys()
    extra = informed.diagnostics().keys() - plain.diagnostics().keys()
    assert extra == {"purity_level_1"}
    given = make(class_to_super=SUPERS, true_groups=SUPERS)
    train(given, optimizer_of(given), 3)
    assert given.diagnostics()["purity_level_1"] == 1


def test_one_level_reports_nothing_about_groups():
    module = make(num_levels=1, true_groups=SUPERS)
    train(module, optimizer_of(module), 4)
    assert module.diagnostics().keys() == {"loss_level_0", "kmeans_done", "coarse_updates"}


@pytest.mark.parametrize("clustering", ["kmeans", "agglomerative", "gmm"])
def test_two_classes_and_one_group_work_with_every_grouping(clustering):
    module = HPL(
        2, 3, base=proxy_nca, levels=[{"scale": 2.0}] * 2, weights=[1.0, 0.1], warmup_iterations=0, update_every=1,
        proxy_init="normal", seed=0, num_coarse=1, clustering=clustering,
    )  # fmt: skip
    module(torch.ones(1, 3), torch.tensor([1]))
    rows = [unit(row) for row in module.proxies.tolist()]
    torch.testing.assert_close(module.centres(1), torch.tensor([mean(rows)]))
    assert module.diagnostics()["loss_level_1"] == 0
