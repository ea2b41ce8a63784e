"""`csv`: your own images, listed in a CSV file with columns path and label, and optionally super_label and split.

Our own format. Paths are relative to the file's folder, or to `root`. `split` is trainval (or train) and test, or
trainval, query and gallery; without that column, the first half of the classes is for training and the second half for
testing, as in Musgrave, Belongie, Lim, "A Metric Learning Reality Check" (arXiv 2003.08505). `order` determines which
half is first: the order in which the labels appear, or the order of the labels as text ('10' < '2'). Other columns are
ignored.
"""

import csv
import io
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.invocation import command
from benchmark.datasets.dataset_files import read_text
from benchmark.datasets.listing import ROLES, Listing
from benchmark.datasets.user_images import Row, assemble


def listing(
    path: str, *, root: str | None = None, order: str = "appearance", on_bad: str = "stop", check: str = "files"
) -> Listing:
    """List the images of a CSV file, in the order of its rows.

    Args:
        path: path of the file; UTF-8, comma separated, with a header.
        root: folder that the paths are relative to; None: the folder of the file.
        order: order of the classes, `appearance` or `sorted`; see `user_images.assemble`.
        on_bad: what to do with unusable images, `stop` or `leave_out`; see `user_images.assemble`.
        check: `lists`, `files` or `images`, see `image_check.find_problems`.

    Raises:
        UserError: the file does not exist or has another format, or images cannot be used; the message names the rows.
    """
    file = Path(path).expanduser()
    if not path or not file.is_file():
        example = command("data", {"dataset": "csv", "dataset.module.path": "some/manifest.csv"})
        raise UserError(f"There is no file {path!r}. Name one: {example}")
    base = file.parent if root is None else Path(root).expanduser()
    return assemble(base, _rows(file), order=order, on_bad=on_bad, check=check)


def _rows(file: Path) -> list[Row]:
    reader = csv.DictReader(io.StringIO(read_text(file), newline=""), strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        if not {"path", "label"} <= set(header) or len(set(header)) < len(header):
            raise UserError(
                f"{file} has the columns {', '.join(header) or '(none)'}; it needs path and label, may have "
                "super_label and split, each once, separated by commas."
            )
        reader.fieldnames = header
        rows = [_row(file, reader.line_num, fields) for fields in reader]
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}.") from error
    if not rows:
        raise UserError(f"{file} has a header and no rows.")
    return rows


def _row(file: Path, line: int, fields: dict[str | None, str | None]) -> Row:
    where = f"{file}, line {line}"
    if None in fields or None in fields.values():
        raise UserError(f"{where}: the row has {'more' if None in fields else 'fewer'} fields than the header.")
    given = {str(key): str(value).strip() for key, value in fields.items()}
    for column in ("path", "label", "super_label", "split"):
        if given.get(column) == "":
            raise UserError(f"{where}: {column} is empty. Give it in every row, or remove the column.")
    role = {"train": "trainval"}.get(given.get("split", ""), given.get("split", ""))
    if role and role not in ROLES:
        raise UserError(f"{where}: split={role!r}; allowed are train, {', '.join(ROLES)}.")
    return Row(given["path"], given["label"], given.get("super_label", ""), role, f"line {line}")
