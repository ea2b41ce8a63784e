"""A command that refuses to start leaves nothing behind, whatever is wrong."""

import sys
from pathlib import Path

import pytest

from benchmark.bo import bo
from benchmark.core.download import DownloadError
from benchmark.data import data
from benchmark.final_eval import final_eval
from benchmark.traditional import traditional
from benchmark.trunks import weights
from tests.command_line import OF_SEARCHES, TINY, Ended, assert_refused, run, study_dir, tiny
from tests.conftest import listing
from tests.datasets import published_layouts, trees

STORIES = {"bo": (bo, ()), "final-eval": (final_eval, ("preset=default",)), "traditional": (traditional, ())}
REFUSED = {
    "a missing data set": (("dataset=cub", "dataset.module.root=/nowhere/cub", "trunk=small_conv"), "/nowhere/cub"),
    "a data set without training classes": (
        ("dataset=folder", "dataset.module.root=ONLY_TEST", "trunk=small_conv"), "nothing to train on"
    ),
    "missing weights": (("dataset=cub", "trunk=resnet50", "CUB"), "There is no network"),
    "an option that the loss does not take": (("+loss.module.nothing=3",), "nothing"),
    "a tracker that is not installed": (("tracker=wandb",), "needs the package wandb"),
}  # fmt: skip
OF_ONE = [
    ("bo", "an unknown device", ("device=cuda:7",), "device='cuda:7'"),
    ("bo", "a device without float64", ("device=mps",), "no float64"),
    ("traditional", "a head that does not exist", ("head.module._target_=benchmark.heads.no.Head",), "heads.no"),
    ("bo", "more folds than classes", ("protocol.num_folds=900",), "num_folds=900"),
    ("final-eval", "a base without a search", ("preset=base", "loss=hpl_nca"), "there is none in"),
    ("traditional", "a loss that trains nothing", ("loss=none",), "LOSS=none"),
    ("traditional", "an epoch after the last one", ("keep_epochs=[1000]",), "keep_epochs=[1000]"),
]  # fmt: skip
MORE = [
    ("bo", "an executor that is not here", ("executor=slurm", "executor.prefix=[no_such_program]"), "executor.prefix"),
    ("final-eval", "more folds than classes", ("protocol.num_folds=900",), "num_folds=900"),
    ("bo", "bounds in the wrong order", ("loss.space.proxy_lr.bounds=[1,0.1]",), "the lower one first"),
    ("bo", "repeated searches", ("searches=2", "protocol.num_folds=900"), "num_folds=900"),
]  # fmt: skip
CASES = [("bo", what, *case) for what, case in REFUSED.items()] + OF_ONE
SLOW = [(story, what, *case) for story in STORIES if story != "bo" for what, case in REFUSED.items()] + MORE


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The overrides that words in capitals stand for; there are no weights and no network."""

    def unreachable(*given: object, **more: object) -> None:
        raise DownloadError("There is no network.")

    monkeypatch.setenv("BENCHMARK_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(weights, "download", unreachable)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    for name in ("a", "b", "c"):
        for number in range(2):
            trees.write_image(tmp_path / "mine" / "test" / name / f"{number}.jpg")
    cub = published_layouts.write_small("cub", tmp_path / "cub", num_classes=8, per_class=4)
    return {"CUB": cub[1:], "dataset.module.root=ONLY_TEST": [f"dataset.module.root={tmp_path / 'mine'}"]}


def start(story: str, results: Path, *given: str) -> Ended:
    """Start a story on the tiny study, without the options that others than its own trunk or protocol take."""
    command, own = STORIES[story]
    left_out = {word.partition("=")[0] for word in (*given, "trunk.width=8" if "trunk=resnet50" in given else "")}
    left_out |= {*OF_SEARCHES, "dataset.iterations_per_epoch"} if story == "traditional" else set()
    own = (*own, "training.batch_size=8") if story == "traditional" else own
    words = [word for word in (*TINY, *own, f"results_dir={results}") if word.partition("=")[0] not in left_out]
    return run(command, *words, *given, protocol="traditional" if story == "traditional" else "")


@pytest.mark.parametrize(
    ("story", "what", "given", "said"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_a_refused_start_leaves_nothing(
    story: str, what: str, given: tuple[str, ...], said: str, tmp_path: Path, places: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if given[0].startswith("dataset="):  # glyphs take seconds to draw, and stay in the usual cache
        monkeypatch.setenv("BENCHMARK_CACHE", str(tmp_path / "cache"))
    words = [word for entry in given for word in places.get(entry, [entry])]
    assert_refused(start(story, tmp_path / "results", *words), said)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("given", ["+loss.module.nothing=3", "protocol.num_folds=900"])
def test_a_refused_start_leaves_an_earlier_study_as_it_was(given: str, results: Path) -> None:
    before = {path: Path(path).read_bytes() for path in listing(results) if Path(path).name != "lock"}
    assert tiny(bo, results, given).status == 2
    assert {path: Path(path).read_bytes() for path in listing(results) if Path(path).name != "lock"} == before
    assert (study_dir(results) / "lock").exists(), "other commands may wait for it"


def test_a_download_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    own = "[{file: x.tgz, url: [http://127.0.0.1:9/x.tgz]}]"
    assert run(data, "dataset=cub", f"dataset.module.root={tmp_path / 'data/cub'}", f"dataset.sources={own}").status
    (tmp_path / "here").mkdir()
    assert run(data, "dataset=cub", f"dataset.module.root={tmp_path / 'here'}", f"dataset.sources={own}").status
    assert [path.name for path in tmp_path.rglob("*")] == ["here"], "a folder that the user made stays"
