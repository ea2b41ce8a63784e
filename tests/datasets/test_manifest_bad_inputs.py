"""Bad lists for `csv`: each is read right, counted in a note, or refused by words that name the thing.

`Read` compares the listing with that of a plain list of the same images, so that a list that is read right is read so
in every respect; `Refused` names parts of the message.
"""

import gzip
import json
import os
import pickle
from dataclasses import dataclass

import pytest

from benchmark.core.errors import UserError
from benchmark.datasets import folder, manifest
from tests.datasets import trees

IMAGES = [f"{label}/{i}.jpg" for label in ("Möwe", "b", "c", "d") for i in (1, 2)]


@dataclass(frozen=True)
class Read:
    """The list is read as the plain one is; `notes` are parts of notes."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """A `UserError` with these parts."""

    parts: tuple[str, ...]


def read(*notes: str) -> Read:
    return Read(notes)


def refused(*parts: str) -> Refused:
    return Refused(parts)


def lines(separator=",", header=("path", "label"), rows=None, end="\n", extra=()):
    rows = [(path, path.split("/")[0]) for path in IMAGES] if rows is None else rows
    return end.join([separator.join(header), *(separator.join(row) for row in rows), *extra]) + end


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with eight images in four classes."""
    root = tmp_path_factory.mktemp("images")
    for number, path in enumerate(IMAGES):
        trees.write_image(root / path, seed=number)
    (root / "link").symlink_to(root)
    (root.parent / "alias").unlink(missing_ok=True)
    (root.parent / "alias").symlink_to(root)
    (root / "loop").symlink_to("loop")
    (root / "plain.csv").write_text(lines(), encoding="utf-8")
    return root


def check(expected, path, plain=None, **options):
    """Check how the list is read."""
    if isinstance(expected, Refused):
        with pytest.raises(UserError) as caught:
            manifest.listing(str(path), **options)
        message = str(caught.value)
        assert [part for part in expected.parts if part not in message] == [], message
        assert "again" not in message or "Save it again" in message, "nobody downloads a list of one's own"
        return
    found = manifest.listing(str(path), **options)
    assert found.fingerprint == manifest.listing(str(plain), check="lists").fingerprint
    assert all(os.path.isfile(found.root / image) for image in found.paths)
    notes = "\n".join(found.notes)
    assert [part for part in expected.notes if part not in notes] == [], notes


def check_content(expected, images, content, **options):
    payload = content.encode() if isinstance(content, str) else content
    (images / "mine.csv").write_bytes(payload)
    check(expected, images / "mine.csv", images / "plain.csv", **options)


# -- encodings --------------------------------------------------------------------------------------------------------

LATIN_1 = lines().encode("latin-1")
ENCODINGS = {
    "utf8_bom": (lines().encode("utf-8-sig"), read()),
    "two_utf8_boms": (b"\xef\xbb\xbf" + lines().encode("utf-8-sig"), read()),
    "utf16_bom": (lines().encode("utf-16"), read("read as UTF-16")),
    "utf16_bom_big_endian": (b"\xfe\xff" + lines().encode("utf-16-be"), read("read as UTF-16")),
    "utf16_of_windows_notepad": (lines(end="\r\n").encode("utf-16"), read("read as UTF-16")),
    "utf16_tabs_of_excel": (lines("\t", end="\r\n").encode("utf-16"), read("read as UTF-16", "separated by tabs")),
    "utf32_bom": (lines().encode("utf-32"), read("read as UTF-32")),
    "latin1": (LATIN_1, refused("mine.csv, line 2", "0xf6 after 'M'", "iconv -f WINDOWS-1252 -t UTF-8", "CSV UTF-8")),
    "latin1_old_mac": (LATIN_1.replace(b"\n", b"\r"), refused("line 2", "0xf6", "iconv")),
    "latin1_late": (lines(rows=[("x", "y")] * 3 + [("x", "ä")]).encode("latin-1"), refused("line 5", "0xe4")),
    "cp1252_quotes": (lines(rows=[("x", "\u201cGull\u201d")]).encode("cp1252"), refused("line 2", "0x93", "iconv")),
    "cp437": (lines().encode("cp437"), refused("line 2", "0x94", "iconv")),
    "mac_roman": (lines().encode("mac-roman"), refused("line 2", "0x9a", "iconv")),
    "shift_jis": (lines(rows=[("a.jpg", "鴎")]).encode("shift-jis"), refused("line 2", "not UTF-8", "SHIFT-JIS")),
    "gbk": (lines(rows=[("a.jpg", "白海鸥")]).encode("gbk"), refused("line 2", "not UTF-8", "GBK")),
    "utf16_without_bom": (lines().encode("utf-16-le"), refused("UTF-16LE", "byte order mark", "iconv -f UTF-16LE")),
    "utf16_big_endian_without_bom": (lines().encode("utf-16-be"), refused("UTF-16BE", "iconv -f UTF-16BE")),
    "utf16_cut_off": (lines().encode("utf-16")[:-1], refused("damaged UTF-16")),
    "utf8_cut_off": (lines(extra=["b/1.jpg,ö"]).encode()[:-2], refused("line 10", "0xc3")),
    "nul_in_a_row": (lines().replace("c/1", "c\0/1"), refused("line 6", "NUL")),
    "nul_at_the_end": (lines() + "\0" * 99, refused("NUL", "never written")),
    "nothing_but_nul": (b"\0" * 512, refused("NUL")),
    "latin1_in_a_column_that_is_ignored": (
        lines(header=("path", "label", "by"), rows=[(p, p.split("/")[0], "M\udcfcller") for p in IMAGES]).encode(
            "utf-8", "surrogateescape"
        ),
        read(),
    ),
}


@pytest.mark.bad_input("manifest", "encodings")
@pytest.mark.parametrize("case", ENCODINGS)
def test_an_encoding_is_read_or_the_way_to_convert_it_is_said(images, case):
    content, expected = ENCODINGS[case]
    check_content(expected, images, content)


@pytest.mark.bad_input("manifest", "encodings")
def test_names_of_files_that_are_not_utf8_are_read_if_there_are_such_files(tmp_path):
    rows = [(f"{label}/{i}.jpg", label) for label in ("M\udcf6we", "b") for i in (1, 2)]
    for path, _ in rows:
        trees.write_image(tmp_path / path)
    (tmp_path / "mine.csv").write_bytes(lines(rows=rows).encode("utf-8", "surrogateescape"))
    found = manifest.listing(str(tmp_path / "mine.csv"))
    assert found.paths == [path for path, _ in rows] and found.class_names == ["M\udcf6we", "b"]


# -- separators and headers -------------------------------------------------------------------------------------------

ROWS = [(path, path.split("/")[0]) for path in IMAGES]
HEADERS = {
    "semicolons": (lines(";"), read("separated by semicolons")),
    "tabs": (lines("\t"), read("separated by tabs")),
    "bars": (lines("|"), read("separated by vertical bars")),
    "sep_line": ("sep=;\n" + lines(";"), read("semicolons")),
    "sep_line_in_quotes": ('"sep=;"\r\n' + lines(";", end="\r\n"), read("semicolons")),
    "sep_line_with_comma": ("sep=,\n" + lines(), read()),
    "sep_line_of_tab": ("SEP=\t\n" + lines("\t"), read("tabs")),
    "old_mac_line_ends": (lines(end="\r"), read()),
    "windows_line_ends": (lines(end="\r\n"), read()),
    "capitals": (lines(header=("Path", "LABEL")), read()),
    "blanks": (lines(header=(" path ", "\tlabel ")), read()),
    "quotes": (lines(header=('"path"', '"label"'), rows=[(f'"{p}"', f'"{n}"') for p, n in ROWS]), read()),
    "quotes_after_blanks": (lines(header=('"path"', ' "label"'), rows=[(p, f' "{n}"') for p, n in ROWS]), read()),
    "single_quotes": (
        lines(header=("'path'", "'label'"), rows=[(f"'{p}'", f"'{n}'") for p, n in ROWS]),
        read("single quotes"),
    ),
    "index_of_pandas": (lines(header=("", "path", "label"), rows=[("7", *row) for row in ROWS]), read()),
    "separator_at_the_end_of_lines": (lines(header=("path", "label", ""), rows=[(*row, "") for row in ROWS]), read()),
    "separator_at_the_end_of_rows": (lines(rows=[(*row, "", "") for row in ROWS]), read()),
    "blank_lines_before": ("\n\n\n" + lines(), read()),
    "other_order": (lines(header=("label", "path"), rows=[row[::-1] for row in ROWS]), read()),
    "an_ignored_column_twice": (
        lines(header=("path", "label", "by", "by"), rows=[(*row, "x", "y") for row in ROWS]),
        read(),
    ),
    "optional_columns_that_are_empty": (
        lines(header=("path", "label", "super_label", "split"), rows=[(*row, "", "nan") for row in ROWS]),
        read(),
    ),
    "no_header": (lines().partition("\n")[2], refused("looks like a row", "path,label")),
    "image_and_class": (lines(header=("image", "class")), refused("image, class", "Rename image to path and class")),
    "file_name_and_label": (lines(header=("file_name", "label")), refused("Rename file_name to path")),
    "path_and_target": (lines(header=("Path", "Target")), refused("Rename Target to label")),
    "id_only": (lines(header=("Image", "Id")), refused("Rename Image to path and Id to label")),
    "spaces": (lines(" "), refused("columns path label", "separated by commas")),
    "one_column": (lines(header=("path",), rows=[(p,) for p in IMAGES]), refused("needs path and label")),
    "path_twice": (
        lines(header=("path", "label", "Path"), rows=[(*row, row[0]) for row in ROWS]),
        refused("path may be there once only"),
    ),
    "rows_with_another_separator": (
        lines(header=("path,label",), rows=[";".join(row).split() for row in ROWS]),
        refused("line 2", "fewer fields", "separated by commas"),
    ),
    "words_of_another_language": (lines(";", header=("pfad", "klasse")), refused("pfad, klasse", "path and label")),
    "comment_line": ("# my list\n" + lines(), refused("# my list", "path and label")),
    "markdown": ("| path | label |\n|---|---|\n| b/1.jpg | b |\n", refused("line 2: --- is missing")),
    "yaml": ("- path: b/1.jpg\n  label: b\n", refused("mine.csv", "path and label")),
}


@pytest.mark.bad_input("manifest", "separators and headers")
@pytest.mark.parametrize("case", HEADERS)
def test_a_header_is_understood_or_its_columns_are_named(images, case):
    content, expected = HEADERS[case]
    check_content(expected, images, content)


# -- paths ------------------------------------------------------------------------------------------------------------


def each(change):
    """The list with all paths changed; {root} is the folder of the images."""
    return lambda root: lines(rows=[(change(path, root), path.split("/")[0]) for path in IMAGES])


def one(path, label="b"):
    """The list with one more path."""
    return lambda root: lines(extra=[f"{path.format(root=root)},{label}"])


PATHS = {
    "absolute": (each(lambda path, root: f"{root}/{path}"), read()),
    "absolute_through_a_link": (each(lambda path, root: f"{root.parent}/alias/{path}"), read()),
    "absolute_with_double_slashes": (each(lambda path, root: f"//{root}//{path}"), read()),
    "absolute_with_dots": (each(lambda path, root: f"{root}/b/../{path}"), read()),
    "dot": (each(lambda path, root: f"./{path}"), read()),
    "dots_within": (each(lambda path, root: f"b/../{path}"), read()),
    "dots_out_and_in_again": (each(lambda path, root: f"../{root.name}/{path}"), read()),
    "double_slash": (each(lambda path, root: path.replace("/", "//")), read()),
    "backslashes": (each(lambda path, root: path.replace("/", "\\")), read("/ in place of \\")),
    "backslash_and_dot": (each(lambda path, root: f".\\{path}".replace("/", "\\")), read("/ in place of \\")),
    "accents_of_macos": (each(lambda path, root: path.replace("ö", "o\u0308")), read("accents")),
    "blanks_around": (each(lambda path, root: f"  {path} "), read()),
    "quoted_blanks_around": (each(lambda path, root: f'"  {path} "'), read()),
    "trailing_slash": (one("b/1.jpg/x"), refused("line 10: b/1.jpg/x is missing")),
    "absolute_elsewhere": (
        one("/elsewhere/1.jpg"),
        refused("1 path is", "line 10: /elsewhere/1.jpg", "nor anywhere else"),
    ),
    "dots_out": (one("../other/1.jpg"), refused("1 path is", "line 10: ../other/1.jpg", "nor anywhere else")),
    "the_root_itself": (one("."), refused("line 10: .")),
    "many_dots": (one("../../../../../../../../etc/passwd"), refused("line 10", "etc/passwd", "ROOT=/")),
    "dots_through_a_link_to_a_folder": (one("link/../b/1.jpg"), refused("line 10: link/../b/1.jpg")),
    "drive": (one("C:\\Users\\me\\1.jpg"), refused("line 10", "path of Windows")),
    "drive_with_slashes": (one("D:/data/1.jpg"), refused("line 10", "path of Windows")),
    "windows_share": (one("\\\\nas\\photos\\1.jpg"), refused("line 10", "path of Windows")),
    "web_address": (one("https://example.org/1.jpg"), refused("line 10", "is an address")),
    "file_address": (one("file:///data/1.jpg"), refused("line 10", "is an address")),
    "bucket": (one("s3://bucket/1.jpg"), refused("line 10", "is an address")),
    "percent_encoded": (one("M%C3%B6we/1.jpg"), refused("line 10", "percent-encoded", "'Möwe/1.jpg'")),
    "home": (one("~/pictures/1.jpg"), refused("line 10", "begins with a variable")),
    "variable": (one("$HOME/pictures/1.jpg"), refused("line 10", "begins with a variable")),
    "variable_of_windows": (one("%USERPROFILE%/1.jpg"), refused("line 10", "begins with a variable")),
    "a_folder": (one("b"), refused("line 10: b is missing")),
    "a_link_to_itself": (one("loop"), refused("line 10: loop cannot be read")),
    "too_long": (one("x" * 300 + ".jpg"), refused("line 10", "File name too long")),
    "another_case": (one("B/1.JPG"), refused("line 10: B/1.JPG is missing")),
}


@pytest.mark.bad_input("manifest", "paths")
@pytest.mark.parametrize("case", PATHS)
def test_a_path_is_one_below_the_root_or_its_line_is_named(images, case):
    content, expected = PATHS[case]
    check_content(expected, images, content(images.resolve()))


def test_what_leads_out_is_refused_before_an_image_is_opened(images, monkeypatch):
    monkeypatch.setattr("benchmark.datasets.user_images.inspect", None)
    check_content(refused("line 10"), images, one("/elsewhere/1.jpg")(images), check="images")


@pytest.mark.parametrize("path", ["/elsewhere/1.jpg", "../x/1.jpg"])
def test_the_root_that_is_named_fits(tmp_path, path):
    home = tmp_path / "lists"
    files = [str(tmp_path / "x" / "a" / "1.jpg"), "../x/a/2.jpg", "b/1.jpg", "b/2.jpg"]
    for file in files:
        trees.write_image(home / file)
    home.joinpath("mine.csv").write_text(lines(rows=[(file, "ab"[i // 2]) for i, file in enumerate(files)]))
    with pytest.raises(UserError, match=f"2 of 4 paths do not lie below {home}.*\n.*\n.*\n.*ROOT={tmp_path}$"):
        manifest.listing(str(home / "mine.csv"))
    found = manifest.listing(str(home / "mine.csv"), root=str(tmp_path))
    assert found.paths == ["x/a/1.jpg", "x/a/2.jpg", "lists/b/1.jpg", "lists/b/2.jpg"]
    assert any("relative to the list's folder" in note for note in found.notes)


@pytest.mark.bad_input("manifest", "paths")
@pytest.mark.parametrize("above", ["", "one/", "one/two/"])
def test_paths_relative_to_another_folder_name_it(tmp_path, above):
    for path in IMAGES:
        trees.write_image(tmp_path / above / path)
    list_ = tmp_path / "one" / "two" / "three" / "mine.csv"
    list_.parent.mkdir(parents=True)
    list_.write_text(lines())
    check(refused(f"relative to {(tmp_path / above)}".rstrip("/"), f"ROOT={tmp_path / above}"), list_)


@pytest.mark.bad_input("manifest", "paths")
def test_paths_relative_to_the_working_directory_name_it(images, tmp_path, monkeypatch):
    monkeypatch.chdir(images.parent)
    (tmp_path / "mine.csv").write_text(each(lambda path, root: f"{images.name}/{path}")(images))
    check(refused(f"relative to {images.parent}", "ROOT="), tmp_path / "mine.csv")


@pytest.mark.bad_input("manifest", "paths")
@pytest.mark.parametrize("root", ["nowhere", "plain.csv", "loop", "x" * 300])
def test_a_root_that_is_no_folder_is_named(images, root):
    check(refused(f"no folder {images / root}"), images / "plain.csv", root=str(images / root))


# -- another format ---------------------------------------------------------------------------------------------------

FORMATS = {
    "xlsx": (b"PK\x03\x04" + b"\0" * 99, refused("zip archive", "xlsx", "CSV UTF-8")),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, refused("old Excel", "CSV UTF-8")),
    "parquet": (b"PAR1\x15\x04", refused("Parquet", "read_parquet")),
    "feather": (b"ARROW1\0\0", refused("Feather", "read_feather")),
    "hdf5": (b"\x89HDF\r\n\x1a\n", refused("HDF5")),
    "numpy": (b"\x93NUMPY\x01\0", refused("NumPy")),
    "pickle": (pickle.dumps({"path": IMAGES}), refused("pickle")),
    "sqlite": (b"SQLite format 3\0", refused("SQLite")),
    "json": (json.dumps([{"path": p} for p in IMAGES]), refused("JSON", "read_json")),
    "json_object": ('\n {"path": []}', refused("JSON")),
    "json_lines": ('{"path": "b/1.jpg", "label": "b"}\n', refused("JSON")),
    "html": ("<!DOCTYPE html><html><body>path,label</body></html>", refused("web page", "downloaded")),
    "xml": ('<?xml version="1.0"?><rows/>', refused("XML")),
    "gzip": (gzip.compress(lines().encode()), refused("gzip", "gzip -dc")),
    "bzip2": (b"BZh91AY&SY", refused("bzip2")),
    "xz": (b"\xfd7zXZ\0\0", refused("xz")),
    "zstd": (b"\x28\xb5\x2f\xfd\0", refused("zstd")),
    "pdf": (b"%PDF-1.7\n", refused("PDF")),
    "rtf": (b"{\\rtf1\\ansi path,label}", refused("RTF")),
    "png": (b"\x89PNG\r\n\x1a\n", refused("PNG image")),
    "jpeg": (b"\xff\xd8\xff\xe0", refused("JPEG image")),
    "tar": (b"mine.csv" + b"\0" * 249 + b"ustar", refused("NUL")),
    "git_lfs_pointer": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        refused("pointer of Git LFS", "git lfs pull"),
    ),
    "empty": ("", refused("is empty", "path,label")),
    "blanks": (" \r\n\t\n", refused("is empty", "path,label")),
    "commas": (",,,\n,,,\n", refused("nothing but blanks", "path,label")),
}


@pytest.mark.bad_input("manifest", "another format")
@pytest.mark.parametrize("case", FORMATS)
def test_a_file_in_another_format_is_called_by_its_name(images, case):
    content, expected = FORMATS[case]
    check_content(expected, images, content)


@pytest.mark.bad_input("manifest", "another format")
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("", ("no file", "CSV=")),
        ("{images}", ("but a folder", "DATASET=folder")),
        ("{images}/loop", ("no file",)),
        ("{images}/absent.csv", ("no file", "absent.csv")),
        ("{images}/plain.csv/x", ("no file", "plain.csv/x")),
        ("{images}/" + "x" * 300, ("no file",)),
        ("{images}/dangling.csv", ("link to a missing file", "absent.csv")),
        ("{images}/pipe", ("a named pipe", "save it as a file")),
        ("/dev/null", ("a device",)),
        ("/dev/zero", ("a device",)),
        ("~nobody-of-this-name/mine.csv", ("no file", "~nobody")),
        ("nul\0.csv", ("no file",)),
        ("{images}/large.csv", ("MiB", "at most 256 MiB")),
    ],
    ids=lambda value: value.replace("{images}", "")[:20].replace("\0", "0") if isinstance(value, str) else "",
)
def test_what_is_no_file_of_reasonable_size_is_refused(images, name, parts):
    if name.endswith("pipe") and not (images / "pipe").exists():
        os.mkfifo(images / "pipe")
    if name.endswith("dangling.csv"):
        (images / "dangling.csv").symlink_to("absent.csv")
    if name.endswith("large.csv"):
        os.truncate(os.open(images / "large.csv", os.O_CREAT | os.O_WRONLY), 2**29)
    check(Refused(parts), name.format(images=images))


# -- splits, and the columns of Open Metric Learning ------------------------------------------------------------------


def parts(*columns, header=("split",), plain=None):
    """The list with further columns, one text per image for each, and the roles as which it is read, if it is."""
    rows = [(*row, *cells) for row, cells in zip(ROWS, zip(*columns, strict=True), strict=True)]
    return lines(header=("path", "label", *header), rows=rows), plain


def words(text):
    return text.split()


OML = ("split", "is_query", "is_gallery")
TRAIN, HALF = ["train"] * 4, ["trainval"] * 4
QG = ["query", "gallery"] * 2
SPLITS = {
    "train_and_test": (*parts(words("train " * 4 + "test " * 4), plain=HALF + ["test"] * 4), ()),
    "capitals": (*parts(words("Train " * 4 + "TEST " * 4), plain=HALF + ["test"] * 4), ()),
    "long_words": (*parts(words("training " * 4 + "testing " * 4), plain=HALF + ["test"] * 4), ()),
    "val_in_place_of_test": (
        *parts(words("train " * 4 + "val " * 4), plain=HALF + ["test"] * 4),
        ("the images to test on",),
    ),
    "val_beside_test": (
        *parts(words("train train val val " + "test " * 4), plain=HALF + ["test"] * 4),
        ("to train on",),
    ),
    "blanks_around": (*parts(["train "] * 4 + [" test"] * 4, plain=HALF + ["test"] * 4), ()),
    "query_and_gallery": (*parts(words("train " * 4) + QG, plain=HALF + QG), ()),
    "probe_and_gallery": (*parts(words("train " * 4 + "probe gallery " * 2), plain=HALF + QG), ()),
    "unknown_word": (*parts(words("train " * 7 + "fold1")), ("line 9", "split='fold1'", "allowed are train")),
    "numbers": (*parts(words("0 " * 4 + "1 " * 4)), ("line 2", "split='0'", "allowed are train")),
    "one_is_empty": (*parts(TRAIN + ["test"] * 3 + [""]), ("line 9", "split is empty")),
    "one_is_nan": (*parts(TRAIN + ["test"] * 3 + ["NaN"]), ("line 9", "split is empty")),
    "train_only": (*parts(TRAIN * 2), ("none to test on is named", "half of the classes are tested on")),
    "a_class_in_both": (
        *parts(words("train test " * 4)),
        ("closed-set", "both for training and for testing", "'Möwe'"),
    ),
    "query_only": (*parts(TRAIN + ["query"] * 4), ("of a class without gallery images",)),
    "mixed_with_test": (*parts(TRAIN + words("query gallery test test")), ("test",)),
    "oml": (
        *parts(
            TRAIN + ["validation"] * 4,
            [""] * 4 + ["True"] * 4,
            [""] * 4 + ["True"] * 4,
            header=OML,
            plain=HALF + ["test"] * 4,
        ),
        ("images to test on",),
    ),
    "oml_numbers": (
        *parts(
            TRAIN + ["validation"] * 4,
            [""] * 4 + ["1.0"] * 4,
            [""] * 4 + ["1"] * 4,
            header=OML,
            plain=HALF + ["test"] * 4,
        ),
        (),
    ),
    "oml_nan": (
        *parts(
            TRAIN + ["validation"] * 4,
            ["nan"] * 4 + ["TRUE"] * 4,
            ["None"] * 4 + ["true"] * 4,
            header=OML,
            plain=HALF + ["test"] * 4,
        ),
        (),
    ),
    "oml_query_and_gallery": (
        *parts(
            TRAIN + ["validation"] * 4,
            [""] * 4 + words("True False " * 2),
            [""] * 4 + words("False True " * 2),
            header=OML,
            plain=HALF + QG,
        ),
        (),
    ),
    "oml_without_split": (
        *parts([""] * 4 + ["True"] * 4, [""] * 4 + ["True"] * 4, header=OML[1:], plain=HALF + ["test"] * 4),
        (),
    ),
    "oml_without_values": (
        *parts(TRAIN + ["test"] * 4, [""] * 8, ["nan"] * 8, header=OML, plain=HALF + ["test"] * 4),
        (),
    ),
    "oml_three_parts": (
        *parts(
            words("train train validation validation " + "test " * 4),
            [""] * 2 + ["True"] * 6,
            [""] * 2 + ["True"] * 6,
            header=OML,
            plain=HALF + ["test"] * 4,
        ),
        ("to train on",),
    ),
    "oml_mixture": (
        *parts(
            TRAIN + ["validation"] * 4, [""] * 4 + words("True True False True"), [""] * 4 + ["True"] * 4, header=OML
        ),
        ("lines 6 and 8", "line 6 is both query and gallery, line 8 is not", "Set the two columns alike"),
    ),
    "oml_neither": (
        *parts(
            TRAIN + ["validation"] * 4, [""] * 4 + ["True"] * 3 + ["False"], [""] * 4 + ["True"] * 3 + [""], header=OML
        ),
        ("line 9", "both false or empty"),
    ),
    "oml_train_row_that_is_a_query": (
        *parts(TRAIN + ["validation"] * 4, ["True"] + [""] * 3 + ["True"] * 4, [""] * 4 + ["True"] * 4, header=OML),
        ("line 2", "a row to train on cannot be query or gallery"),
    ),
    "oml_no_boolean": (
        *parts(TRAIN + ["validation"] * 4, [""] * 4 + ["maybe"] * 4, [""] * 4 + ["True"] * 4, header=OML),
        ("line 6", "is_query='maybe'", "True, False"),
    ),
    "oml_query_alone": (*parts(TRAIN + ["test"] * 4, [""] * 4 + ["True"] * 4, header=OML[:2]), ("is_query only",)),
    "oml_contradicts_split": (
        *parts(TRAIN + QG, [""] * 4 + ["True"] * 4, [""] * 4 + ["True"] * 4, header=OML),
        ("line 6", "split says query", "Remove one of them"),
    ),
    "oml_boxes": (
        *parts(
            TRAIN + ["test"] * 4,
            *[["1"] * 8] * 4,
            header=("split", "x_1", "x_2", "y_1", "y_2"),
            plain=HALF + ["test"] * 4,
        ),
        ("8 boxes are not used", "crop the images first"),
    ),
    "oml_empty_boxes": (
        *parts(
            TRAIN + ["test"] * 4,
            *[[""] * 8] * 4,
            header=("split", "x_1", "x_2", "y_1", "y_2"),
            plain=HALF + ["test"] * 4,
        ),
        (),
    ),
    "oml_category_with_a_gap": (*parts(["bird"] * 7 + [""], header=("category",)), ("line 9", "category is empty")),
    "oml_two_categories": (*parts(["bird"] * 7 + ["fish"], header=("category",)), ("two super classes", "line 8")),
}


@pytest.mark.bad_input("manifest", "splits")
@pytest.mark.parametrize("case", SPLITS)
def test_a_split_is_understood_or_its_line_is_named(images, case):
    content, roles, said = SPLITS[case]
    (images / "mine.csv").write_text(content, encoding="utf-8")
    if roles is None:
        check(Refused(said), images / "mine.csv")
        return
    found = manifest.listing(str(images / "mine.csv"))
    assert found.roles.tolist() == roles and found.paths == IMAGES
    assert [part for part in said if part not in "\n".join(found.notes)] == []


def test_the_category_of_oml_is_the_super_class(images):
    (images / "mine.csv").write_text(parts(["bird"] * 4 + ["fish"] * 4, header=("category",))[0], encoding="utf-8")
    found = manifest.listing(str(images / "mine.csv"))
    assert found.super_names == ["bird", "fish"] and "the column category is read as super_label" in found.notes


def test_two_boxes_in_one_image_are_refused(images):
    rows = [(*row, "1", "2", "1", "2") for row in (*ROWS, ROWS[3])]
    content = lines(header=("path", "label", "x_1", "x_2", "y_1", "y_2"), rows=rows)
    check_content(refused("lines 5 and 10", "two boxes in b/2.jpg", "crop the images first"), images, content)


@pytest.mark.parametrize("words_", [["test"] * 8, ["query", "gallery"] * 4])
def test_a_list_may_be_for_testing_only(images, words_):
    (images / "mine.csv").write_text(parts(words_)[0], encoding="utf-8")
    assert manifest.listing(str(images / "mine.csv")).roles.tolist() == words_


# -- duplicates -------------------------------------------------------------------------------------------------------

TWICE = {
    "same_text": ("b/1.jpg", ""),
    "dot": ("./b/1.jpg", ""),
    "double_slash": ("b//1.jpg", ""),
    "dots": ("c/../b/1.jpg", ""),
    "absolute": ("{root}/b/1.jpg", ""),
    "absolute_with_double_slashes": ("/{root}//b/1.jpg", ""),
    "blanks": ('" b/1.jpg "', ""),
    "backslash": ("b\\1.jpg", ""),
    "backslash_and_dot": (".\\b\\1.jpg", ""),
    "dots_out_and_in_again": ("../{root.name}/b/1.jpg", ""),
    "symbolic_link": ("soft.jpg", ", as b/1.jpg"),
    "absolute_symbolic_link": ("{root}/soft.jpg", ", as b/1.jpg"),
    "link_to_a_link": ("softer.jpg", ", as b/1.jpg"),
    "hard_link": ("hard.jpg", ", as b/1.jpg"),
    "folder_link": ("b2/1.jpg", ", as b/1.jpg"),
    "absolute_through_a_folder_link": ("{root}/b2/1.jpg", ", as b/1.jpg"),
}


@pytest.fixture
def own(tmp_path):
    """A folder with eight images in four classes, for one test to change."""
    for number, path in enumerate(IMAGES):
        trees.write_image(tmp_path / path, seed=number)
    return tmp_path


@pytest.mark.bad_input("manifest", "duplicates")
@pytest.mark.parametrize("label", ["b", "d"])
@pytest.mark.parametrize("case", TWICE)
def test_one_file_under_two_names_is_named_twice(own, case, label):
    (own / "soft.jpg").symlink_to("b/1.jpg")
    (own / "softer.jpg").symlink_to("soft.jpg")
    (own / "b2").symlink_to("b")
    os.link(own / "b" / "1.jpg", own / "hard.jpg")
    path, known_as = TWICE[case]
    content = one(path, label)(own)
    (own / "mine.csv").write_text(content, encoding="utf-8")
    other = ", with label 'b'" * (label == "d")
    check(refused("1 of 9 images", f"is named twice (first: line 4{known_as}{other})"), own / "mine.csv")
    found = manifest.listing(str(own / "mine.csv"), on_bad="leave_out")
    assert found.paths == IMAGES and "1 is named twice" in found.notes[-1]


def copies(own, content="", rows=None, **options):
    (own / "mine.csv").write_text(content or lines(rows=rows), encoding="utf-8")
    return manifest.listing(str(own / "mine.csv"), check="images", **options)


COPIES = {
    "a_copy": ({"d/2.jpg": "b/1.jpg"}, ("1 training image is a test image", "b/1.jpg (line 4) = d/2.jpg (line 9)")),
    "two_pairs": ({"d/2.jpg": "b/1.jpg", "c/1.jpg": "b/2.jpg"}, ("2 training images are",)),
    "one_test_image_twice": ({"b/1.jpg": "d/2.jpg", "b/2.jpg": "d/2.jpg"}, ("2 training images", "(line 5) = d/2.jpg")),
    "two_copies_of_a_class": ({f"d/{i}.jpg": f"b/{i}.jpg" for i in (1, 2)}, ("2 training images",)),
    "two_classes_of_the_test_half": (
        {"d/2.jpg": "c/1.jpg"},
        ("1 image is in two classes of the same half", "c/1.jpg"),
    ),
    "two_classes_of_the_training_half": (
        {"b/2.jpg": "Möwe/1.jpg"},
        ("two classes of the same half", "Möwe/1.jpg (line 2)"),
    ),
    "all_alike": (dict.fromkeys(IMAGES[:7], "d/2.jpg"), ("4 training images", "4 images are in two classes")),
}


@pytest.mark.bad_input("manifest", "duplicates")
@pytest.mark.parametrize("case", COPIES)
def test_equal_bytes_in_two_classes_are_counted(own, case):
    same, said = COPIES[case]
    for copy, original in same.items():
        (own / copy).write_bytes((own / original).read_bytes())
    notes = "\n".join(copies(own).notes)
    assert [part for part in said if part not in notes] == [], notes


def test_copies_in_one_class_are_nothing_to_speak_of(own):
    (own / "b/2.jpg").write_bytes((own / "b/1.jpg").read_bytes())
    assert copies(own).notes == ()


def test_copies_across_the_halves_can_be_refused_or_dropped_from_training(own):
    trees.write_image(own / "b/3.jpg", seed=20)
    (own / "b/3.jpg").write_bytes((own / "c/1.jpg").read_bytes())
    rows = [*ROWS, ("b/3.jpg", "b")]
    with pytest.raises(UserError) as caught:
        copies(own, rows=rows, on_duplicates="error")
    first, pair, last = str(caught.value).splitlines()
    assert first.startswith("1 training image is a test image in") and pair == "  line 10: b/3.jpg is c/1.jpg (line 6)"
    assert last.endswith("ARGS=dataset.module.on_duplicates=drop")
    found = copies(own, rows=rows, on_duplicates="drop")
    assert found.paths == IMAGES and found.fingerprint == copies(own).fingerprint
    assert found.notes[0].startswith("1 training image is dropped")
    assert "b/3.jpg (line 10) = c/1.jpg (line 6)" in found.notes[0]


def test_a_class_that_shrinks_to_one_image_by_dropping_follows_the_rule_for_it(own):
    (own / "b/2.jpg").write_bytes((own / "c/1.jpg").read_bytes())
    found = copies(own, on_duplicates="drop")  # one image is enough for training
    assert found.class_names == ["Möwe", "b", "c", "d"] and found.roles.tolist() == ["trainval"] * 3 + ["test"] * 4
    assert "1 training class has a single image" in found.notes[-1] and "'b'" in found.notes[-1]


def test_dropping_never_leaves_nothing_to_train_on(own):
    for path in IMAGES[:4]:
        (own / path).write_bytes((own / "d/1.jpg").read_bytes())
    with pytest.raises(UserError, match="No training image"):
        copies(own, on_duplicates="drop", on_bad="leave_out")


def test_folders_of_images_take_the_same_choices(own):
    trees.write_image(own / "b/3.jpg", seed=20)
    (own / "b/3.jpg").write_bytes(
        (own / "d/1.jpg").read_bytes()
    )  # of the sorted classes b, c, d, Möwe, two are tested on
    with pytest.raises(UserError, match=r"b: b/3\.jpg is d/1\.jpg \(d\)"):
        folder.listing(str(own), check="images", on_duplicates="error")
    assert "b/3.jpg" not in folder.listing(str(own), check="images", on_duplicates="drop").paths
    assert any("1 training image is a test image" in note for note in folder.listing(str(own), check="images").notes)


@pytest.mark.parametrize("checked", ["lists", "files"])
def test_images_that_are_not_read_cannot_be_dropped_as_copies(images, checked):
    plain = str(images / "plain.csv")
    assert manifest.listing(plain, check=checked).notes == ()
    for choice in ("error", "drop"):
        with pytest.raises(UserError, match=rf"on_duplicates={choice} .*={checked} .*dataset\.module\.check=images"):
            manifest.listing(plain, check=checked, on_duplicates=choice)


# -- rows -------------------------------------------------------------------------------------------------------------

TAIL = {
    "only_commas_at_the_end": (lines(extra=[",", ",", ","]), read("3 rows of mine.csv hold separators only")),
    "only_commas_within": (lines(rows=[*ROWS[:3], ("", ""), *ROWS[3:]]), read("1 row of mine.csv")),
    "only_blanks_and_commas": (lines(extra=[" , ", "\t,"]), read("2 rows of mine.csv")),
    "many_commas": (lines(extra=[",,,,,,"]), read("1 row of mine.csv")),
    "blank_lines": (lines(extra=["", "", ""]), read()),
    "blank_lines_within": (lines().replace("\nc", "\n\nc"), read()),
    "no_line_end_at_the_end": (lines().rstrip("\n"), read()),
    "no_rows": (lines(rows=[]), refused("header and no rows")),
    "rows_of_commas_only": (lines(rows=[("", "")] * 3), refused("header and no rows")),
    "too_few_fields": (lines(extra=["b/1.jpg"]), refused("line 10", "fewer fields than the header, 1 and not 2")),
    "too_many_fields": (lines(extra=["b/1.jpg,b,c"]), refused("line 10", "more fields than the header, 3 and not 2")),
    "comma_in_a_path": (lines(extra=["b/1,2.jpg,b"]), refused("line 10", "more fields", "double quotes")),
    "empty_label": (lines(extra=["b/3.jpg,"]), refused("line 10", "label is empty")),
    "blank_label": (lines(extra=["b/3.jpg,  "]), refused("line 10", "label is empty")),
    "empty_path": (lines(extra=[",b"]), refused("line 10", "path is empty")),
    "nan_label": (lines(extra=["b/3.jpg,nan"]), refused("line 10", "label is missing (nan)")),
    "na_label_of_pandas": (lines(extra=["b/3.jpg,<NA>"]), refused("line 10", "label is missing (<NA>)")),
    "na_label_of_excel": (lines(extra=["b/3.jpg,#N/A"]), refused("line 10", "label is missing (#N/A)")),
    "nan_path": (lines(extra=["nan,b"]), refused("line 10", "path is missing (nan)")),
    "none_label": (
        lines(rows=[(p, n.replace("d", "None")) for p, n in ROWS]),
        ("'None' is taken for the name of a class",),
    ),
    "labels_with_blanks": (
        lines(rows=[(p, n + " " * (i % 2)) for i, (p, n) in enumerate(ROWS)]),
        read("4 labels have blanks around"),
    ),
    "labels_of_pandas": (lines(rows=[(p, f"{'Möwebcd'.index(n)}.0") for p, n in ROWS]), ()),
    "labels_in_two_spellings": (
        lines(rows=[(p, {"c": "B"}.get(n, n)) for p, n in ROWS]),
        ("differs in spelling only", "'B' and 'b'"),
    ),
    "labels_3_and_3.0": (lines(rows=[(p, {"b": "3", "c": "3.0"}.get(n, n)) for p, n in ROWS]), ("'3' and '3.0'",)),
    "quote_that_never_ends": (lines(extra=['"b/1.jpg,b', "c/1.jpg,c"]), refused("lines 10 to 11", "must end with")),
    "quote_that_ends_too_late": (lines(extra=['"b/3.jpg,b', 'c/3.jpg",c']), refused("line 10", "is missing")),
    "text_after_a_quote": (lines(extra=['"b"/1.jpg,b']), refused("line 10", "must end with")),
    "quote_within_a_field": (lines(extra=['b/5" disk.jpg,b']), refused('line 10: b/5" disk.jpg is missing')),
    "huge_field": (lines(extra=["x" * 200_000 + ",b"]), refused("line 10", "field larger than field limit")),
    "huge_quoted_field": (
        lines(extra=['"' + "x\n" * 100_000]),
        refused("lines 10 to", "field larger than field limit"),
    ),
    "huge_label": (lines(extra=["b/3.jpg," + "x" * 100_000]), refused("line 10", "b/3.jpg")),
    "lone_class": (lines(extra=["b/2.jpg,e"]), refused("line 10", "named twice")),
    "numbers_in_place_of_paths": (
        lines(rows=[(str(i), n) for i, (_, n) in enumerate(ROWS)]),
        refused("line 2: 0 is missing"),
    ),
    "columns_exchanged": (lines(rows=[row[::-1] for row in ROWS]), refused("8 of 8 images", "line 2: Möwe is missing")),
}


@pytest.mark.bad_input("manifest", "rows")
@pytest.mark.parametrize("case", TAIL)
def test_a_row_is_read_or_its_line_is_named(images, case):
    content, expected = TAIL[case]
    if isinstance(expected, tuple):  # the labels differ from the plain list's
        (images / "mine.csv").write_text(content, encoding="utf-8")
        found = manifest.listing(str(images / "mine.csv"))
        assert found.paths == IMAGES and found.total_classes == 4
        assert [part for part in expected if part not in "\n".join(found.notes)] == [], found.notes
    else:
        check_content(expected, images, content)


@pytest.mark.bad_input("manifest", "rows")
def test_more_rows_than_fit_into_memory_are_refused(images, monkeypatch):
    monkeypatch.setattr("benchmark.datasets.user_table.MAX_ROWS", 7, raising=False)
    check(refused("more than 7 rows"), images / "plain.csv")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda path: path.removesuffix(".jpg"), "but the file is named 'Möwe/1.jpg' in"),
        (lambda path: path.replace(".jpg", ".png"), "but the file is named 'Möwe/1.jpg' in"),
        (lambda path: f"/home/alice/{path}", "as in Möwe/1.jpg"),
    ],
    ids=["no_suffix", "another_suffix", "another_machine"],
)
def test_paths_that_are_all_wrong_in_one_way_are_told_apart_from_lost_files(own, changed, said):
    with pytest.raises(UserError, match=said):
        copies(own, rows=[(changed(path), path.split("/")[0]) for path in IMAGES])


def test_one_image_is_enough_to_train_on_or_to_distract_but_not_to_test_on(own):
    roles = {"Möwe": "train", "b": "train", "c": "query", "d": "gallery"}
    rows = [(path, path.split("/")[0], roles[path.split("/")[0]]) for path in IMAGES]
    rows[0], rows[5], rows[7] = ("Möwe/1.jpg", "x", "train"), (rows[5][0], "c", "gallery"), (rows[7][0], "y", "gallery")
    rows.pop(6)
    found = copies(own, lines(header=("path", "label", "split"), rows=rows))
    assert {"x", "y"} < {*found.class_names} and any("2 training classes have a single" in note for note in found.notes)
    with pytest.raises(UserError, match="is the only one of its class"):
        copies(own, lines(header=("path", "label", "split"), rows=[*rows[:4], ("c/1.jpg", "c", "test")]))
