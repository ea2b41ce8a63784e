"""The names of splits, in the spellings of data sets in circulation."""

import pytest

from benchmark.datasets.listing import ROLES
from benchmark.datasets.split_names import as_listed, is_filler, role_of, roles_of

SPELLINGS = {
    "train": "train Train TRAIN Training training_set trainset TrainSet train_images images_train images-train "
    "imagesTrain trainImages train2017 train_2 01_train bounding_box_train train-00000-of-00001 trn",
    "trainval": "trainval TrainVal train_val train+val train-valid training_validation trainval2012 train_all "
    "train_full",
    "val": "val Val valid validation VALIDATION val2017 dev devset dev_set development minival images_val",
    "test": "test Test TESTING testset test-set test_images testimages test2015 eval evaluation test-dev2017 holdout "
    "hold-out Held_Out images_evaluation bounding_box_test",
    "query": "query Query queries query_images probe probes test_query",
    "gallery": "gallery GALLERY gallery_set galleries test_gallery index",
}
ORDINARY = (
    "", "bus", "trains", "tests", "station", "freight train", "train_station", "test drive", "contest", "latest",
    "attest", "valve", "devil", "value", "invalid", "interval", "trainer", "testimony", "images", "misc", "unlabeled",
    "train_test_split", "labels", "2017", "123", "é", "試験", "\n", "train\ud800x",
)  # fmt: skip


@pytest.mark.parametrize(("role", "words"), SPELLINGS.items())
def test_the_usual_spellings_are_understood(role, words):
    assert {word: role_of(word) for word in words.split()} == dict.fromkeys(words.split(), role)


@pytest.mark.parametrize("word", ORDINARY)
def test_an_ordinary_word_is_not_taken_for_a_split(word):
    assert role_of(word) is None


@pytest.mark.parametrize(
    ("names", "known"),
    [
        ("train test misc", "train test"),
        ("seg_train seg_test seg_pred", "seg_train seg_test"),
        ("cub-train cub-val cub-test", "cub-train cub-val cub-test"),
        ("freight_train bullet_train", ""),
        ("freight_train test_drive", ""),
        ("index reference", ""),
        ("train test index", "train test index"),
        ("images_background images_evaluation", "images_background images_evaluation"),
        ("background foreground", ""),
        ("bus train car", "train"),
    ],
)
def test_names_of_folders_are_judged_together(names, known):
    assert set(roles_of(names.split())) == set(known.split())


@pytest.mark.parametrize(
    ("roles", "meaning"),
    [
        ("train test", "trainval test"),
        ("train val", "trainval test"),
        ("train val test", "trainval trainval test"),
        ("val train query gallery", "trainval trainval query gallery"),
        ("train query test", "trainval query gallery"),
        ("train test gallery", "trainval query gallery"),
        ("trainval test", "trainval test"),
        ("val", "test"),
        ("test", "test"),
        ("query", "query"),
    ],
)
def test_val_is_for_training_only_if_there_is_something_else_to_test_on(roles, meaning):
    assert as_listed(roles.split()) == dict(zip(roles.split(), meaning.split(), strict=True))
    assert set(as_listed(roles.split()).values()) <= {*ROLES}


def test_names_without_a_meaning_of_their_own_are_fillers():
    assert is_filler("images") and is_filler("All_Images-2")
    assert not is_filler("birds") and not is_filler("001") and not is_filler("train")


@pytest.mark.parametrize(
    "names", ["Trainingsdaten Testdaten", "entraînement essai", "entrenamiento prueba", "训练集 测试集", "trainA testB"]
)
def test_splits_in_other_languages_and_with_letters_are_recognised(names):
    assert [*roles_of(names.split()).values()] == ["train", "test"]
