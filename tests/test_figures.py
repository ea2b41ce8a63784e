"""The command `figures` on embeddings that are written by hand: what it draws, prints and logs."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmark import figures as module
from benchmark.datasets import Split
from benchmark.figures import figures
from benchmark.study.study import Study
from tests import fake_results
from tests.command_line import Ended, assert_refused, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTIONS = ("dataset=glyphs_small", "protocol.num_folds=2")
MODELS, DIMENSIONS = 2, 3


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, "Figure"]:
    """The figures that the command draws, by the name of their files; none is written."""
    found: dict[str, Figure] = {}

    def save(figure: "Figure", stem: Path) -> list[Path]:
        found[stem.name] = figure
        return [stem]

    monkeypatch.setattr(module, "save", save)
    monkeypatch.setattr(module, "NUM_QUERIES", 3)
    return found


@pytest.fixture(scope="module")
def halves(compose_study_in: Callable[..., Study], tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    """The two halves of the data."""
    dataset = compose_study_in(tmp_path_factory.mktemp("data"), *OPTIONS, "loss=hpl_pa").make_dataset()
    return dataset.trainval(), dataset.test()


def keep(study: Study, test: Split, **more: np.ndarray) -> Path:
    """Write a study with the test embeddings of a run: one-hot vectors, by the class's number modulo `DIMENSIONS`."""
    fake_results.opened(study)
    embeddings = np.eye(DIMENSIONS, dtype=np.float16)[test.labels % DIMENSIONS]
    ids, names = np.asarray(test.class_ids), np.array(test.class_names)
    buffer = io.BytesIO()
    np.savez(buffer, embeddings=np.stack([embeddings] * MODELS), labels=test.labels, class_ids=ids, class_names=names,
             **more)  # fmt: skip
    path = study.directory / "final_eval/trial_003/run_00/embeddings.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(buffer.getvalue())
    return study.directory


def draw(folder: Path, figure: str) -> Ended:
    ended = run(figures, f"study={folder}", f"figure=[{figure}]", "device=cpu")
    assert ended.status == 0, ended
    return ended


def looks(folder: Path) -> list[str]:
    path = folder / "test_ledger.jsonl"
    return [json.loads(line)["looks"] for line in path.read_text().splitlines()] if path.exists() else []


def nearest(test: Split, first: int) -> np.ndarray:
    """Rows of 32 images for each query, the first of which is given."""
    return np.tile(np.arange(first, first + 32), (len(test.labels), 1))


# -- retrieved images -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_retrieved_images_of_hpl_stand_beside_those_of_its_base_and_both_ledgers_say_so(
    compose_study: Callable[..., Study], halves: tuple[Split, Split], drawn: dict[str, "Figure"]
) -> None:
    test = halves[1]
    base = keep(compose_study(*OPTIONS, "loss=proxy_anchor"), test, neighbours=nearest(test, 0))
    keep(compose_study(*OPTIONS, "loss=proxy_anchor", "variant=other"), test, neighbours=nearest(test, 90))
    hpl = keep(compose_study(*OPTIONS, "loss=hpl_pa"), test, neighbours=nearest(test, 40))
    draw(hpl, "retrieval")
    queries, left, right = drawn["run_00_retrieval"].subfigs
    assert [part.get_suptitle() for part in (left, right)] == ["Proxy-Anchor", "HPL-PA"]
    assert [axes.get_title() for axes in left.axes[:5]] == [f"rank {rank}" for rank in (1, 2, 3, 31, 32)]
    for part, first in ((left, 0), (right, 40)):
        shown = [axes.images[0].get_array() for axes in part.axes[:5]]
        expected = [test.images[first + offset] for offset in (0, 1, 2, 30, 31)]
        np.testing.assert_array_equal(shown, expected)
    # A query of the class of the images that one of the two finds is the best by the mean of both.
    assert len(queries.axes) == 3 and "R-precision 0 %, 0 %" in queries.axes[0].get_title()
    assert queries.axes[2].get_title().rpartition("\n")[2] != "R-precision 0 %, 0 %"
    assert looks(hpl) == ["images retrieved for a few queries"]
    assert looks(base) == ["images retrieved for a few queries, beside hpl_pa"]


@pytest.mark.slow
def test_without_embeddings_of_the_base_the_figure_has_hpl_alone_and_says_why(
    compose_study: Callable[..., Study], halves: tuple[Split, Split], drawn: dict[str, "Figure"]
) -> None:
    base = keep(compose_study(*OPTIONS, "loss=proxy_anchor"), halves[1])
    shutil.rmtree(base / "final_eval")
    hpl = keep(compose_study(*OPTIONS, "loss=hpl_pa"), halves[1], neighbours=nearest(halves[1], 0))
    ended = draw(hpl, "retrieval")
    assert f"The figure shows hpl_pa without its base. {base} keeps no test embeddings of run 0." in ended.out
    assert len(drawn["run_00_retrieval"].subfigs) == 2 and looks(base) == []
    shutil.rmtree(base)
    assert "without its base" not in draw(hpl, "retrieval").out


def test_a_base_with_other_test_images_is_left_out(
    compose_study: Callable[..., Study], halves: tuple[Split, Split], drawn: dict[str, "Figure"]
) -> None:
    base = keep(compose_study(*OPTIONS, "loss=proxy_anchor"), halves[0], neighbours=nearest(halves[0], 0))
    hpl = keep(compose_study(*OPTIONS, "loss=hpl_pa"), halves[1], neighbours=nearest(halves[1], 0))
    assert f"without its base. {base} has other test images." in draw(hpl, "retrieval").out
    assert len(drawn["run_00_retrieval"].subfigs) == 2 and looks(base) == []


def test_a_loss_without_gaussians_has_no_distributions_whatever_its_classes_are(
    compose_study: Callable[..., Study], halves: tuple[Split, Split]
) -> None:
    folder = keep(compose_study(*OPTIONS, "loss=hpl_pa"), halves[1])
    ended = run(figures, f"study={folder}", "figure=[distributions]", "device=cpu")
    assert_refused(ended, "hpl_pa learns no Gaussian for each class, only HIST does")


# -- embeddings -------------------------------------------------------------------------------------------------------


def test_embeddings_are_coloured_by_class_and_by_super_class_with_what_the_loss_learned(
    compose_study: Callable[..., Study], halves: tuple[Split, Split], drawn: dict[str, "Figure"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module.projection, "project", lambda points, method, seed: points[:, :2])
    test, learned = halves[1], {"proxies": np.array([[0, 2.0, 0], [3, 4, 0]]), "centres_1": np.array([[5.0, 0, 0]])}
    hpl = keep(compose_study(*OPTIONS, "loss=hpl_pa"), test, **{f"fold_0.{key}": v for key, v in learned.items()})
    draw(hpl, "embeddings")
    first, second = drawn["run_00_embeddings_tsne"].axes
    assert [axes.get_title() for axes in (first, second)] == ["test embeddings by class", "by super class"]
    _, proxies, coarse = first.collections
    np.testing.assert_allclose(np.asarray(proxies.get_offsets()), [[0, 1], [0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(coarse.get_offsets()), [[1, 0]], rtol=1e-6)
    of_image = test.super_labels[np.searchsorted(test.class_ids, test.labels)]
    colours = second.collections[0].get_facecolors()
    same = of_image == of_image[0]
    assert (colours[same] == colours[0]).all() and (colours[~same] != colours[0]).any(axis=1).all()
    legend = second.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [test.super_names[one] for one in np.unique(test.super_labels)]
    assert looks(hpl) == ["embeddings in two dimensions"]


# -- hierarchies ------------------------------------------------------------------------------------------------------


def test_hpl_s_groups_of_training_classes_stand_beside_the_given_ones(
    compose_study: Callable[..., Study], halves: tuple[Split, Split], drawn: dict[str, "Figure"]
) -> None:
    train, test = halves
    study = compose_study(*OPTIONS, "loss=hpl_pa")
    ids, arrays = np.asarray(train.class_ids), dict[str, np.ndarray]()
    classes = [np.sort(fold.train_classes) for fold in study.make_folds(ids, study.make_dataset().total_classes)]
    for model, own in enumerate(classes):  # the first model has learned the given groups, the second one started none
        arrays[f"fold_{model}.owners_0"] = train.super_labels[np.searchsorted(ids, own)]
        arrays[f"fold_{model}.centres_1"] = np.full((2, 3), 1.0 - model)
    folder = keep(study, test, **arrays)
    ended = draw(folder, "hierarchy")
    number, given = len(classes[0]), len(np.unique(arrays["fold_0.owners_0"]))
    text = (
        f"run_00_hierarchy_model_0: {given} learned groups of {number} training classes; with the {given} given groups"
    )
    assert f"{text}: purity 1.00, adjusted mutual information 1.00\n" in ended.out
    assert "run_00_hierarchy_model_1 is not drawn: the model's best epoch came before" in ended.out
    (axes,) = drawn["run_00_hierarchy_model_0"].axes
    texts = [one.get_text() for one in axes.texts]
    assert texts[0] == "learned" and "given" in texts
    owners = arrays["fold_0.owners_0"]
    largest = np.bincount(owners).argmax()
    assert texts[texts.index("given") + 1] == f"{train.super_names[largest]}: {(owners == largest).sum()} classes"
    # The first image shows the first class of the largest group.
    largest = np.flatnonzero(owners == largest)[0]
    expected = train.images[np.flatnonzero(train.labels == classes[0][largest])[0]]
    np.testing.assert_array_equal(axes.images[0].get_array(), expected)
    assert looks(folder) == []


@pytest.mark.slow
def test_hier_s_tree_has_the_test_classes_that_share_an_ancestor(
    compose_study: Callable[..., Study], halves: tuple[Split, Split], drawn: dict[str, "Figure"]
) -> None:
    test, nodes = halves[1], np.eye(DIMENSIONS)[[2, 0, 1]]
    far = np.full((1, DIMENSIONS), -1.0)
    states = {f"fold_{model}.lcas": np.concatenate([nodes, far]) for model in range(MODELS)}
    folder = keep(compose_study(*OPTIONS, "loss=hier"), test, **states)
    ended = draw(folder, "hierarchy")
    assert f"run_00_hierarchy_model_1: 3 learned ancestors of {len(test.class_ids)} test classes; with the" in ended.out
    lines = (folder / "figures/run_00_hierarchy_model_0.csv").read_text().splitlines()[1:]
    ancestor = {line.split(",")[1]: int(line.split(",")[0]) for line in lines}
    expected = {0: 1, 1: 2, 2: 0}  # the node in the direction of the class's images
    by_class = zip(test.class_ids, test.class_names, strict=True)
    assert ancestor == {name: expected[int(one) % DIMENSIONS] for one, name in by_class}
    assert looks(folder) == ["the classes that share an ancestor, with an image each"]
