"""Classes of two sets of images whose names match: equal, one contained in the other, or with the same head noun.

A name that is contained in the other one with its head noun (`albatross` in `Sooty_Albatross`) says more than an equal
head noun (`cup of tea` and `paper cup`), and that more than a name contained without it (`bell` in `Bell-Pepper`).
Names are compared as words without case, accents, punctuation and plural endings, so that `Red_headed_Woodpecker` is
`redheaded woodpecker`. A number in front with a dot or underscore (`013.Bobolink`) and a year at the end (`AM General
Hummer SUV 2000`) do not count, and a WordNet id (`n02100735`) stands for its class. Names say little: a match can be
another thing (an orange pepper is no orange), and the same thing can have another name.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

KINDS = ("equal", "contained", "head noun", "modifier")  # from the strongest to the weakest
STRONG = KINDS[:2]
WORDNET = re.compile(r"(n\d{8})(?!\d)[\W_]*")
NUMBER = re.compile(r"\d+[._]\s*(?=[^\W\d_])")
YEAR = re.compile(r"(19|20)\d\d")
WORD = re.compile(r"[^\W_]+")
AFTER_HEAD = {"of", "with", "in", "on", "for", "from", "at", "without"}  # of `cup of tea`, the head is `cup`
SHORTEST = 3  # letters of a name that can be contained in another one
# Plural endings, the first that fits. `ie` and `y` become equal, since the plural does not tell which it was.
ENDINGS = (
    (re.compile(r"(?<=\w{2})(ies|ie)$"), "y"),
    (re.compile(r"(?<=\w{3})(?<!sh)(?<!can)oes$"), "o"),
    (re.compile(r"(?<=ss|sh|ch)es$|(?<=[xz])es$|(?<=[^o]us)es$"), ""),
    (re.compile(r"(?<=\w{2})(?<![sui])s$"), ""),
)

Words = tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """A class whose name matches that of a class of another set.

    Attributes:
        name: its name.
        kind: one of `KINDS`.
        other: id of the other class.
        synonym: its name that matches.
    """

    name: str
    kind: str
    other: str
    synonym: str


def words(name: str) -> Words:
    """The words of a class's name that count in a comparison.

    >>> words("013.Bobolink"), words("Red-Delicious"), words("n02100735-English_setter")
    (('bobolink',), ('red', 'delicious'), ('english', 'setter'))
    >>> words("AM General Hummer SUV 2000"), words("Crème brûlées"), words("2000")
    (('am', 'general', 'hummer', 'suv'), ('creme', 'brulee'), ('2000',))
    """
    plain = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    text = re.sub(r"['\u2019]", "", NUMBER.sub("", WORDNET.sub("", plain.strip(), count=1), count=1)).casefold()
    found = WORD.findall(text)
    if len(found) > 1 and YEAR.fullmatch(found[-1]):
        found.pop()
    return tuple(map(_singular, found))


def head(name: Words) -> str:
    """The head noun: the last word with a letter, before the first preposition; empty without one.

    >>> head(("cup", "of", "tea")), head(("ford", "f", "150")), head(())
    ('cup', 'f', '')
    """
    end = next((place for place, word in enumerate(name) if place and word in AFTER_HEAD), len(name))
    return next((word for word in reversed(name[:end]) if not word.isdigit()), "")


def matches(names: Iterable[str], others: Mapping[str, str]) -> list[Match]:
    """Each pair of classes whose names match, once, by the strongest kind; in the order of the names, kinds and ids.

    Args:
        names: names of classes.
        others: names of the classes of another set by their ids, several names of one separated by commas.
    """
    equal, whole, parts, heads = (defaultdict[object, set[tuple[str, str]]](set) for _ in range(4))
    for one, synonyms in others.items():
        equal[one].add((one, synonyms.partition(",")[0]))
        for synonym in synonyms.split(", "):
            other, pair = words(synonym), (one, synonym)
            equal["".join(other)].add(pair)
            heads[head(other)].add(pair)
            for run in _runs(other):
                parts[run].add(pair)
            if _is_long(other):
                whole[other].add(pair)
    found = []
    for name in dict.fromkeys(names):
        own, number, seen = words(name), WORDNET.match(name), set[str]()
        same = (equal[number[1]] if number else set()) | (equal["".join(own)] if own else set())
        within = {pair for run in _runs(own) for pair in whole[run]} | (parts[own] if _is_long(own) else set())
        nouns = heads[head(own)] if head(own) else set()
        for kind, pairs in zip(KINDS, (same, within & nouns, nouns, within), strict=True):
            for one, synonym in sorted(pairs):
                if one not in seen:
                    found.append(Match(name, kind, one, synonym))
                seen.add(one)
    return found


def _singular(word: str) -> str:
    for ending, instead in ENDINGS:
        if (changed := ending.sub(instead, word)) != word:
            return changed
    return word


def _runs(name: Words) -> Iterator[Words]:
    """Every run of neighbouring words."""
    return (name[first:last] for first in range(len(name)) for last in range(first + 1, len(name) + 1))


def _is_long(name: Words) -> bool:
    return sum(letter.isalpha() for letter in "".join(name)) >= SHORTEST
