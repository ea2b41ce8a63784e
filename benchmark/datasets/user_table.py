"""Read a table that a user wrote: CSV as spreadsheets, data frames and text editors on any system save it.

Read as meant, each with a note: UTF-16 and UTF-32 with a byte order mark; `;`, tab or `|` as separator if the header
has the required columns only so; Excel's line `sep=;`; fields in single quotes. What leaves a choice, such as text in a
national encoding, is refused with the line and the way to convert it.
"""

import codecs
import csv
import io
import re
import shlex
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.core import formats
from benchmark.core.errors import UserError
from benchmark.core.wording import counted

MAX_BYTES = 2**28  # several million rows
MAX_ROWS = 3_000_000  # about 2 GiB of memory
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
AS_UTF8 = "Save it as 'CSV UTF-8 (comma separated)'"
MARKS = (  # the longer one first: UTF-32 begins like UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
REMEDIES = {  # by the format's name in `formats`
    formats.POINTER: "",
    "a zip archive": f"If it is a spreadsheet (.xlsx, .ods): {AS_UTF8}.",
    "a file of old Excel (.xls) or Word": f"{AS_UTF8} in the spreadsheet.",
    "a Parquet file": "Convert it: pandas.read_parquet(FILE).to_csv(NEW_FILE, index=False)",
    "an Arrow or Feather file": "Convert it: pandas.read_feather(FILE).to_csv(NEW_FILE, index=False)",
    "an HDF5 file": "Convert it: pandas.read_hdf(FILE).to_csv(NEW_FILE, index=False)",
    "a NumPy array (.npy)": "Write its rows as CSV.",
    "an SQLite database": "Export the table as CSV.",
    "gzip data": "Unpack it: gzip -dc FILE > NEW_FILE",
    "bzip2 data": "Unpack it: bzip2 -dc FILE > NEW_FILE",
    "xz data": "Unpack it: xz -dc FILE > NEW_FILE",
    "zstd data": "Unpack it: zstd -dc FILE > NEW_FILE",
    "a 7-Zip archive": "Unpack it first.",
    "a RAR archive": "Unpack it first.",
    "a PDF document": "Write its rows as CSV.",
    "an RTF document": "Save it as plain text in UTF-8.",
    "a PNG image": "Name the list of the images.",
    "a JPEG image": "Name the list of the images.",
}
TEXTS = {  # by the first character
    b"<": ("a web page or XML, not CSV", "If it was downloaded, get the file itself, not the page that shows it."),
    b"{": ("JSON, not CSV", "Convert it: pandas.read_json(FILE, lines=LINES).to_csv(NEW_FILE, index=False)"),
    b"[": ("JSON, not CSV", "Convert it: pandas.read_json(FILE).to_csv(NEW_FILE, index=False)"),
    b"\x80": ("a pickle or another binary file", "Write its rows as CSV: to_csv(NEW_FILE, index=False)"),
}
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # Python's stand-ins for bytes that are not UTF-8


@dataclass(frozen=True)
class Table:
    """The contents of a table.

    Attributes:
        header: names of the columns in lower case, with `_` for blanks and hyphens; may be empty or occur twice.
        shown: names of the columns as they are written in the file.
        rows: line number and fields of each row that has any; a row may have more or fewer fields than the header.
        separated_by: what separates the fields, in words.
        notes: remarks for the user: what was converted, and how many rows without any value were skipped.
    """

    header: list[str]
    shown: list[str]
    rows: list[tuple[int, list[str]]]
    separated_by: str
    notes: tuple[str, ...]


def read_table(file: Path, required: Collection[str]) -> Table:
    """Read a table with a header.

    Args:
        file: path of the file.
        required: columns that the header must have for a separator other than a comma to be accepted.

    Raises:
        UserError: the file cannot be read or is not a table; the message names the line if there is one.
    """
    payload = _read(file)
    text, notes = _decoded(file, payload)
    lines = io.StringIO(text, newline="")  # which also ends lines at a lone carriage return
    separator, skipped = _announced(text), 0
    if separator:
        lines.readline()
        skipped = 1
    if not separator:
        separator = _separator(text, required)
    quote = "'" if re.match(r"\s*'[^'\r\n]*'\s*[,;\t|]", text) else '"'
    dialect = {
        "delimiter": separator,
        "quotechar": quote,
        "skipinitialspace": re.search(rf"{re.escape(separator)} +{quote}", text) is not None,
    }
    records = _records(file, lines, skipped, dialect)
    _, shown = next(records, (0, []))
    header = [_name(cell) for cell in shown]
    if not any(header):
        raise UserError(f"{file} holds nothing but blanks. Its first line should name the columns: path,label")
    rows: list[tuple[int, list[str]]] = []
    blank = 0
    for number, cells in records:
        if not any(map(str.strip, cells)):
            blank += 1
        elif len(rows) == MAX_ROWS:
            raise UserError(f"{file} has more than {MAX_ROWS:,} rows; at most {MAX_ROWS:,} are read. Split the data.")
        else:
            rows.append((number, cells))
    if separator != ",":
        notes.append(f"the fields of {file.name} are separated by {SEPARATORS.get(separator, repr(separator))}")
    if quote == "'":
        notes.append(f"the fields of {file.name} are in single quotes, which are not part of them")
    if blank:
        one, many = (
            f"row of {file.name} holds separators only and is",
            f"rows of {file.name} hold separators only and are",
        )
        notes.append(f"{counted(blank, one, many)} skipped")
    return Table(header, [cell.strip() for cell in shown], rows, SEPARATORS.get(separator, separator), tuple(notes))


def not_utf8(file: Path, line: int, text: str) -> UserError:
    """Return the error for a text with bytes that are not UTF-8.

    Args:
        file: path of the file.
        line: number of the line.
        text: part of the line, in which these bytes are surrogates as by Python's `surrogateescape`.
    """
    found = NOT_UTF8.search(text)
    assert found is not None
    byte, before = ord(found[0]) - 0xDC00, text[max(0, found.start() - 20) : found.start()]
    after = f" after {before!r}" if before else ""
    return UserError(
        f"{file}, line {line}: the byte 0x{byte:02x}{after} is not UTF-8; the file was saved in another encoding, "
        f"which cannot be told for certain. {AS_UTF8}, or convert it, where WINDOWS-1252 is the encoding of Western "
        f"European Windows (others: WINDOWS-1250, WINDOWS-1251, SHIFT-JIS, GBK): {_iconv(file, 'WINDOWS-1252')}"
    )


def _read(file: Path) -> bytes:
    try:
        if special := formats.kind(file):
            raise UserError(f"{file} is {special}. It is read several times: save it as a file first.")
        if (size := file.stat().st_size) > MAX_BYTES:
            raise UserError(
                f"{file} has {size / 2**20:,.0f} MiB; lists of at most {MAX_BYTES // 2**20} MiB are read. It "
                "should hold one short row per image, and no pixels or embeddings."
            )
        payload = file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{file} cannot be read: {reason}. Make it readable, or name another file.") from error
    if other := _other_format(payload):
        what, remedy = other
        quote = repr if "to_csv" in remedy else shlex.quote
        new_file = file.with_name(f"{file.stem.removesuffix('.csv')}_table.csv")
        remedy = remedy.replace("LINES", str(_is_one_object_per_line(payload)))
        remedy = remedy.replace("NEW_FILE", quote(str(new_file))).replace("FILE", quote(str(file)))
        raise UserError(f"{file} is {what}. {remedy}".rstrip())
    if not payload.strip():
        raise UserError(f"{file} is empty. Its first line should name the columns: path,label")
    return payload


def _other_format(payload: bytes) -> tuple[str, str] | None:
    """Return what a file is instead of a table, and what to do; None if it may be one."""
    found = formats.name(payload[: formats.HEAD])
    if found in REMEDIES:
        return found, REMEDIES[found]
    return TEXTS.get(payload[:512].removeprefix(codecs.BOM_UTF8).lstrip()[:1])


def _is_one_object_per_line(payload: bytes) -> bool:
    lines = payload.split(b"\n", 2)
    return len(lines) > 1 and lines[0].rstrip().endswith(b"}") and lines[1].lstrip()[:1] in (b"{", b"")


def _decoded(file: Path, payload: bytes) -> tuple[str, list[str]]:
    """Return the text, in which bytes that are not UTF-8 are surrogates, and notes."""
    for mark, encoding in MARKS:
        if payload.startswith(mark):
            try:
                return _without_nul(file, payload.decode(encoding)), [f"{file.name} is read as {encoding.upper()}"]
            except UnicodeDecodeError as error:
                raise UserError(f"{file} is damaged {encoding.upper()} text: {error}. {AS_UTF8}.") from error
    text = payload.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    if "\0" in text:
        sample = payload[: 2**16]
        by_parity = [sample[parity::2].count(0) for parity in (0, 1)]
        if max(by_parity) > 1 and min(by_parity) == 0:
            encoding = "UTF-16BE" if by_parity[0] else "UTF-16LE"
            raise UserError(
                f"{file} looks like {encoding} text without a byte order mark. {AS_UTF8}, or convert it: "
                f"{_iconv(file, encoding)}"
            )
    return _without_nul(file, text), []


def _without_nul(file: Path, text: str) -> str:
    if (place := text.find("\0")) >= 0:
        line = len(text[:place].splitlines()) or 1
        raise UserError(
            f"{file}, line {line}: a NUL byte, which no text has. It is another format, or parts were never written to "
            "the disk. Save it again as CSV."
        )
    return text


def _iconv(file: Path, encoding: str) -> str:
    target = file.with_name(f"{file.stem}_utf8{file.suffix}")
    return f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(file))} > {shlex.quote(str(target))}"


def _announced(text: str) -> str:
    """Return the separator in a first line such as `sep=;`, which Excel writes and reads; empty without such a line."""
    found = re.match(r'"?sep=([^\s\w"]|\t)"?[,;]*[ ]*(\r\n|\r|\n|$)', text, re.IGNORECASE)
    return found[1] if found else ""


def _separator(text: str, required: Collection[str]) -> str:
    """Return the separator with which the header has the required columns; a comma if there is none or several."""
    start = re.match(r"[\s,;|]*([^\r\n]*)", text)
    line = start[1] if start else ""
    fits = [sep for sep in SEPARATORS if {*required} <= {_name(cell.strip(" '\"")) for cell in line.split(sep)}]
    if fits:
        return fits[0]
    return max(SEPARATORS, key=lambda sep: line.count(sep))  # only for the message about the header


def _name(cell: str) -> str:
    """Return a column's name in the form in which it is looked up."""
    return re.sub(r"[\s-]+", "_", unicodedata.normalize("NFKC", cell).strip().casefold())


def _records(
    file: Path, lines: io.StringIO, skipped: int, dialect: Mapping[str, Any]
) -> Iterator[tuple[int, list[str]]]:
    """Return the first line and the fields of each record; the first one has the column names.

    Raises:
        UserError: a quote is not closed, is followed by other text, or a field is extremely long.
    """
    reader = csv.reader(lines, strict=True, **dialect)
    while True:
        first = reader.line_num + 1 + skipped
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last, quote = reader.line_num + skipped, dialect["quotechar"]
            where = f"line {first}" if first >= last else f"lines {first} to {last}"
            raise UserError(
                f"{file}, {where}: {error}. A field that begins with {quote} must end with {quote} before the next "
                f"separator, and {quote} within it is written twice."
            ) from error
        if cells:
            yield first, cells
