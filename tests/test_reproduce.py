"""A published cell is retrained and judged: pass, fail, and what is missing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmark import reproduce
from benchmark.experiment import published, spec
from benchmark.study.study import Study
from tests import fake_results
from tests.command_line import Ended, assert_refused, run

Compose = Callable[..., Study]
RUNS = [0.40, 0.42, 0.44, 0.46]  # mean 43.00 +- 4.11, P@1 30 points above, RP 10; separated 5 below
EXPERIMENT = """
title: A published table
datasets: [glyphs_small]
common: {trunk: small_conv, protocol: mlrc_2020}
published: [paper]
studies:
  - {loss: proxy_nca, preset: default, published: ProxyNCA}
  - {loss: ms, preset: default, published: ''}
"""
HEAD = "source,dataset,method,variant,mode,metric,value,half_width,trunk,dim,note"
PRINTED = {"map_at_r": 43.5, "precision_at_1": 73.5, "r_precision": 53.5}


@pytest.fixture(autouse=True)
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A paper that prints six numbers for one loss; call it to change what is printed."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / f"{reproduce.EXPERIMENT}.yaml").write_text(EXPERIMENT)
    monkeypatch.setattr(spec, "experiments_dir", lambda: folder)
    monkeypatch.setattr(reproduce, "DEFAULTS", {"dataset": "glyphs_small", "loss": "proxy_nca"})
    monkeypatch.setattr(published, "PATH", tmp_path / "published.csv")

    def print_numbers(**changed: float) -> None:
        lines = [
            f"paper,glyphs_small,ProxyNCA,,{mode},{metric},{value - lower},1.0,,,"
            for mode, lower in (("concatenated", 0), ("separated", 5))
            for metric, value in (PRINTED | (changed if mode == "concatenated" else {})).items()
        ]
        published.PATH.write_text("\n".join([HEAD, *lines]) + "\n")
        published.sources.cache_clear()

    print_numbers()
    yield print_numbers
    published.sources.cache_clear()


def reproduced(results_dir: Path, *overrides: str) -> Ended:
    return run(reproduce.reproduce, f"results_dir={results_dir}", *overrides)


def finish(compose: Compose, num_runs: int = 4) -> Path:
    """The finished runs of the published cell, without any training."""
    study = compose("dataset=glyphs_small", "loss=proxy_nca", "trunk=small_conv", "protocol=mlrc_2020",
                    "preset=default", f"protocol.num_runs={num_runs}")  # fmt: skip
    fake_results.finish_preset(study, RUNS)
    return Path(study.config.results_dir)


@pytest.mark.usefixtures("no_fsync")
def test_numbers_within_the_tolerance_pass(compose_study: Compose) -> None:
    ended = reproduced(finish(compose_study), "protocol.num_runs=4")
    assert ended.status == 0, ended
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in ended.out.splitlines() if "\t" in line}
    assert rows["concatenated.map_at_r"][:3] == ["43.50 +- 1.00", "43.00 +- 4.11", "-0.50"]
    assert rows["separated.r_precision"][0] == "48.50 +- 1.00" and rows["separated.r_precision"][-1] == "pass"
    assert len(rows) == 1 + 6 and "PASS: all 6 numbers agree" in ended.out
    assert "Differs from what was published: protocol.num_runs=4." in ended.out


@pytest.mark.usefixtures("no_fsync")
def test_one_number_outside_the_tolerance_fails_the_cell(compose_study: Compose, paper: Callable[..., None]) -> None:
    paper(precision_at_1=90.0)
    ended = reproduced(finish(compose_study), "protocol.num_runs=4")
    assert ended.status == 1
    assert "FAIL: 1 of 6 numbers do not agree: concatenated.precision_at_1." in ended.err
    assert ended.out.count("\tpass") == 5 and "PASS" not in ended.out


def test_a_cell_that_is_not_published_is_refused_with_those_that_are(tmp_path: Path) -> None:
    assert_refused(reproduced(tmp_path, "loss=ms"), "loss=ms", "there are numbers for proxy_nca")
    assert_refused(reproduced(tmp_path, "dataset=cub"), "dataset=cub", "glyphs_small")
    assert_refused(reproduced(tmp_path, "protocol=hpl"), "protocol=hpl", "Leave it out")
    assert_refused(reproduced(tmp_path, "trunk=small_conv", "protocol=hpl"), "mlrc_2020")


def test_without_the_data_the_command_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce.outline, "missing_data", lambda options: ["data set glyphs_small"])
    assert_refused(reproduced(tmp_path), "not on this machine", "data DATASET=glyphs_small", "4")


def test_the_default_is_arcface_on_cub_with_mlrc_s_six_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    published.sources.cache_clear()
    cell = reproduce.find([])
    assert (cell.member.dataset, cell.member.loss, cell.num_trainings) == ("cub", "arcface", 40)
    assert {"preset=published", "protocol=mlrc_2020", "trunk=bn_inception"} <= set(cell.overrides)
    numbers = {key: (one.value, one.half_width) for key, one in cell.member.published.items()}
    assert numbers == {
        ("concatenated", "map_at_r"): (26.45, 0.20), ("concatenated", "precision_at_1"): (67.50, 0.25),
        ("concatenated", "r_precision"): (37.31, 0.21), ("separated", "map_at_r"): (21.49, 0.16),
        ("separated", "precision_at_1"): (60.17, 0.32), ("separated", "r_precision"): (32.37, 0.17),
    }  # fmt: skip


@pytest.mark.slow
def test_the_runs_are_trained_by_final_eval_and_judged(tmp_path: Path, paper: Callable[..., None]) -> None:
    tiny = ("protocol.num_runs=2", "protocol.num_folds=2", "trunk.width=8", "dataset.iterations_per_epoch=2",
            "dataset.max_epochs=1", "executor=inline")  # fmt: skip
    ended = reproduced(tmp_path, *tiny)
    assert ended.status == 1 and "FAIL" in ended.err and "2 final runs" in ended.out, ended
    found = reproduce.read_runs(next(tmp_path.glob("studies/*/proxy_nca-default")))
    assert len(found.records) == 2
    means = {name: sum(found.values(f"concatenated.{name}").values()) / 2 for name in PRINTED}
    paper(**{name: round(value, 2) for name, value in means.items()})
    again = reproduced(tmp_path, *tiny)  # trains nothing
    assert "FAIL: " in again.err and "concatenated" not in again.err.partition("FAIL: ")[2], again
