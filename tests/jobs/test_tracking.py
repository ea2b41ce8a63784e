"""Trackers get what the records hold, once a session, and never matter for a result; the libraries are fakes."""

import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmark.bo import bo
from benchmark.core import records
from benchmark.jobs.trackers import About
from benchmark.jobs.tracking import Tracking, make_tracker
from benchmark.study.study import Study
from tests.command_line import assert_refused, results_of, study_dir, tiny

ABOUT = About("glyphs/hpl_pa", "bo", "0123", Path("results"))
HISTORY = [{"epoch": epoch, "loss": epoch or None, "map_at_r": epoch / 10, "diagnostics": {}} for epoch in range(3)]


class Fake:
    """Notes what it gets."""

    where = "nowhere"

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.tables: dict[str, Sequence[Sequence[str]]] = {}
        self.ended: list[str] = []

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.points[f"{part}/{name}"].append((step, value))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.tables[name] = [columns, *rows]

    def end(self, part: str) -> None:
        self.ended.append(part)

    def close(self) -> None:
        self.ended.append("all")


class Writer:
    """TensorBoard's writer; its files hold a line for each point."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.file = Path(folder) / "events.out.tfevents.1"

    def add_scalar(self, name: str, value: float, step: int) -> None:
        with self.file.open("a") as file:
            file.write(f"{name} {step} {value}\n")

    def add_text(self, name: str, text: str, step: int) -> None:
        self.file.with_name(f"{name}.md").write_text(text)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def library(monkeypatch: pytest.MonkeyPatch, name: str, **content: object) -> None:
    module = ModuleType(name)
    module.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_resumed_search_writes_all_that_is_finished_once(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(monkeypatch, "torch.utils.tensorboard", SummaryWriter=Writer)
    before = results_of(study_dir(results))
    for _ in range(2):  # the second session writes the files anew, and each concludes a trial from its folds
        (study_dir(results) / "bo" / "trial_001.json").unlink()
        ended = tiny(bo, results, "tracker=tensorboard")
        assert ended.status == 0 and f"Curves: tensorboard --logdir {results}/tensorboard" in ended.out, ended
    assert results_of(study_dir(results)) == before
    folder = results / "tensorboard/glyphs_small-small_conv-hpl/proxy_nca/bo"
    trials = [records.read_record(path).result for path in sorted((study_dir(results) / "bo").glob("trial_*.json"))]
    for trial in trials:
        for fold in trial["folds"]:
            path = folder / f"trial_{trial['index']:03d}/fold_{fold['fold']}/events.out.tfevents.1"
            found = [line.split() for line in path.read_text().splitlines()]
            scores = [[float(value)] for name, _, value in found if name == "validation/map_at_r"]
            assert scores == [[row["map_at_r"]] for row in fold["history"]]
            assert [float(value) for name, _, value in found if name == "loss"] == [fold["history"][1]["loss"]]
    overview = [line.split() for line in (folder / "overview/events.out.tfevents.1").read_text().splitlines()]
    best = [float(value) for name, _, value in overview if name == "best_so_far"]
    assert best == [trials[0]["map_at_r"], max(trial["map_at_r"] for trial in trials)]
    assert (folder / "overview/trials.md").read_text().startswith("| trial | validation MAP@R | proxy_lr |")


def test_an_epoch_is_sent_when_it_is_reported_and_no_second_time() -> None:
    fake = Fake()
    tracking = Tracking(fake, "trial", num_folds=2)
    tracking.report({"kind": "trial", "index": 3, "fold": 1, "row": HISTORY[2]})
    tracking.report({"trouble": "a worker died"})
    assert fake.points["trial_003/fold_1/loss"] == [(2, 2.0)] and "overview/best_so_far" not in fake.points
    for fold in (0, 1):
        tracking.finished(3, fold, {"history": HISTORY, "map_at_r": 0.2 + fold / 10}, {"lr": 0.5, "m": 4})
    tracking.concluded(3, {"status": "completed", "map_at_r": 0.25})
    assert sorted(fake.points["trial_003/fold_1/loss"]) == [(1, 1.0), (2, 2.0)]  # it resumed elsewhere before epoch 2
    assert fake.points["overview/best_so_far"] == [(4, pytest.approx(0.25))]
    assert fake.tables["trials"] == [["trial", "validation MAP@R", "lr", "m"], ["4", "25.00", "0.5", "4"]]
    tracking.close()
    assert fake.ended == ["trial_003/fold_0", "trial_003/fold_1", "all"]


def test_a_trial_without_a_score_has_an_empty_place_in_the_table() -> None:
    fake = Fake()
    tracking = Tracking(fake, "trial", num_folds=1)
    for index, status in enumerate(("failed", "stopped")):
        tracking.finished(index, 0, {"history": HISTORY, "map_at_r": None}, {"lr": 0.5})
        tracking.concluded(index, {"status": status, "map_at_r": None})
    assert fake.tables["trials"][1:] == [["1", "-", "0.5"], ["2", "stopped", "0.5"]]
    assert "overview/best_so_far" not in fake.points


def test_a_tracker_that_fails_is_named_once_and_left_alone() -> None:
    said: list[str] = []
    fake = Fake()
    fake.scalars = lambda *_: 1 / 0  # type: ignore[assignment, return-value]
    tracking = Tracking(fake, "trial", num_folds=1, say=said.append)
    tracking.finished(0, 0, {"history": HISTORY, "map_at_r": 0.1}, {})
    tracking.close()
    assert len(said) == 1 and "ZeroDivisionError" in said[0] and fake.ended == []


def test_wandb_continues_the_run_of_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    logged: list[dict[str, Any]] = []
    run = SimpleNamespace(url="https://here", define_metric=lambda *_, **__: None, log=logged.append,
                          finish=lambda: logged.append({}))  # fmt: skip

    def init(**options: Any) -> Any:
        started.append(options)
        return run

    library(monkeypatch, "wandb", init=init, Table=lambda columns, data: (columns, data))
    tracker = make_tracker("wandb", ABOUT)
    assert started[0]["id"] == "0123-bo" and started[0]["resume"] == "allow" and tracker.where == "https://here"
    tracker.scalars("trial_000/fold_0", {"loss": 0.5}, 2)
    tracker.table("trials", ["trial"], [["1"]])
    tracker.close()
    assert logged == [{"trial_000/fold_0/loss": 0.5, "step": 2}, {"trials": (["trial"], [["1"]])}, {}]


class MLflow:
    """MLflow, whose active run belongs to a thread; what is logged without one starts a run without a name."""

    def __init__(self, earlier: Sequence[str]) -> None:
        self.earlier, self.active = earlier, threading.local()
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[str, object]] = []
        self.query = ""

    def set_experiment(self, name: str) -> None: ...

    def get_tracking_uri(self) -> str:
        return "here"

    def search_runs(self, filter_string: str, **_: Any) -> list[Any]:
        self.query = filter_string
        return [SimpleNamespace(info=SimpleNamespace(run_id=number)) for number in self.earlier]

    def start_run(self, **options: Any) -> Any:
        self.started.append(options)
        self.active.run_id = options.get("run_id", f"new {len(self.started)}")
        return SimpleNamespace(info=SimpleNamespace(run_id=self.active.run_id))

    def log(self, what: object, run_id: str | None) -> None:
        if run_id is None and not hasattr(self.active, "run_id"):
            self.start_run()
        self.logged.append((run_id or self.active.run_id, what))

    def log_metrics(self, metrics: dict[str, float], step: int, run_id: str | None = None) -> None:
        self.log((metrics, step), run_id)

    def log_text(self, text: str, artifact_file: str, run_id: str | None = None) -> None:
        self.log(artifact_file, run_id)

    def end_run(self) -> None:
        del self.active.run_id


@pytest.mark.parametrize("earlier", [[], ["7"]])
def test_mlflow_continues_the_run_of_a_study_from_all_threads(
    earlier: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = MLflow(earlier)
    names = ("set_experiment", "get_tracking_uri", "search_runs", "start_run", "log_metrics", "log_text", "end_run")
    library(monkeypatch, "mlflow", **{name: getattr(mlflow, name) for name in names})
    tracker = make_tracker("mlflow", ABOUT)

    def logs() -> None:
        tracker.scalars("trial_000/fold_0", {"loss": 0.5}, 2)
        tracker.table("trials", ["trial"], [["1"]])

    worker = threading.Thread(target=logs)
    worker.start()
    worker.join()
    logs()
    tracker.close()
    tags = {"identity": "0123", "command": "bo"}
    assert mlflow.started == [{"run_id": "7"} if earlier else {"run_name": "bo", "tags": tags}]
    both = [({"trial_000/fold_0/loss": 0.5}, 2), "trials.md"]
    assert mlflow.logged == [("7" if earlier else "new 1", what) for what in 2 * both]
    assert mlflow.query == "tags.identity = '0123' and tags.command = 'bo'"


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_library_is_refused_before_anything_trains(
    name: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
    assert_refused(tiny(bo, results, f"tracker={name}"), f"tracker={name} needs", f"pip install {name}")


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    assert_refused(tiny(bo, tmp_path, "tracker=neptune"), "tracker='neptune'", "none, tensorboard, wandb, mlflow")


def test_a_study_is_the_same_with_any_tracker(compose_study: Callable[..., Study]) -> None:
    studies = [compose_study("loss=proxy_nca", f"tracker={name}") for name in ("none", "wandb")]
    assert studies[0].identity("data") == studies[1].identity("data")
    assert studies[0].directory == studies[1].directory
