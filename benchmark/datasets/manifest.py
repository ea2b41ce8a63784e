"""`csv`: your own images, listed in a CSV file with columns path and label, and optionally super_label and split.

Our own format; other columns are ignored. `user_table` says which files are read, and `user_paths` which paths. Paths
are relative to the file's folder, or to `root`. `split` names the part of each image in any usual word, see
`split_names`; without that column, the first half of the classes is for training and the second half for testing, as
in Musgrave, Belongie, Lim, "A Metric Learning Reality Check" (arXiv 2003.08505). `order` determines which half is
first: the order in which the labels appear, the order of the labels as text ('10' < '2'), or the numbers in a column
`class_id`, which `make splits` writes.

The columns of Open Metric Learning's data frames are understood too (its documentation, "Dataset format"): `category`
is the super class, and `is_query` and `is_gallery` are true or false in the rows to test on. If all of these are both,
the images are searched among each other; if none is, queries are searched in the gallery; a mixture is refused, since
the protocol has no name for it. Boxes (`x_1`, `x_2`, `y_1`, `y_2`) are not cropped, which a note says.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments, command
from benchmark.core.wording import counted, named
from benchmark.datasets.image_tree import is_image
from benchmark.datasets.listing import NO_VALUE, ROLES, Listing
from benchmark.datasets.split_names import as_listed, role_of
from benchmark.datasets.user_images import Row, assemble
from benchmark.datasets.user_paths import below
from benchmark.datasets.user_table import NOT_UTF8, Table, not_utf8, read_table

REQUIRED = ("path", "label")
OPTIONAL = ("super_label", "split", "category", "is_query", "is_gallery", "sequence")
BOX = ("x_1", "x_2", "y_1", "y_2")
COMMON = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp")  # suffixes that a list may lack
TRUE, FALSE = ("true", "t", "yes", "1", "1.0"), ("false", "f", "no", "0", "0.0", "", "nan", "none", "<na>")
FLAGS = dict.fromkeys(TRUE, True) | dict.fromkeys(FALSE, False)
UNSURE = ("none", "null", "na", "n/a", "-", "?")  # what may be one, or a class's name
OTHER_NAMES = {  # columns of other tools by ours, most usual first
    "path": "image_path file_path filepath filename file_name file image img image_name image_id img_path impath "
    "fname name paths images files id",
    "label": "class class_name classname class_id target labels category category_id identity item_id product_id "
    "species breed individual_id landmark_id pid id y",
}


def listing(
    path: str,
    *,
    root: str | None = None,
    order: str = "appearance",
    on_bad: str = "stop",
    on_duplicates: str = "warn",
    check: str = "files",
) -> Listing:
    """List the images of a CSV file, in the order of its rows.

    Args:
        path: path of the file, with a header.
        root: folder that holds all images and that the paths are relative to; None: the folder of the file.
        order: order of the classes, `appearance`, `sorted` or `class_id`; see `user_images.assemble`.
        on_bad: what to do with unusable images, `stop` or `leave_out`; see `user_images.assemble`.
        on_duplicates: what to do with copies of test images among the training images, `warn`, `error` or `drop`; see
            `user_images.assemble`.
        check: `lists`, `files` or `images`, see `image_check.inspect`.

    Raises:
        UserError: the file does not exist or has another format, or images cannot be used; the message names the rows.
    """
    file = _file(path)
    base = file.parent if root is None else Path(os.path.expanduser(root))
    if not os.path.isdir(base):
        raise UserError(f"There is no folder {base}, to which the paths in {file} are relative. Name another root.")
    table = read_table(file, REQUIRED)
    column_of = _columns(file, table, ("class_id",) if order == "class_id" else ())
    if not table.rows:
        raise UserError(f"{file} has a header and no rows. Add one row per image.")
    lines, complete = [line for line, _ in table.rows], [*_complete(file, table)]
    values = {name: [cells[i] for cells in complete] for name, i in column_of.items()}
    _check_text(file, base, lines, values)
    labels = [text.strip() for text in values["label"]]
    roles, notes = _roles(file, lines, values)
    groups = _super_labels(file, lines, values)
    where = [f"line {line}" for line in lines]
    paths, converted = below(base, file.parent, list(zip(where, values["path"], strict=True)))
    _check_base(file, base, paths)
    _check_boxes(file, lines, paths, values)
    numbers = _class_ids(file, lines, labels, values["class_id"]) if order == "class_id" else [0] * len(lines)
    rows = list(map(Row, paths, labels, groups, roles, where, numbers))
    notes = (*table.notes, *converted, *_merged(values["label"]), *notes, *_remarks(values))
    return assemble(base, rows, order=order, on_bad=on_bad, on_duplicates=on_duplicates, check=check, notes=notes)


def _file(path: str) -> Path:
    """Return the path of an existing file or device.

    Raises:
        UserError: there is none; the message says how to name one.
    """
    file = Path(os.path.expanduser(path))
    example = command("data", {"dataset": "csv", "dataset.module.path": "some/manifest.csv"})
    if path and os.path.isdir(file):
        images = command("data", {"dataset": "folder", "dataset.module.root": file})
        raise UserError(
            f"There is no file {path!r}, but a folder. Name a file: {example}; or if it holds one folder of images per "
            f"class: {images}"
        )
    if not path or not os.path.exists(file):
        dangling = f", but a link to a missing file, {os.readlink(file)}" if path and os.path.islink(file) else ""
        raise UserError(f"There is no file {path!r}{dangling}. Name one: {example}")
    return file


def _columns(file: Path, table: Table, more: Sequence[str]) -> dict[str, int]:
    """Return the position of each column that is used; optional columns without any value are not.

    Args:
        file: path of the file.
        table: its contents.
        more: columns that are needed besides path and label.

    Raises:
        UserError: path or label is missing, or a column that is used occurs twice.
    """
    positions = defaultdict(list)
    for i, name in enumerate(table.header):
        positions[name].append(i)
    shown = ", ".join(table.shown) or "(none)"
    if missing := [name for name in REQUIRED if name not in positions]:
        raise UserError(
            f"{file} has the columns {shown}; it needs path and label, may have super_label and split, each once, "
            f"separated by commas. {_remedy(table, missing)}"
        )
    if lacking := [name for name in more if name not in positions]:
        raise UserError(f"{file} has the columns {shown}; order={lacking[0]} needs the column {lacking[0]}.")
    used = [name for name in (*REQUIRED, *more, *OPTIONAL, *BOX) if name in positions]
    if twice := [name for name in used if len(positions[name]) > 1]:
        raise UserError(f"{file} has the columns {shown}; {' and '.join(twice)} may be there once only, not twice.")
    found = {name: positions[name][0] for name in used}
    empty = [name for name, i in found.items() if all(len(c) <= i or _is_missing(c[i]) for _, c in table.rows)]
    return {name: i for name, i in found.items() if name in (*REQUIRED, *more) or name not in empty}


def _remedy(table: Table, missing: Sequence[str]) -> str:
    """Say how the header can be made to fit."""
    if len(table.header) > 1 and any(is_image(name) or "/" in name for name in table.header):
        return "Its first line looks like a row: put a line with the names of the columns before it, as in path,label."
    renamed: list[str] = []
    left = [*table.header]
    for name in missing:
        if other := next((other for other in OTHER_NAMES[name].split() if other in left), None):
            left.remove(other)
            renamed.append(f"{table.shown[table.header.index(other)]} to {name}")
    if renamed:
        return f"Rename {' and '.join(renamed)}, if that is what they hold."
    return f"Write these names in its first line (its fields are read as separated by {table.separated_by})."


def _complete(file: Path, table: Table) -> Iterator[list[str]]:
    """Return the fields of each row, without empty ones behind the last column.

    Raises:
        UserError: a row has more or fewer fields than the header.
    """
    width = len(table.header)
    for line, cells in table.rows:
        if len(cells) < width or any(map(str.strip, cells[width:])):
            count = "more" if len(cells) > width else "fewer"
            raise UserError(
                f"{file}, line {line}: the row has {count} fields than the header, {len(cells)} and not {width}; "
                f"fields are separated by {table.separated_by}. Put a field that holds a separator in double quotes."
            )
        yield cells


def _is_missing(text: str) -> bool:
    return not (stripped := text.strip()) or stripped.lower() in NO_VALUE


def _check_text(file: Path, base: Path, lines: Sequence[int], values: dict[str, list[str]]) -> None:
    """Refuse bytes that are not UTF-8, unless they are those of an existing file's name.

    Raises:
        UserError: a used field has such bytes, or a path or label is missing; the message names the line.
    """
    for name in REQUIRED:
        for line, text in zip(lines, values[name], strict=True):
            if _is_missing(text):
                shown = f"missing ({text.strip()})" if text.strip() else "empty"
                raise UserError(f"{file}, line {line}: {name} is {shown}. Give it in every row, or remove the row.")
    for texts in values.values():
        for line, path, text in zip(lines, values["path"], texts, strict=True):
            if not text.isascii() and NOT_UTF8.search(text):
                if NOT_UTF8.search(path) and os.path.lexists(base / path):
                    continue  # the name of a file from another system, as `make splits` writes it
                raise not_utf8(file, line, text)


def _merged(labels: Sequence[str]) -> Iterator[str]:
    """Return notes on labels that may not mean what they say."""
    written, names = set(labels), {label.strip() for label in labels}
    if len(names) < len(written):
        padded = sorted(label for label in written if label.strip() != label)
        shown = named([*map(repr, padded)])
        label_has = counted(len(padded), "label has", "labels have")
        yield f"{label_has} blanks around, which are not part of the name: {shown}"
    if unsure := [name for name in sorted(names) if name.lower() in UNSURE]:
        yield f"{named([*map(repr, unsure)])} is taken for the name of a class, not for a missing label"


def _class_ids(file: Path, lines: Sequence[int], labels: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Return the number of each image's class.

    Raises:
        UserError: a number is not a whole one, or a label has two numbers; the message names the line.
    """
    id_of: dict[str, int] = {}
    for line, label, text in zip(lines, labels, texts, strict=True):
        if not re.fullmatch(r"[0-9]{1,18}", text.strip(), re.ASCII):
            raise UserError(f"{file}, line {line}: class_id={text.strip()[:80]!r}; allowed are whole numbers from 0.")
        if id_of.setdefault(label, int(text)) != int(text):
            raise UserError(f"{file}, line {line}: {label!r} has the class_id {int(text)}, but {id_of[label]} before.")
    return [id_of[label] for label in labels]


def _super_labels(file: Path, lines: Sequence[int], values: dict[str, list[str]]) -> list[str]:
    """Return the name of each image's super class, empty if there are none.

    Raises:
        UserError: a row has none, but others do.
    """
    name = "super_label" if "super_label" in values else "category"
    texts = [text.strip() for text in values.get(name, [""] * len(lines))]
    if name in values:
        _refuse_gaps(file, name, lines, texts)
    return texts


def _refuse_gaps(file: Path, name: str, lines: Sequence[int], texts: Sequence[str]) -> None:
    for line, text in zip(lines, texts, strict=True):
        if _is_missing(text):
            raise UserError(f"{file}, line {line}: {name} is empty. Give it in every row, or remove the column.")


def _roles(file: Path, lines: Sequence[int], values: dict[str, list[str]]) -> tuple[list[str], tuple[str, ...]]:
    """Return the role of each image, one of `ROLES`, or empty if the file does not say; and notes.

    Raises:
        UserError: a value is unknown or missing, or columns contradict each other; the message names the line.
    """
    flags = _flags(file, lines, values)
    if "split" not in values:
        if not flags:
            return [""] * len(lines), ()
        words = ["test" if query or gallery else "train" for query, gallery in flags]
    else:
        texts = [text.strip() for text in values["split"]]
        _refuse_gaps(file, "split", lines, texts)
        known = {text: role_of(text) for text in dict.fromkeys(texts)}
        for line, text in zip(lines, texts, strict=True):
            if not known[text]:
                raise UserError(
                    f"{file}, line {line}: split={text!r}; allowed are train, {', '.join(ROLES)}, and val or "
                    "validation."
                )
        words = [known[text] or "" for text in texts]
    meaning = as_listed(words)
    roles = [meaning[word] for word in words]
    notes: tuple[str, ...] = ()
    if "val" in meaning:
        notes = (
            f"split: {counted(words.count('val'), 'image for validation is', 'images for validation are')} "
            + ("among the images to train on" if meaning["val"] == "trainval" else "the images to test on"),
        )
    return (_with_flags(file, lines, words, roles, flags) if flags else roles), notes


def _flags(file: Path, lines: Sequence[int], values: dict[str, list[str]]) -> list[tuple[bool, bool]]:
    """Return whether each image is a query and whether it is in the gallery; empty if the file does not say.

    Raises:
        UserError: only one of the columns is there, or a value is neither true nor false.
    """
    names = [name for name in ("is_query", "is_gallery") if name in values]
    if not names:
        return []
    if len(names) == 1:
        raise UserError(
            f"{file} has values in {names[0]} only. Give both is_query and is_gallery, or use the column split with "
            "train, query and gallery in place of them."
        )
    for name in names:
        for line, text in zip(lines, values[name], strict=True):
            if text.strip().lower() not in FLAGS:
                raise UserError(f"{file}, line {line}: {name}={text.strip()!r}; allowed are True, False, and nothing.")
    columns = [[FLAGS[text.strip().lower()] for text in values[name]] for name in names]
    return list(zip(*columns, strict=True))


def _with_flags(
    file: Path, lines: Sequence[int], words: Sequence[str], roles: Sequence[str], flags: Sequence[tuple[bool, bool]]
) -> list[str]:
    """Return the roles once `is_query` and `is_gallery` are taken into account.

    Raises:
        UserError: a row contradicts itself, or some test images are both queries and gallery and others only one.
    """
    found, both, one = list(roles), 0, 0
    for i, (word, role, (query, gallery)) in enumerate(zip(words, roles, flags, strict=True)):
        where = f"{file}, line {lines[i]}: "
        if role == "trainval":
            if word != "val" and (query or gallery):
                raise UserError(
                    f"{where}a row to train on cannot be query or gallery. Correct split, or empty the two."
                )
            continue
        if not query and not gallery:
            raise UserError(
                f"{where}is_query and is_gallery are both false or empty; a row to test on is at least one."
            )
        if role in ("query", "gallery") and (query, gallery) != (role == "query", role == "gallery"):
            raise UserError(
                f"{where}split says {role}, but is_query={query}, is_gallery={gallery}. Remove one of them."
            )
        both, one = (both or lines[i], one) if query and gallery else (both, one or lines[i])
        if both and one:
            raise UserError(
                f"{file}, lines {min(both, one)} and {max(both, one)}: line {both} is both query and gallery, line "
                f"{one} is not. Either all images to test on are both, and are searched among each other, or each is "
                "one of them, and queries are searched in the gallery. Set the two columns alike in these rows."
            )
        found[i] = "test" if query and gallery else "query" if query else "gallery"
    return found


def _check_base(file: Path, base: Path, paths: Sequence[str]) -> None:
    """Say so if the paths are relative to another folder, such as the working directory, or have other suffixes.

    Raises:
        UserError: of some paths from all over the list, none is below the root and all are below another folder, or
            would be there under another suffix or in another case.
    """
    sample = [paths[i * (len(paths) - 1) // 7] for i in range(8)]
    if any(os.path.lexists(base / path) for path in sample):
        return
    home = base.absolute()
    with os.scandir(home) as entries:
        inside = sorted(entry.path for entry in islice(entries, 1000) if os.path.isdir(entry.path))
    others = dict.fromkeys((home, Path.cwd(), *file.absolute().parents, *home.parents, *map(Path, inside)))
    for other in others:
        if all(os.path.lexists(other / path) for path in sample):
            root = arguments({"dataset.module.root": other})
            raise UserError(f"The paths in {file} are relative to {other}, not to {home}. Say so: {root}")
    for other in others:
        for respelled in zip(*map(_respelled, sample), strict=True):
            if all(os.path.lexists(other / path) for path in respelled):
                root = f", and name their folder: {arguments({'dataset.module.root': other})}" if other != home else "."
                raise UserError(
                    f"{file} names {sample[0]!r}, but the file is named {respelled[0]!r} in {other}. Write the paths "
                    f"as they are on disk{root}"
                )


def _respelled(path: str) -> list[str]:
    """Return the path with other suffixes, and in other cases."""
    stem = os.path.splitext(path)[0]
    added = [f"{start}{suffix}" for suffix in COMMON for start in (path, stem)]
    return [*added, path.lower(), path.upper()]


def _check_boxes(file: Path, lines: Sequence[int], paths: Sequence[str], values: dict[str, list[str]]) -> None:
    """Refuse an image with several boxes, which would be several images if they were cropped.

    Raises:
        UserError: there is one; the message names two lines.
    """
    first: dict[str, int] = {}
    for line, path in zip(lines, paths, strict=True) if BOX[0] in values else ():
        if (before := first.setdefault(path, line)) != line:
            raise UserError(
                f"{file}, lines {before} and {line}: two boxes in {path}. Boxes are not cropped: crop the images "
                "first, and list the crops."
            )


def _remarks(values: dict[str, list[str]]) -> Iterator[str]:
    """Return notes on columns that are read in another sense, or not at all."""
    if "category" in values and "super_label" not in values:
        yield "the column category is read as super_label"
    if "sequence" in values and {"is_query", "is_gallery"} & values.keys():
        yield "the column sequence is not used: images of one sequence are retrieved like others"
    if BOX[0] in values:
        boxes = sum(not _is_missing(text) for text in values[BOX[0]])
        not_used = counted(boxes, "box is", "boxes are")
        yield f"{not_used} not used: whole images are; crop the images first if the boxes matter"
