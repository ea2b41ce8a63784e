"""Replay of golden files of HPL: losses, updates, k-means and whole sequences of steps."""

import numpy as np
import torch

import benchmark.losses.hpl
from benchmark.losses.clustering import cluster_points, kmeans_from, update_hierarchy
from benchmark.losses.hpl import HPL
from benchmark.losses.proxy_anchor import proxy_anchor
from benchmark.losses.proxy_nca import proxy_nca


def hpl_options(golden, **options):
    """Return HPL's arguments as stated by the hyper-parameters."""
    golden.option("reduction", "mean", mean=None)
    base = golden.option("base", None, nca=proxy_nca, pa=proxy_anchor)
    if base is proxy_nca:
        names = {"all": "all", "exclude": "others"}
        levels = [{"scale": s["scale"], "denominator": names[s["denominator"]]} for s in golden.hyper["levels"]]
    else:
        levels = [{"alpha": s["alpha"], "margin": s["delta"]} for s in golden.hyper["levels"]]
    if "tied" in f"{golden.meta['case']} {golden.hyper}".lower():
        coarse_update = "tied"
    else:
        coarse_update = golden.option("coarse_mode", "buffer", buffer="centroid", gradient="gradient")
    space = golden.option("cluster_space", "normalized", normalized="normalized", raw="raw")
    common = {"base": base, "levels": levels, "weights": golden.hyper["weights"], "proxy_init": "normal", "seed": 0}
    return common | {"coarse_update": coarse_update, "cluster_space": space} | options


def check_hpl(golden, monkeypatch):
    """Check a loss on the stored hierarchy, also with learnable coarse proxies, whose gradient is in the file."""
    options = hpl_options(golden, update_every=1, warmup_iterations=5 if golden.hyper["warmup"] else 0)
    for coarse_update in ["tied"] if options["coarse_update"] == "tied" else ["centroid", "gradient"]:
        check_hpl_module(golden, options | {"coarse_update": coarse_update})


def check_hpl_module(golden, options):
    """Check the loss on the stored hierarchy and, for given groups, on the hierarchy that the module builds."""
    sizes = golden.hyper["n_proxies"]
    module = HPL(sizes[0], golden["P0"].shape[1], num_coarse=sizes[1:], **options).to(golden.dtype)
    state = {"proxies": golden["P0"]}
    for level in range(1, len(sizes)):
        state[f"owners_{level - 1}"] = golden[f"Q{level - 1}"]
        if module.coarse_update != "tied":
            state[f"centres_{level}"] = golden[f"P{level}"]
    state["counters"] = torch.tensor([0, 0, int(not golden.hyper["warmup"])])
    module.load_state_dict(module.state_dict() | state)
    check_hpl_loss(golden, module)
    if golden.option("hierarchy", "found", found=False, ground=True):
        given = HPL(sizes[0], golden["P0"].shape[1], class_to_super=golden["Q0"], **options).to(golden.dtype)
        given.load_state_dict(given.state_dict() | {"proxies": golden["P0"]})
        check_hpl_loss(golden, given)
        golden.compare("P1", given.centres(1))


def check_hpl_loss(golden, module):
    embeddings = golden.leaf("embeddings")
    loss = module(embeddings, golden["labels"])
    loss.backward()
    golden.compare("value", loss)
    golden.compare("grad_embeddings", embeddings.grad)
    golden.compare("grad_P0", module.proxies.grad)
    golden.compare("level_losses", [v for k, v in module.diagnostics().items() if k.startswith("loss_level")])
    labels = golden["labels"]
    for level in range(1, module.num_levels):
        labels = module.owners(level - 1)[labels]
        if f"labels_level{level}" in golden.arrays and not golden.hyper["warmup"]:
            golden.compare(f"labels_level{level}", labels)
        if f"info_grad_P{level}_if_trainable" in golden.arrays and module.coarse_update == "gradient":
            golden.compare(f"info_grad_P{level}_if_trainable", module.centres(level).grad)


def check_update(golden, monkeypatch):
    golden.option("distance", "squared", squared=None)
    golden.option("empty_cluster", "keep", keep=None)
    golden.option("tie_break", "lowest", lowest=None)
    space = golden.option("cluster_space", "normalized", normalized="normalized", raw="raw")
    fixed = golden.option("fixed_assignment", False, false=False, true=True)
    coarse = [level for level in range(1, 10) if f"P{level}" in golden.arrays]
    old = [golden[f"Q{level - 1}"] for level in coarse]
    centres = [golden[f"P{level}"] for level in coarse]
    updated = update_hierarchy(golden["P0"], centres, space=space, given_owners=old if fixed else None)
    changed = 0
    for level, clusters in zip(coarse, updated, strict=True):
        empty = sorted(set(range(len(clusters.centres))) - set(clusters.owners.tolist()))
        found = {f"new_P{level}": clusters.centres, f"new_Q{level - 1}": clusters.owners, f"empty_level{level}": empty}
        for key in found.keys() & golden.arrays.keys():
            golden.compare(key, found[key])
        changed += int((clusters.owners != old[level - 1]).sum())
    golden.compare("value", changed)


def check_kmeans(golden, monkeypatch):
    space = golden.option("cluster_space", "normalized", normalized="normalized", raw="raw")
    points = cluster_points(golden["P0"], space)
    start = golden["start_centres"].double()
    found = kmeans_from(points, start, golden.hyper["max_iter"])
    golden.compare("centres", found.centres)
    golden.compare("assignment", found.owners)
    golden.compare(
        "value", sum(float((p - found.centres[o]).square().sum()) for p, o in zip(points, found.owners, strict=True))
    )
    enough = kmeans_from(points, start, int(golden["iterations"]))
    golden.compare("centres", enough.centres)


def check_sequence(golden, monkeypatch):
    golden.option("optimizer", "SGD", sgd=None)
    golden.option("update_rule", "after", **{"after the optimiser step when k mod t == t-1, k counted from 1": None})
    starts = iter([golden[f"kmeans_start_index_level{n}"] for n in range(len(golden.hyper["n_coarse"]))])
    monkeypatch.setattr(benchmark.losses.hpl, "first_clusters", lambda p, n, **_: kmeans_from(p, p[next(starts)]))
    module = sequence_module(golden)
    optimizer = torch.optim.SGD([module.proxies], lr=golden.hyper["lr_P0"])
    for step in range(golden.hyper["steps"]):
        embeddings = golden["embeddings"][step].requires_grad_()
        optimizer.zero_grad()
        loss = module(embeddings, golden["labels"][step])
        loss.backward()
        optimizer.step()
        before = module.diagnostics()
        module.after_step()
        after = module.diagnostics()
        golden.compare("value", loss, step)
        golden.compare("grad_embeddings", embeddings.grad, step)
        golden.compare("grad_P0", module.proxies.grad, step)
        golden.compare("P0_after", module.proxies, step)
        golden.compare("coarse_updated", after["coarse_updates"] - before["coarse_updates"], step)
        losses = [after.get(f"loss_level_{n}", np.nan) for n in range(module.num_levels)]
        golden.compare("level_losses", losses, step)
        for level in range(1, module.num_levels):
            exists = after["kmeans_done"] == 1
            centres, owners = module.level_proxies()[level], module.owners(level - 1)
            golden.compare(f"P{level}_after", centres if exists else torch.full_like(centres, torch.nan), step)
            golden.compare(f"Q{level - 1}_after", owners if exists else torch.full_like(owners, -1), step)


def sequence_module(golden):
    groups = {"num_coarse": golden.hyper["n_coarse"]}
    if golden.option("ground_truth", False, false=False, true=True):
        groups = {"class_to_super": golden["Q0_after"][-1]}
    options = hpl_options(golden, update_every=golden.hyper["T"], warmup_iterations=golden.hyper["warmup_steps"])
    module = HPL(*golden["P0_start"].shape, **options, **groups).to(golden.dtype)
    module.load_state_dict(module.state_dict() | {"proxies": golden["P0_start"]})
    return module


CHECKS = {
    "hpl_nca": check_hpl,
    "hpl_nca_paper": check_hpl,
    "hpl_pa": check_hpl,
    "hpl_update": check_update,
    "hpl_kmeans": check_kmeans,
    "hpl_sequence": check_sequence,
}
