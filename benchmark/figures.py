"""make figures: draw what a study keeps of a run, from retrieved images to activation maps.

    make figures STUDY=results/studies/GROUP/hpl_nca ARGS="figure=[retrieval,embeddings] run=0"

Each figure is written as PNG and PDF into the folder `figures` of the study. The hierarchy and the distributions are
of the training classes. All others show test classes; each access is logged in the study's `test_ledger.jsonl`.
"""

if __name__ == "__main__":  # before the slow imports, so that a mistake is reported at once
    from benchmark.__main__ import main

    raise SystemExit(main("figures"))

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmark.core.console import write
from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.core.provenance import commit
from benchmark.datasets import Dataset, Split
from benchmark.images import Images
from benchmark.images.batches import embed, to_batch
from benchmark.losses import HasDistributions
from benchmark.protocol.neighbours import nearest_neighbours
from benchmark.report.figures import activation, distributions, hierarchy, kept, projection, retrieval, save
from benchmark.report.figures.kept import Kept
from benchmark.study import kept_models
from benchmark.study.data import num_channels
from benchmark.study.kept_models import KeptRun, Mismatch
from benchmark.study.model_files import read_weights
from benchmark.study.passes import held_out_classes
from benchmark.study.scoring import load_model
from benchmark.study.stored import read_study
from benchmark.study.study import Study
from benchmark.study.testset import open_test_set
from benchmark.training.components import HeadModule, LossModule, TrunkModule
from benchmark.training.precision import forward

RANKS = (1, 2, 3, 4, 5, 31, 32)  # those of HPL's figure 3 among them
NUM_QUERIES = 8
ANCHORS = ("lcas", "centres_1")  # arrays of a loss that stand above its classes: HIER's ancestors, HPL's coarse proxies
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


def _draw_retrieval(study: Study, path: Path, run: int) -> list[Path]:
    run_kept = kept.read(path)
    test = open_test_set(study, {"run": run, "story": "figures", "looks": "images retrieved for a few queries"})
    rows = np.arange(len(run_kept.labels)) if run_kept.is_query is None else np.flatnonzero(run_kept.is_query)
    nearest = _neighbours(study, run_kept)
    scores = retrieval.precision(run_kept.labels, rows, nearest, run_kept.is_query)
    some = retrieval.worst_to_best(scores, NUM_QUERIES, study.config.seed)
    chosen, found = rows[some], nearest[some]
    notes = [f"R-precision {100 * score:.0f} %" for score in scores[some]]

    def pixels(index: int) -> np.ndarray:
        image = test.pixels.plain(np.array([index]))[0].cpu().numpy()
        return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)

    figure = retrieval.sheet(pixels, test.class_names.__getitem__, run_kept.labels, chosen, found, RANKS, notes)
    return save(figure, _stem(study, run, "retrieval"))


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
    _log(study, run, "embeddings in two dimensions")
    method, seed = study.config.projection, study.config.seed
    run_kept = kept.read(path)
    rows = projection.sample_classes(run_kept.labels, seed)
    panels = {"test embeddings": (run_kept.embeddings[0, rows], _anchors(run_kept))}
    figure = projection.draw(panels, run_kept.labels[rows], method, seed)
    return save(figure, _stem(study, run, f"embeddings_{method}"))


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
    _log(study, run, f"embeddings of the epochs {', '.join(map(str, epochs))} in two dimensions")
    method, seed = study.config.projection, study.config.seed
    read = {epoch: kept.read(other) for epoch, other in epochs.items()}
    labels = next(iter(read.values())).labels
    rows = projection.sample_classes(labels, seed)
    panels = {f"epoch {epoch}": (found.embeddings[0, rows], _anchors(found)) for epoch, found in read.items()}
    return save(projection.draw(panels, labels[rows], method, seed), _stem(study, run, f"epochs_{method}"))


def _anchors(run_kept: Kept) -> np.ndarray | None:
    state = run_kept.states[0]
    found = next((state[name] for name in ANCHORS if name in state), None)
    return None if found is None else found.astype(np.float32)


def _draw_hierarchy(study: Study, path: Path, run: int) -> list[Path]:
    run_kept = kept.read(path)
    if not all("owners_0" in state for state in run_kept.states):
        raise UserError(
            f"figure=hierarchy: {path} holds no hierarchy, which only HPL learns, not {study.config.loss.name}; or a "
            "version that did not keep it wrote this file."
        )
    split, classes = _trained_classes(study)
    ids, paths = np.asarray(split.class_ids), list[Path]()
    for model, (state, trained) in enumerate(zip(run_kept.states, classes, strict=True)):
        places = np.searchsorted(ids, trained)
        names = [split.class_names[place] for place in places]
        given = split.super_labels[places]
        owners = state["owners_0"].astype(np.int64)
        stem = _stem(study, run, f"hierarchy_model_{model}" if len(classes) > 1 else "hierarchy")
        share, shared = hierarchy.purity(owners, given), hierarchy.adjusted_mutual_information(owners, given)
        title = f"{len(np.unique(owners))} learned groups of {len(names)} classes; with the given ones: purity "
        title += f"{share:.2f}, adjusted mutual information {shared:.2f}"
        paths += save(hierarchy.draw(names, owners, title), stem)
        hierarchy.write_csv(stem.with_name(f"{stem.name}.csv"), names, owners, [split.super_names[g] for g in given])
        paths.append(stem.with_name(f"{stem.name}.csv"))
    return paths


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
        numbers = ", ".join(str(one.number) for one in found.runs)
        raise UserError(f"figure={figure}: run {run} has kept no weights. Runs that have: {numbers} (run=NUMBER).")
    return chosen


def _draw_distributions(study: Study, path: Path, run: int) -> list[Path]:
    if not _parts_with_distributions(study.make_loss(2, 0, np.arange(2), num_images=2)):
        raise UserError(
            f"figure=distributions: {study.config.loss.name} learns no Gaussian for each class, only HIST does."
        )
    chosen = _kept_run(study, "distributions", run)
    split, classes = _trained_classes(study)
    compared = [
        _compare_distributions(chosen.study, split, trained, *kept_weights)
        for trained, kept_weights in zip(classes, chosen.weights, strict=True)
    ]
    stem = _stem(study, run, "distributions")
    paths = save(distributions.draw([facts for _, facts in compared]), stem)
    return [*paths, distributions.write_csv(stem.with_name(f"{stem.name}.csv"), compared)]


def _parts_with_distributions(loss: LossModule) -> list[HasDistributions]:
    """The loss itself, or the one that it adds a term to, if it learns distributions."""
    return [part for part in loss.modules() if isinstance(part, HasDistributions)]


def _compare_distributions(
    study: Study, split: Split, trained: np.ndarray, weights: Path, mismatch: Mismatch
) -> tuple[list[str], distributions.Compared]:
    """The names of a model's training classes, and its distributions beside the embeddings of their images."""
    rows, places = np.flatnonzero(np.isin(split.labels, trained)), np.searchsorted(split.class_ids, trained)
    loss = study.make_loss(len(trained), 0, split.super_labels[places], num_images=len(rows))
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
    entry = {"run": run, "story": "figures", "looks": "activation maps of a few images", "commit": commit()}
    test = open_test_set(study, entry)
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
    pictures = [image[0] if len(image) == 1 else np.moveaxis(image, 0, -1) for image in batch.cpu().numpy()]
    names = [test.class_names[int(label)] for label in labels]
    return save(activation.sheet(pictures, np.stack(maps), names), _stem(study, run, "activation"))


def _mean_embedding(trunk: TrunkModule, head: HeadModule, images: Images, rows: np.ndarray) -> torch.Tensor:
    """The mean (D,) of the unit embeddings of some images."""
    found = embed(lambda batch: head(trunk(batch)), images.part(rows), trunk, head)
    return torch.nn.functional.normalize(found, dim=1).mean(dim=0)


def _log(study: Study, run: int, looks: str) -> None:
    open_test_set(study, {"run": run, "story": "figures", "looks": looks, "commit": commit()})


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
