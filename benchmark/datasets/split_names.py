"""The names that people give to the parts of a data set: train, Training, images_train, val2017, test-set, probe.

The words are those of Hugging Face's `datasets` (documentation, "Structure your repository": train, training;
validation, valid, dev, val; test, testing, eval, evaluation), with query and gallery (also probe, index) as in
retrieval. As there, a name may have separators, digits and fillers such as "images" or "set". A name with two of the
words is understood if one of them says more: trainval, test_query.

These benchmarks test on classes that were not trained on, so that validation classes come out of the training classes:
`val` belongs to the training half if there is a test part, and is the test half if there is none.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from unicodedata import normalize

# Other languages, without accents: German, French, Spanish, Portuguese, Italian, Polish, Russian, Chinese, Japanese.
_WORDS = {
    "train": "train training trn trainval entrainement apprentissage entrenamiento treino treinamento addestramento "
    "trening treningowe trainieren обучение обучающая тренировочная 训练 训练集 訓練 学習",
    "val": "val valid validation validate validating dev devel development minival validierung validacion validacao "
    "validazione validatie walidacja валидация валидационная 验证 验证集 検証",
    "test": "test testing tst eval evaluation evaluate holdout heldout testdev pruefung prufung essai essais prueba "
    "pruebas teste testes testowe тест тестовая 测试 测试集 測試 テスト",
    "query": "query queries probe probes anfrage anfragen requete requetes consulta consultas",
    "gallery": "gallery galleries galerie galeria galleria",
}
_ONLY_BESIDE_OTHERS = {"gallery": "index database reference references", "train": "background"}
_FILLERS = (
    "image images img imgs picture pictures pic pics photo photos data dataset set sets split splits part subset sub "
    "sample samples file files folder jpg jpeg png crop crops cropped class classes all full box bounding of public "
    "private bilder daten datensatz menge sbilder sdaten smenge ssatz donnees datos dados dati imagenes"
)
_ROLE = {word: role for role, words in _WORDS.items() for word in words.split()}
_WEAK = {word: role for role, words in _ONLY_BESIDE_OTHERS.items() for word in words.split()}
_ANY_WORD = re.compile("|".join([*_ROLE, *_WEAK]))
_SAYS_MORE = {
    frozenset({"train", "val"}): "trainval",
    frozenset({"val", "test"}): "test",
    frozenset({"test", "query"}): "query",
    frozenset({"test", "gallery"}): "gallery",
}
_ANY = _FILLERS.replace(" ", "|")
_LONGEST_FIRST = "|".join(sorted(_ROLE, key=len, reverse=True))
_GLUED = re.compile(rf"({_ANY}){{0,2}}?({_LONGEST_FIRST})({_ANY}){{0,2}}")  # trainset, imagestest


def role_of(word: str) -> str | None:
    """Return the role that a word names; None if it names none.

    Args:
        word: a name of a split, such as a folder or a value in a column `split`.

    Returns:
        One of `train`, `trainval`, `val`, `test`, `query`, `gallery`; see `as_listed`.

    >>> [role_of(word) for word in ("Training", "images_val2017", "train+val", "test-set", "Probe", "bus")]
    ['train', 'val', 'trainval', 'test', 'query', None]
    """
    role, rest = _read(word)
    return None if rest else role


def roles_of(names: Collection[str]) -> dict[str, str]:
    """Return the roles of those folders next to each other whose names are names of splits.

    More is understood here than a single word tells: words such as `index` count beside a clear name only, and names
    may have a prefix or suffix in common, as in birds_train and birds_test.

    Args:
        names: names of folders.

    >>> roles_of(["birds_train", "birds_test", "misc"])
    {'birds_train': 'train', 'birds_test': 'test'}
    >>> roles_of(["freight train", "bullet train", "bus"])
    {}
    """
    read = {name: _read(name) for name in names}
    clear = {name: role for name, (role, rest) in read.items() if role and not rest and not _is_weak(name)}
    if clear:
        return {name: role for name, (role, rest) in read.items() if role and not rest}
    in_common = {role_and_rest for role_and_rest in read.values() if role_and_rest[0]}
    several = {rest for rest, count in Counter(rest for _, rest in in_common).items() if count > 1}
    letters = all(role and len(rest) == 1 for role, rest in read.values())
    if letters and len({role for role, _ in read.values()}) == len(read) > 1:
        return {name: role for name, (role, _) in read.items() if role}  # trainA and testB
    return {name: role for name, (role, rest) in read.items() if role and rest and rest in several}


def roles_among_words(names: Collection[str]) -> dict[str, str]:
    """Return the roles that names mention, whatever else they say, if these are several.

    Args:
        names: names of folders next to each other.

    >>> roles_among_words(["train", "test_novel", "misc"])
    {'train': 'train', 'test_novel': 'test'}
    >>> roles_among_words(["freight train", "bullet train"])
    {}
    """
    found = {name: role for name in names if (role := _read(name)[0])}
    return found if len({*found.values()}) > 1 else {}


def as_listed(roles: Iterable[str]) -> dict[str, str]:
    """Return what the roles of one data set mean, one of `listing.ROLES` each.

    `val` is for training if there is something else to test on, otherwise it is the test half. Beside only one of query
    and gallery, `test` is the other one, as `bounding_box_test` in Market-1501.

    Args:
        roles: all results of `role_of` that occur in the data set.

    >>> as_listed(["train", "val", "test"])
    {'train': 'trainval', 'val': 'trainval', 'test': 'test'}
    >>> as_listed(["train", "val"]), as_listed(["query", "test"])
    ({'train': 'trainval', 'val': 'test'}, {'query': 'query', 'test': 'gallery'})
    """
    found = dict.fromkeys(roles)
    for_test = {"test", "query", "gallery"} & found.keys()
    test = "test"
    if for_test in ({"test", "query"}, {"test", "gallery"}):
        test = "gallery" if "query" in for_test else "query"
    meaning = {"train": "trainval", "trainval": "trainval", "val": "trainval" if for_test else "test", "test": test}
    return {role: meaning.get(role, role) for role in found}


def is_filler(name: str) -> bool:
    """Whether the words of a folder's name say nothing about its contents, as in `all_images`."""
    return bool(words := _words(name)) and set(words) <= {*_FILLERS.split()}


def _words(name: str) -> list[str]:
    """Split a name at separators, digits and capitals into lower-case words."""
    plain = normalize("NFKC", name)
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    if not plain.isascii():  # without accents on Latin letters
        plain = normalize("NFC", re.sub(r"(?<=[A-Za-z])[\u0300-\u036f]+", "", normalize("NFD", plain)))
    plain = re.sub(r"(?i)\bh[oe]ld[\W_]out\b", "holdout", plain)
    return re.findall(r"[^\W\d_]+", plain.casefold())


def _read(name: str) -> tuple[str | None, str]:
    """Return the role that a name mentions, if any, and its remaining words."""
    if name.isascii() and not _ANY_WORD.search(name.lower().replace("_", "").replace("-", "").replace(" ", "")):
        return None, name  # true of most names, and fast to find out
    roles, rest = set(), []
    for word in _words(name):
        if role := _ROLE.get(word) or _WEAK.get(word):
            roles.add("trainval" if word == "trainval" else role)
        elif glued := _GLUED.fullmatch(word):
            roles.add("trainval" if glued[2] == "trainval" else _ROLE[glued[2]])
        elif word not in _FILLERS.split():
            rest.append(word)
    if roles == {"train"} and {"all", "full"} & {*_words(name)}:
        roles = {"trainval"}
    return roles.pop() if len(roles) == 1 else _SAYS_MORE.get(frozenset(roles)), " ".join(rest)


def _is_weak(name: str) -> bool:
    return not any(word in _ROLE or _GLUED.fullmatch(word) for word in _words(name))
