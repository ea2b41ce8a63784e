"""Class-disjoint folds of the training and validation classes.

Source: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (arXiv 2003.08505), section 3 on
cross-validation, with the arithmetic of the authors' released code (`MLRCSplitManager`): the first half of the sorted
classes is for training and validation, the second half for testing; lengths are truncated, never rounded.

That arithmetic has two properties that the paper does not mention. Fold 0 validates on the *last* quarter, fold 1 on
the first, and so on. And if a quarter is not a whole number of classes, no fold validates on the remainder, and every
fold trains on it (two classes of Cars196, one of Stanford Online Products).

Departures: the authors compute `int(p / 4 * n)` and `int(0.125 * N)` in floating point, whereas this file uses
integers. Both agree for every N with 4 folds, whose fractions are exact in binary; with other numbers of folds,
integers avoid an off-by-one error. If the authors' rule would train and validate on the same class (odd N), an error is
raised.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmark.core.errors import UserError

FoldRule = Literal["mlrc", "kfold", "auto"]


@dataclass(frozen=True, eq=False)
class Fold:
    """One class-disjoint division of the training and validation classes.

    Ids are sorted, since only the *sets* of classes matter: images keep the order of the data set, and training labels
    are the ranks of the sorted classes.

    Attributes:
        train_classes: (n,) ascending ids of the classes to train on.
        validation_classes: (v,) ascending ids of the classes to validate on.
    """

    train_classes: np.ndarray
    validation_classes: np.ndarray


def mlrc_split(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Split N sorted classes into halves: positions (n,) of the trainval classes and (N - n,) of the test classes.

    >>> [len(part) for part in mlrc_split(22_634)]
    [11317, 11317]

    Args:
        num_classes: N, classes of the whole data set; for an odd number the test half is one larger.

    Raises:
        UserError: there are fewer than two classes.
    """
    if num_classes < 2:
        raise UserError(f"The data set has {num_classes} classes; a half for training and one for testing need 2.")
    positions = np.arange(num_classes)
    return positions[: num_classes // 2], positions[num_classes // 2 :]


def mlrc_folds(num_classes: int, num_folds: int = 4) -> list[Fold]:
    """The folds of the Reality Check, as positions among the sorted classes of the first half.

    With n = N // 2 trainval classes, fold p takes the N - n - v classes from position floor(p n / k) on, wrapping at n,
    for training, and the v = floor(N / 2k) classes after them for validation.

    Args:
        num_classes: N, classes of the whole data set (training, validation and test).
        num_folds: k, 2 or more.

    Raises:
        UserError: the rule would train on a validation class (odd N), or leave no class to validate on.
    """
    trainval, test = mlrc_split(num_classes)
    _check_num_folds(len(trainval), num_folds)
    num_validation = num_classes // (2 * num_folds)
    # This is n - v unless N is odd; then it is one too many, and the window wraps around.
    num_train = num_classes - len(trainval) - num_validation
    if num_train + num_validation > len(trainval):
        raise UserError(
            f"The rule of the Reality Check leaks with {num_classes} classes: each fold would train on a class that it "
            f"validates on, since {len(trainval)} trainval and {len(test)} test classes are not equal halves. "
            'It needs an even number of classes; use rule="kfold" on the trainval classes instead.'
        )
    folds = []
    for p in range(num_folds):
        window = np.roll(trainval, -(p * len(trainval) // num_folds))
        folds.append(_fold(window[:num_train], window[num_train : num_train + num_validation]))
    return folds


def kfold_folds(trainval_classes: np.ndarray, num_folds: int = 4) -> list[Fold]:
    """Contiguous k-fold: fold p validates on part p and trains on the rest; every class is validated on exactly once.

    The first n % k parts are one class larger. This is the rule for data sets with predefined training classes.

    Args:
        trainval_classes: (n,) class ids, in the order in which they are split.
        num_folds: k, 2 or more.

    Raises:
        UserError: there are fewer classes than folds.
        ValueError: a class is listed twice.
    """
    classes = _unique(trainval_classes)
    _check_num_folds(len(classes), num_folds)
    parts = np.array_split(classes, num_folds)
    return [_fold(np.concatenate(parts[:p] + parts[p + 1 :]), parts[p]) for p in range(num_folds)]


def make_folds(trainval_classes: np.ndarray, *, rule: FoldRule, num_folds: int, total_classes: int) -> list[Fold]:
    """Folds of the trainval classes, as class ids, checked to be disjoint.

    Args:
        trainval_classes: (n,) ascending class ids out of 0 .. total_classes - 1.
        rule: "mlrc", "kfold", or "auto": "mlrc" if the data set is split into halves (trainval is the first half of an
            even number of classes), otherwise "kfold".
        num_folds: number of folds, 2 or more.
        total_classes: classes of the whole data set, test classes included.

    Raises:
        UserError: the rule is unknown or does not fit the data set, or there are fewer classes than folds.
        ValueError: class ids are out of order, out of range or repeated.
    """
    if rule not in ("mlrc", "kfold", "auto"):
        raise UserError(f'rule is {rule!r}; allowed are "mlrc", "kfold" and "auto".')
    classes = _unique(trainval_classes)
    if len(classes) and (np.any(np.diff(classes) < 0) or classes[0] < 0 or classes[-1] >= total_classes):
        raise ValueError(f"trainval_classes must ascend within 0 .. {total_classes - 1}, and are {_some(classes)}.")
    halves = total_classes % 2 == 0 and np.array_equal(classes, np.arange(total_classes // 2))
    if rule == "mlrc" and not halves and total_classes % 2 == 0:
        raise UserError(
            f'rule="mlrc" splits the {total_classes} classes into halves and so expects classes 0 .. '
            f'{total_classes // 2 - 1} for training and validation, not {_some(classes)}; use rule="kfold" for '
            "predefined training classes."
        )
    use_mlrc = rule == "mlrc" or (rule == "auto" and halves)
    folds = mlrc_folds(total_classes, num_folds) if use_mlrc else kfold_folds(classes, num_folds)
    check_class_disjoint(folds, classes)
    return folds


def check_class_disjoint(folds: Iterable[Fold], trainval_classes: np.ndarray) -> None:
    """Check that no class leaks from training to validation, and that both have only classes that they may use.

    Args:
        folds: any number of folds, as class ids.
        trainval_classes: (n,) ids of the classes that training and validation may use.

    Raises:
        ValueError: a class is in both parts of a fold, or outside trainval, or a part is empty. The message names the
            fold and the classes.
    """
    for number, fold in enumerate(folds):
        parts = {"train": fold.train_classes, "validation": fold.validation_classes}
        for name, classes in parts.items():
            if len(classes) == 0:
                raise ValueError(f"Fold {number} has no {name} classes; use fewer folds or more classes.")
            outside = np.setdiff1d(classes, trainval_classes)
            _refuse(outside, f"Fold {number} has {name} classes that are not trainval classes")
        shared = np.intersect1d(fold.train_classes, fold.validation_classes)
        _refuse(shared, f"Fold {number} trains on classes that it validates on")


def _fold(train: np.ndarray, validation: np.ndarray) -> Fold:
    parts = np.sort(train), np.sort(validation)
    for part in parts:
        part.flags.writeable = False  # a Fold is frozen, and so are its arrays
    return Fold(*parts)


def _unique(classes: np.ndarray) -> np.ndarray:
    classes = np.asarray(classes)
    values, counts = np.unique(classes, return_counts=True)
    _refuse(values[counts > 1], "trainval_classes lists classes twice")
    return classes


def _check_num_folds(num_classes: int, num_folds: int) -> None:
    if not 2 <= num_folds <= num_classes:
        raise UserError(f"num_folds is {num_folds}; allowed are 2 .. {num_classes}, the number of trainval classes.")


def _refuse(classes: np.ndarray, complaint: str) -> None:
    if len(classes):
        raise ValueError(f"{complaint}: {_some(classes)}. Fix the split; no result from it would be valid.")


def _some(classes: np.ndarray) -> str:
    shown = ", ".join(str(c) for c in classes[:10])
    return f"{shown} ... ({len(classes)} classes)" if len(classes) > 10 else shown or "(none)"
