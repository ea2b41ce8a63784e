import numpy as np
import pytest

from benchmark.datasets import Split


def split(**changes):
    fields = {
        "images": np.zeros((3, 4, 4), np.uint8),
        "labels": np.array([5, 7, 7]),
        "class_ids": np.array([5, 7]),
        "class_names": ["five", "seven"],
        "super_labels": np.array([0, 1]),
        "super_names": ["low", "high"],
    }
    return Split(**(fields | changes))


def test_accepts_fields_that_fit_together():
    assert len(split().images) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "images holds 2 images, but labels 3"),
        ({"class_names": ["five"]}, "class_names has 1 entries for 2 classes"),
        ({"super_labels": np.array([0])}, "super_labels has 1 entries for 2 classes"),
        ({"labels": np.array([5, 6, 7])}, r"labels holds classes \[6\]"),
        ({"super_labels": np.array([0, 2])}, r"super_labels must lie in 0\.\.1"),
        ({"super_labels": np.array([-1, 0])}, r"super_labels must lie in 0\.\.1"),
    ],
)
def test_names_the_field_that_does_not_fit(changes, said):
    with pytest.raises(ValueError, match=said):
        split(**changes)
