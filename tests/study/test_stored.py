"""`study.yaml` is data: reading it gives a study, or one sentence that names the file and the field."""

import contextlib
import copy
import dataclasses
import datetime
import errno
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.core import records
from benchmark.core.code import Code
from benchmark.core.errors import UserError
from benchmark.core.records import CorruptFileError, NewerFileError
from benchmark.core.typed import convert
from benchmark.study import opening
from benchmark.study.identity import VERSION, short_digest
from benchmark.study.selected import from_folder
from benchmark.study.stored import StoredStudy, all_studies, check_references, read_study, value_at, write_study
from benchmark.study.study import Study
from tests.cases import slow_except
from tests.study.mutations import mutations

RESULTS = Path(__file__).parents[2] / "results"
Body = dict[str, Any]
MOST_SECONDS = 0.1  # to refuse a file, on one core
SECRET = "a value of the environment"


@pytest.fixture(scope="session")
def good(compose_study_in: Callable[..., Study], tmp_path_factory: pytest.TempPathFactory) -> Body:
    """The body of a study's `study.yaml`, without its checksum."""
    study = compose_study_in(tmp_path_factory.mktemp("stored"), "dataset=glyphs_small", "loss=proxy_nca")
    opening.open_study(study, "bo", "0123456789abcdef")
    body: Body = yaml.safe_load((study.directory / "study.yaml").read_text())
    del body["sha256"]
    return body


def dump(body: object) -> str:
    return str(yaml.dump(body, Dumper=getattr(yaml, "CDumper", yaml.Dumper), sort_keys=False))


def write(folder: Path, body: object) -> Path:
    """Write a body with the right checksum, or a text as it is."""
    path = folder / "study.yaml"
    if isinstance(body, str):
        path.write_text(body)
        return path
    try:
        checksum = records.digest(body)
    except (TypeError, ValueError):  # not JSON, so nothing has a right checksum
        checksum = "0" * 64
    path.write_text(dump({"sha256": checksum} | body))  # type: ignore[operator]
    return path


def refusal(path: Path, kind: type[UserError] = CorruptFileError) -> str:
    """The one sentence with which a file is refused; it comes fast, and the file stays as it is."""
    before = path.read_bytes()
    seconds: list[float] = []
    while not seconds or (min(seconds) > MOST_SECONDS and len(seconds) < 3):  # other processes slow this one down
        started = time.thread_time()
        with pytest.raises(UserError) as caught:
            read_study(path.parent)
        seconds.append(time.thread_time() - started)
    assert min(seconds) < MOST_SECONDS
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert message.startswith(str(path)) and message.endswith("."), message
    assert "\n" not in message and len(message.removeprefix(str(path))) < 400 and SECRET not in message, message
    assert os.listdir(path.parent) == ["study.yaml"] and path.read_bytes() == before
    return message


def put(body: Body, place: str, value: object) -> Body:
    """A copy of a body with a value at a dotted place."""
    body = copy.deepcopy(body)
    *steps, last = place.split(".")
    inner: Any = body
    for step in steps:
        inner = inner[step]
    inner[last] = value
    return body


# -- a configuration refers to nothing outside it ---------------------------------------------------------------------

PLACES = ["loss.label", "trials", "loss.presets", "dataset.recall_at", "new"]
FOREIGN = [
    "${oc.env:STORED_SECRET}", "${oc.env:STORED_SECRET,x}", "${oc.decode:${oc.env:STORED_SECRET}}", "${oc.select:loss}",
    "${now:%Y}", "${hydra:runtime.cwd}", "${loss.name}${loss.name}", "a ${loss.name}", "${loss.name} ",
    "${${loss.name}}", "${.name}", "${..name}", "${loss[name]}", "${}", "${", "\\${loss.name}",
    "$${oc.env:STORED_SECRET}", "\\\\${oc.env:STORED_SECRET}",
    "\\${loss.name}\\\\${oc.env:STORED_SECRET}", "\\${${oc.env:STORED_SECRET}}", "${loss.name\n}",
    "${ loss.name}",
]  # fmt: skip


@pytest.mark.parametrize("text", FOREIGN)
def test_a_reference_to_anything_outside_is_refused(text: str, good: Body) -> None:
    for place in PLACES:
        for value, where in ((text, place), ([0, {"a": [text]}], f"{place}.1.a.0")):
            with pytest.raises(ValueError, match="may refer only to another value") as caught:
                check_references(put(good, f"config.{place}", value)["config"])
            assert str(caught.value).startswith(f"config.{where} is {text!r};")


@pytest.mark.parametrize("place", PLACES[:2])
def test_the_environment_stays_out_of_the_message(
    place: str, good: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORED_SECRET", SECRET)
    message = refusal(write(tmp_path, put(good, f"config.{place}", FOREIGN[0])))
    assert f"config.{place} is '${{oc.env:STORED_SECRET}}'; it may refer only to" in message


def test_a_reference_within_the_configuration_is_followed(good: Body, tmp_path: Path) -> None:
    write(tmp_path, put(put(good, "config.loss.label", "${loss.name}"), "config.loss.description", "$HOME {loss} $"))
    assert read_study(tmp_path).facts.loss_label == "proxy_nca"


def chain(length: int, width: int) -> dict[str, object]:
    """References whose number of values is `width` to the power of `length`."""
    links = {f"x{n}": [f"${{x{n + 1}}}"] * width for n in range(length)}
    return links | {f"x{length}": "end"}


REFERENCES: dict[str, tuple[dict[str, object], str]] = {
    "to nothing": ({"a": "${loss.nothing}"}, "config refers to loss.nothing, which it does not have"),
    "to itself": ({"a": "${a}"}, "config is too large: at a, more than 20 levels"),
    "in a circle": ({"a": "${b}", "b": "${c}", "c": "${a}"}, "config is too large"),
    "to what holds it": ({"a": {"b": "${a}"}}, "config is too large"),
    "many times over": (chain(18, 2), "config is too large"),
    "many more times over": (chain(9, 10), "config is too large"),
    "through a list": ({"a": ["${a.0}"]}, "config is too large"),
    "beyond a list": ({"a": [1], "b": "${a.1}"}, "config refers to a.1"),
    "deep": ({"a": chain(25, 1)}, "config refers to x1"),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_references_that_lead_nowhere_or_do_not_end_are_refused(name: str, good: Body, tmp_path: Path) -> None:
    extra, phrase = REFERENCES[name]
    assert phrase in refusal(write(tmp_path, good | {"config": good["config"] | extra}))


@pytest.mark.parametrize("key", ["label", "name", "description"])
def test_a_value_is_found_whatever_its_key_and_a_missing_one_has_a_default(key: str) -> None:
    config = {"loss": {key: "${other.1}"}, "other": [0, "here"]}
    check_references(config)
    assert value_at(config, f"loss.{key}") == "here" and value_at(config, "loss.none", 7) == 7
    with pytest.raises(ValueError, match=r"config has no loss\.none"):
        value_at(config, "loss.none")


# -- what YAML can hold -----------------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def doubled() -> str:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    return "\n".join(lines) + "\n"


TEXTS = {
    "aliases that double": (doubled, "it contains an alias"),
    "an alias of itself": (lambda: "a: &a {b: *a}\n", "it contains an alias"),
    "a merge": (lambda: "a: &a {b: 1}\nc: {<<: *a}\n", "it contains an alias"),
    "2 MB": (lambda: "a: " + "x" * 2_000_000, "it is larger than 1,000,000 bytes"),
    "2 MB of lists": (lambda: "[" * 2_000_000, "it is larger than 1,000,000 bytes"),
    "a list": (lambda: "[1]", "it is not a mapping"),
    "nothing": (lambda: "", "it is not a mapping"),
    "a binary tag": (lambda: "a: !!binary aGVsbG8=\n", "it does not match its own checksum"),
    "a date": (lambda: "a: 2026-11-28\n", "it does not match its own checksum"),
    "a set": (lambda: "a: !!set {x}\n", "it does not match its own checksum"),
    "an object": (lambda: "a: !!python/object/apply:os.getcwd []\n", "it is not valid YAML"),
    "bytes": (lambda: "\x00", "it is not valid YAML"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_yaml_that_is_not_plain_or_too_large_is_refused(name: str, tmp_path: Path) -> None:
    text, phrase = TEXTS[name]
    assert f"study.yaml is damaged: {phrase}" in refusal(write(tmp_path, text()))


VALUES = [
    math.nan,
    math.inf,
    datetime.date(2026, 11, 28),
    b"bytes",
    {1: 2},
    {None: 2},
    {True: 2},
    {1.5: 2},
    {(1, 2): 3},
]


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("place", ["config.loss.setting", "science.loss.setting"])
def test_what_json_does_not_have_is_refused(place: str, value: object, good: Body, tmp_path: Path) -> None:
    path = write(tmp_path, put(good, place, value))
    assert "damaged" in refusal(path)
    body = {key: held for key, held in yaml.unsafe_load(path.read_text()).items() if key != "sha256"}
    path.write_text(dump(body))
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("depth", [30, 60, 2000])
def test_deep_nesting_is_refused(depth: int, good: Body, tmp_path: Path) -> None:
    body = good | {"config": good["config"] | {"deep": "PLACE"}}
    path = write(tmp_path, put(good, "config.deep", nested(depth)) if depth < 100 else body)
    if depth > 100:
        path.write_text(path.read_text().replace("PLACE", "[" * depth + "]" * depth))
    assert "levels" in refusal(path)


def test_a_duplicated_key_is_refused(good: Body, tmp_path: Path) -> None:
    path = write(tmp_path, good)
    read_study(tmp_path)
    for line in ("version: 2\n", "trials: 7\n", "config: {}\n"):
        path.write_text(line + path.read_text())
        assert f"{line.partition(':')[0]} is a duplicated key" in refusal(path)
        path = write(tmp_path, good)
    path.write_text(path.read_text().replace("    label: ", "    label: twice\n    label: ", 1))
    assert "label is a duplicated key" in refusal(path)


def test_a_large_file_below_the_limit_is_read_in_a_second(good: Body, tmp_path: Path) -> None:
    path = write(tmp_path, put(good, "config.many", [[1]] * 150_000))
    path.write_text(path.read_text()[:900_000])
    started = time.thread_time()
    with pytest.raises(UserError):
        read_study(tmp_path)
    assert time.thread_time() - started < 3


# -- fields -----------------------------------------------------------------------------------------------------------


def with_science(body: Body, place: str, value: object) -> Body:
    """A body whose `science` is changed, with the identity of the change."""
    body = put(body, f"science.{place}", value)
    return body | {"identity": short_digest(body["science"])}


def without(body: Body, place: str) -> Body:
    body = copy.deepcopy(body)
    *steps, last = place.split(".")
    inner: Any = body
    for step in steps:
        inner = inner[step]
    del inner[last]
    return body | {"identity": short_digest(body["science"])} if steps[:1] == ["science"] else body


FIELDS: dict[str, tuple[Callable[[Body], Body], str]] = {
    "unknown": (lambda b: b | {"other": 1}, "other is unknown; allowed are version, identity"),
    "missing": (lambda b: without(b, "trials"), "trials is missing"),
    "no configuration": (lambda b: without(b, "config"), "config is not a mapping"),
    "another identity": (lambda b: b | {"identity": "0" * 16}, "identity 0000000000000000 is not the digest"),
    "identity of another form": (lambda b: b | {"identity": "text"}, 'identity is "text"; it must be'),
    "other science": (lambda b: put(b, "science.seed", 7), "is not the digest of science"),
    "another fingerprint": (lambda b: b | {"fingerprint": "0" * 16}, "fingerprint 0000000000000000 is not"),
    "other data": (lambda b: with_science(b, "data", "0" * 16), "fingerprint 0123456789abcdef is not"),
    "version 0": (lambda b: b | {"version": 0}, "version is 0; it must be"),
    "version as text": (lambda b: b | {"version": "2"}, 'version is "2"; it must be a whole number'),
    "version true": (lambda b: b | {"version": True}, "version is true; it must be a whole number"),
    "no trials": (lambda b: b | {"trials": 0}, "trials is 0; it must be"),
    "half a run": (lambda b: b | {"num_runs": 1.5}, "num_runs is 1.5; it must be a whole number"),
    "other code": (lambda b: put(b, "code", [b["code"][0] | {"modules": {"a": "b"}}]), "code[0].digest "),
    "code without modules": (lambda b: put(b, "code", [{"digest": "0" * 16}]), "code[0].modules is missing"),
    "code as text": (lambda b: put(b, "code", "text"), 'code is "text"; it must be a list'),
    "plug-ins as text": (lambda b: put(b, "plugins", "os"), 'plugins is "os"; it must be a list'),
    "a plug-in that is no name": (lambda b: put(b, "plugins", ["a; b"]), "plugins"),
    "no label": (lambda b: without(b, "config.loss.label"), "config has no loss.label"),
    "a label as number": (lambda b: put(b, "config.loss.label", 7), "loss_label is 7; it must be a string"),
    "a variant that is a path": (lambda b: put(b, "config.variant", "../../x"), 'variant is "../../x"; it must be'),
    "a line break in a name": (lambda b: with_science(b, "dataset.name", "cub\n"), 'dataset is "cub\\n"; it must be'),
    "no setting": (lambda b: without(b, "science.loss.setting"), "science has no loss.setting"),
    "a setting as text": (lambda b: with_science(b, "loss.setting", "x"), 'setting is "x"; it must be an object'),
    "no name of the loss": (lambda b: without(b, "science.loss.name"), "science has no loss.name"),
    "no loss": (lambda b: without(b, "science.loss"), "science has no loss.name"),
    "no protocol": (lambda b: without(b, "science.protocol"), "science has no protocol.name"),
    "a protocol as text": (lambda b: with_science(b, "protocol", "text"), "science has no protocol.name"),
    "one fold": (lambda b: with_science(b, "protocol.num_folds", 1), "num_folds is 1; it must be"),
    "certainty": (lambda b: with_science(b, "protocol.confidence", 1.0), "confidence is 1.0; it must be"),
    "another story": (lambda b: put(b, "config.protocol.story", "x"), 'story is "x"; it must be search or'),
}  # fmt: skip


def test_a_plug_in_may_have_any_name_of_python(good: Body, tmp_path: Path) -> None:
    assert read_study(write(tmp_path, put(good, "plugins", ["étude.fin_2"])).parent).plugins == ["étude.fin_2"]


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_field_is_named(name: str, good: Body, tmp_path: Path) -> None:
    change, phrase = FIELDS[name]
    assert phrase in refusal(write(tmp_path, change(good)))


def test_every_field_is_checked(good: Body) -> None:
    """Each mutation of the content, with the identity of what it says."""
    wrong = list(mutations(StoredStudy, good))
    accepted = []
    for found in wrong:
        with contextlib.suppress(CorruptFileError):
            convert(found.value, StoredStudy, Path("study.yaml"))
            accepted.append((found.field, found.what))
    assert accepted == [] and len(wrong) > 150
    assert {field.name for field in dataclasses.fields(StoredStudy)} <= {m.field.split("[")[0] for m in wrong}


@pytest.mark.parametrize("change", [{"version": 4}, {"version": 10**9, "config": None, "new": 1}])
def test_a_newer_version_is_named_and_the_file_stays(change: Body, good: Body, tmp_path: Path) -> None:
    message = refusal(write(tmp_path, good | change), NewerFileError)
    assert f"has version {change['version']}; this version reads up to 3" in message


@pytest.mark.parametrize(("version", "why"), [(1, "which code computed"), (2, "started from other proxies")])
def test_nothing_can_be_added_to_a_study_of_an_older_version(
    version: int, why: str, compose_study: Callable[..., Study], good: Body
) -> None:
    study = compose_study("dataset=glyphs_small", "loss=proxy_nca")
    study.directory.mkdir(parents=True)
    path = write(study.directory, good | {"version": version})
    before = path.read_bytes()
    for add in (
        lambda: opening.open_study(study, "bo", good["fingerprint"]), lambda: from_folder(study.directory, study, [])
    ):  # fmt: skip
        with pytest.raises(
            UserError, match=rf"made by version {version} .*{why}.* nothing can be added to it\. Start "
        ):
            add()
    assert path.read_bytes() == before and read_study(study.directory).version == version


def test_records_of_version_2_belong_to_their_study_and_to_no_newer_one(good: Body, tmp_path: Path) -> None:
    write(tmp_path, good | {"version": 2})
    older = read_study(tmp_path).expected
    record = records.Record("trial", {}, {}, older.of("trial", 3, {"scale": 2.0}).to_json())
    assert record.identity is not None and record.identity["version"] == 2
    assert older.mismatch(record, 3, {"scale": 2.0}) == ""
    newer = dataclasses.replace(older, version=VERSION)
    assert newer.mismatch(record, 3, {"scale": 2.0}) == "version is 2, not 3"


def test_a_wrong_checksum_is_damage(good: Body, tmp_path: Path) -> None:
    path = write(tmp_path, good)
    for text in (path.read_text().replace("trials: ", "trials: 1", 1), dump(good)):
        path.write_text(text)
        assert "does not match its own checksum" in refusal(path)


# -- what is intact ---------------------------------------------------------------------------------------------------


FOLDERS = sorted(path.parent.name for path in RESULTS.glob("*/studies"))


@pytest.mark.parametrize("folder", slow_except([name for name in FOLDERS if name != "grocery"], FOLDERS))
def test_every_committed_study_is_read(folder: str) -> None:
    studies = [read_study(directory) for directory in all_studies(RESULTS / folder)]
    assert studies and all(stored.facts.loss and stored.expected.study == stored.identity for stored in studies)


def test_a_study_that_a_command_opened_is_read_back_equal(compose_study: Callable[..., Study], tmp_path: Path) -> None:
    study = compose_study("loss=xbm", "dataset=glyphs_small", "seed=5", "variant=wide", "trials=7")
    opened = opening.open_study(study, "bo", "0123456789abcdef")
    stored = read_study(study.directory)
    assert (stored.identity, stored.trials, stored.fingerprint) == (opened.identity.study, 7, "0123456789abcdef")
    assert stored.science == study.science("0123456789abcdef") and Study.of(stored.config).science(
        "f"
    ) == study.science("f")
    assert stored.expected == opened.identity and stored.label == "Contrastive + XBM (wide)"
    assert [Code(entry.modules).digest for entry in stored.code] == [opened.code]
    (tmp_path / "again").mkdir()
    write_study(tmp_path / "again", stored)
    assert read_study(tmp_path / "again") == stored
    assert (tmp_path / "again" / "study.yaml").read_bytes() == (study.directory / "study.yaml").read_bytes()


def test_a_study_that_may_not_be_read_is_listed_and_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not left out silently, and no message advises to delete it."""
    sealed, empty = (tmp_path / "studies" / "a" / name for name in ("sealed", "empty"))
    stat, read_file = Path.stat, records.read_file

    def denied(path: Path) -> None:
        if path.parent == sealed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for folder in (sealed, empty):
        folder.mkdir(parents=True)
    monkeypatch.setattr(Path, "stat", lambda path, **options: denied(path) or stat(path, **options))
    monkeypatch.setattr(records, "read_file", lambda path, most: denied(path) or read_file(path, most))
    assert all_studies(tmp_path) == [sealed]
    with pytest.raises(UserError, match=r"study\.yaml cannot be read: Permission denied\. Make it .* readable\."):
        read_study(sealed)
