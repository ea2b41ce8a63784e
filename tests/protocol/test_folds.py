"""Folds, compared with tables of the authors' rule worked out by hand, class by class."""

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.protocol.folds import Fold, check_class_disjoint, kfold_folds, make_folds, mlrc_folds, mlrc_split


def span(*ranges: tuple[int, int]) -> list[int]:
    """Return the positions in inclusive ranges, ascending: span((75, 99), (0, 49))."""
    return sorted(p for first, last in ranges for p in range(first, last + 1))


# Inclusive positions (train, validation) of folds 0..3. Cars: n = 98, v = int(196 / 8) = 24, starts int(p * 98 / 4) are
# 0, 24, 49, 73. SOP: n = 11,317, v = int(22634 / 8) = 2829, starts 0, 2829, 5658, 8487.
TABLES = {
    200: [
        ([(0, 74)], [(75, 99)]),
        ([(25, 99)], [(0, 24)]),
        ([(50, 99), (0, 24)], [(25, 49)]),
        ([(75, 99), (0, 49)], [(50, 74)]),
    ],
    196: [
        ([(0, 73)], [(74, 97)]),
        ([(24, 97)], [(0, 23)]),
        ([(49, 97), (0, 24)], [(25, 48)]),
        ([(73, 97), (0, 48)], [(49, 72)]),
    ],
    22_634: [
        ([(0, 8487)], [(8488, 11316)]),
        ([(2829, 11316)], [(0, 2828)]),
        ([(5658, 11316), (0, 2828)], [(2829, 5657)]),
        ([(8487, 11316), (0, 5657)], [(5658, 8486)]),
    ],
}
LENGTHS = {200: (75, 25, 100), 196: (74, 24, 98), 22_634: (8488, 2829, 11_317)}
NEVER_VALIDATED = {200: [], 196: [24, 73], 22_634: [8487]}


@pytest.mark.parametrize("num_classes", TABLES)
def test_mlrc_folds_equal_the_tables(num_classes):
    folds = mlrc_folds(num_classes)
    assert len(folds) == 4
    for fold, (train, validation) in zip(folds, TABLES[num_classes], strict=True):
        assert fold.train_classes.tolist() == span(*train)
        assert fold.validation_classes.tolist() == span(*validation)
        assert (len(fold.train_classes), len(fold.validation_classes)) == LENGTHS[num_classes][:2]


@pytest.mark.parametrize("num_classes", TABLES)
def test_mlrc_never_validates_the_remainder_of_a_quarter(num_classes):
    validated = np.concatenate([fold.validation_classes for fold in mlrc_folds(num_classes)])
    assert len(validated) == len(set(validated))
    assert sorted(set(range(num_classes // 2)) - set(validated.tolist())) == NEVER_VALIDATED[num_classes]


@pytest.mark.parametrize("num_classes", TABLES)
def test_mlrc_split_is_first_half_and_second_half(num_classes):
    trainval, test = mlrc_split(num_classes)
    assert trainval.tolist() + test.tolist() == list(range(num_classes))
    assert len(test) == LENGTHS[num_classes][2] == len(trainval)


def test_image_counts_of_cub_follow_from_its_quarters():
    """The quarters of CUB's trainval classes hold 1402, 1487, 1484 and 1491 images."""
    images = np.zeros(100, dtype=int)
    images[::25] = [1402, 1487, 1484, 1491]  # any distribution within a quarter gives these sums
    counts = [(images[f.train_classes].sum(), images[f.validation_classes].sum()) for f in mlrc_folds(200)]
    assert counts == [(4373, 1491), (4462, 1402), (4377, 1487), (4380, 1484)]


def test_the_floating_point_of_the_authors_gives_the_same_folds():
    for num_classes in range(8, 2000, 2):
        half, validation = int(num_classes * 0.5), int(num_classes * 0.125)
        train = num_classes - half - validation
        positions = list(range(half))
        for p, fold in enumerate(mlrc_folds(num_classes)):
            start = int(p / 4 * half)
            rolled = positions[start:] + positions[:start]
            assert fold.train_classes.tolist() == sorted(rolled[:train])
            assert fold.validation_classes.tolist() == sorted(rolled[train : train + validation])


def test_mlrc_refuses_class_counts_where_it_would_leak():
    with pytest.raises(UserError, match=r'leaks with 3997 classes.*rule="kfold"'):
        mlrc_folds(3997)


def test_mlrc_refuses_fewer_classes_than_folds():
    with pytest.raises(UserError, match=r"num_folds is 4; allowed are 2 \.\. 3"):
        mlrc_folds(6)


def test_kfold_validates_every_class_once_and_the_first_folds_are_one_larger():
    folds = kfold_folds(np.arange(98))
    assert [len(fold.validation_classes) for fold in folds] == [25, 25, 24, 24]
    assert np.concatenate([fold.validation_classes for fold in folds]).tolist() == list(range(98))
    for fold in folds:
        assert sorted([*fold.train_classes, *fold.validation_classes]) == list(range(98))


@pytest.mark.parametrize("num_classes", [97, 98, 656, 3997, 11_318])
def test_kfold_is_the_contiguous_kfold_of_scikit_learn(num_classes):
    from sklearn.model_selection import KFold

    expected = KFold(4).split(np.arange(num_classes))
    for fold, (train, validation) in zip(kfold_folds(np.arange(num_classes)), expected, strict=True):
        assert np.array_equal(fold.train_classes, train)
        assert np.array_equal(fold.validation_classes, validation)


def test_kfold_refuses_fewer_classes_than_folds_and_repeated_classes():
    with pytest.raises(UserError, match=r"num_folds is 4; allowed are 2 \.\. 3"):
        kfold_folds(np.arange(3))
    with pytest.raises(ValueError, match="twice: 5"):
        kfold_folds(np.array([1, 5, 5, 7]))


@pytest.mark.parametrize(
    ("trainval", "total", "quarters_fold_0"),
    [
        (np.arange(98), 196, 74),  # split into halves: the authors' rule, last quarter first
        (np.arange(11_318), 22_634, 0),  # the traditional split of SOP is not into halves
        (np.arange(3997), 7982, 0),  # predefined training classes
        (np.arange(656), 1010, 0),
        (np.arange(50), 101, 0),  # odd
        (np.arange(100, 200), 200, 100),  # the second half is not the first
    ],
)
def test_auto_uses_the_authors_rule_only_if_the_data_are_split_into_halves(trainval, total, quarters_fold_0):
    folds = make_folds(trainval, rule="auto", num_folds=4, total_classes=total)
    assert folds[0].validation_classes[0] == quarters_fold_0


def test_make_folds_returns_class_ids():
    folds = make_folds(np.array([3, 5, 8, 13]), rule="kfold", num_folds=4, total_classes=20)
    assert [fold.validation_classes.tolist() for fold in folds] == [[3], [5], [8], [13]]
    assert folds[0].train_classes.tolist() == [5, 8, 13]


@pytest.mark.parametrize(
    ("trainval", "rule", "total", "message"),
    [
        (np.arange(4), "random", 8, "rule is 'random'; allowed are \"mlrc\""),
        (np.arange(11_318), "mlrc", 22_634, "expects classes 0 .. 11316"),
        (np.arange(3997 // 2), "mlrc", 3997, "leaks with 3997 classes"),
        (np.array([], dtype=int), "kfold", 8, "num_folds is 4; allowed are 2 .. 0"),
    ],
)
def test_make_folds_refuses_a_rule_that_does_not_fit_the_data_set(trainval, rule, total, message):
    with pytest.raises(UserError, match=message):
        make_folds(trainval, rule=rule, num_folds=4, total_classes=total)


@pytest.mark.parametrize("trainval", [np.array([2, 1, 0, 3]), np.arange(9), np.array([-1, 0, 1, 2])], ids=str)
def test_class_ids_out_of_order_or_range_raise_a_value_error(trainval):
    with pytest.raises(ValueError, match=r"must ascend within 0 \.\. 7"):
        make_folds(trainval, rule="kfold", num_folds=4, total_classes=8)


def test_the_arrays_of_a_fold_cannot_be_changed():
    fold = mlrc_folds(200)[0]
    with pytest.raises(ValueError, match="read-only"):
        fold.train_classes[0] = 7


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (Fold(np.array([0, 1, 2]), np.array([2, 3])), "Fold 1 trains on classes that it validates on: 2"),
        (Fold(np.array([0, 7]), np.array([1])), "Fold 1 has train classes that are not trainval classes: 7"),
        (Fold(np.array([0]), np.array([], dtype=int)), "Fold 1 has no validation classes"),
    ],
)
def test_a_leaking_fold_is_refused_by_number_and_class(fold, message):
    good = Fold(np.array([0, 1]), np.array([2, 3]))
    check_class_disjoint([good], np.arange(4))
    with pytest.raises(ValueError, match=message):
        check_class_disjoint([good, fold], np.arange(4))


def test_a_long_list_of_classes_is_shortened_in_the_message():
    with pytest.raises(ValueError, match=r"0, 1, 2, 3, 4, 5, 6, 7, 8, 9 \.\.\. \(50 classes\)"):
        check_class_disjoint([Fold(np.arange(50), np.array([50]))], np.array([50]))
