"""make data and make splits, from the command line to their output, on tiny copies of the data sets."""

import csv
import hashlib
import http.server
import shlex
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from benchmark.bo import bo
from benchmark.core import invocation
from benchmark.core.archives import MARKER, Limits
from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.core.sources import Source
from benchmark.data import check_room, data
from benchmark.datasets.listing import Listing
from benchmark.final_eval import final_eval
from benchmark.splits import splits
from benchmark.study.prepare import licence, prepare
from benchmark.study.study import Study
from benchmark.traditional import traditional
from tests.cases import slow_except
from tests.command_line import Ended, adapted, assert_refused, compose, run, tiny
from tests.datasets import published_layouts, trees

FILES = ("cub", "cars196", "sop", "inshop", "inaturalist2019", "grocery", "folder", "csv")
TREES = {"cub": trees.cub, "cars196": trees.cars_folders, "sop": trees.sop, "inshop": trees.inshop,
         "inaturalist2019": trees.inaturalist, "grocery": trees.grocery}  # fmt: skip
ANY = {"sop": ("dataset.module.sop_cut=2",), "inaturalist2019": ("dataset.module.num_trainval=7",),
       "grocery": ("dataset.module.num_trainval=2",)}  # fmt: skip


@pytest.fixture
def compose_study(tmp_path: Path) -> Callable[..., Study]:
    """Compose a study with its results in a temporary folder; values such as the folder of the data cost little."""

    def composed(*overrides: str) -> Study:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return Study.of(adapted(compose("config", [*overrides, f"results_dir={tmp_path / 'results'}"]), overrides))

    return composed


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))


def small(story: Callable[..., None], name: str, root: Path, *more: str) -> Ended:
    """A story with a tiny tree of a published data set, of which other counts are expected."""
    keys = [f"dataset={name}", f"dataset.module.root={root}", "dataset.module.expected=null"]
    added = [f"+{key}" if key.startswith("dataset.module.num_trainval") else key for key in ANY.get(name, ())]
    return run(story, *keys, *added, *more)


@pytest.mark.parametrize("name", slow_except(["cub", "inshop"], TREES))
def test_data_says_what_a_tree_holds(name: str, tmp_path: Path) -> None:
    ended = small(data, name, TREES[name](tmp_path))
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].endswith(" images")
    assert lines[1].startswith("  trainval: ")
    heads = [line.split(":")[0].strip() for line in lines]  # notes follow: these tiny trees repeat an image
    assert heads[heads.index("licence") :][:4] == ["licence", "fingerprint", "folder", "cache"]
    assert lines[-1].startswith("A search is not possible") and "protocol.num_folds=" in lines[-1]  # of so few classes


def test_data_refuses_a_tree_with_other_counts_than_the_published_ones(tmp_path: Path) -> None:
    ended = run(data, "dataset=cub", f"dataset.module.root={trees.cub(tmp_path)}")
    assert_refused(ended, "10 images, not 11,788", "4 classes, not 200", "5 trainval images, not 5,864")


def test_data_says_what_to_fetch_by_hand_where_nothing_can_be_fetched(tmp_path: Path) -> None:
    ended = run(data, "dataset=inshop", f"dataset.module.root={tmp_path}")
    assert_refused(ended, "make data DATASET=inshop", "http", "data/inshop")
    assert not list(tmp_path.iterdir())


def test_a_search_without_the_data_says_how_to_get_it(tmp_path: Path) -> None:
    ended = run(bo, "dataset=sop", f"dataset.module.root={tmp_path}", f"results_dir={tmp_path / 'results'}")
    assert_refused(ended, "Get the data: make data DATASET=sop")


# -- fetching ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder that is served, and its address."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def pack(site: Path, tree: Path, name: str = "CUB_200_2011.tgz") -> str:
    """An archive of what is in a tree; its SHA-256."""
    with tarfile.open(site / name, "w:gz") as archive:
        for path in sorted(tree.iterdir()):
            archive.add(path, path.name)
    shutil.rmtree(tree)
    return hashlib.sha256((site / name).read_bytes()).hexdigest()


def source(address: str, sha256: str) -> str:
    limits = "{members: 100, bytes: 100000}"
    url = f"'{address}/CUB_200_2011.tgz?download=1'"
    return f"+dataset.sources=[{{url: {url}, file: CUB_200_2011.tgz, sha256: '{sha256}', unpack: {limits}}}]"


def test_data_fetches_unpacks_and_finds_it_again(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = site
    fetched = source(address, pack(folder, trees.cub(tmp_path / "tree")))
    (tmp_path / "data").mkdir()
    first = small(data, "cub", tmp_path / "data", fetched)
    assert first.status == 0, first.err
    assert "Downloading CUB-200-2011" in first.out and "10 images" in first.out
    assert (tmp_path / "data" / "CUB_200_2011" / MARKER).is_file()
    shutil.rmtree(folder)
    again = small(data, "cub", tmp_path / "data", fetched)
    assert again.status == 0 and "Downloading" not in again.out
    assert again.out.splitlines() == first.out.splitlines()[-len(again.out.splitlines()) :]


def test_data_resumes_after_a_killed_unpacking(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = site
    fetched = source(address, pack(folder, trees.cub(tmp_path / "tree")))
    (tmp_path / "data" / ".CUB_200_2011.partial" / "CUB_200_2011" / "images").mkdir(parents=True)
    ended = small(data, "cub", tmp_path / "data", fetched)
    assert ended.status == 0, ended.err
    assert not (tmp_path / "data" / ".CUB_200_2011.partial").exists()


def test_data_refuses_to_fetch_what_the_disk_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: asked.append(path) or shutil._ntuple_diskusage(0, 0, 2_000_000_000)
    )
    monkeypatch.chdir(tmp_path)
    ended = run(data, "dataset=cub")
    assert_refused(
        ended, "needs about 2.5 GB more in", "the disk has 2.0 GB free", "make data DATASET=cub", "ROOT=FOLDER"
    )
    assert asked == [tmp_path] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("there", "need"),
    [({}, 3_900), ({"b.zip": 700}, 3_200), ({"b.zip.part": 300}, 3_600), ({"a/.unpacked": 0, "b.zip": 9_000}, 900)],
)
def test_what_is_there_needs_no_room(
    there: dict[str, int],
    need: int,
    tmp_path: Path,
    compose_study: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = Limits(members=9, bytes=9)
    archives = [Source("a.tgz", room=2000, unpack=limits), Source("b.zip", room=1000, unpack=limits)]
    copy = [*archives, Source("c.txt", bytes=900)]
    study = compose_study("dataset=cub")
    for name, size in there.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    free = shutil._ntuple_diskusage(0, 0, need)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    check_room(study, tmp_path, copy)
    free = free._replace(free=need - 1)
    with pytest.raises(UserError, match="Free some space"):
        check_room(study, tmp_path, copy)


@pytest.mark.parametrize(("sha256", "said"), [("0" * 64, "its sha256 is"), (None, "a web page instead of")])
def test_data_says_what_is_wrong_with_what_came(
    sha256: str | None, said: str, site: tuple[Path, str], tmp_path: Path
) -> None:
    folder, address = site
    if sha256:
        pack(folder, trees.cub(tmp_path / "tree"))
    else:
        (folder / "CUB_200_2011.tgz").write_text("<!doctype html><title>Sign in</title>")
    (tmp_path / "data").mkdir()
    ended = small(data, "cub", tmp_path / "data", source(address, sha256 or "0" * 64))
    assert_refused(ended, said, "download it by hand", "https://www.vision.caltech.edu/datasets/cub_200_2011/")


# -- splits -----------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_splits_writes_each_image_with_its_part_in_every_fold(tmp_path: Path) -> None:
    ended = small(splits, "cub", trees.cub(tmp_path), f"results_dir={tmp_path / 'results'}", "protocol.num_folds=2")
    assert ended.status == 0, ended.err
    rows = read(tmp_path / "results" / "splits" / "cub.csv")
    # Two trainval classes, two folds: fold 0 validates on the last half, which is class 1, fold 1 on class 0.
    parts = {"0": ("train", "validation"), "1": ("validation", "train"), "2": ("", ""), "3": ("", "")}
    assert [(row["fold_0"], row["fold_1"]) for row in rows] == [parts[row["class_id"]] for row in rows]
    assert [row["split"] for row in rows] == ["trainval"] * 5 + ["test"] * 5
    assert "fold 0: trains on 3 images of 1 class, validates on 2 images of 1 class" in ended.out


def test_splits_of_queries_and_own_names(tmp_path: Path) -> None:
    small(
        splits, "inshop", trees.inshop(tmp_path), f"results_dir={tmp_path}", "protocol.num_folds=2", "dataset.name=mine"
    )
    rows = read(tmp_path / "splits" / "mine.csv")
    assert [[row["split"] for row in rows].count(role) for role in ("query", "gallery")] == [3, 2]
    assert {row["fold_0"] for row in rows if row["split"] != "trainval"} == {""}
    ended = small(splits, "inshop", tmp_path, "dataset.name='../../evil'")
    assert_refused(ended, "becomes part of a path")


def test_splits_of_too_few_classes_say_how_many_are_needed_and_what_to_do(tmp_path: Path) -> None:
    ended = small(splits, "cub", trees.cub(tmp_path / "cub"))
    assert_refused(
        ended, "CUB-200-2011 (", "has 2 of 4 classes", "num_folds=4 needs 4 or more", "ARGS=protocol.num_folds=2"
    )
    for path in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        trees.write_image(tmp_path / "own" / path)
    ended = run(splits, "dataset=folder", f"dataset.module.root={tmp_path / 'own'}")
    assert_refused(ended, "Own images (", "has 1 of 2 classes", "num_folds=2 needs 2")


def overrides_of(ended: Ended) -> list[str]:
    """The overrides of the make command that `splits` printed last."""
    line = ended.out.splitlines()[-1]
    assert line.startswith("Next: make data ")
    return invocation.from_make(
        {f"{invocation.FROM_MAKE}{word.partition('=')[0]}": word.partition("=")[2] for word in shlex.split(line)[3:]}
    )


def read_back(ended: Ended, compose_study: Callable[..., Study], *more: str) -> Listing:
    """What the data set `csv` reads with the command that `splits` printed."""
    listing = compose_study(*overrides_of(ended), "trunk=small_conv", *more).make_dataset().listing
    assert listing is not None
    return listing


@pytest.mark.parametrize("name", slow_except(["cub", "inshop"], ["cub", "cars196", "sop", "inshop", "inaturalist2019"]))
def test_splits_can_be_read_back(name: str, tmp_path: Path, compose_study: Callable[..., Study]) -> None:
    chosen = published_layouts.write_small(name, tmp_path / "a", num_classes=12, per_class=4)
    ended = run(splits, *chosen, f"results_dir={tmp_path / 'results'}", "protocol.num_folds=2")
    assert ended.status == 0, ended.err
    listing, again = compose_study(*chosen).make_dataset().listing, read_back(ended, compose_study)
    assert listing is not None
    assert again.fingerprint == listing.fingerprint  # paths, labels, super classes and roles, in order
    assert again.super_names == listing.super_names
    named_twice = {name for name in listing.class_names if listing.class_names.count(name) > 1}
    numbered = [f"{name} ({i})" if name in named_twice else name for i, name in enumerate(listing.class_names)]
    assert again.class_names == numbered
    assert again.root.samefile(listing.root)


def test_data_reads_what_splits_wrote(tmp_path: Path) -> None:
    chosen = published_layouts.write_small("cub", tmp_path / "a", num_classes=8, per_class=4)
    ended = run(splits, *chosen, f"results_dir={tmp_path / 'results'}", "protocol.num_folds=2")
    ended = run(data, *overrides_of(ended), "trunk=small_conv")
    assert ended.status == 0 and "trainval: 16 images, 4 classes" in ended.out, ended.err


def test_data_for_testing_only_can_be_prepared_and_split_but_not_trained_on(tmp_path: Path) -> None:
    for number, label in enumerate("abcd"):
        for i in range(2):
            trees.write_image(tmp_path / "root" / "test" / label / f"{i}.jpg", seed=10 * number + i, size=(40, 40))
    own = ["dataset=folder", f"dataset.module.root={tmp_path / 'root'}", "trunk=small_conv", "loss=proxy_nca"]
    ended = run(data, *own)
    assert ended.status == 0 and "  test: 8 images, 4 classes" in ended.out and "trainval:" not in ended.out, ended.err
    assert "the folders are the split: test: test" in ended.out
    ended = run(splits, *own, f"results_dir={tmp_path / 'results'}")
    assert ended.status == 0 and "no folds, since all classes are for testing" in ended.out, ended.err
    assert [row["split"] for row in read(tmp_path / "results" / "splits" / "folder.csv")] == ["test"] * 8
    for story, more in ((bo, ()), (final_eval, ("preset=default",)), (traditional, ())):
        ended = run(
            story, *own, *more, f"results_dir={tmp_path / 'results'}", "executor=inline",
            protocol="traditional" if story is traditional else "",
        )  # fmt: skip
        assert_refused(ended, "All 4 classes", "are for testing", "nothing to train on", "split=train")
    assert not list((tmp_path / "results").rglob("*.json"))


def test_a_command_that_trains_on_new_data_says_what_was_passed_over(
    tmp_path: Path, compose_study: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    for number, label in enumerate("abcd"):
        for i in range(2):
            trees.write_image(tmp_path / "root" / label / f"{i}.jpg", seed=10 * number + i, size=(40, 40))
    (tmp_path / "root" / "a" / "x.heic").write_text("")
    study = compose_study("dataset=folder", f"dataset.module.root={tmp_path / 'root'}", "trunk=small_conv")
    prepare(study, "trainval")
    assert "  passed over: 1 .heic file (a/x.heic)" in capsys.readouterr().out
    prepare(study, "trainval")
    assert capsys.readouterr().out == ""


def test_splits_of_a_data_set_without_files_is_refused(tmp_path: Path) -> None:
    assert_refused(tiny(splits, tmp_path), "Glyphs (small) has no image files")


# -- the files of conf/dataset ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_except(["cub", "sop"], FILES))
def test_the_yaml_fits_the_study(name: str, compose_study: Callable[..., Study]) -> None:
    config = compose_study(f"dataset={name}").config.dataset
    assert config.name == name and config.description.endswith(".")
    assert (conf_dir() / "dataset" / f"{name}.yaml").read_text().startswith("#")
    assert licence(compose_study(f"dataset={name}"))


def test_the_folder_of_the_data_is_not_part_of_a_study_s_identity(compose_study: Callable[..., Study]) -> None:
    known = compose_study("dataset=sop").identity("fingerprint")
    elsewhere = (
        "dataset.module.root=/elsewhere",
        "dataset.module.check=images",
        "+dataset.licence=x",
        "+dataset.sources=[]",
    )
    assert compose_study("dataset=sop", *elsewhere).identity("fingerprint") == known
    assert compose_study("dataset=sop", "dataset.module.sop_cut=null").identity("fingerprint") != known
