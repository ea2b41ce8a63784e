"""`study=FOLDER` names a study for every command, and the suggested commands have this form."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from benchmark.bo import bo
from benchmark.compare import compare
from benchmark.core import invocation
from benchmark.core.errors import UserError
from benchmark.data import data
from benchmark.embed import embed
from benchmark.export import export
from benchmark.final_eval import final_eval
from benchmark.logs import logs
from benchmark.perf.front import bench_front
from benchmark.perf.gpu.bench import bench_gpu
from benchmark.perf.searchers import bench_search
from benchmark.report import fold_rows
from benchmark.score import score
from benchmark.search import search
from benchmark.splits import splits
from benchmark.status import status
from benchmark.study import opening
from benchmark.study.command import command_for_folder
from benchmark.study.selected import from_folder, select
from benchmark.study.stored import read_study, write_study
from benchmark.study.study import Study
from benchmark.tables import tables
from benchmark.trace import trace
from benchmark.traditional import traditional
from tests.command_line import assert_refused, run, study_dir, trainings

Compose = Callable[..., Study]
FINGERPRINT = "0123456789abcdef"
MADE_WITH = ("seed=5", "trunk.width=16", "dataset.max_epochs=3", "protocol.batch_size=8", "precision=bf16")
HOSTILE = ["my study's", 'say "x"', "${HOME}", "$(touch pwned)`id`;", "a=b,[c]{d: e}", "émile", "back\\", "#~*"]


def start(study: Study, *overrides: str) -> Path:
    """Write the `study.yaml` of a study, as the command with these overrides does."""
    with invocation.overridden(overrides):
        opening.open_study(study, "bo", FINGERPRINT)
    return study.directory


@pytest.fixture(scope="session")
def stored_once(compose_study_in: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("selected") / "results"
    return start(compose_study_in(results, "dataset=glyphs_small", "loss=proxy_nca", *MADE_WITH), *MADE_WITH)


@pytest.fixture
def folder(stored_once: Path, tmp_path: Path) -> Path:
    """A stored study, where the command that made it puts it below `tmp_path`."""
    return Path(shutil.copytree(stored_once, tmp_path / stored_once.relative_to(stored_once.parents[3])))


@pytest.fixture
def composed(compose_study: Compose) -> Study:
    """The configuration of a command that names only a study, which the stored one replaces."""
    return compose_study()


def parsed(command: str) -> list[list[str]]:
    """The overrides that each target of a printed command receives, after a shell and make have read it."""
    script = "make() { printf '%s\\0' \"$@\"; }; dmlbench() { printf '%s\\0' dmlbench \"$@\"; }; " + command
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd="/")
    words = done.stdout.split("\0")[:-1]
    if words[0] == "dmlbench":
        return [[word for word in words[1:] if "=" in word]]
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    overrides = invocation.from_make({invocation.FROM_MAKE + name: value for name, value in variables.items()})
    return [overrides for word in words if "=" not in word]


def value_of(overrides: list[str], key: str) -> Any:
    """The value of a key, as Hydra reads it."""
    (found,) = [o for o in OverridesParser.create().parse_overrides(overrides) if o.key_or_group == key]
    return OmegaConf.create({"value": found.value()}).value


# -- what may stand next to study= ------------------------------------------------------------------------------------

REFUSED = ["seed=7", "loss=contrastive", "dataset=cub", "trunk.width=64", "protocol=traditional", "preset=published",
           "variant=wide", "training.epochs=3", "protocol.num_folds=3", "precision=ieee", "searcher=ax", "threads=2",
           "+loss.space.softmax_scale.bounds=[1,2]", "~loss.setting", "loss.label=x", "dataset.name=x",
           "protocol.num_runs_=3", "trials.x=3", "searcher.round=4", "head=hyperbolic"]  # fmt: skip


def test_an_override_that_would_make_another_study_is_refused_by_name(folder: Path, composed: Study) -> None:
    for override in REFUSED:
        with pytest.raises(UserError) as caught:
            from_folder(folder, composed, ["trials=3", override, f"study={folder}"])
        assert str(caught.value).startswith(f"{override} cannot be changed for the study in {folder}")


ACCEPTED = {
    "trials=9": lambda c: c.trials == 9, "protocol.num_runs=4": lambda c: c.protocol.num_runs == 4,
    "executor=inline": lambda c: c.executor.name == "inline", "executor.workers=3": lambda c: c.executor.workers == 3,
    "device=cpu": lambda c: c.device == "cpu", "keep=best": lambda c: c.keep == "best",
    "display=plain": lambda c: c.display == "plain", "decode=always": lambda c: c.decode == "always",
    "image_threads=3": lambda c: c.image_threads == 3, "image_memory=host": lambda c: c.image_memory == "host",
    "checkpoint_seconds=5": lambda c: c.checkpoint_seconds == 5, "accept_code=true": lambda c: c.accept_code,
}  # fmt: skip


def test_what_changes_no_result_is_taken_from_the_command_line(folder: Path, compose_study: Compose) -> None:
    study = from_folder(folder, compose_study(*ACCEPTED), [*ACCEPTED])
    assert [override for override, holds in ACCEPTED.items() if not holds(study.config)] == []
    assert study.identity(FINGERPRINT) == read_study(folder).identity and study.directory == folder


def test_what_is_not_given_is_stored_but_for_where_and_how_to_run(folder: Path, compose_study: Compose) -> None:
    stored = read_study(folder)
    write_study(folder, stored.__class__(**{**vars(stored), "trials": 4, "num_runs": 6}))
    study = from_folder(folder, compose_study("keep=best", "trials=3"), ["keep=best"])
    assert (study.config.trials, study.config.protocol.num_runs, study.config.keep) == (4, 6, "best")
    assert (study.config.seed, study.config.trunk.width) == (5, 16)


@pytest.mark.parametrize("name", ["folder", "csv"])
def test_data_that_moved_are_named_by_their_place(name: str, compose_study: Compose, composed: Study) -> None:
    place = "root" if name == "folder" else "path"
    own = compose_study(f"dataset={name}", f"dataset.module.{place}=/old/place", "loss=proxy_nca")
    folder = start(own)
    study = from_folder(folder, composed, [], {f"dataset.module.{place}": "/new place"})
    assert study.config.dataset.module[place] == "/new place"
    assert study.identity(FINGERPRINT) == own.identity(FINGERPRINT)


@pytest.mark.slow
def test_the_command_line_accepts_a_new_place_for_stored_data(compose_study: Compose) -> None:
    folder = start(compose_study("dataset=csv", "dataset.module.path=/old.csv", "loss=proxy_nca"))
    seen: list[Study] = []
    ended = run(lambda study, _: seen.append(study), f"study={folder}", 'dataset.module.path="/new, place.csv"')
    assert ended.status == 0 and seen[0].config.dataset.module["path"] == "/new, place.csv", ended
    assert_refused(run(bo, f"study={folder}", "dataset.module.path=a.csv,b.csv"), "There is no file 'a.csv,b.csv'")
    assert seen[0].config.loss.name == "proxy_nca"
    assert_refused(run(lambda *_: None, f"study={folder}", "dataset.name=other"), "dataset.name=other cannot be")


@pytest.mark.parametrize("move", [shutil.copytree, shutil.move])
def test_a_study_that_is_copied_or_moved_keeps_its_identity(
    move: Callable[..., Any], folder: Path, composed: Study, tmp_path: Path
) -> None:
    identity = read_study(folder).identity
    target = tmp_path / "any where" / "any name"
    target.parent.mkdir()
    move(folder, target)
    study = from_folder(target, composed, [])
    assert study.identity(FINGERPRINT) == identity and study.directory == target


def test_a_study_that_was_made_with_plug_ins_asks_for_them(folder: Path, composed: Study) -> None:
    stored = read_study(folder)
    write_study(folder, stored.__class__(**{**vars(stored), "plugins": ["my_losses", "their.trunks"]}))
    with pytest.raises(UserError) as caught:
        from_folder(folder, composed, [])
    message = str(caught.value)
    assert "made with the plug-ins my_losses, their.trunks" in message and "trust" in message
    assert message.endswith("'ARGS=plugins=[my_losses,their.trunks]'"), message
    (overrides,) = parsed(read_study(folder).command_for_loss("bo", "contrastive", Path("results")))
    assert value_of(overrides, "plugins") == ["my_losses", "their.trunks"]


def test_a_configuration_that_was_altered_is_read_but_not_continued(folder: Path, composed: Study) -> None:
    stored = read_study(folder)
    stored.config["trunk"]["width"] = 99
    write_study(folder, stored)
    with pytest.raises(UserError, match=r"gives the identity .* it was altered"):
        from_folder(folder, composed, [])


# -- printed commands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["make", pytest.param("dmlbench", marks=pytest.mark.slow)])
def test_the_next_command_selects_the_same_folder_whatever_its_name(
    form: str, composed: Study, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(invocation.FORM, form)
    commands = []
    for number, name in enumerate(HOSTILE):
        target = tmp_path / str(number) / name
        shutil.copytree(folder, target)
        study = from_folder(target, composed, [])
        commands.append(study.command("final-eval"))
        assert study.command("bo") == command_for_folder(target, "bo")
    words = [parsed(command) for command in commands]
    places = [value_of(overrides, "study") for ((overrides),) in words]
    assert places == [str(tmp_path / str(number) / name) for number, name in enumerate(HOSTILE)]
    assert not list(Path("/").glob("pwned"))


@pytest.mark.slow
def test_a_folder_whose_name_is_a_reference_stays_a_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY_SECRET", "a value of the environment")
    target = shutil.copytree(folder, tmp_path / "studies" / "group" / "${oc.env:STUDY_SECRET}")
    given = invocation.override("study", str(target))
    seen: list[Study] = []
    assert run(lambda study, _: seen.append(study), given).status == 0 and seen[0].directory == target
    ended = run(final_eval, f"results_dir={tmp_path}", "executor=inline")
    assert str(target) in ended.out and "a value" not in ended.out + ended.err


def test_a_study_made_with_options_is_continued_exactly_by_its_next_command(folder: Path, composed: Study) -> None:
    stored = read_study(folder)
    for target in ("bo", "final-eval", "bo final-eval", "status", "logs"):
        with invocation.overridden(MADE_WITH):
            command = from_folder(folder, composed, []).command(target)
        for overrides in parsed(command):
            assert overrides == [f"study={folder}"]
    assert from_folder(folder, composed, overrides).identity(FINGERPRINT) == stored.identity


def test_the_next_command_keeps_where_and_how_the_user_runs(folder: Path, composed: Study) -> None:
    kept = ["executor=ray", "executor.workers=3", "device=cpu", "keep=best", "plugins=[mine]"]
    with invocation.overridden(["seed=5", *kept, "display=plain"]):
        (overrides,) = parsed(from_folder(folder, composed, []).command("final-eval"))
    assert sorted(overrides) == sorted([f"study={folder}", *kept])


SLOW = [
    (), ("trials=9", "protocol.num_runs=3", "searcher=sobol", "training.optimizers.trunk.lr=0.001"),
    ("loss.space.softmax_scale.bounds=[1,9]", "variant=narrow", "seed=6"), ("+training.clip={value: 1.0}",),
]  # fmt: skip


@pytest.mark.parametrize(
    "given", [MADE_WITH, *(pytest.param(given, marks=pytest.mark.slow) for given in SLOW)], ids=str
)
def test_the_command_for_a_loss_that_was_not_run_gives_a_comparable_study(
    given: tuple[str, ...], compose_study: Compose
) -> None:
    own = ("dataset=glyphs_small", "loss=proxy_nca", *given)
    folder = start(compose_study(*own), *own)
    first, second = parsed(read_study(folder).command_for_loss("bo final-eval", "contrastive", Path("results")))
    assert first == second and value_of(first, "loss") == "contrastive"
    other = compose_study(*first)
    mine, theirs = read_study(folder).science, other.science(FINGERPRINT)
    assert theirs["loss"]["name"] == "contrastive"
    for science in (mine, theirs):
        del science["loss"]
        science["searcher"]["module"].pop("defaults", None)  # the loss's published setting
    assert mine == theirs
    stored = read_study(folder)
    assert (other.config.protocol.num_runs, other.config.trials) == (stored.num_runs, stored.trials)


def test_the_command_for_a_loss_that_was_not_run_leads_to_the_folder_that_is_read(
    compose_study: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = read_study(start(compose_study("dataset=glyphs_small"), "dataset=glyphs_small", "results_dir=elsewhere"))
    monkeypatch.chdir(tmp_path)
    named = {
        Path("results"): [],
        tmp_path / "results": [],
        Path("results/mine"): ["results_dir=results/mine"],
        tmp_path / "results" / "mine": ["results_dir=results/mine"],
        Path("/of/others"): ["results_dir=/of/others"],
    }
    for folder, expected in named.items():
        (overrides,) = parsed(stored.command_for_loss("bo", "contrastive", folder))
        assert overrides == ["dataset=glyphs_small", "loss=contrastive", *expected]


def test_an_unfinished_row_prints_a_command_that_names_the_folder(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "my results" / "a study"
    shutil.copytree(folder, target)
    (row,) = fold_rows.rows(read_study(target), target)
    (overrides, _) = parsed(row.reason[row.reason.index("make ") :].partition(" to finish")[0])
    assert overrides == [f'study="{target}"']


# -- the commands themselves ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("no_fsync")
def test_every_command_accepts_a_study(results: Path) -> None:
    folder = study_dir(results)
    renamed = folder.rename(folder.with_name("another name"))
    given = (f'study="{renamed}"', "executor=inline", f"results_dir={results}")
    with trainings() as trained:
        for command, phrase in (
            (bo, "best: trial"), (status, "search\t2 of 2 trials"), (tables, "| Loss |"), (logs, "== "),
            (data, "Glyphs"),
        ):  # fmt: skip
            ended = run(command, *given)
            assert ended.status == 0 and phrase in ended.out, ended
    assert not trained
    assert_refused(run(splits, *given), "has no image files")
    assert run(final_eval, *given, "protocol.num_runs=1").status == 0
    assert_refused(run(traditional, *given, protocol="traditional"), "protocol=hpl is run by another command")
    assert {path.name for path in renamed.parent.iterdir()} == {"another name"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_fsync")
def test_a_bare_final_eval_takes_each_studys_own_trials_and_runs(results: Path) -> None:
    folder = study_dir(results)
    for name, runs, trials in (("one run", 1, 2), ("two runs", 2, 3), ("unfinished", 2, 5)):
        copied = shutil.copytree(folder, folder.with_name(name))
        stored = read_study(copied)
        write_study(copied, stored.__class__(**{**vars(stored), "num_runs": runs, "trials": trials}))
    assert run(bo, f'study="{folder.with_name("two runs")}"', "executor=inline").status == 0
    shutil.rmtree(folder)
    with trainings() as trained:
        ended = run(final_eval, f"results_dir={results}", "executor=inline")
    assert ended.status == 0, ended
    assert trained == [f"run_0{number}/fold_{fold}" for number in (0, 0, 1) for fold in (0, 1)]
    (skipped,) = [line for line in ended.out.splitlines() if line.startswith("Skipped")]
    assert "unfinished" in skipped and "has 2 of 5 trials" in skipped and "make bo STUDY=" in skipped
    assert not (folder.with_name("unfinished") / "final_eval").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_fsync")
def test_a_lost_unit_prints_a_command_that_names_the_folder(results: Path) -> None:
    folder = study_dir(results).rename(study_dir(results, "a study"))

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    with trainings(fail):
        ended = run(bo, f'study="{folder}"', "trials=3", "executor=inline", "executor.retries=0")
    assert ended.status == 1 and f"make bo 'STUDY={folder}'" in ended.err, ended


@pytest.mark.slow
def test_the_stored_number_of_trials_and_runs_holds_without_study_too(folder: Path, compose_study: Compose) -> None:
    stored = read_study(folder)
    write_study(folder, stored.__class__(**{**vars(stored), "trials": 4, "num_runs": 6}))
    own = compose_study("dataset=glyphs_small", "loss=proxy_nca", *MADE_WITH)
    assert own.directory == folder
    for given, expected in (([], (4, 6)), (["trials=8"], (8, 6)), (["protocol.num_runs=2"], (4, 2))):
        composed = compose_study("dataset=glyphs_small", "loss=proxy_nca", *MADE_WITH, *given)
        config = select_like_hydra(composed, given).config
        assert (config.trials, config.protocol.num_runs) == expected


def select_like_hydra(study: Study, given: list[str]) -> Study:
    return select(OmegaConf.create(study.raw), given, {})


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        (compare, ("a=one", "b=two", "loss=ms"), "loss=ms: compare does not read this.*reads a, b"),
        (trace, ("cell=a/b/c", "trials=3", "dataset=cub"), "trials=3, dataset=cub: trace does not read.*reads cell, "),
        (tables, ("dataset=cub",), "dataset=cub: tables does not read this.*reads results_dir, study, "),
        (bench_front, ("loss=ms",), r"loss=ms: bench-front does not read this.*Leave it out\.$"),
        (bench_search, ("seed=3", "trials=20"), r"^\nseed=3: bench-search does not read this.*reads budget, trials, "),
        (bench_gpu, ("dataset=cub",), "dataset=cub: bench-gpu does not read this.*reads budget, device, "),
        (search, ("model=m", "folds=separated", "format=onnx"), "folds=separated, format=onnx: search does not read"),
        (embed, ("model=m", "images=i", "nearest=3", "trials=2"), "nearest=3, trials=2: embed does not.*reads run, "),
        (export, ("model=m", "embed_batch=3"), "embed_batch=3: export does not read this.*reads run, plugins, device"),
        (
            score,
            ("embeddings=f", "folds=separated", "device=cpu", "dataset=cub", "dataset.recall_at=[1]"),
            "folds=separated, device=cpu, dataset=cub: score does not.*reads embeddings, dataset.recall_at, ",
        ),
        (score, ("model=m", "embed_batch=3", "dataset=cub", "dataset.max_epochs=3"), "embed_batch=3: score does not"),
    ],
)
def test_a_command_that_shows_the_same_without_an_option_refuses_it(
    command: Callable[..., None], given: tuple[str, ...], said: str, stored_once: Path
) -> None:
    ended = run(command, f"results_dir={stored_once.parents[2]}", *given)
    assert_refused(ended)
    assert re.search(said, ended.err), ended.err


def test_options_that_select_no_study_are_allowed(stored_once: Path) -> None:
    ended = run(compare, f"a={stored_once}", f"b={stored_once}", "device=cpu", "display=plain", "executor.workers=2")
    assert "does not read" not in ended.err
