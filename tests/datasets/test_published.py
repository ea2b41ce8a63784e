"""The published data sets, read from tiny trees in their layouts; expected numbers follow from `trees`."""

import hashlib
import json

import pytest

from benchmark.core.errors import UserError
from benchmark.datasets import cars196, cub, grocery, inaturalist2019, inshop, mat_file, sop
from benchmark.datasets.listing import MissingDataError
from tests.datasets import trees

EVERY = [
    (cub, trees.cub, {}), (cars196, trees.cars_text, {}), (sop, trees.sop, {}), (inshop, trees.inshop, {}),
    (inaturalist2019, trees.inaturalist, {"num_trainval": 7}), (grocery, trees.grocery, {"num_trainval": 2}),
]  # fmt: skip
every = pytest.mark.parametrize(
    ("module", "tree", "options"), EVERY, ids=[m.__name__.split(".")[-1] for m, _, _ in EVERY]
)


def counts(found, *roles):
    """Return the numbers of images and classes of each role."""
    return [(found.counts_by_role()[role].images, found.counts_by_role()[role].classes) for role in roles]


@every
def test_every_image_is_there_and_can_be_opened(module, tree, options, tmp_path):
    found = module.listing(str(tree(tmp_path)), check="images", **options)
    assert all((found.root / path).is_file() for path in found.paths)


@every
def test_the_same_data_elsewhere_has_the_same_fingerprint(module, tree, options, tmp_path):
    here = module.listing(str(tree(tmp_path / "a")), **options)
    there = module.listing(str(tree(tmp_path / "b" / "deep").parent), **options)
    assert here.fingerprint == there.fingerprint


@every
def test_other_counts_than_the_published_ones_are_refused(module, tree, options, tmp_path):
    with pytest.raises(UserError, match=r"does not hold the published .*: it has \d+ images, not 99,999"):
        module.listing(str(tree(tmp_path)), expected={"images": 99_999}, **options)


@every
def test_a_folder_without_the_data_says_how_to_get_them(module, tree, options, tmp_path):
    name = module.__name__.split(".")[-1]
    with pytest.raises(MissingDataError, match=f"make data DATASET={name}"):
        module.listing(str(tmp_path), **options)


@every
def test_a_missing_and_a_damaged_image_are_named(module, tree, options, tmp_path):
    found = module.listing(str(tree(tmp_path)), **options)
    (found.root / found.paths[2]).write_bytes(b"damaged")
    module.listing(str(tmp_path), **options)
    with pytest.raises(UserError, match=rf"1 of {len(found.paths)} images.*\n  image 3: .*cannot be decoded"):
        module.listing(str(tmp_path), check="images", **options)
    (found.root / found.paths[2]).unlink()
    with pytest.raises(UserError, match=r"image 3: .* is missing"):
        module.listing(str(tmp_path), **options)


# -- CUB --------------------------------------------------------------------------------------------------------------


def test_cub_is_in_the_order_of_class_ids_and_file_names(tmp_path):
    found = cub.listing(str(trees.cub(tmp_path)))
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert found.paths == sorted(found.paths)
    assert counts(found, "trainval", "test") == [(5, 2), (5, 2)]
    assert found.class_names[0] == "Black_footed_Albatross" and found.notes == ()
    assert [found.super_names[i] for i in found.super_labels] == ["Albatross", "Albatross", "Albatross", "Ani"]


def test_cub_without_its_lists_is_the_same_data_set(tmp_path):
    with_lists, without = (
        cub.listing(str(trees.cub(tmp_path / "a"))),
        cub.listing(str(trees.cub(tmp_path / "b", False))),
    )
    assert with_lists.fingerprint == without.fingerprint
    assert cub.listing(str(tmp_path / "b" / "CUB_200_2011")).fingerprint == without.fingerprint


def test_inconsistent_cub_lists_are_refused(tmp_path):
    lists = trees.cub(tmp_path) / "CUB_200_2011" / "image_class_labels.txt"
    lists.write_text("\n".join(lists.read_text().splitlines()[1:]))
    with pytest.raises(UserError, match="name different images"):
        cub.listing(str(tmp_path))


# -- Cars -------------------------------------------------------------------------------------------------------------

LAYOUTS = [trees.cars_dml, trees.cars_text, trees.cars_official, trees.cars_folders,
           lambda root: trees.cars_official(root, nested=True)]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("tree", LAYOUTS, ids=["dml", "text", "official", "folders", "nested"])
def test_cars_has_the_same_classes_in_every_layout(tree, tmp_path):
    found = cars196.listing(str(tree(tmp_path)), check="images")
    assert found.labels.tolist() == [label - 1 for label, _ in trees.CARS_ROWS]  # official train, then test
    assert counts(found, "trainval", "test") == [(5, 2), (5, 2)]
    if tree is not trees.cars_text:
        assert found.class_names == trees.CARS
        assert [found.super_names[i] for i in found.super_labels] == ["AM General", "Acura", "Ram", "smart"]


def test_cars_without_names_has_no_makes_and_says_so(tmp_path):
    found = cars196.listing(str(trees.cars_text(tmp_path)))
    assert found.super_names == ["(none)"]
    assert "cars_annos.txt has no names" in found.notes[0]


@pytest.mark.slow
def test_cars_list_of_test_images_without_classes_is_refused_by_name(tmp_path):
    folder = trees.cars_official(tmp_path) / "stanford_cars"
    (folder / "devkit" / "cars_test_annos.mat").replace(folder / "cars_test_annos_withlabels.mat")
    with pytest.raises(UserError, match=r"has the fields .*fname, not fname and class; '_withlabels'"):
        cars196.listing(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"<html>Sign in</html>" * 20])
def test_cars_mat_file_of_another_format_is_refused(tmp_path, content):
    mat = trees.cars_dml(tmp_path) / "cars196" / "cars_annos.mat"
    mat.write_bytes(content)
    with pytest.raises(UserError, match=r"cars_annos\.mat is not a MATLAB file of version 5, but a"):
        cars196.listing(str(tmp_path))


def test_cars_mat_file_that_crashes_the_reader_is_refused(tmp_path, monkeypatch):
    crash = tmp_path / "crash.py"  # replaces scipy, which crashes on some damaged files
    crash.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(mat_file, "__file__", str(crash))
    with pytest.raises(UserError, match=r"cars_annos\.mat is damaged"):
        cars196.listing(str(trees.cars_dml(tmp_path)))


def test_cars_folder_of_an_unknown_class_is_refused(tmp_path):
    trees.write_image(trees.cars_folders(tmp_path) / "car_data" / "car_data" / "train" / "Trabant 601" / "1.jpg")
    with pytest.raises(UserError, match=r"Trabant 601 is not a class of .*names\.csv"):
        cars196.listing(str(tmp_path))


# -- SOP --------------------------------------------------------------------------------------------------------------


def test_sop_is_split_by_its_lists_and_categories_occur_in_both_halves(tmp_path):
    found = sop.listing(str(trees.sop(tmp_path)))
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert counts(found, "trainval", "test") == [(6, 3), (3, 1)]
    assert [found.super_names[i] for i in found.super_labels] == ["bicycle", "cabinet", "cabinet", "bicycle"]


def test_sop_cut_moves_the_last_product_of_the_training_list_to_the_test_half(tmp_path):
    expected = {"trainval": {"images": 6}}  # counts of the lists, for any cut
    found = sop.listing(str(trees.sop(tmp_path)), sop_cut=2, expected=expected)
    assert counts(found, "trainval", "test") == [(4, 2), (5, 2)]
    with pytest.raises(UserError, match="sop_cut=4; give a number of classes from 1 to 3"):
        sop.listing(str(tmp_path), sop_cut=4)


def test_sop_repacked_is_the_same_data_set(tmp_path):
    repacked = trees.sop(tmp_path / "b", "online_products/Info_Files", "online_products/images")
    assert sop.listing(str(repacked)).fingerprint == sop.listing(str(trees.sop(tmp_path / "a"))).fingerprint


def test_sop_class_in_two_categories_is_refused(tmp_path):
    path = trees.sop(tmp_path) / "Stanford_Online_Products" / "Ebay_test.txt"
    path.write_text(path.read_text().replace("8 4 1 bicycle_final", "8 4 2 cabinet_final"))
    with pytest.raises(UserError, match="is of class 4, which has two super classes"):
        sop.listing(str(tmp_path))


# -- In-Shop ----------------------------------------------------------------------------------------------------------

PLACES = [("Eval", "Img/img"), ("Eval", "img"), ("", "Img/img"), ("Inshop_Clothes/Eval", "Inshop_Clothes/Img/img")]


@pytest.mark.parametrize("places", PLACES)
def test_inshop_has_queries_and_a_gallery_of_the_same_items(places, tmp_path):
    found = inshop.listing(str(trees.inshop(tmp_path, *places)), check="images")
    assert counts(found, "trainval", "query", "gallery") == [(3, 2), (3, 2), (2, 2)]
    assert found.class_names == ["id_00000002", "id_00000003", "id_00000001", "id_00000004"]
    assert found.classes("query").tolist() == found.classes("gallery").tolist() == [2, 3]
    assert found.super_names == ["MEN/Denim", "WOMEN/Dresses"]
    assert found.super_labels.tolist() == [1, 0, 1, 0]


def test_inshop_uses_the_small_images_by_default(tmp_path):
    trees.inshop(tmp_path)
    trees.inshop(tmp_path, pictures="Img/img_highres")
    small, large = inshop.listing(str(tmp_path)), inshop.listing(str(tmp_path), pictures="img_highres")
    assert small.paths[0].startswith("img/") and large.paths[0].startswith("img_highres/")
    assert small.fingerprint != large.fingerprint
    with pytest.raises(UserError, match="pictures='huge'; give img, img_highres"):
        inshop.listing(str(tmp_path), pictures="huge")


def test_inshop_item_in_two_categories_is_noted(tmp_path, monkeypatch):
    moved = [
        (path.replace("MEN/Denim/id_00000004/04_7", "MEN/Shorts/id_00000004/04_7"), *rest)
        for path, *rest in trees.INSHOP
    ]
    monkeypatch.setattr(trees, "INSHOP", moved)
    found = inshop.listing(str(trees.inshop(tmp_path)))
    assert found.notes == ("1 items belong to several categories; the first one counts",)
    assert found.super_names == ["MEN/Denim", "WOMEN/Dresses"]


@pytest.mark.parametrize(("expected", "num_notes"), [({"images": 8}, 1), (None, 0)])
def test_an_uncommon_inshop_list_is_noted_if_published_counts_are_expected(expected, num_notes, tmp_path, monkeypatch):
    path = trees.inshop(tmp_path) / "Eval" / "list_eval_partition.txt"
    notes = inshop.listing(str(tmp_path), expected=expected).notes
    assert len(notes) == num_notes
    assert all(note.startswith("list_eval_partition.txt differs from the copy in common use") for note in notes)
    monkeypatch.setattr(inshop, "LIST_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    assert inshop.listing(str(tmp_path), expected=expected).notes == ()


def test_inshop_unknown_status_is_refused(tmp_path):
    path = trees.inshop(tmp_path) / "Eval" / "list_eval_partition.txt"
    path.write_text(path.read_text().replace("gallery", "val"))
    with pytest.raises(UserError, match=r"id_00000001 val' has no status of train, query, gallery"):
        inshop.listing(str(tmp_path))


# -- iNaturalist ------------------------------------------------------------------------------------------------------


def test_inaturalist_labels_are_numbers_and_train_and_val_are_together(tmp_path):
    found = inaturalist2019.listing(str(trees.inaturalist(tmp_path)), num_trainval=7)
    folders = [int(path.split("/")[2]) for path in found.paths]
    assert found.labels.tolist() == folders == [i for i in range(10, -1, -1) for _ in "ab"] + list(range(10, -1, -1))
    assert counts(found, "trainval", "test") == [(21, 7), (12, 4)]
    expected = {"super_classes": 3, "trainval": {"super_classes": 2}, "test": {"super_classes": 1}}
    inaturalist2019.listing(str(tmp_path), num_trainval=7, expected=expected)
    with pytest.raises(UserError, match="2 test super_classes, not 1"):
        inaturalist2019.listing(str(tmp_path), num_trainval=6, expected=expected)


def test_inaturalist_reads_images_from_elsewhere_and_real_names(tmp_path):
    root = trees.inaturalist(tmp_path / "lists")
    small = tmp_path / "small"
    small.mkdir()
    (root / "train_val2019").rename(small / "train_val2019")
    names = [{"id": i, "name": f"Quercus {i}", "genus": f"Quercus{i // 4}"} for i in range(11)]
    trees.write_text(root / "categories.json", json.dumps(names))
    found = inaturalist2019.listing(str(root), images_root=str(small), num_trainval=8, check="images")
    assert found.root == small
    assert found.class_names[10] == "Quercus 10"
    assert found.super_labels.tolist() == [i // 4 for i in range(11)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"category_id"', '"label"', r"entry 1 of annotations should have image_id"),
        ('"categories"', '"kinds"', "does not hold annotations, images and categories"),
        ('{"info"', '"info"', "is not JSON"),
        ('"genus": "Ar"', '"genus": "Xq"', "have different categories"),
    ],
)
def test_inaturalist_lists_that_do_not_fit_are_refused(tmp_path, old, new, said):
    path = trees.inaturalist(tmp_path) / "train2019.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=said):
        inaturalist2019.listing(str(tmp_path), num_trainval=7)
