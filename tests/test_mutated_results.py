"""Every field of every file of a study is mutated, with a correct checksum, and the commands report it.

Each case is a copy of a finished tiny study in which one file has one wrong value, generated from the dataclass of its
content. `tables` and `status` look at all of them. `bo`, `final-eval` and `traditional` then continue a part of them:
afterwards every result is that of the unchanged study, or the command was refused.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from benchmark.bo import bo
from benchmark.core import records
from benchmark.core.errors import UserError
from benchmark.core.paths import conf_dir
from benchmark.final_eval import final_eval
from benchmark.status import status
from benchmark.study import contents
from benchmark.study.identity import Identity, short_digest
from benchmark.study.selected import from_folder
from benchmark.study.stored import Facts, StoredStudy, read_study
from benchmark.study.study import Study
from benchmark.tables import tables
from benchmark.traditional import traditional
from benchmark.training.checkpoint import Checkpoint, Progress, Saver, read_state, write_state
from tests.command_line import results_of, study_dir, tiny
from tests.study.mutations import MISSING, mutations

pytestmark = pytest.mark.usefixtures("no_fsync")
TRADITIONAL = ("protocol.num_runs=2", "training.epochs=1", "training.batch_size=64", "protocol=traditional")


class Case(NamedTuple):
    """A wrong file.

    Attributes:
        file: its path below the study's folder.
        what: the field, and what is wrong with it.
        write: writes it.
    """

    file: str
    what: str
    write: Callable[[Path], None]


# -- files with right checksums ---------------------------------------------------------------------------------------


def checksum(body: object) -> str:
    """As `records.digest`, and also for numbers that JSON does not have."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_record(body: Any) -> Callable[[Path], None]:
    return lambda path: records.write_whole(path, json.dumps(body | {"sha256": checksum(body)}).encode())


def write_yaml(body: Any) -> Callable[[Path], None]:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    def write(path: Path) -> None:
        records.write_whole(path, yaml.dump({"sha256": checksum(body)} | body, Dumper=dumper, sort_keys=False).encode())

    return write


def others(value: Any) -> Iterator[Any]:
    """Other values of the same type."""
    if isinstance(value, bool) or value is None:
        yield 0 if value is None else not value
    elif isinstance(value, int):
        yield from (value + 1, value + 1000)
    elif isinstance(value, str):
        yield from ("0" * 16, "other")
    elif isinstance(value, list):
        yield from (["0" * 16], [*value, "0" * 16], [])


def of_record(file: str, kind: Any, body: dict[str, Any]) -> Iterator[Case]:
    """Wrong records of a kind: wrong content, identity and envelope."""
    content = {"result": body["result"], "provenance": body["provenance"]}
    for found in mutations(kind, content):
        changed = {key: value for key, value in body.items() if key not in content} | found.value
        yield Case(file, f"{found.field}: {found.what}", write_record(changed))
    for field, what, value in of_identity(body["identity"]):
        yield Case(file, f"identity.{field}: {what}", write_record(body | {"identity": value}))
    for found in mutations(records.Record, body):
        yield Case(file, f"record.{found.field}: {found.what}", write_record(found.value))
    for key in ("schema", "kind"):
        for value in others(body[key]):
            yield Case(file, f"record.{key}: {value}", write_record(body | {key: value}))


def of_identity(identity: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Field, what is wrong, and the wrong identity."""
    for found in mutations(Identity, identity):
        if found.what != "a value of type int" or found.field != "fold":
            yield found.field, found.what, found.value
    for field in dataclasses.fields(Identity):
        for value in others(identity[field.name]):
            yield field.name, f"{value}", identity | {field.name: value}
        yield field.name, "absent", {key: value for key, value in identity.items() if key != field.name}


def of_choice(file: str, body: dict[str, Any]) -> Iterator[Case]:
    """Wrong choices of a search."""
    known = {field.name for field in dataclasses.fields(contents.Choice)}
    rest = {key: value for key, value in body.items() if key not in known}
    for found in mutations(contents.Choice, {key: body[key] for key in known}):
        yield Case(file, f"{found.field}: {found.what}", write_yaml(rest | found.value))
    for key in ("trial", "num_trials", "identity"):
        for value in others(body[key]):
            yield Case(file, f"{key}: {value}", write_yaml(body | {key: value}))
    for key, value in (("rule", "model"), ("standard_error", 0.9), ("num_lost", 1), ("validation_map_at_r", 0.9)):
        yield Case(file, f"{key}: {value}", write_yaml(body | {key: value}))


def of_study(body: dict[str, Any], facts: Facts) -> Iterator[Case]:
    """Wrong descriptions of a study; where a fact is wrong, `identity` is that of the wrong configuration."""
    for found in mutations(StoredStudy, body):
        value = found.value
        if found.field.startswith("science") and isinstance(value.get("science"), dict):
            value = value | {"identity": short_digest(value["science"])}
        yield Case("study.yaml", f"{found.field}: {found.what}", write_yaml(value))
    plain = {field.name: getattr(facts, field.name) for field in dataclasses.fields(Facts)}
    for found in mutations(Facts, plain):
        place = FACTS.get(found.field.partition("[")[0].partition(".")[0])
        if place is None:
            assert found.what == "unknown", f"{found.field} has no place in study.yaml"
            continue
        changed = json.loads(json.dumps(body))
        *steps, last = place.split(".")
        inner = changed
        for step in steps:
            inner = inner[step]
        if (new := found.value.get(last if last in plain else found.field.partition("[")[0], MISSING)) is MISSING:
            inner.pop(last, None)
        else:
            inner[last] = new
        if place.startswith("science"):
            with contextlib.suppress(ValueError):  # a number that JSON does not have
                changed["identity"] = short_digest(changed["science"])
        yield Case("study.yaml", f"{place}: {found.what}", write_yaml(changed))


FACTS = {
    "dataset": "science.dataset.name", "loss": "science.loss.name", "trunk": "science.trunk.name",
    "protocol": "science.protocol.name", "dataset_label": "config.dataset.label", "loss_label": "config.loss.label",
    "preset": "config.preset", "variant": "config.variant", "story": "config.protocol.story",
    "num_folds": "science.protocol.num_folds", "embedding_dim": "science.protocol.embedding_dim",
    "confidence": "science.protocol.confidence", "select": "science.protocol.select",
    "setting": "science.loss.setting",
    "search": "science.search", "untrained": "science.loss.untrained",
    "held_out": "science.protocol.held_out", "recall_at": "science.dataset.recall_at",
}  # fmt: skip


def of_checkpoint(file: str, state: dict[str, Any], identity: dict[str, Any], best: dict[str, Any]) -> Iterator[Case]:
    """Wrong checkpoints: wrong progress, identity, states and best weights."""

    def write(state: Any, identity: Any, weights: Any = best, owner: Any = identity) -> Callable[[Path], None]:
        def write_both(path: Path) -> None:
            write_state(path.with_name("checkpoint.validation-1.pt"), weights, owner)
            write_state(path, state, identity)

        return write_both

    for found in mutations(Progress, state["progress"]):
        what = f"progress.{found.field}: {found.what}"
        if found.what != "a huge integer":  # which no checkpoint can hold
            yield Case(file, what, write(state | {"progress": found.value}, identity))
    for key, value in (("epoch", 9), ("epoch", 0), ("incumbent", 5), ("best_epoch", 4), ("history", []),
                       ("train_seconds", -1.0), ("losses", [1.0] * 9), ("iterations", 9)):  # fmt: skip
        changed = state | {"progress": state["progress"] | {key: value}}
        yield Case(file, f"progress.{key}: {value}", write(changed, identity))
    for field, what, value in of_identity(identity):
        yield Case(file, f"identity.{field}: {what}", write(state, value))
    for name in state:
        yield Case(file, f"{name}: missing", write({k: v for k, v in state.items() if k != name}, identity))
        wrong: Any
        for wrong in (None, 7, "text", [], {}, [1], {"a": 1}):
            if wrong is not None or name != "best":
                yield Case(file, f"{name}: {wrong}", write(state | {name: wrong}, identity))
    for name in ("modules", "best", "optimizers"):
        for part, held in state[name].items():
            for wrong in (None, 7, [], {}, {"a": torch.zeros(1)}):
                if wrong != held:
                    changed = state | {name: state[name] | {part: wrong}}
                    yield Case(file, f"{name}.{part}: {wrong}", write(changed, identity))
    for part, held in state["optimizers"].items():
        for number, moments in held["state"].items():
            for key in moments:
                for wrong in (None, "text", torch.zeros(3, 3, 3)):
                    bent = held | {"state": held["state"] | {number: moments | {key: wrong}}}
                    changed = state | {"optimizers": state["optimizers"] | {part: bent}}
                    yield Case(file, f"optimizers.{part}.state.{number}.{key}: {wrong}", write(changed, identity))
    yield Case(file, "another: 1", write(state | {"another": 1}, identity))
    for part in best:
        yield Case(file, f"weights.{part}: missing", write(state, identity, {k: best[k] for k in best if k != part}))
        yield Case(file, f"weights.{part}: wrong", write(state, identity, best | {part: {"a": torch.zeros(1)}}))
    yield Case(file, "weights.identity: wrong", write(state, identity, best, identity | {"code": ["0" * 16]}))


# -- the unchanged study ----------------------------------------------------------------------------------------------


class Whole(NamedTuple):
    """A finished tiny search with its final runs, and one under the traditional protocol.

    Attributes:
        search: folder of the search.
        traditional: folder of the other study.
        chosen: name of the folder of final runs.
        checkpoint: the state and identity in a checkpoint of trial 1, fold 0, after its last epoch; its best weights.
    """

    search: Path
    traditional: Path
    chosen: str
    checkpoint: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def whole(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    results = tmp_path_factory.mktemp("whole") / "results"
    shutil.copytree(searched, results)
    search = study_dir(results)
    saved: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = []
    with pytest.MonkeyPatch.context() as patch:
        save = Saver.save

        def kept(saver: Any, parts: Any, progress: Any, best: Any) -> None:
            save(saver, parts, progress, best)
            checkpoint: Checkpoint = saver._checkpoint
            state = read_state(checkpoint.path, torch.device("cpu"), lambda _: "")
            saved.append((state, checkpoint.identity, best["validation"].weights if best else {}))

        patch.setattr(Saver, "save", kept)
        (search / "bo" / "trial_001.json").unlink()
        (search / "bo" / "trial_001" / "fold_0" / "record.json").unlink()
        assert tiny(bo, results).status == 0
    assert tiny(final_eval, results).status == 0
    assert tiny(traditional, results, *TRADITIONAL).status == 0
    (chosen,) = (path.name for path in (search / "final_eval").iterdir())
    (other,) = (path.parent for path in results.glob("studies/*-traditional/*/study.yaml"))
    return Whole(search, other, chosen, saved[-1])


def body_of(path: Path) -> dict[str, Any]:
    """The content of a record or a YAML file, without its checksum."""
    body: dict[str, Any] = json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
    return {key: value for key, value in body.items() if key != "sha256"}


ONE_FOLD = ("bo/trial_001.json",)  # without the trial's record, that of its folds is read
NAMES = ("trial", "ask", "fold", "lost", "run", "choice", "study", "traditional", "checkpoint")


def cases(name: str, whole: Whole) -> tuple[Path, tuple[str, ...], list[Case]]:
    """The study to copy, the files to leave out, so that the wrong one is read, and the cases."""
    search, chosen = whole.search, whole.chosen
    kinds = {
        "trial": ("bo/trial_001.json", contents.Trial, ()),
        "ask": ("bo/trial_001/ask.json", contents.Ask, ONE_FOLD),
        "fold": ("bo/trial_001/fold_0/record.json", contents.Fold, ONE_FOLD),
        "run": (f"final_eval/{chosen}/run_00.json", contents.Run, ()),
        "traditional": ("traditional/setting/run_00.json", contents.Traditional, ()),
    }
    if name in kinds:
        file, kind, without = kinds[name]
        source = whole.traditional if name == "traditional" else search
        return source, without, list(of_record(file, kind, body_of(source / file)))
    if name == "choice":
        return search, (), list(of_choice("bo/best.yaml", body_of(search / "bo" / "best.yaml")))
    if name == "study":
        return search, (), list(of_study(body_of(search / "study.yaml"), read_study(search).facts))
    unfinished = (*ONE_FOLD, "bo/trial_001/fold_0/record.json")
    if name == "checkpoint":
        return search, unfinished, list(of_checkpoint("bo/trial_001/fold_0/checkpoint.pt", *whole.checkpoint))
    trial = body_of(search / "bo/trial_001.json")
    reason = {"reason": "out of memory"}
    unit = {"unit": "trial_001/fold_0", "log": "log", "tail": "", "error": ""} | reason
    result = {"index": 1, "setting": trial["result"]["setting"], "status": "lost", "map_at_r": None,
              "standard_error": None} | reason  # fmt: skip
    lost = trial | {"kind": "lost", "result": result, "provenance": {"units": [unit]},
                    "identity": trial["identity"] | {"kind": "lost"}}  # fmt: skip
    return search, unfinished, list(of_record("bo/trial_001/lost.json", contents.Lost, lost))


# -- what the commands say --------------------------------------------------------------------------------------------


def said_by(command: Callable[[Study, list[str]], None], study: Study) -> tuple[str, bool]:
    """What a command prints, and whether it was refused. A defect, which would show a traceback, is raised."""
    text, refused = io.StringIO(), False
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            command(study, [])
        except UserError as error:
            text.write(str(error))
            refused = True
    return text.getvalue(), refused


def rows(results: Path) -> list[dict[str, str]]:
    """The cells of the tables, without names and reasons."""
    words = ("loss", "label", "reason", "notes", "part")
    texts = [path.read_text().splitlines() for path in sorted((results / "tables").glob("*.csv"))]
    return [{k: v for k, v in row.items() if k not in words} for text in texts for row in csv.DictReader(text)]


def composed(results: Path) -> Study:
    """The configuration of a command without options, for a results folder."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return Study.of(compose("config", [f"results_dir={results}", "executor=inline", "display=plain"]))


def copy(source: Path, results: Path, without: tuple[str, ...]) -> Path:
    """A copy of a study below a results folder, without some of its files and what no command reads."""
    folder = results / "studies" / source.parent.name / "case"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("logs", "curves*", "*.npz", "lock", "*.log"))
    for file in without:
        (folder / file).unlink()
    return folder


# -- tests ------------------------------------------------------------------------------------------------------------

READ = ("trial", "run", "traditional", "choice", "study")  # files that `tables` and `status` read
# A key without which a study had the default before it could have another value.
DEFAULTS = {f"config.{key}: missing" for key in ("preset", "variant", "protocol.story")}
EVERY, CONTINUED = 7, 60  # one case in so many is read, or continued; those of a short file all are
KINDS = (contents.Trial, contents.Ask, contents.Fold, contents.Lost, contents.Run, contents.Traditional,
         contents.Choice, Identity, records.Record, StoredStudy, Facts, Progress)  # fmt: skip


def some(found: list[Case], every: int) -> list[Case]:
    """A part of the cases, always the same one, with neighbours that differ in how they are wrong."""
    return found[:: every if len(found) > 150 else max(1, every // 4)]


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_readers_name_a_wrong_file(name: str, whole: Whole, tmp_path: Path) -> None:
    source, without, found = cases(name, whole)
    results = tmp_path / "results"
    study, folder = composed(results), copy(source, results, without)
    assert not said_by(tables, study)[1] and all(rows(results))
    silent = []
    for case in some(found, EVERY):
        path = folder / case.file
        intact = path.read_bytes()
        case.write(path)
        if str(path) not in said_by(tables, study)[0] + said_by(status, study)[0]:
            silent.append(case.what)
        path.write_bytes(intact)
    assert set(silent) <= DEFAULTS


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_commands_refuse_a_wrong_file_or_repeat_its_unit(name: str, whole: Whole, tmp_path: Path) -> None:
    """At the end, the results are those of the unchanged study, and nobody took the wrong file for them."""
    source, without, found = cases(name, whole)
    study, expected = composed(tmp_path / "results"), results_of(source)
    outcomes: Counter[str] = Counter()
    for case in some(found, CONTINUED):
        folder = copy(source, tmp_path / "results", without)
        case.write(folder / case.file)
        for command in COMMANDS.get(name, [bo, final_eval]):
            said, refused = continued(command, folder, study)
            outcomes["refused" if refused else "told" if str(folder / case.file) in said else "nothing said"] += 1
            assert not refused or str(folder / case.file) in said, (case.what, said)
            if refused:
                break
            after = results_of(folder)
            assert {key: after.get(key) for key in expected} == expected, case.what
        else:
            kept = (folder / case.file).exists()
            assert not kept or case.file.endswith(".yaml") or case.file in expected, f"{case.what} is still there"
        shutil.rmtree(folder)
    assert outcomes.keys() <= {"refused", "told"} or name in QUIET, outcomes


COMMANDS = {"run": [final_eval], "traditional": [traditional]}
# A lost trial and a choice are made anew, whatever they held, and after `bo` has repaired a file, `final-eval` finds
# nothing to say.
QUIET = ("trial", "ask", "fold", "lost", "choice", "checkpoint", "study")


def continued(command: Callable[[Study, list[str]], None], folder: Path, study: Study) -> tuple[str, bool]:
    """What a command prints that continues the study in a folder, and whether it was refused."""
    try:
        chosen = from_folder(folder, study, [])
    except UserError as error:
        return str(error), True
    return said_by(command, chosen)


@pytest.mark.slow
def test_every_field_has_a_mutation(whole: Whole) -> None:
    """The generator itself fails for a field that accepts every value."""
    found = {name: cases(name, whole)[2] for name in NAMES}
    counts = {name: len(made) for name, made in found.items()}
    assert all(count > 100 for count in counts.values()) and sum(counts.values()) > 5000, counts
    mutated = {name: {re.split(r"[.:\[]", case.what.removeprefix(prefix))[0] for case in found[name]
                      if case.what.startswith(prefix)} for name, prefix in PREFIXES}  # fmt: skip
    for (name, _), kind in zip(PREFIXES, (Identity, records.Record, Progress), strict=True):
        assert {field.name for field in dataclasses.fields(kind)} <= mutated[name], kind
    assert FACTS.keys() == {field.name for field in dataclasses.fields(Facts)}
    for name, kind in (("choice", contents.Choice), ("study", StoredStudy)):
        names = {re.split(r"[.:\[]", case.what)[0] for case in found[name]}
        assert {field.name for field in dataclasses.fields(kind)} <= names, kind


PREFIXES = (("trial", "identity."), ("run", "record."), ("checkpoint", "progress."))


def test_an_identity_with_a_wrong_field_fits_nothing() -> None:
    for fold in (None, 1):
        own = Identity(study="a" * 16, kind="fold", index=0, fold=fold, setting="b" * 16, precision="ieee",
                       code=["c" * 16])  # fmt: skip
        assert own.mismatch(own.to_json()) == ""
        wrong = list(of_identity(own.to_json()))
        assert len(wrong) > 60 and {field for field, _, _ in wrong} >= own.to_json().keys()
        assert [(field, what) for field, what, value in wrong if not own.mismatch(value)] == []


@pytest.mark.slow
@pytest.mark.parametrize("part", ["trunk", "head", "loss"])
def test_weights_that_do_not_fit_are_quarantined_and_trained_again(part: str, whole: Whole, tmp_path: Path) -> None:
    study, expected = composed(tmp_path / "results"), results_of(whole.search)
    run = Path("final_eval") / whole.chosen / "run_00"
    for wrong in (None, {"a": 1}, {"a": torch.zeros(2)}):
        if part == "loss" and wrong is not None and isinstance(wrong["a"], torch.Tensor):
            continue  # what a loss has learnt is only saved for figures
        folder = copy(whole.search, tmp_path / "results", (f"{run}.json",))
        for fold in ("fold_0", "fold_1"):
            identity = records.read_record(folder / run / fold / "record.json").identity or {}
            weights = whole.checkpoint[2] | ({part: wrong} if fold == "fold_1" else {})
            write_state(folder / run / fold / "best.pt", weights, identity)
        said, refused = continued(final_eval, folder, study)
        assert refused and f"{folder / run / 'fold_1' / 'best.pt'} does not fit its model" in said
        said, refused = continued(final_eval, folder, study)
        after = results_of(folder)
        del after[f"{run}.json"], after[f"{run}/fold_0/record.json"]  # of other weights, those of the checkpoint
        assert not refused and {key: expected[key] for key in after} == after
        shutil.rmtree(folder)
