"""Class names that match, against plain loops and names whose match is known."""

import random

import pytest

from benchmark.core.class_overlap import Match, matches, words

SAME = {
    "013.Bobolink": "bobolink", "Red_headed_Woodpecker": "redheaded woodpecker", "Red-Delicious": "red delicious",
    "Carrots": "carrot", "Peaches": "peach", "tomatoes": "tomato", "Strawberries": "strawberry", "cookies": "cookie",
    "collie": "collies", "shoes": "shoe", "canoes": "canoe", "buses": "bus", "boxes": "box", "glasses": "glass",
    "axis": "axis", "Brewer's Blackbird": "Brewers blackbird", "CRÈME_BRÛLÉE": "creme brulee", "犬": "犬",
    "Dodge Caravan Minivan 1997": "dodge caravan minivan", "n02100735-English_setter": "English setter",
    "123_cup": "cup", "707-320": "707 320",
}  # fmt: skip
OTHERS = {
    "n01": "head cabbage", "n02": "cucumber, cuke", "n03": "cup of tea", "n04": "convertible", "n05": "ox",
    "n02100735": "English setter", "n06": "red setter, Irish setter",
}  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME.items())
def test_spelling_numbers_years_and_plurals_make_no_difference(one: str, other: str) -> None:
    (found,) = matches([one], {"id": other})
    assert found == Match(one, "equal", "id", other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("bus", "bu"), ("glass", "glas"), ("Boeing 707", "Boeing 747"), ("2000", "1999"), ("tie", "ty"), ("...", "")],
)
def test_other_names_are_not_equal(one: str, other: str) -> None:
    assert "equal" not in {found.kind for found in matches([one], {"id": other})}


@pytest.mark.parametrize(
    ("name", "kind", "other", "synonym"),
    [
        ("Cabbage", "contained", "n01", "head cabbage"),
        ("Sea_Cucumber", "contained", "n02", "cucumber"),
        ("Cuke", "equal", "n02", "cuke"),
        ("Paper cup", "head noun", "n03", "cup of tea"),
        ("Tea", "modifier", "n03", "cup of tea"),
        ("Convertible hood", "modifier", "n04", "convertible"),
        ("Ford Mustang Convertible 2007", "contained", "n04", "convertible"),
        ("n02100735", "equal", "n02100735", "English setter"),
        ("Irish red setter", "contained", "n06", "red setter"),
        ("Gordon Setter", "head noun", "n06", "Irish setter"),
    ],
)
def test_the_kind_of_a_match(name: str, kind: str, other: str, synonym: str) -> None:
    assert Match(name, kind, other, synonym) in matches([name], OTHERS)


@pytest.mark.parametrize("name", ["Cucumberland", "Green leaf", "Musk ox calf", "Cup-shaped vase", "Convert"])
def test_a_part_of_a_word_a_name_of_two_letters_and_a_word_that_is_not_the_head_are_no_match(name: str) -> None:
    assert matches([name], OTHERS) == []


def test_a_number_is_no_head_noun() -> None:
    assert matches(["Boeing 707"], {"n1": "Airbus 707"}) == []


def by_loops(names: list[str], others: dict[str, str]) -> set[tuple[str, str, str]]:
    """The matches of names of plain words without plurals, pair by pair."""
    found = set()
    for name in names:
        for key, synonyms in others.items():
            kinds = set()
            for synonym in synonyms.split(", "):
                a, b = f" {name} ", f" {synonym} "
                same_head = a.split()[-1] == b.split()[-1]
                kinds |= {"equal"} if a.replace(" ", "") == b.replace(" ", "") else set()
                kinds |= {"contained" if same_head else "modifier"} if a in b or b in a else set()
                kinds |= {"head noun"} if same_head else set()
            for kind in ("equal", "contained", "head noun", "modifier"):
                if kind in kinds:
                    found.add((name, kind, key))
                    break
    return found


def test_each_pair_matches_once_by_its_strongest_kind_as_in_plain_loops() -> None:
    draw = random.Random(0)

    def name() -> str:
        return " ".join(draw.choices(("red", "bell", "pepper", "redbell", "orange", "apple"), k=draw.randint(1, 4)))

    names = list(dict.fromkeys(name() for _ in range(60)))
    others = {f"n{i}": ", ".join(name() for _ in range(draw.randint(1, 3))) for i in range(60)}
    found = [(one.name, one.kind, one.other) for one in matches(names, others)]
    assert len(found) == len({*found}) and {*found} == by_loops(names, others)
    assert {kind for _, kind, _ in found} == {"equal", "contained", "head noun", "modifier"}


def test_a_name_without_words_matches_nothing() -> None:
    assert words("--") == () and matches(["--"], {"n1": "--", "n2": "dog"}) == []
