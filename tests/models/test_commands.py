"""The commands embed, search, export and score with a model that has random weights."""

import csv
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.core import invocation
from benchmark.embed import embed
from benchmark.export import export
from benchmark.models import gallery
from benchmark.models.loaded import Model, load
from benchmark.score import score
from benchmark.search import search
from tests.command_line import Ended, assert_refused, run
from tests.models.conftest import OPTIONS, write_model

COMMANDS = {"embed": embed, "search": search, "export": export, "score": score}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "user_cache_dir", lambda: tmp_path / "cache")


def embeddings_by_hand(model: Model, path: Path) -> np.ndarray:
    """The concatenated embedding of an image: resized, cropped and made grey by PIL alone."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    short = min(rgb.size)
    small = rgb.resize((32 * rgb.width // short, 32 * rgb.height // short), Image.Resampling.BILINEAR)
    left, top = round((small.width - 32) / 2), round((small.height - 32) / 2)
    grey = small.crop((left, top, left + 32, top + 32)).convert("L")
    batch = (torch.from_numpy(np.array(grey, np.float32))[None, None] / 255 - 0.1) / 0.27
    with torch.inference_mode():
        found = [one.head(one.trunk(batch))[0] for one in model.networks]
    return torch.cat([vector / vector.norm() for vector in found]).numpy()


def run_next(ended: Ended, **instead: object) -> Ended:
    """Run the command that another one suggests, with some of its variables in place of those that are suggested."""
    assert ended.status == 0, ended
    _, target, *words = shlex.split(ended.out.rpartition("Next: ")[2])
    values = {name: value for name, _, value in (word.partition("=") for word in words)} | instead
    given = {f"{invocation.FROM_MAKE}{name}": str(value) for name, value in values.items()}
    return run(COMMANDS[target], *invocation.from_make(given, target))


@pytest.fixture
def in_balls(tmp_path: Path, compose_study: Any) -> Path:
    """A model whose embeddings are points of a ball for each of its two networks."""
    return write_model(tmp_path / "ball", compose_study("dataset=glyphs_small", "loss=hyp", *OPTIONS[2:]))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# -- embed ------------------------------------------------------------------------------------------------------------


def test_embeddings_are_those_of_the_network_applied_by_hand_and_bad_images_are_counted_and_named(
    model_folder: Path, pictures: Path, tmp_path: Path, compose_study: Any
) -> None:
    out = tmp_path / "found.npz"
    ended = run(embed, f"model={model_folder}", f"images={pictures}", f"output={out}", "embed_batch=4")
    assert ended.status == 0, ended
    assert "1 of 10 images cannot be read and are left out:\n  a/broken.jpg cannot be decoded" in ended.out
    assert "embeddings 9 x 32" in ended.out and "1 .txt file" in ended.out
    with np.load(out) as found:
        assert found["paths"].tolist() == [f"{label}/{number}.png" for label in "abc" for number in range(3)]
        assert found["labels"].tolist() == [label for label in "abc" for _ in range(3)]
        model = load(str(model_folder), compose_study())
        for path, vector in zip(found["paths"], found["embeddings"], strict=True):
            assert vector == pytest.approx(embeddings_by_hand(model, pictures / path), abs=2e-5)


def test_folds_can_stay_apart_and_csv_has_a_column_for_each_number(
    model_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    options = (f"model={model_folder}", f"images={pictures}", "display=quiet")
    assert run(embed, *options, f"output={tmp_path / 'joined.npz'}").status == 0
    assert run(embed, *options, f"output={tmp_path / 'apart.npz'}", "folds=separated").status == 0
    assert run(embed, *options, f"output={tmp_path / 'apart.csv'}", "folds=separated", "format=csv").status == 0
    joined, apart = (np.load(tmp_path / f"{name}.npz")["embeddings"] for name in ("joined", "apart"))
    assert apart.shape == (2, 9, 16) and np.array_equal(np.concatenate(list(apart), axis=1), joined)
    row = rows_of(tmp_path / "apart.csv")[4]
    assert (row["path"], row["label"]) == ("b/1.png", "b")
    assert np.float32(row["fold_1_7"]) == apart[1, 4, 7]


def test_parquet_is_read_back_or_its_package_is_named(model_folder: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.parquet"
    ended = run(embed, f"model={model_folder}", f"images={pictures}", f"output={out}", "format=parquet")
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        assert_refused(ended, "pip install pyarrow", "format=npz or csv")
        return
    table = parquet.read_table(out).to_pydict()
    assert len(table["embedding"]) == 9 and len(table["embedding"][0]) == 32 and table["path"][0] == "a/0.png"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["images=."], "Name the model"), (["model=."], "Name the model"), (["model=.", "images=nowhere"], "no folder"),
        (["model=.", "images=.", "format=xls"], "format=xls: allowed are npz, csv, parquet"),
        (["model=.", "images=.", "embed_batch=0"], "embed_batch"), (["folds=both"], "folds"),
    ],
)  # fmt: skip
def test_mistakes_of_embed_are_explained(options: list[str], said: str) -> None:
    assert_refused(run(embed, *options), said)


def test_the_folder_of_one_run_is_not_that_of_another(model_folder: Path, pictures: Path) -> None:
    assert_refused(run(embed, f"model={model_folder}", f"images={pictures}", "run=2"), "run=2", "is run 0")


def test_a_folder_with_nothing_that_can_be_read_is_refused(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    assert_refused(run(embed, f"model={model_folder}", f"images={tmp_path / 'bad'}"), "holds no image")
    (tmp_path / "bad" / "x.png").write_text("nothing")
    out = tmp_path / "x.npz"
    ended = run(embed, f"model={model_folder}", f"images={tmp_path / 'bad'}", f"output={out}")
    assert_refused(ended, "None of the images")
    assert not out.exists()


def test_a_missing_package_is_named_before_anything_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ended = run(embed, "model=none", "images=none", "format=parquet")
    assert_refused(ended, "pip install pyarrow", "format=npz or csv")


@pytest.mark.slow
def test_files_of_two_models_have_two_names(tmp_path: Path, pictures: Path, compose_study: Any) -> None:
    study, results = compose_study(*OPTIONS), tmp_path / "results"
    for number, place in enumerate(("one/net", "two-a/net", "two-a/other")):
        model = write_model(tmp_path / place, study, folds=1, run=number)
        options = (f"model={model}", f"results_dir={results}", "display=quiet")
        for command, more in ((embed, (f"images={pictures}",)), (export, ("format=torchscript",)),
                              (search, (f"images={pictures}", f"query={pictures / 'a/0.png'}"))):  # fmt: skip
            assert run(command, *options, *more).status == 0
    models = ("one-net-run_00", "two-a-net-run_01", "two-a-other-run_02")
    for folder, end in (("embeddings", "-pictures.npz"), ("export", ".pt"), ("search", "-0.html")):
        assert sorted(path.name for path in (results / folder).iterdir()) == [f"{model}{end}" for model in models]


def test_points_of_several_balls_are_scored_by_the_command_that_embed_suggests(
    in_balls: Path, pictures: Path, tmp_path: Path
) -> None:
    options = (f"model={in_balls}", f"images={pictures}", f"output={tmp_path / 'found.npz'}")
    assert_refused(run(embed, *options), "folds=separated")
    ended = run_next(run(embed, *options, "folds=separated"), OUT=tmp_path / "scores")
    assert ended.status == 0 and "9 queries, 3 classes" in ended.out, ended
    with np.load(tmp_path / "found.npz") as found:
        assert str(found["distance"]) == "hyperbolic" and float(found["curvature"]) == 0.1
        points = found["embeddings"][0].astype(np.float64)
        labels = found["labels"]
    apart = ((points[:, None] - points) ** 2).sum(axis=2)  # arcosh grows with 1 + 2c d^2 / ((1 - c|x|^2)(1 - c|y|^2))
    inside = 1 - 0.1 * (points**2).sum(axis=1)
    far = apart / (inside[:, None] * inside) + np.diag(np.full(9, np.inf))
    mine = np.mean(labels[far.argmin(axis=1)] == labels)
    assert run(score, f"embeddings={first_fold(tmp_path)}", f"output={tmp_path / 'first'}").status == 0
    whole = {row["metric"]: float(row["value"]) for row in rows_of(tmp_path / "first" / "scores.csv")}
    assert whole["precision_at_1"] == pytest.approx(mine)


def first_fold(folder: Path) -> Path:
    """The file of embeddings of a folder, with those of the first fold alone."""
    with np.load(folder / "found.npz") as found:
        np.savez(folder / "first.npz", **{name: found[name] for name in found} | {"embeddings": found["embeddings"][0]})
    return folder / "first.npz"


def test_after_one_image_a_search_of_its_folder_is_suggested(
    model_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    query = pictures / "a" / "0.png"
    ended = run(embed, f"model={model_folder}", f"images={query}", f"output={tmp_path / 'found.npz'}")
    assert f"ROOT={pictures / 'a'}\n" in ended.out, ended
    assert len(found_by(run_next(ended, QUERY=query, OUT=tmp_path / "page.html"))) == 2


# -- search -----------------------------------------------------------------------------------------------------------


def found_by(ended: Ended) -> list[str]:
    assert ended.status == 0, ended
    return re.findall(r"^ +\d+  -?[\d.]+  (\S+)$", ended.out, re.MULTILINE)


def nearest_by_hand(model: Model, query: Path, pictures: Path) -> list[str]:
    paths = sorted(path for path in pictures.rglob("*.png") if path != query)
    own = embeddings_by_hand(model, query)
    similar = {str(path.relative_to(pictures)): float(own @ embeddings_by_hand(model, path)) / 2 for path in paths}
    return sorted(similar, key=lambda name: -similar[name])


@pytest.mark.parametrize("with_faiss", [True, False])
def test_the_nearest_images_are_found_without_the_query_itself_and_the_gallery_is_embedded_once(
    with_faiss: bool, model_folder: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    compose_study: Any,
) -> None:  # fmt: skip
    if not with_faiss:
        monkeypatch.setattr(gallery, "_faiss", lambda: None)
    query = pictures / "b" / "1.png"
    options = (f"model={model_folder}", f"images={pictures}", f"query={query}", f"output={tmp_path / 'page.html'}")
    first = run(search, *options, "nearest=4")
    expected = nearest_by_hand(load(str(model_folder), compose_study()), query, pictures)
    assert found_by(first) == expected[:4] and "(9 embedded, 0 from the cache)" in first.out
    assert bool(list((tmp_path / "cache").rglob("gallery.faiss"))) == with_faiss
    again = run(search, *options, "nearest=4")
    assert found_by(again) == expected[:4] and "(0 embedded, 9 from the cache)" in again.out
    shutil.copy2(query, tmp_path / "same time and size")
    os.replace(tmp_path / "same time and size", query)
    replaced = run(search, *options, "nearest=4")
    assert found_by(replaced) == expected[:4] and "(1 embedded, 8 from the cache)" in replaced.out
    shutil.copy(query, pictures / "c" / "copy.png")
    (pictures / "a" / "0.png").unlink()
    changed = run(search, *options, "nearest=20")
    assert "(1 embedded, 8 from the cache)" in changed.out
    assert found_by(changed) == ["c/copy.png", *(name for name in expected if name != "a/0.png")]


def test_a_gallery_that_changed_while_faiss_was_missing_is_searched_as_it_is_now(
    model_folder: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose_study: Any
) -> None:
    query = pictures / "b" / "1.png"
    options = (f"model={model_folder}", f"images={pictures}", f"query={query}", f"output={tmp_path / 'page.html'}")
    run(search, *options)
    (pictures / "a" / "0.png").unlink()
    with monkeypatch.context() as without:
        without.setattr(gallery, "_faiss", lambda: None)
        run(search, *options)
    expected = nearest_by_hand(load(str(model_folder), compose_study()), query, pictures)
    assert found_by(run(search, *options, "nearest=20")) == expected


def test_the_page_has_a_picture_for_each_hit_and_refers_to_nothing_outside(
    model_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "b").rename(pictures / "<b>")
    out = tmp_path / "page.html"
    ended = run(search, f"model={model_folder}", f"images={pictures}", f"query={pictures / '<b>'}", f"output={out}",
                "nearest=8")  # fmt: skip
    assert len(found_by(ended)) == 24
    text = out.read_text()
    assert text.count("data:image/jpeg;base64,") == 3 * 9
    assert "<b>/" not in text and "&lt;b&gt;/0.png" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text) and "<script" not in text
    assert all(re.findall(r'<img alt="[^"]+"', text))


def test_a_damaged_cache_is_embedded_again(model_folder: Path, pictures: Path, tmp_path: Path) -> None:
    options = (
        f"model={model_folder}",
        f"images={pictures}",
        f"query={pictures / 'a/0.png'}",
        f"output={tmp_path / 'p'}",
    )
    before = found_by(run(search, *options))
    (kept,) = (tmp_path / "cache").rglob("gallery.npz")
    kept.write_bytes(kept.read_bytes()[:-9])
    ended = run(search, *options)
    assert found_by(ended) == before and "(9 embedded" in ended.out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model_folder", "in_balls"])
def test_the_export_that_a_search_suggests_needs_no_package_that_is_missing(
    name: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    options = (f"model={request.getfixturevalue(name)}", f"images={pictures}", f"query={pictures / 'a/0.png'}",
               f"output={tmp_path / 'page.html'}")  # fmt: skip
    for module in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, module, None)
    ended = run_next(run(search, *options), OUT=tmp_path / "model.pt")
    assert ended.status == 0, ended
    assert len(list(tmp_path.glob("model*.pt"))) == (2 if name == "in_balls" else 1)
    monkeypatch.setattr("benchmark.search.has_onnx", lambda: True)
    assert "FORMAT=onnx" in run(search, *options).out


def test_mistakes_of_search_are_explained(model_folder: Path, pictures: Path) -> None:
    assert_refused(run(search, f"model={model_folder}"), "QUERY=IMAGE ROOT=FOLDER")
    assert_refused(run(search, f"model={model_folder}", "query=nix.png", f"images={pictures}"), "no folder or image")
    broken = pictures / "a" / "broken.jpg"
    assert_refused(run(search, f"model={model_folder}", f"query={broken}", f"images={pictures}"), "no image there")


# -- export -----------------------------------------------------------------------------------------------------------


def inputs() -> torch.Tensor:
    return torch.randint(0, 256, (3, 1, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_torchscript_gives_the_embeddings_of_the_model(model_folder: Path, tmp_path: Path, compose_study: Any) -> None:
    out = tmp_path / "model.pt"
    ended = run(export, f"model={model_folder}", "format=torchscript", f"output={out}")
    assert ended.status == 0 and "(B, 1, 32, 32), grey" in ended.out, ended
    found = torch.jit.load(out)(inputs().float() / 255)
    ours = torch.cat(list(load(str(model_folder), compose_study()).embed(inputs())), dim=1)
    assert found.shape == (3, 32) and torch.allclose(found, ours, atol=1e-5)


def test_separated_folds_become_a_file_each(model_folder: Path, tmp_path: Path, compose_study: Any) -> None:
    options = ("format=torchscript", f"output={tmp_path / 'model.pt'}", "folds=separated")
    assert run(export, f"model={model_folder}", *options).status == 0
    ours = load(str(model_folder), compose_study()).embed(inputs())
    for fold in (0, 1):
        found = torch.jit.load(tmp_path / f"model_fold_{fold}.pt")(inputs().float() / 255)
        assert torch.allclose(found, ours[fold], atol=1e-5)


def test_onnx_gives_the_embeddings_of_the_model_or_its_package_is_named(
    model_folder: Path, tmp_path: Path, compose_study: Any
) -> None:
    out = tmp_path / "model.onnx"
    ours = load(str(model_folder), compose_study()).embed(inputs())  # before, since it sets flags of this process
    ended = run(export, f"model={model_folder}", f"output={out}")
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        assert_refused(ended, "onnxruntime", "format=torchscript")
        return
    assert ended.status == 0, ended
    session = onnxruntime.InferenceSession(out)
    for count in (1, 3):  # another number of images than it was traced with
        (found,) = session.run(None, {"images": (inputs().float() / 255).numpy()[:count]})
        assert np.allclose(found, torch.cat(list(ours), dim=1)[:count].numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trunk", "more"),
    [("resnet50", ["protocol.pooling=avg+max"]), ("efficientnet_lite0", ["protocol.pooling=avg"]),
     ("vit_small", ["trunk.module.any_size=true", "trunk.crop=32"])],
)  # fmt: skip
def test_timm_builds_a_network_with_equal_embeddings(
    trunk: str, more: list[str], tmp_path: Path, compose_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    from benchmark.study import data

    monkeypatch.setattr(data, "num_channels", lambda images: 3)
    study = compose_study(
        "dataset=glyphs_small", "loss=proxy_nca", f"trunk={trunk}", "trunk.module.weights=null", *more
    )
    folder = write_model(tmp_path / "model", study, folds=1, channels=3)
    ended = run(export, f"model={folder}", "format=timm", f"output={tmp_path / 'timm'}")
    assert ended.status == 0, ended
    model = load(str(folder), compose_study())
    config = json.loads((tmp_path / "timm" / "config.json").read_text())["pretrained_cfg"]
    more_arguments = {"dynamic_img_size": True} if trunk == "vit_small" else {}
    other = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True, **more_arguments).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        found = torch.nn.functional.normalize(other((images.float() / 255 - mean) / std), dim=1)
    assert torch.allclose(found, model.embed(images)[0], atol=1e-4)


def test_timm_has_no_network_for_every_model_and_says_so(model_folder: Path) -> None:
    assert_refused(run(export, f"model={model_folder}", "format=timm"), "SmallConv", "format=onnx")
    assert_refused(run(export, f"model={model_folder}", "format=caffe"), "allowed are onnx, torchscript, timm")
    assert_refused(run(export), "MODEL=FOLDER FORMAT=onnx")


# -- score ------------------------------------------------------------------------------------------------------------


def test_embeddings_from_embed_are_scored_with_their_folders_as_classes(
    model_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.npz"
    assert run(embed, f"model={model_folder}", f"images={pictures}", f"output={out}").status == 0
    ended = run(score, f"embeddings={out}", f"output={tmp_path / 'scores'}")
    assert ended.status == 0 and "9 queries, 3 classes" in ended.out, ended
    with np.load(out) as file:
        vectors, labels = file["embeddings"], file["labels"]
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -9)
    hits = labels[similar.argmax(axis=1)] == labels
    whole = {row["metric"]: float(row["value"]) for row in rows_of(tmp_path / "scores" / "scores.csv")}
    assert whole["precision_at_1"] == pytest.approx(hits.mean()) == pytest.approx(whole["recall_at_1"])
    classes = {row["name"]: row for row in rows_of(tmp_path / "scores" / "classes.csv")}
    for label in "abc":
        assert float(classes[label]["precision_at_1"]) == pytest.approx(hits[labels == label].mean())


def test_names_super_classes_and_queries_of_ones_own_embeddings_are_used(tmp_path: Path) -> None:
    angles = np.radians([0, 10, 90, 100, 180, 190])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    path = tmp_path / "own.npz"
    np.savez(path, embeddings=vectors, labels=["tern", "tern", "gull", "gull", "oak", "oak"],
             super_labels=["bird"] * 4 + ["tree"] * 2, is_query=[True, False, True, False, True, False])  # fmt: skip
    ended = run(score, f"embeddings={path}", f"output={tmp_path / 'scores'}")
    assert ended.status == 0 and "3 queries, 3 classes" in ended.out, ended
    assert [row["name"] for row in rows_of(tmp_path / "scores" / "super_classes.csv")] == ["bird", "tree"]
    whole = {row["metric"]: float(row["value"]) for row in rows_of(tmp_path / "scores" / "scores.csv")}
    assert whole["map_at_r"] == whole["class_map_at_r"] == 1 and 0 < whole["h_ap"] <= 1


def test_both_modes_are_scored_for_several_models(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, embeddings=np.random.default_rng(0).normal(size=(3, 8, 4)), labels=[0, 0, 1, 1, 2, 2, 3, 3])
    assert run(score, f"embeddings={path}", f"output={tmp_path / 'scores'}").status == 0
    assert {row["mode"] for row in rows_of(tmp_path / "scores" / "classes.csv")} == {"concatenated", "separated"}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"embeddings": np.zeros((4, 2))}, "has no array labels"),
        ({"embeddings": np.zeros((4, 2)), "labels": [1, 2]}, "embeddings are float64 (4, 2) and labels (2,)"),
        ({"embeddings": np.zeros((4, 2), int), "labels": [1, 1, 2, 2]}, "embeddings are int64"),
        ({"embeddings": np.full((4, 2), np.nan), "labels": [1, 1, 2, 2]}, "not finite"),
        ({"embeddings": np.ones((4, 2)), "labels": [1, 2, 3, 4]}, "None of the 4 queries"),
        (
            {"embeddings": np.ones((4, 2)), "labels": [1, 1, 2, 2], "super_labels": [0, 1, 1, 1]},
            "several super classes",
        ),
        ({"embeddings": np.ones((4, 2)), "labels": [1, 1, 2, 2], "is_query": [True]}, "is_query has the shape (1,)"),
        ({"embeddings": np.ones((4, 2)), "labels": np.array([{}] * 4, object)}, "cannot be read as npz"),
        ({"embeddings": np.ones((4, 2)), "labels": [1, np.nan, 2, np.nan]}, "labels: 2 of 4 are missing"),
        ({"embeddings": np.ones((4, 2)), "labels": [1, 1, 2, 2], "super_labels": [1, 1, 2, np.nan]},
         "super_labels: 1 of 4 are missing"),
        ({"embeddings": np.ones((4, 2)), "labels": [1, 1, 2, 2], "is_query": ["True", "False"] * 2}, "it has 'True'"),
        ({"embeddings": np.ones((4, 2)), "labels": [1, 1, 2, 2], "is_query": [1, 0, 1, np.nan]}, "it has 'nan'"),
        ({"embeddings": np.ones((4, 2)), "labels": [1, 1, 2, 2], "is_query": [2, 0, 1, 0]}, "it has '2'"),
        ({"embeddings": np.ones((4, 2)), "labels": [1, 1, 2, 2], "is_query": [True] * 4}, "Leave it out: each image"),
        ({"embeddings": np.ones((4, 2)), "labels": [1, 1, 2, 2], "is_query": [False] * 4}, "so there is no query"),
        ({"embeddings": np.ones((4, 2)), "labels": [1, 1, 2, 2], "curvature": ["x", "y"]}, "cannot be read as npz"),
    ],
)  # fmt: skip
def test_embeddings_that_cannot_be_scored_are_refused(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    assert_refused(run(score, f"embeddings={path}", f"output={tmp_path / 'scores'}"), said)
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize("kind", [">f4", ">f8", "f2", np.longdouble])
def test_embeddings_of_any_floating_type_are_scored_as_those_of_double_precision(kind: Any, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 40, 4)).astype(np.float16)
    for name, given in (("double", vectors.astype(float)), ("other", vectors.astype(kind))):
        np.savez(tmp_path / f"{name}.npz", embeddings=given, labels=np.arange(40) % 8)
        assert run(score, f"embeddings={tmp_path / name}.npz", f"output={tmp_path / name}").status == 0
    assert rows_of(tmp_path / "other" / "scores.csv") == rows_of(tmp_path / "double" / "scores.csv")


def test_scores_of_two_files_have_two_folders_and_those_of_a_new_file_leave_no_table_of_an_old_one(
    tmp_path: Path,
) -> None:
    def scored(folder: str, **more: Any) -> None:
        (tmp_path / folder).mkdir(exist_ok=True)
        np.savez(tmp_path / folder / "own.npz", embeddings=np.eye(4), labels=[0, 0, 1, 1], **more)
        assert run(score, f"embeddings={tmp_path / folder / 'own.npz'}", f"results_dir={tmp_path}").status == 0

    tables = {"scores.csv", "classes.csv"}
    scored("one", super_labels=[0, 0, 1, 1])
    scored("two")
    for folder, expected in (("one-own", {*tables, "super_classes.csv"}), ("two-own", tables)):
        assert {path.name for path in (tmp_path / "scores" / folder).iterdir()} == expected
    scored("one")
    assert {path.name for path in (tmp_path / "scores" / "one-own").iterdir()} == tables


@pytest.mark.slow
def test_scores_of_each_run_and_data_set_have_a_folder_of_their_own(tmp_path: Path, compose_study: Any) -> None:
    for number, place in enumerate(("group/net", "group/other")):
        model = write_model(tmp_path / place, compose_study(*OPTIONS), folds=1, run=number)
        options = (f"model={model}", "dataset=glyphs_small", f"results_dir={tmp_path}", "display=quiet")
        assert run(score, *options).status == 0
    assert run(score, *options, "dataset.name=mine").status == 0
    found = {path.name for path in (tmp_path / "scores").iterdir()}
    assert found == {"group-net-run_00", "group-other-run_01", "group-other-run_01-mine"}


def test_a_file_that_is_missing_or_no_npz_and_a_command_without_anything_to_score_are_refused(tmp_path: Path) -> None:
    assert_refused(run(score, f"embeddings={tmp_path / 'nix.npz'}"), "There is no file")
    (tmp_path / "text.npz").write_text("text")
    assert_refused(run(score, f"embeddings={tmp_path / 'text.npz'}"), "cannot be read as npz")
    np.save(tmp_path / "array.npy", np.ones((4, 2)))
    assert_refused(run(score, f"embeddings={tmp_path / 'array.npy'}"), "one array without a name", "labels, (N,)")
    assert_refused(run(score), "MODEL=FOLDER", "EMBEDDINGS=FILE.npz")
    assert_refused(run(score, "model=a", "embeddings=b"), "either a model or a file")


def test_a_model_outside_of_a_study_is_scored_on_a_named_data_set_and_its_own_folder_gets_the_ledger(
    model_folder: Path, tmp_path: Path
) -> None:
    assert_refused(run(score, f"model={model_folder}"), "is no study", "DATASET=glyphs_small")
    assert not (model_folder / "test_ledger.jsonl").exists()
    ended = run(
        score, f"model={model_folder}", "dataset=glyphs_small", f"output={tmp_path / 'scores'}", "display=quiet"
    )
    assert ended.status == 0 and "test classes of glyphs_small" in ended.out, ended
    (line,) = map(json.loads, (model_folder / "test_ledger.jsonl").read_text().splitlines())
    assert (line["story"], line["dataset"], line["run"]) == ("score", "glyphs_small", 0)
    names = {row["name"] for row in rows_of(tmp_path / "scores" / "super_classes.csv")}
    assert "Latin Extended Additional" in names, names
