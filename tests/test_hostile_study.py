"""A stored study is untrusted data: even with correct checksums and identity, it cannot run code.

`study/test_instantiate.py` tests what a node may name; these tests show that stored files have no other way.
"""

import copy
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark import data as data_story
from benchmark.bo import bo
from benchmark.core.errors import UserError
from benchmark.core.records import CorruptFileError, WriteError, append_line
from benchmark.data import data
from benchmark.final_eval import final_eval
from benchmark.jobs import unit_log
from benchmark.status import status
from benchmark.study.identity import short_digest
from benchmark.study.preflight import check_parts, check_values
from benchmark.study.selected import BOOKKEEPING, from_folder
from benchmark.study.stored import check_references, read_study, write_study
from benchmark.study.study import Study
from benchmark.tables import tables
from tests.command_line import assert_refused, run, study_dir

Config = dict[str, Any]
Forge = Callable[[Callable[[Config], None]], Path]


@pytest.fixture
def forge(results: Path) -> Forge:
    """Alter a stored study as its author could: `forge(change)` returns its folder, which has no records."""

    def forged(change: Callable[[Config], None]) -> Path:
        folder = study_dir(results)
        stored = read_study(folder)
        config = copy.deepcopy(stored.config)
        change(config)
        study = Study.of({key: value for key, value in config.items() if key not in BOOKKEEPING} | own(stored.config))
        science = study.science(stored.fingerprint)
        write_study(folder, replace(stored, config=config, science=science, identity=short_digest(science)))
        shutil.rmtree(folder / "bo")
        return folder

    return forged


def own(config: Config) -> Config:
    return {key: config[key] for key in BOOKKEEPING if key in config}


def hostile(canary: Path) -> Config:
    """A node like those that ran a command before: the outer one is harmless, the first inner one is not."""
    return {
        "_target_": "pytorch_metric_learning.losses.MultipleLosses",
        "losses": [
            {"_target_": "torch.package.importer.sys_importer.import_module", "module_name": "canary"},
            {"_target_": "os.system", "command": f"touch {canary}"},
            {"_target_": "pytorch_metric_learning.utils.common_functions.save_model", "filename": str(canary)},
        ],
    }


PLACES = {
    "dataset": lambda config, node: config["dataset"].update(module=node),
    "trunk": lambda config, node: config["trunk"].update(module=node),
    "head": lambda config, node: config["head"].update(module=node),
    "head of the loss": lambda config, node: config["loss"].update(head=node),
    "loss": lambda config, node: config["loss"].update(module=node),
    "inside the loss": lambda config, node: config["loss"]["module"].update(extra={"deep": [node]}),
    "sampler": lambda config, node: config["loss"].update(sampler=node),
    "searcher": lambda config, node: config["searcher"].update(module=node),
    "optimizer": lambda config, node: config["training"]["optimizers"].update(trunk=node),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_node_of_a_stored_study_runs_nothing(
    place: str, forge: Forge, canary: Path, compose_study: Callable[..., Study]
) -> None:
    folder = forge(lambda config: PLACES[place](config, hostile(canary)))
    study = from_folder(folder, compose_study(), [])
    with pytest.raises(UserError, match=r"is not allowed"):
        check_parts(study)
    assert not canary.exists() and "canary" not in sys.modules


@pytest.mark.slow
def test_a_command_that_names_a_stored_study_runs_nothing_of_it(forge: Forge, canary: Path, tmp_path: Path) -> None:
    def change(config: Config) -> None:
        config["loss"]["module"]["extra"] = [hostile(canary)]
        config["executor"] = {"name": "slurm", "workers": 1, "retries": 0, "prefix": ["touch", str(canary)]}
        config["results_dir"] = str(tmp_path / "elsewhere")

    folder = forge(change)
    assert_refused(run(bo, f"study={folder}", "executor=inline"), "_target_", "is not allowed for a loss")
    for command in (tables, status):
        assert run(command, f"results_dir={folder.parents[2]}").status == 0
    assert not canary.exists() and not (tmp_path / "elsewhere").exists()


def test_a_stored_study_cannot_choose_an_executor_or_import_a_package(
    forge: Forge, canary: Path, compose_study: Callable[..., Study]
) -> None:
    composed = compose_study("executor=inline")
    ours = {"name": "slurm", "workers": 1, "retries": 0, "prefix": ["touch", str(canary)]}
    folder = forge(lambda config: config.update(executor=ours, plugins=["canary"]))
    study = from_folder(folder, composed, [])
    assert study.config.executor.name == "inline" and study.config.plugins == []
    write_study(folder, replace(read_study(folder), plugins=["canary"]))
    with pytest.raises(UserError, match=r"no stored file may import code.*plugins=\[canary\]"):
        from_folder(folder, composed, [])
    assert not canary.exists() and "canary" not in sys.modules


def test_nothing_is_downloaded_from_an_address_in_a_stored_study(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(config: Config) -> None:
        config["dataset"]["module"] = {"_target_": "benchmark.datasets.cub.listing", "root": str(tmp_path / "birds")}
        config["dataset"]["sources"] = [{"url": "https://example.org/x", "file": "../../x"}]

    monkeypatch.setattr(data_story, "download", lambda *_, **__: pytest.fail("downloaded"))
    for command in (data, final_eval):
        ended = run(command, f"study={forge(change) if command is data else study_dir(tmp_path / 'results')}")
        assert ended.status == 2 and "Traceback" not in ended.err, ended
    assert not (tmp_path / "birds").exists() and not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", r"\${oc.env:SECRET}", r"\\${oc.env:SECRET}", "a ${seed}", "${"])
def test_a_stored_study_reads_no_environment(text: str, monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    monkeypatch.setitem(os.environ, "SECRET", "s3cret")
    folder = study_dir(results)
    stored = read_study(folder)
    label = stored.config["loss"] | {"label": text}
    write_study(folder, replace(stored, config=stored.config | {"loss": label}))
    with pytest.raises(CorruptFileError, match="may refer only to another value"):
        read_study(folder)
    ended = run(tables, f"results_dir={results}")
    assert "s3cret" not in ended.out + ended.err and "may refer only to another value" in ended.out


@pytest.mark.parametrize("text", ["${oc.env:HOME}", r"\${x}", "${seed}-${trials}"])
def test_a_value_that_could_not_be_read_back_is_refused_before_it_is_stored(
    text: str, compose_study: Callable[..., Study]
) -> None:
    study = compose_study()
    raw = study.raw | {"loss": study.raw["loss"] | {"label": text}}
    with pytest.raises(UserError, match=r"config.loss.label is .*Write the value itself"):
        check_values(Study.of(raw))
    check_references(study.raw)


def test_a_link_in_a_stored_study_is_not_written_through(results: Path, tmp_path: Path) -> None:
    folder, victim = study_dir(results), tmp_path / "victim"
    victim.write_text("precious")
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(victim)
    assert_refused(run(bo, f"study={folder}", "executor=inline", "trials=3"), "lock: it is a symbolic link")
    for name in ("test_ledger.jsonl", unit_log.NAME):
        (folder / name).symlink_to(victim)
    with pytest.raises(WriteError, match="it is a symbolic link"):
        append_line(folder / "test_ledger.jsonl", {})
    for capture in (False, True):
        with unit_log.recording(folder, capture):
            print("a line of a training")
    assert victim.read_text() == "precious"


@pytest.mark.slow
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_pipe_or_a_device_in_a_stored_study_is_named_and_nothing_waits_for_it(
    make: Callable[[Path], None], results: Path
) -> None:
    folder = study_dir(results)
    for name in ("lock", "trouble.jsonl", "bo/sessions.jsonl", "bo/best.yaml", "bo/trial_000.json"):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
    for command in (tables, status):
        ended = run(command, f"results_dir={results}")
        assert ended.status == 0 and "trial_000.json is damaged: it is not a regular file" in ended.out, ended
    (folder / "study.yaml").unlink()
    make(folder / "study.yaml")
    assert "study.yaml is damaged: it is not a regular file" in run(tables, f"results_dir={results}").out
