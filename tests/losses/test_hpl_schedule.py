"""HPL's schedule of updates, checkpoints, diagnostics and warnings."""

import math

import numpy as np
import pytest
import torch

import benchmark.losses.clustering
from benchmark.losses.hpl import HPL
from benchmark.losses.proxy_nca import proxy_nca
from tests.cases import slow_except

CLASSES, DIM = 12, 6


def make(num_levels=2, **options):
    defaults = {
        "base": proxy_nca, "levels": [{"scale": 9.0}] * num_levels, "weights": [1.0, 0.1, 0.1][:num_levels],
        "warmup_iterations": 2, "update_every": 3, "proxy_init": "normal", "seed": 0,
    }  # fmt: skip
    if "class_to_super" not in options:
        defaults["num_coarse"] = [4, 2][: num_levels - 1]
    return HPL(CLASSES, DIM, **defaults | options)


def train(module, steps, first=0):
    """Train, and return the losses of steps first+1, ...; the batch depends only on the step."""
    losses = []
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        embeddings = torch.randn(16, DIM, generator=generator)
        loss = module(embeddings, torch.randint(CLASSES, (16,), generator=generator))
        module.proxies.grad = None
        loss.backward()
        with torch.no_grad():
            module.proxies -= 2.0 * module.proxies.grad
        module.after_step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("warmup", "every", "updated"),
    [
        (2, 3, [4, 7, 10]),  # k = 1 in step 3; k mod 3 = 2 for k = 2, 5, 8
        (0, 3, [2, 5, 8, 11]),
        (3, 1, [4, 5, 6, 7, 8, 9, 10, 11, 12]),  # k mod 1 = 0 for every k from 1 on; not for k = 0 after step 3
        (1, 2, [2, 4, 6, 8, 10, 12]),  # k = 1, 3, 5, ...
        (4, 5, [8]),  # k = 4
        (2, 100, []),
    ],
)
def test_updates_come_after_the_steps_with_k_mod_t_equal_to_t_minus_1(warmup, every, updated):
    module = make(warmup_iterations=warmup, update_every=every)
    counts = [0.0]
    for step in range(1, 13):
        train(module, 1, first=step)
        counts.append(module.diagnostics()["coarse_updates"])
    assert [step for step in range(1, 13) if counts[step] > counts[step - 1]] == updated


def test_k_means_runs_once_and_only_after_the_warm_up(monkeypatch):
    calls = []

    def fake(points, num_clusters, *, restarts, seed, unit):
        calls.append((tuple(points.shape), num_clusters, restarts, seed))
        return real(points, num_clusters, restarts=restarts, seed=seed, unit=unit)

    real = benchmark.losses.clustering.kmeans
    monkeypatch.setattr(benchmark.losses.clustering, "kmeans", fake)
    module = make(num_levels=3, seed=7)
    train(module, 2)
    assert calls == []
    assert module.diagnostics()["kmeans_done"] == 0
    assert "loss_level_1" not in module.diagnostics()
    train(module, 9, first=2)
    assert calls == [((12, 6), 4, 10, 7), ((4, 6), 2, 10, 8)]


def test_the_loss_right_after_an_update_uses_the_new_groups():
    module = make(weights=[1.0, 1.0])
    train(module, 3)
    old = module.owners(0).clone()
    with torch.no_grad():  # far from their positions at k-means
        module.proxies.copy_(module.proxies.roll(1, dims=0))
    module.after_step()  # step 4, k = 2: an update
    assert not torch.equal(old, module.owners(0))
    embeddings, labels = torch.randn(8, DIM, generator=torch.Generator().manual_seed(0)), torch.arange(8)
    coarse_labels = torch.tensor([module.owners(0)[label].item() for label in labels])
    expected = proxy_nca(embeddings, labels, module.proxies, scale=9.0)
    expected = expected + proxy_nca(embeddings, coarse_labels, module.centres(1), scale=9.0)
    assert torch.equal(module(embeddings, labels), expected)


@pytest.mark.parametrize("options", [{}, {"num_levels": 3}, {"class_to_super": np.arange(12) % 5 + 3},
                                     {"coarse_update": "tied"}], ids=str)  # fmt: skip
@pytest.mark.parametrize("stop", slow_except([1, 7], [0, 1, 2, 3, 4, 7, 11]))
def test_resumes_from_a_checkpoint_bit_for_bit(stop, options, tmp_path, monkeypatch):
    whole = make(**options)
    expected = train(whole, 12)
    part = make(**options)
    train(part, stop)
    torch.save(part.state_dict(), tmp_path / "checkpoint.pt")
    if stop > 2:  # the groups exist, so they must not be initialised again
        monkeypatch.setattr(benchmark.losses.clustering, "kmeans", None)
    resumed = make(**options)
    with torch.no_grad():
        resumed.proxies.zero_()
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert train(resumed, 12 - stop, first=stop) == expected[stop:]
    assert resumed.diagnostics() == whole.diagnostics()
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_names_and_shapes_of_the_state_do_not_change_when_the_groups_are_made():
    module = make(num_levels=3)
    before = {name: value.shape for name, value in module.state_dict().items()}
    train(module, 6)
    assert {name: value.shape for name, value in module.state_dict().items()} == before


def test_no_optimizer_moves_or_decays_a_centre():
    module = make(update_every=1000)
    train(module, 3)
    before = module.centres(1).clone()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    for step in range(5):
        module(torch.randn(4, DIM, generator=torch.Generator().manual_seed(step)), torch.arange(4)).backward()
        optimizer.step()
        module.after_step()
    assert torch.equal(module.centres(1), before)


def test_given_groups_are_renumbered_and_stay_while_their_centres_move():
    supers = [40, 7, 40, 7, 7, 7, 40, 7, 40, 7, 99, 99]  # 7 -> 0, 40 -> 1, 99 -> 2
    module = make(class_to_super=torch.tensor(supers))
    wanted = [{7: 0, 40: 1, 99: 2}[s] for s in supers]

    def means():
        unit = (module.proxies / module.proxies.norm(dim=1, keepdim=True)).tolist()
        members = [[row for row, group in zip(unit, wanted, strict=True) if group == g] for g in range(3)]
        return torch.tensor([[sum(column) / len(m) for column in zip(*m, strict=True)] for m in members])

    train(module, 2)
    start = means()  # the groups' centres are taken before step 3
    train(module, 1, first=2)
    torch.testing.assert_close(module.centres(1), start)
    train(module, 1, first=3)  # step 4, k = 2: an update
    torch.testing.assert_close(module.centres(1), means())
    assert module.owners(0).tolist() == wanted
    assert module.diagnostics()["owner_changes_level_1"] == 0


def test_an_emptied_group_keeps_its_centre_and_is_counted():
    module = make(warmup_iterations=0, update_every=1)
    state = module.state_dict() | {"counters": torch.tensor([5, 4, 1]), "owners_0": torch.arange(12) % 4}
    unit = torch.nn.functional.normalize(module.proxies.detach(), dim=1)
    state["centres_1"] = torch.cat([unit[:3], torch.full((1, DIM), 50.0)])
    module.load_state_dict(state)
    module.after_step()
    assert module.centres(1)[3].tolist() == [50.0] * DIM
    report = module.diagnostics()
    nearest = [min(range(3), key=lambda j, row=row: sum((row - unit[j]) ** 2)) for row in unit]
    shares = [nearest.count(j) / 12 for j in range(3)]
    assert report["empty_clusters_level_1"] == 1
    assert report["coarse_updates"] == 5
    assert report["cluster_entropy_level_1"] == pytest.approx(-sum(p * math.log(p) for p in shares))
    changed = sum(new != old % 4 for old, new in enumerate(nearest))
    assert report["owner_changes_level_1"] == pytest.approx(changed / 12)


def test_diverged_proxies_give_a_nan_loss_and_no_error_in_k_means():
    module = make()
    train(module, 2)
    with torch.no_grad():
        module.proxies[3] = torch.nan
    assert math.isnan(module(torch.randn(4, DIM), torch.arange(4)).item())
    assert module.diagnostics()["kmeans_done"] == 0


def test_raw_space_groups_proxies_by_length_and_unit_space_by_direction():
    directions = torch.eye(DIM)[torch.arange(CLASSES) % 2]  # two directions, two lengths
    lengths = torch.where(torch.arange(CLASSES) < 6, 1.0, 100.0)[:, None]
    found = {}
    for space in ("raw", "normalized"):
        module = make(num_coarse=2, cluster_space=space, warmup_iterations=0)
        with torch.no_grad():
            module.proxies.copy_(directions * lengths + 1e-3 * module.proxies)
        module(torch.randn(2, DIM, generator=torch.Generator().manual_seed(0)), torch.arange(2))
        owners = module.owners(0)
        found[space] = (owners == owners[0]).tolist()
    assert found["normalized"] == [i % 2 == 0 for i in range(CLASSES)]
    assert found["raw"][:6] == [True] * 6


def test_every_diagnostic_is_a_plain_finite_number():
    module = make(num_levels=3)
    for step in range(8):
        assert all(type(value) is float and math.isfinite(value) for value in module.diagnostics().values())
        train(module, 1, first=step)
    assert {f"loss_level_{level}" for level in range(3)} <= module.diagnostics().keys()


def row(epoch, **diagnostics):
    return {"epoch": epoch, "loss": 1.0, "map_at_r": 0.5, "diagnostics": diagnostics}


HISTORY = [row(0, kmeans_done=0.0, coarse_updates=0.0), row(2, kmeans_done=0.0, coarse_updates=0.0),
           row(4, kmeans_done=1.0, coarse_updates=3.0)]  # fmt: skip


@pytest.mark.parametrize(
    ("history", "best_epoch", "in_warmup", "updates"),
    [
        (HISTORY, 0, True, 3.0),
        (HISTORY, 2, True, 3.0),
        (HISTORY, 4, False, 3.0),
        (HISTORY, None, None, 3.0),  # no score
        (HISTORY[:2], 2, True, 0.0),
        ([], None, None, None),  # diverged before the first evaluation
    ],
)
def test_a_record_has_whether_the_best_epoch_was_in_the_warm_up_and_the_number_of_updates(
    history, best_epoch, in_warmup, updates
):
    fields = make().record_fields(history, best_epoch)
    assert list(fields) == ["num_proxies", "best_epoch_in_warmup", "coarse_updates", "idle_hierarchy"]
    assert fields["best_epoch_in_warmup"] is in_warmup
    assert (fields["coarse_updates"], type(fields["coarse_updates"])) == (updates, type(updates))


def test_record_fields_match_the_diagnostics_of_training():
    module, history = make(), []
    for epoch, steps in enumerate((0, 2, 2, 3)):
        train(module, steps, first=len(history))
        history.append(row(epoch, **module.diagnostics()))
    in_warmup = [module.record_fields(history, epoch)["best_epoch_in_warmup"] for epoch in range(4)]
    assert in_warmup == [True, True, False, False]
    assert module.record_fields(history, 3)["coarse_updates"] == 2  # after steps 4 and 7


def is_idle(module):
    return module.record_fields([row(1, **module.diagnostics())], 1)["idle_hierarchy"]


def resumed(module, **options):
    """Return a fresh module with the state of another."""
    twin = make(**options)
    twin.load_state_dict(module.state_dict())
    return twin


NEVER_ON = "the coarse levels never came on: they start after warmup_iterations=2 steps"


@pytest.mark.parametrize(
    ("steps", "warning"), [(0, NEVER_ON), (2, NEVER_ON), (3, "the hierarchy was never updated")], ids=str
)
@pytest.mark.parametrize("options", [{}, {"num_levels": 3}, {"class_to_super": [0, 1] * 6}], ids=str)
def test_warns_of_a_hierarchy_that_never_came_on_or_was_never_updated(steps, warning, options):
    module = make(**options)
    train(module, steps)
    for each in (module, resumed(module, **options)):
        assert each.warnings() == [warning]


@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, 0.0, 0.0]], ids=str)
def test_does_not_warn_of_a_hierarchy_that_has_no_weight(weights):
    module = make(num_levels=len(weights), weights=weights)
    train(module, 2)
    assert module.warnings() == []
    train(module, 4, first=2)
    assert module.warnings() == [] and is_idle(module) is None


@pytest.mark.parametrize("coarse_update", ["centroid", "tied", "gradient"])
def test_warns_of_groups_that_no_update_changed(coarse_update):
    still, options = [], {"num_levels": 3, "coarse_update": coarse_update}
    module = make(**options)
    train(module, 3)
    for _ in range(7):  # without gradient steps k-means stays converged
        module.after_step()
        still.append(resumed(module, **options).warnings())
    expected = [f"the groups of level {level} never changed" for level in (1, 2)]
    assert still == [expected] * 7  # the first update is in step 4
    assert is_idle(module) is True
    module.owners(0).copy_(module.owners(0).roll(1))  # as if the proxies had moved
    for _ in range(3):
        module.after_step()
    module = resumed(module, **options)
    assert module.warnings() == expected[1:]
    for _ in range(3):  # the last update changed nothing, but an earlier one did
        module.after_step()
    assert module.diagnostics()["owner_changes_level_1"] == 0
    assert resumed(module, **options).warnings() == module.warnings() == expected[1:]


@pytest.mark.parametrize(
    "options", [{"class_to_super": [0, 1] * 6}, {"num_coarse": 1}, {"num_levels": 1, "num_coarse": None}], ids=str
)
def test_does_not_warn_of_groups_that_cannot_change(options):
    module = make(**options)
    train(module, 9)
    assert module.diagnostics()["coarse_updates"] == 2
    assert module.warnings() == [] and is_idle(module) is None


def test_a_hierarchy_that_was_never_on_is_not_idle():
    module = make()
    train(module, 2)
    assert module.diagnostics()["kmeans_done"] == 0 and is_idle(module) is None


def test_one_level_is_not_an_idle_hierarchy():
    assert make(num_levels=1, num_coarse=None).warnings() == []


def test_does_not_warn_if_updates_change_groups():
    module = make()
    train(module, 3)
    with torch.no_grad():  # far from their positions at k-means
        module.proxies.copy_(module.proxies.roll(1, dims=0))
    train(module, 7, first=3)
    assert module.diagnostics()["coarse_updates"] == 3
    assert module.warnings() == resumed(module).warnings() == []
    assert is_idle(module) is False and is_idle(resumed(module)) is False


def test_an_older_checkpoint_without_the_count_of_changes_loads_and_does_not_warn():
    module, twin = make(), make()
    train(module, 3)
    for _ in range(3):
        module.after_step()
    state = module.state_dict()
    del state["ever_changed"]
    twin.load_state_dict(state)
    assert module.warnings() == ["the groups of level 1 never changed"]
    assert twin.warnings() == []
