"""make figures: draw what a study keeps of a run, from retrieved images to activation maps.

    make figures STUDY=results/studies/GROUP/hpl_nca ARGS="figure=[retrieval,embeddings] run=0"

Each figure is written as PNG and PDF into the folder `figures` of the study. HPL's hierarchy and the distributions are
of the training classes. All others show test classes; each access is logged in the study's `test_ledger.jsonl`.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("figures"))

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.provenance import commit
from benchmark.core.records import JsonObject
from benchmark.core.wording import counted, ranges
from benchmark.datasets import Dataset, Split
from benchmark.images import Images
from benchmark.images.batches import embed, to_batch
from benchmark.losses import HasDistributions
from benchmark.protocol.neighbours import nearest_neighbours
from benchmark.report.figures import activation, distributions, hierarchy, kept, learned, projection, retrieval, save
from benchmark.report.figures.kept import Kept
from benchmark.report.group_table import studies_of_base
from benchmark.study import kept_models
from benchmark.study.command import results_command, results_dir_of
from benchmark.study.data import num_channels
from benchmark.study.kept_models import KeptRun
from benchmark.study.ledger import log_access
from benchmark.study.model_files import Mismatch, read_weights
from benchmark.study.passes import held_out_classes
from benchmark.study.scoring import load_model
from benchmark.study.stored import read_study
from benchmark.study.study import Study
from benchmark.study.testset import OpenedTestSet, open_test_set
from benchmark.training.components import HeadModule, LossModule, TrunkModule
from benchmark.training.precision import forward

RANKS = (1, 2, 3, 31, 32)  # those of HPL's figure 3 among them
LOOKS = "images retrieved for a few queries"
NUM_QUERIES = 7  # an odd number, so that the median query is among those from the worst to the best
Draw = Callable[[Study, Path, int], list[Path]]


def figures(study: Study, overrides: list[str]) -> None:
    """Draw the figures that `figure` names for a run of the study, and print where they are.

    Args:
        study: the study; `figure` and `run` say what to draw.
        overrides: unused; the study holds the configuration.

    Raises:
        UserError: a figure does not exist, or the run does not keep what it needs.
    """
    asked = study.config.figure or list(FIGURES)[:1]
    if unknown := [name for name in asked if name not in FIGURES]:
        raise UserError(f"figure={unknown[0]}: allowed are {', '.join(FIGURES)}, or a list of them in brackets.")
    if not study.directory.is_dir():
        raise UserError(f"There is no study in {study.directory}. Name one: {command('figures', {'study': 'FOLDER'})}")
    path = kept.find(study.directory, study.config.run) if {*asked} - {*OF_WEIGHTS} else study.directory
    for name in asked:
        for written in FIGURES[name](study, path, study.config.run):
            write(f"wrote {written}")
    write(f"Next: {results_command(results_dir_of(study.directory), 'report')}")


def _draw_retrieval(study: Study, path: Path, run: int) -> list[Path]:
    run_kept = kept.read(path)
    test = _open(study, run, LOOKS, run_kept)
    rows = np.arange(len(run_kept.labels)) if run_kept.is_query is None else np.flatnonzero(run_kept.is_query)
    found = {read_study(study.directory).label: _neighbours(study, run_kept)}
    if (base := _base_of(study, run_kept, run)) is not None:
        log_access(base[0].directory, _entry(run, f"{LOOKS}, beside {study.directory.name}"))
        found = {read_study(base[0].directory).label: _neighbours(*base)} | found
    each = [retrieval.precision(run_kept.labels, rows, nearest, run_kept.is_query) for nearest in found.values()]
    some = retrieval.worst_to_best(np.mean(each, axis=0), NUM_QUERIES, study.config.seed)
    notes = ["R-precision " + ", ".join(f"{100 * scores[one]:.0f} %" for scores in each) for one in some]
    chosen = {name: nearest[some] for name, nearest in found.items()}
    names = test.class_names.__getitem__
    figure = retrieval.sheet(_pixels(test.pixels), names, run_kept.labels, rows[some], chosen, RANKS, notes)
    return save(figure, _stem(study, run, "retrieval"))


def _base_of(study: Study, run_kept: Kept, run: int) -> tuple[Study, Kept] | None:
    """The study in the same group with which tables compare the study, and the same run of it; None without any.

    A base that keeps no embeddings of this run, or those of other images, is left out, which is printed.
    """
    siblings = {}
    for folder in sorted(study.directory.parent.iterdir()):
        with contextlib.suppress(UserError):  # a folder that cannot be read is reported by `make tables`
            siblings[folder.name] = read_study(folder)
    (name, *_) = studies_of_base(read_study(study.directory), siblings) or [""]
    if not name:
        return None
    directory, alone = study.directory.parent / name, f"The figure shows {study.directory.name} without its base."
    try:
        base_kept = kept.read(kept.find(directory, run))
    except UserError as error:
        write(f"{alone} {error}")
        return None
    if not np.array_equal(base_kept.labels, run_kept.labels):
        write(f"{alone} {directory} has other test images.")
        return None
    return Study.of(siblings[name].config | {"study": str(directory)}), base_kept


def _pixels(images: Images) -> Callable[[int], np.ndarray]:
    """A function that returns an image by its position, uint8 (H, W) or (H, W, 3)."""

    def image(index: int) -> np.ndarray:
        return _as_drawn(images.plain(np.array([index]))[0])

    return image


def _as_drawn(image: torch.Tensor) -> np.ndarray:
    array = image.cpu().numpy()
    return array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)


def _neighbours(study: Study, run_kept: Kept) -> np.ndarray:
    """The images nearest to each query, (Q, K) for K of at least the largest of `RANKS`, if there are so many."""
    stored = run_kept.neighbours
    if stored is not None and stored.shape[1] >= min(max(RANKS), len(run_kept.labels) - 1):
        return stored
    loss = study.config.loss
    is_query = None if run_kept.is_query is None else torch.from_numpy(run_kept.is_query)
    return nearest_neighbours(
        torch.from_numpy(run_kept.embeddings), is_query, max(RANKS), metric=loss.retrieval,
        **loss.retrieval_options,
    )  # fmt: skip


def _draw_embeddings(study: Study, path: Path, run: int) -> list[Path]:
    run_kept = kept.read(path)
    test = _open(study, run, "embeddings in two dimensions", run_kept)
    method, seed = study.config.projection, study.config.seed
    rows = projection.sample_classes(run_kept.labels, seed)
    points = _points(study, run_kept, rows).projected(method, seed)
    panels = [projection.Panel("test embeddings by class", points, run_kept.labels[rows])]
    super_labels = test.super_labels.cpu().numpy()
    if 1 < len(np.unique(super_labels)) < len(np.unique(run_kept.labels)):
        dataset: Dataset = study.make_dataset()
        names = dict(enumerate(dataset.trainval().super_names))
        panels.append(projection.Panel("by super class", points, super_labels[rows], names))
    return save(projection.draw(panels), _stem(study, run, f"embeddings_{method}"))


def _points(study: Study, run_kept: Kept, rows: np.ndarray) -> projection.Points:
    """Samples of the first model, and what its loss learned."""
    loss, state, samples = study.config.loss, run_kept.states[0], run_kept.embeddings[0, rows]
    proxies = projection.sample_proxies(learned.proxies(state, loss.retrieval), study.config.seed)
    kind, above = learned.above(state, loss.module)
    if kind != learned.ANCESTORS:
        return projection.Points(samples, proxies, above, kind=kind)
    nearest = learned.distances(samples, above, loss.retrieval_options).argmin(axis=1)
    return projection.Points(samples, proxies, above, nearest, kind)


def _draw_epochs(study: Study, path: Path, run: int) -> list[Path]:
    epochs = kept.by_epoch(path)
    if not epochs:
        keep = "keep_epochs=[1,3,5,7,10]"
        if study.config.protocol.story == "search":
            raise UserError(
                f"figure=epochs: only the command traditional keeps embeddings of single epochs, with {keep}."
            )
        again = command("traditional", {"study": study.directory}, overrides=[keep])
        raise UserError(
            f"figure=epochs: run {run} keeps no embeddings of single epochs. {again} keeps those of the runs that it "
            "trains; a finished run is not trained again."
        )
    _open(study, run, f"embeddings of the epochs {ranges(epochs)} in two dimensions")
    method, seed = study.config.projection, study.config.seed
    read = {epoch: kept.read(other) for epoch, other in epochs.items()}
    labels = next(iter(read.values())).labels
    rows = projection.sample_classes(labels, seed)
    panels = [
        projection.Panel(f"epoch {epoch}", _points(study, found, rows).projected(method, seed), labels[rows])
        for epoch, found in read.items()
    ]
    return save(projection.draw(panels), _stem(study, run, f"epochs_{method}"))


def _draw_hierarchy(study: Study, path: Path, run: int) -> list[Path]:
    run_kept = kept.read(path)
    if any("lcas" in state for state in run_kept.states):
        return _draw_ancestors(study, run_kept, run)
    if not all("owners_0" in state for state in run_kept.states):
        raise UserError(
            f"figure=hierarchy: {path} holds no hierarchy, which only HPL and HIER learn, not "
            f"{study.config.loss.name}; or a version that did not keep it wrote this file."
        )
    split, classes = _trained_classes(study)
    ids, pixels = np.asarray(split.class_ids), study.make_pixels(split.images)
    paths = list[Path]()
    for model, (state, trained) in enumerate(zip(run_kept.states, classes, strict=True)):
        stem = _stem(study, run, f"hierarchy_model_{model}" if len(classes) > 1 else "hierarchy")
        if not learned.above(state, {})[0]:
            write(f"{stem.name} is not drawn: the model's best epoch came before the hierarchy's first grouping.")
            continue
        places = np.searchsorted(ids, trained)
        examples = [int(np.flatnonzero(split.labels == one)[0]) for one in trained]
        names = [split.class_names[place] for place in places]
        tree = _Tree(
            "group", "training classes", names, state["owners_0"].astype(np.int64), split.super_labels[places], examples
        )
        paths += _draw_tree(tree, split.super_names, _pixels(pixels), stem)
    return paths


def _draw_ancestors(study: Study, run_kept: Kept, run: int) -> list[Path]:
    """HIER's tree: the test classes below the lowest common ancestors of their images."""
    test = _open(study, run, "the classes that share an ancestor, with an image each", run_kept)
    dataset: Dataset = study.make_dataset()
    classes, examples = np.unique(run_kept.labels, return_index=True)
    given, names = test.super_labels.cpu().numpy()[examples], [test.class_names[int(one)] for one in classes]
    loss, paths = study.config.loss, list[Path]()
    for model, (embeddings, state) in enumerate(zip(run_kept.embeddings, run_kept.states, strict=True)):
        stem = _stem(study, run, f"hierarchy_model_{model}" if len(run_kept.states) > 1 else "hierarchy")
        _, ancestors = learned.above(state, loss.module)
        to_nodes = learned.distances(embeddings, ancestors, loss.retrieval_options)
        owners = learned.common_ancestors(to_nodes, run_kept.labels, classes)
        tree = _Tree("ancestor", "test classes", names, owners, given, examples.tolist())
        paths += _draw_tree(tree, dataset.trainval().super_names, _pixels(test.pixels), stem)
    return paths


class _Tree(NamedTuple):
    """A learned grouping.

    Attributes:
        noun: what a group is, in the singular.
        of: kind of the C classes, "training classes" or "test classes".
        names: names of the C classes.
        owners: (C,) learned group of each class.
        given: (C,) super class of each class.
        examples: row of an example image of each class.
    """

    noun: str
    of: str
    names: list[str]
    owners: np.ndarray
    given: np.ndarray
    examples: list[int]


def _draw_tree(
    tree: _Tree, super_names: Sequence[str], pixels: Callable[[int], np.ndarray], stem: Path
) -> list[Path]:  # fmt: skip
    title = f"{counted(len(np.unique(tree.owners)), f'learned {tree.noun}')} of {len(tree.names)} {tree.of}"
    given = list[hierarchy.Group]()
    if 1 < (number := len(np.unique(tree.given))) < len(tree.names):
        share = hierarchy.purity(tree.owners, tree.given)
        shared = hierarchy.adjusted_mutual_information(tree.owners, tree.given)
        title += f"; with the {number} given groups: purity {share:.2f}, adjusted mutual information {shared:.2f}"
        given = hierarchy.groups(tree.given, super_names.__getitem__)
    found = hierarchy.groups(tree.owners, lambda group: f"{tree.noun} {group}")
    write(f"{stem.name}: {title}")
    figure = hierarchy.draw(title, tree.names, lambda index: pixels(tree.examples[index]), found, given)
    table = stem.with_name(f"{stem.name}.csv")
    hierarchy.write_csv(table, tree.names, tree.owners, [super_names[group] for group in tree.given])
    return [*save(figure, stem), table]


def _trained_classes(study: Study) -> tuple[Split, list[np.ndarray]]:
    """The training half, and for each model of a run the ids of the classes that it is trained on, ascending."""
    dataset: Dataset = study.make_dataset()
    split = dataset.trainval()
    ids = np.asarray(split.class_ids)
    if study.config.protocol.story == "traditional":
        return split, [np.setdiff1d(ids, held_out_classes(ids, study.config.protocol.held_out))]
    return split, [np.sort(fold.train_classes) for fold in study.make_folds(ids, dataset.total_classes)]


def _kept_run(study: Study, figure: str, run: int) -> KeptRun:
    """A run of the study with its weights.

    Raises:
        UserError: the run has kept no weights.
    """
    found = kept_models.find(study, read_study(study.directory))
    chosen = next((one for one in found.runs if one.number == run), None)
    if chosen is None:
        numbers = ranges(one.number for one in found.runs)
        raise UserError(f"figure={figure}: run {run} has kept no weights. Runs that have: {numbers} (run=NUMBER).")
    return chosen


def _draw_distributions(study: Study, path: Path, run: int) -> list[Path]:
    split, classes = _trained_classes(study)
    if not _parts_with_distributions(_loss_of(study, split, classes[0])):
        raise UserError(
            f"figure=distributions: {study.config.loss.name} learns no Gaussian for each class, only HIST does."
        )
    chosen = _kept_run(study, "distributions", run)
    compared = [
        _compare_distributions(chosen.study, split, trained, *kept_weights)
        for trained, kept_weights in zip(classes, chosen.weights, strict=True)
    ]
    stem = _stem(study, run, "distributions")
    paths = save(distributions.draw([facts for _, facts in compared]), stem)
    return [*paths, distributions.write_csv(stem.with_name(f"{stem.name}.csv"), compared)]


def _loss_of(study: Study, split: Split, trained: np.ndarray) -> LossModule:
    """The loss of a model as its training starts with it.

    Args:
        study: the study, with the setting that was trained.
        split: the training half.
        trained: ids of the classes that the model is trained on, ascending.
    """
    super_labels = split.super_labels[np.searchsorted(split.class_ids, trained)]
    return study.make_loss(len(trained), 0, super_labels, num_images=int(np.isin(split.labels, trained).sum()))


def _parts_with_distributions(loss: LossModule) -> list[HasDistributions]:
    """The loss itself, or the one that it adds a term to, if it learns distributions."""
    return [part for part in loss.modules() if isinstance(part, HasDistributions)]


def _compare_distributions(
    study: Study, split: Split, trained: np.ndarray, weights: Path, mismatch: Mismatch
) -> tuple[list[str], distributions.Compared]:
    """The names of a model's training classes, and its distributions beside the embeddings of their images."""
    rows, places = np.flatnonzero(np.isin(split.labels, trained)), np.searchsorted(split.class_ids, trained)
    loss = _loss_of(study, split, trained)
    loss.load_state_dict(read_weights(weights, torch.device("cpu"), mismatch)["loss"])
    learned = _parts_with_distributions(loss)[0]
    images = study.make_images(split.images).part(rows)
    trunk, head = load_model(study, weights, mismatch, images)
    found = embed(lambda batch: forward(trunk, head, batch, study.config.precision), images, trunk, head)
    means, variances = (array.numpy() for array in learned.distributions())
    of_class = np.searchsorted(trained, split.labels[rows])
    facts = distributions.compare(found.cpu().numpy(), of_class, means, variances)
    return [split.class_names[place] for place in places], facts


def _draw_activation(study: Study, path: Path, run: int) -> list[Path]:
    chosen = _kept_run(study, "activation", run)
    channels = num_channels(study.make_dataset().trainval().images)
    activation.with_last_map(study.make_trunk(channels, seed=0))  # refused before the test classes are opened
    test = _open(study, run, "activation maps of a few images")
    rows = retrieval.choose_queries(np.arange(len(test.images)), NUM_QUERIES, study.config.seed)
    labels = test.labels[torch.from_numpy(rows).to(test.labels.device)]
    batch, maps = test.pixels.plain(rows), []
    for weights, mismatch in chosen.weights:
        trunk, head = load_model(chosen.study, weights, mismatch, test.pixels)
        trunk.eval(), head.eval()
        targets = [_mean_embedding(trunk, head, test.pixels, np.flatnonzero((test.labels == one).cpu().numpy()))
                   for one in labels]  # fmt: skip
        normalised = to_batch(batch, trunk.mean, trunk.std)
        maps.append(activation.activation_maps(trunk, head, normalised, torch.stack(targets)).cpu().numpy())
    images = [_as_drawn(image) for image in batch]
    names = [test.class_names[int(label)] for label in labels]
    return save(activation.sheet(images, np.stack(maps), names), _stem(study, run, "activation"))


def _mean_embedding(trunk: TrunkModule, head: HeadModule, images: Images, rows: np.ndarray) -> torch.Tensor:
    """The mean (D,) of the unit embeddings of some images."""
    found = embed(lambda batch: head(trunk(batch)), images.part(rows), trunk, head)
    return torch.nn.functional.normalize(found, dim=1).mean(dim=0)


def _open(study: Study, run: int, looks: str, shown: Kept | None = None) -> OpenedTestSet:
    """The test classes, whose images are shown beside what a run kept, if that is given.

    Raises:
        UserError: what it kept belongs to other images.
    """
    test = open_test_set(study, _entry(run, looks))
    if shown is not None and not np.array_equal(test.labels.cpu().numpy(), shown.labels):
        raise UserError(
            f"The test images of {study.config.dataset.name} are not those that run {run} of {study.title} has scored: "
            f"{len(test.labels):,} here, {len(shown.labels):,} there, or in another order. Restore them."
        )
    return test


def _entry(run: int, looks: str) -> JsonObject:
    """A line of the ledger."""
    return {"run": run, "story": "figures", "looks": looks, "commit": commit()}


def _stem(study: Study, run: int, name: str) -> Path:
    return study.directory / "figures" / f"run_{run:02d}_{name}"


FIGURES: dict[str, Draw] = {
    "retrieval": _draw_retrieval,
    "embeddings": _draw_embeddings,
    "epochs": _draw_epochs,
    "hierarchy": _draw_hierarchy,
    "distributions": _draw_distributions,
    "activation": _draw_activation,
}
OF_WEIGHTS = ("distributions", "activation")  # figures that need a run's weights, not its embeddings
