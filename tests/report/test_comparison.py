"""What may share a table: one difference at a time, over every value of real studies and every field of a row."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.report.comparison import Comparable, Part, parts, printed_labels

RESULTS = Path(__file__).parents[2] / "results"
SEARCH = ("one_of_each/studies/glyphs-small_conv-hpl/contrastive", "one_of_each/studies/glyphs-small_conv-hpl/hist")
TRADITIONAL = (
    "traditional/studies/glyphs-small_conv-traditional/hpl_pa",
    "traditional/studies/glyphs-small_conv-traditional/proxy_anchor",
)
CODE = {"benchmark.training.loop": "a1", "benchmark.protocol.folds": "b1"}
Path_ = tuple[str | int, ...]


def row(study: str, **values: Any) -> Comparable:
    """A row as `tables` makes it, for a study whose records hold all provenance."""
    body = yaml.safe_load((RESULTS / study / "study.yaml").read_text(encoding="utf-8"))
    return of(body["science"], name=Path(study).name, **values)


def of(science: dict[str, Any], **values: Any) -> Comparable:
    """A row with this scientific configuration."""
    traditional = science["protocol"]["name"] == "traditional"
    given = {
        "name": science["loss"]["name"], "label": science["loss"]["name"].upper(), "science": science, "preset": "",
        "fingerprint": science["data"], "story": "traditional" if traditional else "search",
        "num_runs": science["protocol"].get("num_runs", 3), "confidence": science["protocol"]["confidence"],
        "trials": None if traditional else 50, "code": CODE | {f"losses.{science['loss']['name']}": "c1"},
        "codes_accepted": 1, "num_records": 53, "versions": {"torch": frozenset({"2.15.0"})},
        "devices": frozenset({"cpu"}), "precision": "ieee", "plugins": (),
    }  # fmt: skip
    return Comparable(**(given | values))


def pair(studies: tuple[str, str]) -> list[Comparable]:
    """Two rows that differ in their loss only."""
    first, second = (row(study) for study in studies)
    science = copy.deepcopy(first.science)
    science["loss"] = second.science["loss"]
    science["searcher"]["module"]["defaults"] = second.science["searcher"]["module"]["defaults"]
    return [first, replace(second, science=science)]


@pytest.fixture(scope="module", params=[SEARCH, TRADITIONAL[::-1]], ids=["search", "traditional"])
def base(request: pytest.FixtureRequest) -> list[Comparable]:
    return pair(request.param)


def reported(found: list[Part]) -> list[str]:
    return [text for part in found for text in (*part.differences, *part.footnotes)]


def test_rows_that_differ_in_their_loss_only_share_a_table_without_a_note(base: list[Comparable]) -> None:
    (part,) = parts(base)
    assert part == Part([row.name for row in base])


# -- every value of a scientific configuration


def paths(tree: Any, prefix: Path_ = ()) -> Iterator[Path_]:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = [path for key, child in children for path in paths(child, (*prefix, key))]
    yield from found or [prefix]


def changed(science: Any, path: Path_, value: Callable[[Any], Any] | None) -> Any:
    """A copy of a configuration with another value at a path, or without the entry at the path."""
    made = copy.deepcopy(science)
    node = made
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value(node[path[-1]])
    if path[:2] == ("loss", "setting"):
        made["searcher"]["module"]["defaults"] = made["loss"]["setting"]  # as in the configuration
    return made


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1
    if isinstance(value, str):
        return f"{value}x"
    return 7 if value is None else [7] if isinstance(value, list) else {"new": 7}


def of_the_loss(path: Path_) -> bool:
    return path[0] == "loss" or path[:2] in (("dataset", "hpl"), ("dataset", "xbm"))


OLDEST = {("protocol", "loss_optimizer"): "searched", ("head", "module", "normalize_features"): False}


def key_of(path: Path_) -> str:
    """The name under which a value is reported."""
    fields_of = {"data": "data fingerprint", "protocol.num_runs": "number of runs", "protocol.confidence": "confidence"}
    key = ".".join(map(str, entry(path)))
    return fields_of.get(key, key)


def entry(path: Path_) -> Path_:
    """The path without what lies within a list."""
    return path[: next((i for i, key in enumerate(path) if isinstance(key, int)), None)]


def of_the_recipe(row: Comparable, key: str) -> bool:
    length = ("dataset.max_epochs", "dataset.iterations_per_epoch", "protocol.iterations_per_epoch")
    return row.story == "traditional" and key.startswith(("training.", "protocol.batch_size", *length))


def check_reported(first: Comparable, second: Comparable, path: Path_) -> None:
    found, key = parts([first, second]), key_of(path)
    if of_the_loss(path):
        assert found == [Part([first.name, second.name])], path
    elif of_the_recipe(first, key):
        assert len(found) == 1 and sum("Training of" in note for note in found[0].footnotes) == 2, path
    else:
        assert len(found) == 2 and found[0].differences == [], path
        # A published setting of which one value differs is not a copy, and all of its values are reported.
        beginning = "searcher.module.defaults." if key.startswith("searcher.module.defaults.") else f"{key}: "
        assert any(text.startswith(beginning) for text in found[1].differences), (path, found[1].differences)


def test_another_value_anywhere_outside_the_loss_is_reported(base: list[Comparable]) -> None:
    first, second = base
    seen = list(paths(second.science))
    for path in seen:
        check_reported(first, of(changed(second.science, path, another)), path)
    assert len(seen) > 100


def test_a_missing_value_outside_the_loss_is_reported(base: list[Comparable]) -> None:
    first, second = base
    needed = {("data",), ("loss", "name"), ("protocol", "name"), ("protocol", "num_runs"), ("protocol", "confidence")}
    for path in paths(second.science):
        unwritten = path in OLDEST and changed(second.science, path, lambda _, p=path: OLDEST[p]) == second.science
        if path not in needed and not unwritten:
            check_reported(first, of(changed(second.science, entry(path), None)), entry(path))


def test_a_value_that_only_one_study_has_is_reported(base: list[Comparable]) -> None:
    first, second = base
    science = second.science | {"new": {"option": 3}}
    found = parts([first, of(science)])
    assert found[1].differences == ["new.option: 3 here, not set in the first table"]


def test_a_searcher_default_other_than_the_published_setting_splits_the_table() -> None:
    first, second = pair(SEARCH)
    science = changed(second.science, ("searcher", "module", "defaults", "tau"), another)
    (difference, *_) = parts([first, replace(second, science=science)])[1].differences
    assert difference.startswith("searcher.module.defaults.")


def test_old_names_and_omissions_are_not_differences() -> None:
    first, second = pair(TRADITIONAL)
    assert second.science["training"]["name"] == "customary"
    renamed = changed(second.science, ("training", "name"), lambda _: "traditional")
    assert len(reported(parts([first, replace(second, science=renamed)]))) == 0
    first, second = pair(SEARCH)
    science = second.science
    for path in OLDEST:
        science = changed(science, path, None)
    assert len(parts([first, replace(second, science=science)])) == 1


def test_equal_numbers_have_equal_texts_and_differ_from_booleans() -> None:
    first, second = pair(SEARCH)
    path = ("dataset", "max_epochs")
    assert len(parts([first, of(changed(second.science, path, float))])) == 1
    one, true = (changed(row.science, path, lambda _: 1) for row in (first, second))
    true["dataset"]["max_epochs"] = True
    assert len(parts([replace(first, science=one), replace(second, science=true)])) == 2


# -- every field of a row

SPLIT, NOTE, ROW = "split", "note", "row"
MUTATORS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "name": (lambda value: value + "-2", ROW, ""),
    "label": (lambda value: value + " 2", ROW, ""),
    "science": (lambda value: value | {"seed": 7}, SPLIT, "seed: 7 here, 0 in the first table"),
    "fingerprint": (lambda value: "0" * 64, SPLIT, "data fingerprint: "),
    "story": (lambda value: {"search": "traditional", "traditional": "search"}[value], SPLIT, "story: "),
    "num_runs": (lambda value: value + 1, SPLIT, "number of runs: 4 here, 3 in the first table"),
    "trials": (lambda value: 10, NOTE, "Number of trials: "),
    "preset": (lambda value: "published", NOTE, "Not searched, a fixed setting: "),
    "confidence": (lambda value: 0.9, SPLIT, "confidence: 0.9 here, 0.95 in the first table"),
    "code": (lambda value: value | {"benchmark.training.loop": "a2"}, SPLIT, "code: "),
    "codes_accepted": (lambda value: 2, NOTE, "Computed with several versions of the code, which accept_code=true"),
    "num_records": (lambda value: value + 1, ROW, ""),
    "versions": (lambda value: value | {"torch": frozenset({"2.16.0"})}, NOTE, "Version of torch: 2.15.0 for "),
    "devices": (lambda value: frozenset({"cuda"}), NOTE, "Kinds of device: cpu for "),
    "precision": (lambda value: "tf32", SPLIT, 'precision: "tf32" here, "ieee" in the first table'),
    "plugins": (lambda value: ("my_package",), NOTE, "With plug-ins: "),
}


@pytest.mark.parametrize("name", [field.name for field in fields(Comparable)])
def test_another_value_of_any_field_is_reported(base: list[Comparable], name: str) -> None:
    first, second = base
    change, how, text = MUTATORS[name]  # a new field needs a line there, and a rule in `comparison`
    other = replace(second, **{name: change(getattr(second, name))})
    found = parts([first, other])
    assert len(found) == (2 if how == SPLIT else 1)
    if how == ROW:
        assert found[0].rows == [first.name, other.name] and other.label in printed_labels([first, other]).values()
    else:
        said = found[-1].differences if how == SPLIT else found[0].footnotes
        assert len(said) == 1 and said[0].startswith(text), said
        assert how == SPLIT or other.label in said[0]


def test_two_kinds_of_device_or_versions_within_a_row_are_reported_even_if_all_rows_have_them() -> None:
    rows = [replace(row, devices=frozenset({"cpu", "cuda"})) for row in pair(SEARCH)]
    assert reported(parts(rows)) == ["Kinds of device: cpu and cuda for all rows."]
    rows = [replace(row, versions={"torch": frozenset({"2.16", "2.15"})}) for row in pair(SEARCH)]
    assert reported(parts(rows)) == ["Version of torch: 2.15 and 2.16 for all rows."]


def test_what_is_not_recorded_is_reported() -> None:
    first, second = pair(SEARCH)
    rows = [first, replace(second, code=None, devices=frozenset(), versions={})]
    notes = reported(parts(rows))
    assert (
        "Code not recorded: HIST." in notes and "Kinds of device: cpu for CONTRASTIVE; not recorded for HIST." in notes
    )
    assert "Version of torch: 2.15.0 for CONTRASTIVE; not recorded for HIST." in notes
    old = [replace(row, code=None, precision="") for row in (first, second)]
    assert reported(parts(old)) == ["Precision not recorded: all rows.", "Code not recorded: all rows."]


# -- code


def test_code_that_only_one_row_used_is_not_compared() -> None:
    first, second = pair(SEARCH)
    assert first.code is not None and second.code is not None
    assert set(first.code) != set(second.code)
    rows = [first, replace(second, code=second.code | {"losses.hist": "c2"})]
    assert reported(parts(rows)) == []


def test_code_that_differs_is_named_and_can_be_accepted_with_a_footnote() -> None:
    first, second = pair(SEARCH)
    other = replace(second, code=CODE | {"benchmark.training.loop": "a2"})
    assert parts([first, other])[1].differences == [
        "code: differs from the first table's in benchmark.training.loop (accept_code=true joins them)"
    ]
    (part,) = parts([first, other], accept_code=True)
    assert part.footnotes == [
        "Different code, accepted by accept_code=true: CONTRASTIVE against HIST, in benchmark.training.loop."
    ]
    assert len(parts([first, replace(other, science=other.science | {"seed": 7})], accept_code=True)) == 2


def test_a_row_joins_a_part_only_if_it_fits_every_row_of_it() -> None:
    first, second = pair(SEARCH)
    unknown = replace(first, name="old", label="OLD", code=None)
    other = replace(second, code=CODE | {"benchmark.training.loop": "a2"})
    assert [part.rows for part in parts([unknown, first, other])] == [["old", "contrastive"], ["hist"]]


# -- several parts


def several(*changes: dict[str, Any]) -> list[Comparable]:
    first, _ = pair(SEARCH)
    return [replace(first, name=f"row_{n}", label=f"Row {n}", **change) for n, change in enumerate(changes)]


def test_the_part_with_most_rows_comes_first_and_rows_keep_their_order() -> None:
    a, b, c = {"num_runs": 10}, {"num_runs": 3}, {"num_runs": 4}
    rows = several(a, b | {"trials": 1}, c | {"trials": 1}, c | {"trials": 2}, b | {"trials": 2})
    found = parts(rows)
    assert [part.rows for part in found] == [["row_1", "row_4"], ["row_2", "row_3"], ["row_0"]]
    assert [part.differences for part in found] == [
        [], ["number of runs: 4 here, 3 in the first table"], ["number of runs: 10 here, 3 in the first table"],
    ]  # fmt: skip


def test_the_first_five_differences_are_listed_and_the_rest_counted() -> None:
    first, second = pair(SEARCH)
    science = copy.deepcopy(second.science)
    for number in range(9):
        science["trunk"][f"option_{number}"] = "a" * 100 + "b"
    differences = parts([first, replace(second, science=science)])[1].differences
    assert len(differences) == 6 and differences[-1] == "and 4 more"
    assert all(len(text) < 130 for text in differences)
    long = [replace(second, science=second.science | {"x": "a" * 100 + end}) for end in ("b", "c")]
    (text,) = parts([long[0], replace(long[1], name="other")])[1].differences
    assert text == 'x: ...aaaaaaaaaac" here, ...aaaaaaaaaab" in the first table'


def test_a_copied_study_is_named_and_compared_once() -> None:
    first, second = pair(SEARCH)
    found = parts([first, second, replace(first, name="contrastive-copy")])
    assert [part.rows for part in found] == [["contrastive", "hist"]]
    assert reported(found) == [
        "contrastive-copy is left out: it is a copy of contrastive, with equal configuration, data and code."
    ]
    partial = replace(first, name="contrastive", num_records=2)
    assert parts([partial, second, replace(first, name="copy")])[0].rows == ["hist", "copy"], "the complete one is kept"
    longer = replace(first, name="contrastive-long", label="Long", trials=100)
    assert parts([first, longer])[0].rows == ["contrastive", "contrastive-long"], "another budget is no copy"


def test_rows_with_equal_labels_stay_distinct() -> None:
    first, second = pair(SEARCH)
    rows = [first, replace(second, label=first.label, plugins=("mine",))]
    assert reported(parts(rows)) == ["With plug-ins: CONTRASTIVE [hist] (mine)."]


# -- footnotes and columns


def test_a_long_list_of_rows_is_shortened_to_the_exceptions() -> None:
    rows = several({"trials": 50}, {"trials": 50, "preset": ""}, *({"trials": n} for n in (50, 10, 5)))
    for number, row in enumerate(rows):
        rows[number] = replace(row, science=row.science | {"loss": {"setting": number}})
    assert reported(parts(rows)) == ["Number of trials: 10 for Row 3; 5 for Row 4; 50 for the other rows."]


def test_each_training_of_the_traditional_protocol_is_stated_with_its_rows() -> None:
    (part,) = parts([row(study) for study in TRADITIONAL])
    assert part.columns == {
        "Epochs": {"hpl_pa": "30", "proxy_anchor": "60"}, "Batch": {"hpl_pa": "128", "proxy_anchor": "180"},
    }  # fmt: skip
    optimizers = (
        "optimizers (trunk (AdamW, lr 0.002, weight_decay 0.0001), head (AdamW, lr 0.002, weight_decay 0.0001), "
        "loss (AdamW, lr 0.0001, weight_decay 0.0001)), clip (value 10), decay (kind step, every 10, factor 0.5)"
    )
    others = f"freeze_batchnorm false, shift 2, {optimizers}"
    assert part.footnotes == [
        f"Training of HPL_PA: recipe hpl, epochs 30, batch 128, {others}.",
        f"Training of PROXY_ANCHOR: recipe proxy_anchor, epochs 60, batch 180, {others}.",
    ]


def test_a_recipe_neither_splits_a_table_nor_counts_as_a_difference() -> None:
    first, second = (row(study) for study in TRADITIONAL)
    found = parts([first, replace(second, science=second.science | {"seed": 7})])
    assert reported(found) == ["seed: 7 here, 0 in the first table"]


def test_a_recipe_without_epochs_and_batch_takes_those_of_data_set_and_protocol() -> None:
    first, second = pair(TRADITIONAL)
    training = {k: v for k, v in second.science["training"].items() if k not in ("epochs", "batch_size", "recipe")}
    (part,) = parts([first, replace(second, science=second.science | {"training": training | {"name": "mine"}})])
    assert part.columns == {"Epochs": {"hpl_pa": "30", "proxy_anchor": "4 of 100 batches"}}
    assert "Training of PROXY_ANCHOR: training mine, epochs 4 of 100 batches, batch 128, " in part.footnotes[1]


@pytest.mark.parametrize("key", ["held_out", "label_noise"])
def test_a_share_that_is_recorded_only_if_it_is_not_zero_is_zero_in_the_other_rows(key: str) -> None:
    first, second = (row(study) for study in TRADITIONAL)
    science = copy.deepcopy(second.science)
    assert key not in science["protocol"]
    science["protocol"][key] = 0.5
    other = replace(second, science=science)
    assert (
        parts([first, replace(first, name="third"), other])[1]
        .differences[0]
        .startswith(f"protocol.{key}: 0.5 here, 0 in")
    )


def test_a_searched_rate_of_the_head_is_part_of_the_setting_and_any_other_one_is_shared() -> None:
    folder = "grocery/studies/grocery-efficientnet_lite0-hpl"
    searched, given = row(f"{folder}/hpl_pa"), row(f"{folder}/hpl_pa-base", preset="base")
    rates = [one.science["training"]["optimizers"]["head"]["lr"] for one in (searched, given)]
    assert rates[0] != rates[1] and len(parts([searched, given])) == 1
    other = copy.deepcopy(given.science)
    other["training"]["optimizers"]["head"]["lr"] *= 2
    assert "training.optimizers.head.lr" in str(parts([searched, replace(given, science=other)])[1].differences)
