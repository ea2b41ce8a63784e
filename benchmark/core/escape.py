r"""Escaping of untrusted text for each output format: terminal, CSV, Markdown and LaTeX.

Labels, folder names, records and logs may contain anything: escape sequences that rewrite the terminal, characters that
reverse or hide what follows, spreadsheet formulas, markup. Code that prints such a text escapes it with the function
for its output format, so that the reader sees the text itself. Invisible characters are printed as escapes such as
`\x1b` or `\u202e` in every format.
"""

import hashlib
import re
import unicodedata

BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
# Printable by their category, but drawn as nothing or as a space: fillers, joiners and variation selectors.
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0").union(
    map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)


def visible(text: str) -> str:
    r"""Return a text on one line, with an escape for each invisible character, including newline and tab.

    >>> print(visible("a\x1b[2Jb\nc\u202e"))
    a\x1b[2Jb\nc\u202e
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_seen(char) else char.encode("unicode_escape").decode("ascii") for char in text)


def _is_seen(char: str) -> bool:
    return (char.isprintable() or unicodedata.category(char) == "Zs") and char not in BLANK


def terminal(text: str) -> str:
    """Return a text for a terminal, a pipe or a log: escaped as by `visible`, except for newlines and tabs."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def one_line(text: str) -> str:
    """Return a text on one line: a space for each line break or tab, other invisible characters as escapes."""
    return visible(BREAKS.sub(" ", text).strip())


def shown(text: str, most: int = 200) -> str:
    r"""Return a text in quotes for a message: invisible characters escaped, shortened if it is long.

    >>> print(shown("a\tb"), shown("abcdef", 3))
    'a\tb' 'abc...'

    Args:
        text: any text, such as an argument or the name of a file.
        most: number of characters after which it is cut.
    """
    return repr(shortened(visible(text), most)).replace("\\\\", "\\")


def shortened(text: str, most: int) -> str:
    """Return a text cut after `most` characters, with dots for the rest."""
    return text if len(text) <= most else f"{text[:most]}..."


# -- CSV -------------------------------------------------------------------------------------------------------------

FORMULA = tuple("=+-@＝＋－＠")  # spreadsheets evaluate a cell that begins with one of them


def csv_text(text: str) -> str:
    """Return a text for a CSV cell; one that a spreadsheet would evaluate as a formula gets a leading apostrophe.

    Use it for text only: a negative number is not a formula. The `csv` module adds the quotes.

    >>> csv_text("=1+1"), csv_text("HPL-PA")
    ("'=1+1", 'HPL-PA')
    """
    line = one_line(text)
    return f"'{line}" if line.startswith(FORMULA) else line


# -- Markdown --------------------------------------------------------------------------------------------------------

# To keep commands readable, characters are escaped only where Markdown interprets them. Not escaped: underscores within
# words, an ampersand before a blank or another one, and brackets that do not begin a link, footnote or definition.
PUNCTUATION = re.compile(r"[\\`*<>|~$]|&(?=[#\w])|\[(?=\^)|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])")
BLOCK = re.compile(r"([#+=-]|\d{1,9}(?=[.)]))")


def markdown(text: str) -> str:
    r"""Return Markdown that shows a text literally, within a line or a cell of a table.

    >>> print(markdown("<b> a|b hpl_pa"))
    \<b\> a\|b hpl_pa
    """
    return PUNCTUATION.sub(lambda found: f"\\{found[0]}", one_line(text))


def markdown_paragraph(text: str) -> str:
    r"""Return Markdown that shows a text literally as a paragraph, even if it begins like a heading or a list.

    >>> print(markdown_paragraph("1. a"))
    1\. a
    """
    line = markdown(text)
    if not (start := BLOCK.match(line)):
        return line
    return f"\\{line}" if not start[0].isdigit() else f"{start[0]}\\{line[start.end() :]}"


# -- LaTeX -----------------------------------------------------------------------------------------------------------

SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "`": r"\`{}", "<": "$<$", ">": "$>$", "|": "$|$",
    '"': "''", "±": r"$\pm$", "×": r"$\times$", "\u00a0": "~",
    "[": "{[}", "]": "{]}", "*": "{*}",  # options of the line break or rule that stands before them
    **{sign: "\\" + sign for sign in "_%&#${}"},
})  # fmt: skip
LIGATURE = re.compile("([-',])(?=\\1)")
ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
LETTERS = frozenset("ßæÆœŒøØłŁ–—‘’“”")


def latex(text: str) -> str:
    r"""Return LaTeX that prints a text literally, on one line.

    LuaTeX and XeTeX print every character; pdfTeX prints the code point of those that its default fonts lack.

    >>> print(latex("R&D_1 [x]"))
    R\&D\_1 {[}x{]}
    """
    composed = unicodedata.normalize("NFC", one_line(text))
    plain = LIGATURE.sub("\\1\0", composed)  # the text itself has no NUL any more
    return "".join(map(_printed, plain.translate(SPECIAL))).replace("\0", "{}")


def _printed(char: str) -> str:
    parts = unicodedata.normalize("NFD", char)
    accented = len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in ACCENTS
    if char.isascii() or char in LETTERS or accented:
        return char
    return rf"\ifdefined\Umathcode {char}\else U+{ord(char):04X}\fi{{}}"


def latex_label(name: str) -> str:
    r"""Return a name for `\label`: letters, digits, hyphens and underscores.

    Other characters are replaced by hyphens, and a short digest of the name is appended to keep different names apart.

    >>> latex_label("glyphs-small_conv-hpl")
    'glyphs-small_conv-hpl'
    """
    safe = re.sub("[^A-Za-z0-9_-]+", "-", name)
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return safe if name and safe == name else f"{safe.strip('-')}-{digest}"
