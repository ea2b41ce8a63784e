"""Experiments from the command line: listed, planned, run, and their tables and curves."""

import csv
import io
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmark.__main__ import VERBS
from benchmark.core import console, invocation
from benchmark.core.wording import human_time
from benchmark.experiment import measure as measuring
from benchmark.experiment import plan as plans
from benchmark.experiment import run as running
from benchmark.experiment import spec, state, tables
from benchmark.experiment.measure import Speed
from benchmark.experiment.run import Command, Fault, Job
from benchmark.experiment.selected import selected
from benchmark.report.table import Table
from benchmark.study import passes
from benchmark.study.base import at_base
from benchmark.study.cli import study_of
from benchmark.study.study import Study
from tests import command_line, fake_results
from tests.cases import slow_except
from tests.command_line import Ended, assert_refused
from tests.processes import children as children_of
from tests.processes import is_alive, wait_for

SMALLEST = ("trunk.width=8", "executor=inline", "measure=false")
SEARCHED = (
    *SMALLEST,
    "dataset.iterations_per_epoch=2",
    "dataset.max_epochs=1",
    "protocol.num_folds=2",
    "protocol.num_runs=2",
)
FILES = {
    "sweep": """
        title: A sweep.
        datasets: [cub]
        common: {trunk: resnet50, protocol: traditional, training.recipe: hpl}
        published: [HPL_main_T5, HPL_supp_T3]
        columns: [recall_at_1]
        studies:
          - {loss: proxy_nca, variant: recipe_hpl, label: Base}
          - {loss: hpl_nca}
        sweep: [{key: loss.setting.num_coarse, name: p, title: groups, losses: [hpl_nca], values: [4, 8], log: true}]
        figures: [sweep]
    """,
    "search": """
        title: A search.
        datasets: [glyphs_small]
        common: {trunk: small_conv, protocol: hpl}
        studies: [{loss: contrastive}, {loss: proxy_nca, variant: other, set: {seed: 3}}]
    """,
    "presets": """
        title: Published settings.
        datasets: [glyphs_small]
        common: {trunk: small_conv, protocol: mlrc_2020}
        describes: [reference, not_there]
        studies: [{loss: triplet, preset: default}]
    """,
    "at_base": """
        title: At the optimum of the base.
        datasets: [glyphs_small]
        common: {trunk: small_conv, protocol: hpl}
        studies: [{loss: hpl_nca, preset: base}, {loss: proxy_nca}]
    """,
    "robust": """
        title: Corrupted images.
        datasets: [glyphs_small]
        common: {trunk: small_conv, protocol: traditional, keep: best}
        studies: [{loss: proxy_nca}, {loss: hist}]
        figures: [robustness]
    """,
    "sweep_of_classes": """
        title: Training classes.
        datasets: [glyphs_small]
        common: {trunk: small_conv, protocol: traditional, protocol.num_runs: 1, training.epochs: 8,
                 training.batch_size: 128}
        studies: [{loss: proxy_nca}]
        sweep: [{key: protocol.held_out, name: h, title: held out, values: [0.0, 0.1, 0.5]}]
    """,
    "epochs": """
        title: Embeddings by epoch.
        datasets: [glyphs_small]
        common: {trunk: small_conv, protocol: traditional, keep: best}
        studies: [{loss: hier}]
        figures: [epochs]
        projection: umap
    """,
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "experiments"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(spec, "experiments_dir", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def command(verb: str, *overrides: str) -> Ended:
    def run(study: Study, given: list[str]) -> None:
        VERBS[verb](study, given)

    run.__name__ = verb.replace("-", "_")
    return command_line.run(run, *overrides, protocol=VERBS[verb].protocol)


class Here:
    """A child that has run in this process already."""

    def __init__(self, command_: Command) -> None:
        self.command, self.slots = command_, list[int]()
        self.ended = command(command_.verb, *command_.overrides)
        print(self.ended.out)

    @property
    def fault(self) -> Fault | None:
        return Fault(self.command, self.ended.status, self.ended.err.strip()) if self.ended.status else None


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run commands in this process; their verbs and folders."""
    found: list[str] = []

    def start(command_: Command, slots: Sequence[Mapping[str, str]], ended: "queue.Queue[Any]") -> Here:
        found.append(f"{command_.verb} {command_.name.rpartition('/')[2]}".strip())
        child = Here(command_)
        ended.put(child)
        return child

    monkeypatch.setattr(running, "start", start)
    return found


def rows_of(table: str) -> dict[str, dict[str, str]]:
    """The rows of a table in `results`, by their names, without the reasons and notes."""
    with Path(f"results/tables/{table}.csv").open(encoding="utf-8", newline="") as file:
        return {row["loss"]: {k: v for k, v in row.items() if k not in ("reason", "notes")}
                for row in csv.DictReader(file)}  # fmt: skip


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_list_names_every_experiment_with_its_trainings_and_what_is_missing() -> None:
    ended = command("experiments")
    assert ended.status == 0, ended.err
    rows = {line.split("\t")[0]: line.split("\t") for line in ended.out.splitlines()}
    assert rows["presets"][1:6] == ["glyphs_small", "0 of 1", "0 of 40", "results/reference", "-"]
    assert rows["search"][2:5] == ["0 of 2", f"0 of {2 * (6 + 10) * 4}", "-"]
    assert "data set cub" in rows["sweep"][5] and "resnet50" in rows["sweep"][5]


def test_the_list_needs_no_training_library() -> None:
    code = "import sys, benchmark.experiments; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


@pytest.mark.parametrize(
    ("overrides", "phrases"),
    [(["experiment=serch"], ("no experiment 'serch'", "Did you mean 'search'?")),
     ([], ("Name an experiment", "experiment=hpl_table_3")),
     (["experiment=search", "loss=hpl_pa"], ("loss=hpl_pa", "has its own")),
     (["experiment=search", "budget=tiny"], ("budget=tiny: allowed are full, small",)),
     (["experiment=sweep", "loss.setting.num_coarse=3"], ("sweeps loss.setting.num_coarse itself",)),
     (["experiment=search", "dataset=glyfs"], ("no dataset 'glyfs'", "glyphs"))],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_an_experiment_is_refused(overrides: list[str], phrases: tuple[str, ...]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(invocation.FORM, "dmlbench")
        assert_refused(command("plan", *overrides), *phrases)


def test_a_command_for_one_study_refuses_an_experiment() -> None:
    assert_refused(command("bo", "experiment=search"), "experiment=search: this command runs one study")


def test_make_names_an_experiment_by_name_and_several_losses_by_loss() -> None:
    given = {"BENCHMARK_MAKE_NAME": "hpl_table_3", "BENCHMARK_MAKE_BUDGET": "small"}
    assert invocation.from_make(given, "plan") == ["experiment=hpl_table_3", "budget=small"]
    assert invocation.from_make(given, "data") == ["dataset.name=hpl_table_3", "budget=small"]
    assert invocation.from_make({"BENCHMARK_MAKE_LOSS": "hpl_pa,hist"}, "bo") == ["loss=hpl_pa,hist"]
    assert invocation.from_make({"BENCHMARK_MAKE_LOSS": "hpl_pa,hist"}, "data") == ['loss="hpl_pa,hist"']
    assert invocation.command("plan", {"experiment": "hpl_table_3"}) == "make plan NAME=hpl_table_3"


@pytest.mark.parametrize("verb", ["bo", "traditional"])
def test_several_losses_run_one_after_the_other_and_the_rest_goes_on(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def run(study: Study, given: list[str]) -> None:
        seen.append(study.config.loss.name)
        if study.config.loss.name == "hist":
            raise spec.UserError("cannot run")

    run.__name__ = verb
    ended = command_line.run(run, "loss=hpl_pa,hist,triplet", "dataset=glyphs_small")
    assert seen == ["hpl_pa", "hist", "triplet"] and ended.status == 2 and "cannot run" in ended.err


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_only_a_data_set_that_the_user_gives_replaces_the_experiments_own() -> None:
    ended = command("plan", "experiment=search", "measure=false")
    assert "search on glyphs_small: 2 studies" in ended.out and "Not for reporting" not in ended.out
    other = command("plan", "experiment=search", "dataset=glyphs", "budget=small", "measure=false")
    assert "Not for reporting: on glyphs in place of glyphs_small; budget=small." in other.out
    assert "glyphs-small_conv-hpl/contrastive\tmissing\t0 of 28" in other.out
    caption = "Glyphs, trunk small_conv, protocol hpl: the studies of the experiment search, on a small budget."
    assert f"\n  {caption}\n" in other.out


def test_an_option_for_all_studies_reaches_each_once_and_is_named() -> None:
    chosen = selected("search", ["experiment=search", "seed=9", "results_dir=elsewhere"])
    for study in chosen.studies["glyphs_small"]:
        assert [entry for entry in study.overrides if entry.startswith("seed=")] == ["seed=9"]
        assert study.directory.parts[0] == "elsewhere"
    assert chosen.remark == "Not for reporting: seed=9."
    assert selected("search", ["executor.workers=2", "keep=best"]).remark == ""


def test_a_plan_says_how_hours_are_unmeasured_and_data_are_missing() -> None:
    ended = command("plan", "experiment=sweep")
    assert ended.status == 0, ended.err
    assert "Time: unmeasured (not on this machine: data set cub)." in ended.out
    assert "Not on this machine: data set cub, weights resnet50" in ended.out


@pytest.mark.slow
def test_a_plan_counts_the_trainings_of_repeated_searches(no_fsync: None) -> None:
    given = ("experiment=search", "measure=false", "trials=4", "protocol.num_runs=2")
    assert command("plan", *given).out.count("missing\t0 of 24\t") == 2  # (4 trials + 2 runs) x 4 folds
    repeated = command("plan", *given, "searches=3")
    assert repeated.out.count("missing\t0 of 72\t") == 2 and "Trainings: 0 of 144 are done." in repeated.out
    (study, *_) = selected("search", ["trials=4", "protocol.num_runs=2", "searches=3"]).studies["glyphs_small"]
    first, second, third = study_of(study.overrides).repetitions()
    assert study.directories == [first.directory, second.directory, third.directory]
    fake_results.finish(first, [0.3, 0.4])
    fake_results.finish(third, [0.3, 0.4])
    assert "started\t48 of 72\t" in command("plan", *given, "searches=3").out
    assert "finished\t24 of 24\t" in command("plan", *given).out
    fake_results.finish(second, [0.3, 0.4])
    assert "finished\t72 of 72\t" in command("plan", *given, "searches=3").out


@pytest.mark.slow
def test_a_repetition_that_is_another_study_is_not_done() -> None:
    given = ("trials=4", "protocol.num_runs=2", "searches=2")
    (one, _) = selected("search", given).studies["glyphs_small"]
    first, second = study_of(one.overrides).repetitions()
    fake_results.finish(first, [0.3, 0.4])
    fake_results.finish(Study.of(second.raw | {"seed": 9}), [0.3, 0.4])
    out = command("plan", "experiment=search", "measure=false", *given).out
    assert "another study is in its folder:  seed: 9 there, 0 now\t0 of 48\t" in out


def test_a_plan_in_which_a_study_refuses_an_option_suggests_nothing_to_run() -> None:
    ended = command("plan", "experiment=sweep", "trials=5", "measure=false")
    assert_refused(ended, "3 studies of sweep cannot run. Leave out what they refuse of trials=5.")
    assert "cannot run: trials=5 has no effect" in ended.out and "Next:" not in ended.out
    assert all(line.count("\t") in (0, 6, 13) for line in ended.out.splitlines()), "each row is one line"


def test_a_plan_and_a_run_say_what_they_measure_before_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(count: int) -> None:
        raise spec.UserError("the machine is busy")

    monkeypatch.setattr(measuring, "use_threads", interrupt)
    monkeypatch.setattr(running, "run_all", lambda *jobs: [])
    said = {verb: command(verb, "experiment=search", "seed=9").out for verb in ("plan", "experiment")}
    for out in said.values():
        first, *_ = out.splitlines()
        assert first == "Measuring small_conv on cpu, batches of 128 ..." and "unmeasured (the machine is busy)" in out
    assert "Measuring" not in command("plan", "experiment=search", "measure=false").out


def test_a_check_of_many_studies_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "PLAIN_EPOCH_SECONDS", 0.0)
    assert "glyphs_small: studies checked: 1 of 2, " in command("plan", "experiment=search", "measure=false").out


@pytest.mark.parametrize("share", slow_except([0.25], [0.0, 0.25, 0.9]))
@pytest.mark.parametrize("options", [(), ("training.epochs=3",), ("training=frozen",), ("protocol.label_noise=0.5",)])
def test_a_traditional_plan_counts_the_images_that_its_runs_see(
    share: float, options: tuple[str, ...], compose_study: Callable[..., Study]
) -> None:
    study = compose_study("protocol=traditional", "dataset=glyphs_small", f"protocol.held_out={share}", *options)
    dataset = study.make_dataset()
    labels = dataset.trainval().labels.tolist()
    sizes = [labels.count(label) for label in sorted({*labels})]
    run = passes.make_plan(study, dataset.fingerprint)
    c, held_out = run.study.config, plans.num_held_out(study.config, sizes)
    assert held_out == len(run.held_out) and (held_out > 0) == (share > 0)
    seen = c.dataset.max_epochs * c.protocol.iterations_per_epoch * c.protocol.batch_size
    assert plans.trained_images(study.config, len(labels) - held_out) == (seen, seen)
    scored = (c.dataset.max_epochs + 1) * (len(labels) + len(run.held_out))  # the test half counts as the training half
    assert plans.evaluated_images(study.config, len(labels), held_out) == (scored, scored)


def test_the_cost_of_a_sweep_of_held_out_classes_falls_with_the_images_that_are_left(
    monkeypatch: pytest.MonkeyPatch, files: Path
) -> None:
    (files / "classes.yaml").write_text(FILES["sweep_of_classes"])
    speed = Speed(100.0, 1e9, (200, *[10] * 100, 600), 1, "cpu", 128)  # the last class of 102 is large
    monkeypatch.setattr(measuring, "measure", lambda study: speed)
    ended = command("plan", "experiment=classes")
    rows = [line.split("\t") for line in ended.out.splitlines() if "held_out=" in line and "\t" in line]
    # 1,800 images; without 10 classes 1,800 - 600 - 90, without 51 classes 1,800 - 600 - 500; 8 epochs of whole batches
    left = [14 * 128, 8 * 128, 5 * 128]
    assert [row[4] for row in rows] == [f"{8 * images:,}" for images in left]
    assert [row[5] for row in rows] == [human_time(8 * images / 100) for images in left]


# -- side by side -----------------------------------------------------------------------------------------------------


class Recorded:
    """A child that does nothing and ends when the test says so."""

    def __init__(self, command_: Command, slots: Sequence[Mapping[str, str]], status: int) -> None:
        self.command, self.slots, self.given, self.status = command_, list[int](), slots, status
        self.stopped = False

    @property
    def fault(self) -> Fault | None:
        return Fault(self.command, self.status, "") if self.status else None

    def stop(self) -> None:
        self.stopped = True

    def end(self) -> None:
        assert self.stopped


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, int]], list[list[str]]]:
    """Run jobs with children that all end at once; returns which ran together, with their numbers of workers."""

    def watch(statuses: Mapping[str, int]) -> list[list[str]]:
        rounds: list[list[str]] = []
        alive: list[Recorded] = []

        def start(command_: Command, slots: Sequence[Mapping[str, str]], ended: "queue.Queue[Any]") -> Recorded:
            child = Recorded(command_, slots, statuses.get(command_.name, 0))
            alive.append(child)
            return child

        class Ended(queue.Queue[Any]):
            def get(self, *_: Any, **__: Any) -> Any:
                if not rounds or rounds[-1] != (now := [f"{c.command.name}:{len(c.given)}" for c in alive]):
                    rounds.append(now if rounds else [f"{c.command.name}:{len(c.given)}" for c in alive])
                return alive.pop(0)

        monkeypatch.setattr(running, "start", start)
        monkeypatch.setattr(running.queue, "Queue", Ended)
        return rounds

    return watch


def jobs(verb: str, wanted: int, *names: str) -> list[Job]:
    return [Job((Command(name, verb, ()),), {verb: wanted}) for name in names]


def test_studies_with_one_run_each_share_the_workers(children: Callable[..., list[list[str]]]) -> None:
    rounds = children({})
    assert running.run_all(jobs("traditional", 1, "a", "b", "c"), [{}, {}]) == []
    assert rounds == [["a:1", "b:1"], ["b:1", "c:1"], ["c:1"]]


def test_a_study_takes_no_more_workers_than_are_free(children: Callable[..., list[list[str]]]) -> None:
    rounds = children({})
    running.run_all(jobs("bo", 4, "a", "b"), [{}] * 6)
    assert rounds[0] == ["a:4", "b:2"]


def test_another_executor_runs_one_study_at_a_time(children: Callable[..., list[list[str]]]) -> None:
    rounds = children({})
    running.run_all(jobs("traditional", 9, "a", "b"), [])
    assert rounds == [["a:0"], ["b:0"]]


def test_a_failed_search_has_no_final_runs_and_the_others_go_on(children: Callable[..., list[list[str]]]) -> None:
    rounds = children({"a": 2})
    two = [Job((Command(name, "bo", ()), Command(name, "final-eval", ()))) for name in ("a", "b")]
    faults = running.run_all(two, [])
    assert [(fault.command.verb, fault.command.name) for fault in faults] == [("bo", "a")]
    assert rounds == [["a:0"], ["b:0"], ["b:0"]] or len(rounds) == 2
    assert running.status_of(faults) == 2 and running.status_of([Fault(two[0].steps[0], -9, "")]) == 1


def test_a_row_at_the_optimum_of_its_base_starts_after_all_searches(children: Callable[..., list[list[str]]]) -> None:
    studies = [plans.planned(study) for study in selected("at_base", []).studies["glyphs_small"]]
    rounds = children({})
    assert running.run_studies(studies, [{}] * 100) == []
    base, row = "glyphs_small/proxy_nca", "glyphs_small/hpl_nca-base"
    assert [[name.partition(":")[0] for name in together] for together in rounds] == [[base], [base], [row]]


def test_what_a_command_suggests_is_not_repeated_by_the_experiment(capfd: pytest.CaptureFixture[str]) -> None:
    child = object.__new__(running.Child)
    child.command, child._is_quiet = Command("glyphs/ms", "bo", ()), False
    child._process = type(
        "Process", (), {"stdout": io.StringIO("trial 1\nNext: make final-eval\nend\n"), "stderr": None}
    )()
    child._read(1)
    assert capfd.readouterr().out == "glyphs/ms: trial 1\nglyphs/ms: end\n"


def test_a_signal_ends_every_child(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Recorded] = []

    def start(command_: Command, slots: Sequence[Mapping[str, str]], ended: "queue.Queue[Any]") -> Recorded:
        started.append(Recorded(command_, slots, 0))
        if len(started) == 2:
            ended.put(KeyboardInterrupt())
        return started[-1]

    monkeypatch.setattr(running, "start", start)
    with pytest.raises(KeyboardInterrupt):
        running.run_all(jobs("traditional", 1, "a", "b"), [{}, {}])
    assert [child.stopped for child in started] == [True, True]


# -- tables and figures at the end ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_finished_studies_are_drawn_before_the_tables_that_show_their_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, options = list[str](), list[tuple[str, ...]]()

    def run_all(given: Sequence[Job], slots: Sequence[Mapping[str, str]] = ()) -> list[Fault]:
        options.extend(step.overrides[1:] for job in given for step in job.steps if step.verb == "figures")
        ran.extend(f"{step.verb} {step.name}".strip() for job in given for step in job.steps)
        return []

    monkeypatch.setattr(running, "run_all", run_all)
    monkeypatch.setattr(state, "progress", lambda study: (state.FINISHED, study.num_trainings))
    assert command("experiment", "experiment=robust", "measure=false").status == 0
    assert ran == ["robustness glyphs_small/proxy_nca", "robustness glyphs_small/hist", "tables", "report"]
    assert command("experiment", "experiment=epochs").status == 0
    assert command("experiment", "experiment=epochs", "projection=tsne").status == 0
    assert ran[4:] == ["figures glyphs_small/hier", "tables", "report"] * 2
    assert options == [("figure=[epochs]", f"projection={name}") for name in ("umap", "tsne")]


def test_losses_on_corrupted_images_share_a_table_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def table(name: str, entries: Sequence[str], *_: object) -> Table:
        return Table(name, " and ".join(entries), [])

    monkeypatch.setattr(tables, "_entries", lambda one, found: [one.name])
    monkeypatch.setattr(tables, "make_table", table)
    monkeypatch.setattr(tables, "corruption_table", table)
    for name in ("robust", "search"):
        assert command("tables", f"experiment={name}").status == 0
    found = {path.name: path.read_text() for path in (tmp_path / "results/tables").glob("*.md")}
    assert found.keys() == {"robust.md", "robust-corrupted.md", "search.md"}
    assert (
        "proxy\\_nca and hist" in found["robust-corrupted.md"] or "proxy_nca and hist" in found["robust-corrupted.md"]
    )


@pytest.mark.slow
def test_the_table_of_an_experiment_has_the_repeated_searches_that_the_table_of_its_folder_has() -> None:
    given = ("trials=4", "protocol.num_runs=2", "searches=3")
    one, other = (
        study_of(study.overrides).repetitions() for study in selected("search", given).studies["glyphs_small"]
    )
    for number, search in enumerate(one):
        fake_results.finish(search, [0.3 + 0.02 * number, 0.35])
    fake_results.finish(other[0], [0.3, 0.32])
    fake_results.finish(other[2], [0.4, 0.42])  # without the second one
    assert command("tables", "experiment=search", *given).status == command("tables").status == 0
    found = rows_of("search")
    assert found == rows_of("glyphs_small-small_conv-hpl") and found["contrastive"]["trials"] == "12"
    assert float(found["contrastive"]["concatenated_map_at_r_over_searches"]) == pytest.approx(33.5)

    fake_results.finish(Study.of(other[1].raw | {"seed": 9}), [0.5, 0.52])
    ended = command("tables", "experiment=search", *given)
    assert "proxy_nca-other-search1 is left out: another study is in its folder:  seed: 9 there" in ended.out
    assert rows_of("search") == found


@pytest.mark.slow
def test_a_row_at_the_optimum_of_its_base_is_compared_with_the_study_at_that_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ("trials=4", "protocol.num_runs=2")
    row, base = (study_of(study.overrides) for study in selected("at_base", given).studies["glyphs_small"])
    monkeypatch.setattr(fake_results, "SETTING", {"proxy_lr": 0.25, "softmax_scale": 30.0})
    fake_results.finish(base, [0.3, 0.34])
    fake_results.finish_preset(at_base(row).study, [0.35, 0.36])
    assert command("tables", "experiment=at_base", *given).status == 0
    assert float(rows_of("at_base")["hpl_nca-base"]["concatenated_map_at_r"]) == pytest.approx(35.5)
    assert "Trainings: 32 of 32 are done." in command("plan", "experiment=at_base", "measure=false", *given).out

    other = command("tables", "experiment=at_base", *given, "protocol.embedding_dim=64").out
    assert other.count("is left out: another study is in its folder:") == 1 and "hpl_nca-base" in rows_of("at_base")

    (base.directory / "bo" / "best.yaml").unlink()  # so that the row's setting cannot be checked
    assert "left out" not in command("tables", "experiment=at_base", *given).out
    assert "hpl_nca-base" in rows_of("at_base")


# -- from end to end --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_is_trained_and_gets_a_table_and_a_curve(tmp_path: Path, ran: list[str], no_fsync: None) -> None:
    given = ["experiment=sweep", "dataset=glyphs_small", "budget=small", "training.epochs=1", *SMALLEST]
    ended = command("experiment", *given)
    assert ended.status == 0, ended.err
    assert ran == [
        "traditional proxy_nca-recipe_hpl",
        "traditional hpl_nca-p4",
        "traditional hpl_nca-p8",
        "tables",
        "report",
    ]
    folder = tmp_path / "results/small/sweep"
    text = (folder / "tables/sweep-glyphs_small.md").read_text()
    assert text.startswith("**Not for reporting: on glyphs_small in place of cub; budget=small")
    assert "\n\nGlyphs (small), trunk small_conv, protocol traditional: the studies of" in text
    assert [label in text for label in ("Base", "HPL-NCA, groups = 4", "HPL-NCA, groups = 8")] == [True] * 3
    with (folder / "figures/sweep-glyphs_small.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["value"] for row in rows] == ["", "4", "8"] and all(float(row["mean"]) > 0 for row in rows)
    assert (folder / "figures/sweep-glyphs_small.png").stat().st_size > 1000
    page = (folder / "report-sweep.html").read_text(encoding="utf-8")
    assert '<figure id="sweep-glyphs_small-sweep">' in page and "Sweep of groups" in page
    again = command("experiment", *given)
    assert again.status == 0 and ran[5:] == ["tables", "report"], "nothing is trained again"
    assert "2 of 2" in again.out


@pytest.mark.slow
def test_a_search_is_followed_by_its_final_runs_and_a_missing_study_keeps_its_command(
    tmp_path: Path, ran: list[str], no_fsync: None
) -> None:
    failing = Path(tmp_path / "results/studies/glyphs_small-small_conv-hpl/proxy_nca-other")
    failing.parent.mkdir(parents=True)
    failing.write_text("in the way")
    ended = command("experiment", "experiment=search", *SEARCHED, "trials=2", "searcher=sobol")
    assert ran == ["bo contrastive", "final-eval contrastive", "bo proxy_nca-other", "tables", "report"]
    assert ended.status == 2 and "proxy_nca-other: bo failed (status 2)" in ended.err
    text = (tmp_path / "results/tables/search.md").read_text()
    assert "Contrastive" in text and "variant=other" in text and "seed=3" in text


@pytest.mark.slow
def test_a_row_whose_bases_search_failed_says_so(tmp_path: Path, ran: list[str]) -> None:
    failing = Path(tmp_path / "results/studies/glyphs_small-small_conv-hpl/proxy_nca")
    failing.parent.mkdir(parents=True)
    failing.write_text("in the way")
    ended = command("experiment", "experiment=at_base", *SEARCHED)
    assert ran[:2] == ["bo proxy_nca", "final-eval hpl_nca-base"] and ended.status == 2
    assert "proxy_nca: bo failed (status 2)" in ended.err
    reason = (
        "hpl_nca on glyphs_small: preset=base takes the setting that a search of proxy_nca chose, and there is none"
    )
    assert f"hpl_nca-base: final-eval failed (status 2). {reason}" in ended.err


@pytest.mark.slow
def test_presets_are_not_searched(tmp_path: Path, ran: list[str], no_fsync: None) -> None:
    ended = command("experiment", "experiment=presets", *SEARCHED)
    assert ended.status == 0, ended.err
    assert ran == ["final-eval triplet-default", "tables", "report"]
    assert (tmp_path / "results/tables/presets.csv").is_file()


@pytest.fixture
def start(files: Path, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start the command in a process of its own; whatever is left of it is killed."""
    started: list[subprocess.Popen[str]] = []
    root = Path(__file__).parents[1]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); sys.argv[0] = 'dmlbench'\n"
        "from pathlib import Path\nfrom benchmark.experiment import spec\n"
        f"spec.experiments_dir = lambda: Path({str(files)!r})\n"
        "from benchmark.__main__ import main\nfrom benchmark.core import process\n"
        "process._runs_a_command = lambda: True\nprocess.begin()\nraise SystemExit(main())"
    )

    def run(*arguments: str) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", code, *arguments]
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(words, cwd=tmp_path, text=True, start_new_session=True, stdout=pipe, stderr=pipe)
        )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_stopped_experiment_ends_its_commands_and_resumes(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"], ran: list[str], no_fsync: None
) -> None:
    given = [
        "experiment=presets",
        *SMALLEST,
        "dataset.iterations_per_epoch=20",
        "protocol.num_folds=2",
        "protocol.num_runs=1",
    ]
    process = start("experiment", *given)
    log = tmp_path / "results/studies/glyphs_small-small_conv-mlrc_2020/triplet-default"
    folds = "final_eval/default/run_*/fold_*/*"
    wait_for(lambda: list(log.glob(folds)) or process.poll() is not None, 120, "for a fold")
    (child,) = children_of(process.pid)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 143, (out, err)
    assert err.count("Stopped.") == 1 and not is_alive(child)
    ended = command("experiment", *given)
    assert ended.status == 0 and ran == ["final-eval triplet-default", "tables", "report"], ended.err
