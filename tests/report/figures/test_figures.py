"""Figures on made-up arrays: what they show, and what a damaged file gives."""

import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from benchmark import figures
from benchmark.core.errors import UserError
from benchmark.core.records import CorruptFileError
from benchmark.report.figures import hierarchy, kept, projection, retrieval, save


def write_run(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.write_bytes(buffer.getvalue())


def a_run(N=12, D=4):
    rng = np.random.default_rng(0)
    return {"embeddings": rng.normal(size=(2, N, D)).astype(np.float16), "labels": np.arange(N) % 3}


def test_a_run_is_read_with_the_state_of_each_model(tmp_path):
    path = tmp_path / "final_eval" / "trial_001" / "run_03" / kept.NAME
    write_run(path, **a_run(), **{"fold_0.proxies": np.ones((3, 4)), "fold_1.proxies": np.zeros((3, 4))})
    assert kept.find(tmp_path, 3) == path
    found = kept.read(path)
    assert found.embeddings.dtype == np.float32 and found.embeddings.shape == (2, 12, 4)
    assert [state["proxies"].mean() for state in found.states] == [1, 0]
    assert found.is_query is None and found.neighbours is None


def test_a_run_without_embeddings_names_the_command_that_keeps_them(tmp_path):
    (tmp_path / "traditional").mkdir()
    with pytest.raises(UserError, match=r"make traditional STUDY=.* ARGS=keep=best"):
        kept.find(tmp_path, 0)


@pytest.mark.parametrize(
    "arrays",
    [
        {"labels": np.arange(3)},
        a_run() | {"labels": np.arange(5)},
        a_run() | {"embeddings": np.full((1, 12, 4), np.nan)},
    ],
    ids=["no embeddings", "other labels", "not finite"],
)
def test_a_damaged_file_is_named(tmp_path, arrays):
    path = tmp_path / "a.npz"
    write_run(path, **arrays)
    with pytest.raises(CorruptFileError, match=r"a\.npz"):
        kept.read(path)


def test_embeddings_with_objects_are_not_unpickled(tmp_path):
    path = tmp_path / "a.npz"
    write_run(path, embeddings=np.array([{}], dtype=object), labels=np.arange(1))
    with pytest.raises(CorruptFileError):
        kept.read(path)


@pytest.mark.parametrize(("name", "has"), [("owners_0", True), ("lcas", True), ("proxies", False)])
def test_a_file_says_whether_it_holds_a_hierarchy(tmp_path, name, has):
    write_run(tmp_path / "a.npz", **a_run(), **{f"fold_1.{name}": np.zeros(3)})
    assert kept.has_hierarchy(tmp_path / "a.npz") == has
    (tmp_path / "b.npz").write_bytes(b"damaged")
    assert not kept.has_hierarchy(tmp_path / "b.npz") and not kept.has_hierarchy(tmp_path / "none.npz")


def test_epochs_are_found_beside_a_run_in_their_order(tmp_path):
    for epoch in (10, 1, 3):
        write_run(tmp_path / f"embeddings_epoch_{epoch}.npz", **a_run())
    assert list(kept.by_epoch(tmp_path / kept.NAME)) == [1, 3, 10]


def frames(axes):
    return [each.spines["left"].get_edgecolor()[:3] for each in axes]


def grey(index):
    return np.full((8, 8), 10 * index, np.uint8)


GREEN, RED, GREY = (to_rgb(colour) for colour in (retrieval.RIGHT, retrieval.WRONG, retrieval.QUERY))


def test_a_frame_is_green_for_the_query_s_class_and_red_for_another():
    labels, found = np.array([0, 0, 1, 1]), np.array([[1, 2, 3], [3, 0, 1]])
    figure = retrieval.sheet(grey, lambda label: f"class {label}", labels, np.array([0, 2]), {"": found}, [1, 3, 9])
    queries, images = figure.axes[:2], figure.axes[2:]
    assert len(images) == 4, "two queries, each with the ranks 1 and 3: there is no rank 9"
    assert frames(queries) == [GREY, GREY] and frames(images) == [GREEN, RED, GREEN, RED]
    assert [axes.images[0].get_array()[0, 0] for axes in figure.axes] == [0, 20, 10, 30, 30, 10]
    assert [axes.get_title() for axes in figure.axes] == ["class 0", "class 1", "rank 1", "rank 3", "", ""]
    assert [part._suptitle for part in figure.subfigs] == [None, None]


def test_two_models_have_a_block_each_with_the_same_queries():
    labels, queries = np.array([0, 0, 1, 1]), np.array([0, 2])
    found = {"Base": np.array([[2, 1], [3, 0]]), "HPL": np.array([[1, 2], [0, 3]])}
    figure = retrieval.sheet(grey, str, labels, queries, found, [1, 2], ["0 %, 100 %", "note"])
    assert [part.get_suptitle() for part in figure.subfigs[1:]] == ["Base", "HPL"]
    assert [axes.get_title() for axes in figure.subfigs[0].axes] == ["0\n0 %, 100 %", "1\nnote"]
    assert frames(figure.subfigs[1].axes) == [RED, GREEN, GREEN, RED]
    assert frames(figure.subfigs[2].axes) == [GREEN, RED, RED, GREEN]


def test_queries_are_chosen_by_the_seed():
    rows = np.arange(5, 50)
    first = retrieval.choose_queries(rows, 8, 0)
    assert len(first) == 8 and set(first) <= set(rows) and list(first) == sorted(first)
    assert list(first) == list(retrieval.choose_queries(rows, 8, 0)) != list(retrieval.choose_queries(rows, 8, 1))


def test_a_query_s_score_is_the_share_of_its_class_among_as_many_images_as_the_class_has():
    labels = np.array([0, 0, 0, 1, 1, 2])
    queries = np.array([0, 3, 5])
    found = np.array([[1, 3, 2], [0, 4, 1], [0, 1, 2]])
    scores = retrieval.precision(labels, queries, found)  # 1 of 2; 0 of 1; no relative
    np.testing.assert_array_equal(scores, [0.5, 0, np.nan])
    is_query = np.array([True, False, False, True, False, True])
    scores = retrieval.precision(labels, queries, np.array([[1, 2], [4, 1], [1, 2]]), is_query)
    np.testing.assert_array_equal(scores, [1, 1, np.nan])


def test_queries_are_shown_from_the_worst_to_the_best():
    scores = np.array([0.9, np.nan, 0.1, 0.5, 0.7, 0.3])
    assert retrieval.worst_to_best(scores, 3, 0).tolist() == [2, 3, 0]
    assert retrieval.worst_to_best(scores, 9, 0).tolist() == [2, 5, 3, 4, 0]
    ties = np.zeros(50)
    assert retrieval.worst_to_best(ties, 5, 0).tolist() != retrieval.worst_to_best(ties, 5, 1).tolist()


def test_groups_that_are_equal_or_random_have_a_mutual_information_of_one_or_zero():
    given = np.arange(60) % 3
    assert hierarchy.adjusted_mutual_information((given + 1) % 3, given) == pytest.approx(1)
    random = np.random.default_rng(0).permutation(np.arange(60) % 20)
    assert abs(hierarchy.adjusted_mutual_information(random, given)) < 0.2 < hierarchy.purity(random, given)


def test_whole_classes_are_sampled(monkeypatch):
    monkeypatch.setattr(projection, "MOST_POINTS", 7)
    labels = np.repeat(np.arange(4), 3)
    rows = projection.sample_classes(labels, 0)
    assert len(rows) == 6 and sorted(np.bincount(labels[rows], minlength=4)) == [0, 0, 3, 3]


def test_a_projection_keeps_clusters_together():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(20, 5)) + offset for offset in (0, 50)])
    places = projection.project(points, "tsne", 0)
    centres = places[:20].mean(0), places[20:].mean(0)
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * np.linalg.norm(places[:20] - centres[0], axis=1).max()


def test_umap_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(UserError, match=r"(?s)pip install 'umap-learn>=0\.5\.7'.*projection=tsne"):
        projection.project(np.ones((5, 2)), "umap", 0)


def test_samples_proxies_and_points_above_are_projected_together(monkeypatch):
    monkeypatch.setattr(projection, "project", lambda points, method, seed: 10 * points[:, :2])
    samples, proxies, above = np.ones((3, 4)), 2 * np.ones((2, 4)), 3 * np.ones((1, 4))
    found = projection.Points(samples, proxies, above, np.zeros(3, int), "ancestor").projected("tsne", 0)
    assert [part[:, 0].tolist() for part in (found.samples, found.proxies, found.above)] == [[10] * 3, [20] * 2, [30]]
    assert projection.Points(samples).projected("tsne", 0).samples.shape == (3, 2)


def test_at_most_so_many_proxies_are_drawn(monkeypatch):
    monkeypatch.setattr(projection, "MOST_PROXIES", 4)
    proxies = np.arange(18).reshape(9, 2)
    found = projection.sample_proxies(proxies, 0)[:, 0].tolist()
    assert len(found) == 4 and found == sorted(found) and {*found} <= {*range(0, 18, 2)}
    assert projection.sample_proxies(np.zeros((0, 0)), 0).shape == (0, 0)


def test_panels_have_a_colour_for_each_group_and_the_loss_s_own_points():
    samples, above = np.array([[0.0, 0], [1, 0], [0, 2]]), np.array([[5.0, 5], [6, 6]])
    points = projection.Points(samples, np.array([[3.0, 3]]), above, np.array([1, 1, 0]), "coarse proxy")
    figure = projection.draw([
        projection.Panel("by class", points, np.array([4, 5, 6])),
        projection.Panel("by super class", points, np.array([8, 8, 9]), {8: "_birds", 9: "$cars^$"}),
    ])  # fmt: skip
    first, second = figure.axes
    lines, dots, triangles, crosses = first.collections
    assert [segment[1].tolist() for segment in lines.get_segments()] == [[6, 6], [6, 6], [5, 5]]
    places = [np.asarray(one.get_offsets()).tolist() for one in (dots, triangles, crosses)]
    assert places == [samples.tolist(), [[3, 3]], above.tolist()]
    assert len(np.unique(dots.get_facecolors(), axis=0)) == 3
    colours = second.collections[1].get_facecolors()
    assert colours[0].tolist() == colours[1].tolist() != colours[2].tolist()
    texts = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert texts == [["proxy of a training class", "coarse proxy"], [" _birds", "$cars^$"]]
    figure.savefig(io.BytesIO())  # a name is no formula
    plain = projection.draw([projection.Panel("", projection.Points(samples), np.arange(3))])
    assert len(plain.axes[0].collections) == 1 and plain.axes[0].get_legend() is None


def test_purity_is_the_share_of_each_group_s_most_frequent_given_group():
    assert hierarchy.purity(np.array([0, 0, 0, 1, 1]), np.array([7, 7, 8, 8, 8])) == pytest.approx(4 / 5)


def test_a_hierarchy_lists_every_class(tmp_path):
    names, owners = ["a", "=b", "c", "d", "e"], np.array([2, 0, 2, 0, 2])
    hierarchy.write_csv(tmp_path / "h.csv", names, owners, ["x"] * 5)
    lines = (tmp_path / "h.csv").read_text().splitlines()
    assert lines[:3] == ["group,class,given_group", "0,'=b,x", "0,d,x"] and len(lines) == 6


def tree_of(names, owners, given=()):
    learned_groups = hierarchy.groups(np.array(owners), "group {}".format)
    given_groups = hierarchy.groups(np.array(given), "given {}".format) if given else []
    (axes,) = hierarchy.draw("title", names, grey, learned_groups, given_groups).axes
    edges = [to_rgb(patch.get_edgecolor()) for patch in axes.patches]
    images = [int(image.get_array()[0, 0]) // 10 for image in axes.images]
    return [text.get_text() for text in axes.texts], edges, images, axes


def test_a_tree_has_the_largest_group_first_with_an_image_and_the_name_of_each_class():
    texts, edges, images, axes = tree_of([f"class {c}" for c in range(5)], [2, 0, 2, 0, 2])
    assert texts == ["group 2: 3 classes", "class 0", "class 2", "class 4", "group 0: 2 classes", "class 1", "class 3"]
    assert images == [0, 2, 4, 1, 3] and edges == [to_rgb(hierarchy.GREY)] * 5
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places["class 0"][1] == places["class 4"][1] < places["group 0: 2 classes"][1] < places["class 1"][1]


def test_the_given_tree_stands_beside_with_its_colours_in_both():
    texts, edges, images, axes = tree_of(["a", "b", "c"], [0, 1, 1], [7, 7, 8])
    assert texts == ["learned", "group 1: 2 classes", "b", "c", "group 0: 1 class", "a",
                     "given", "given 7: 2 classes", "a", "b", "given 8: 1 class", "c"]  # fmt: skip
    assert images == [1, 2, 0, 0, 1, 2]
    colour = dict(zip("bcaABC", edges, strict=True))  # of the learned tree, then of the given one
    assert colour["a"] == colour["b"] == colour["A"] == colour["B"] != colour["c"] == colour["C"]
    first, second = (axes.texts[n].get_position() for n in (0, 6))
    assert first[0] < second[0] and first[1] == second[1]


def test_a_large_tree_says_what_it_leaves_out():
    size, most = hierarchy.MOST_CLASSES + 3, hierarchy.MOST_GROUPS
    texts, *_ = tree_of(["x"] * (size + most + 1), [0] * size + list(range(1, most + 2)))
    assert f"group 0: {size} classes" in texts and "and 3 more" in texts
    assert texts[-1] == "and 2 more groups with 2 classes"


def test_a_figure_is_written_in_both_formats_and_depends_on_nothing_but_itself(tmp_path):
    figure = hierarchy.draw("two", ["a", "b"], grey, [hierarchy.Group("g", [0, 1])])
    paths = save(figure, tmp_path / "figures" / "h")
    assert [path.name for path in paths] == ["h.png", "h.pdf"]
    assert matplotlib.image.imread(paths[0]).ndim == 3
    first = [path.read_bytes() for path in paths]
    assert first == [path.read_bytes() for path in save(figure, tmp_path / "figures" / "h")]


def test_a_run_without_embeddings_is_refused_with_the_runs_that_have_them(tmp_path):
    for run in (0, 3):
        folder = tmp_path / "final_eval/trial_000" / f"run_{run:02d}"
        folder.mkdir(parents=True)
        (folder / kept.NAME).write_bytes(b"")
    assert kept.find(tmp_path, 3) == folder / kept.NAME
    with pytest.raises(UserError, match=r"no test embeddings of run 7\. Runs that have them: 0, 3\. .*make final-eval"):
        kept.find(tmp_path, 7)


def test_embeddings_of_epochs_are_those_of_the_traditional_protocol_only(compose_study, tmp_path):
    with pytest.raises(UserError, match=r"only the command traditional keeps .* with keep_epochs=\[1,3,5,7,10\]"):
        figures._draw_epochs(compose_study(), tmp_path, 0)
    with pytest.raises(UserError, match=r"make traditional STUDY=\S+ 'ARGS=keep_epochs=\[1,3,5,7,10\]' keeps"):
        figures._draw_epochs(compose_study("protocol=traditional"), tmp_path, 0)
