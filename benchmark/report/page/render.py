"""The HTML of a page, from a template that escapes everything it is given."""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from benchmark.core.escape import BREAKS, visible
from benchmark.report.page.content import Group

FOLDER = Path(__file__).parent


def html(title: str, intro: str, groups: Sequence[Group], left_out: Sequence[str]) -> str:
    """Return the page.

    Args:
        title: its title.
        intro: a sentence below the title.
        groups: what it shows.
        left_out: sentences about studies that cannot be read.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> object:
        """Escapes of invisible characters in a text of the records; what the page's own parts hold stays as it is."""
        is_text = isinstance(value, str) and not isinstance(value, Markup)
        return visible(BREAKS.sub(" ", str(value))) if is_text else value

    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, finalize=shown, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["svg"] = Markup  # only for what `svg.to_svg` returns, an XML tree that was written anew
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        title=title, intro=intro, groups=groups, left_out=left_out, script=Markup(script), digest=digest,
        style=Markup(_without_comments((FOLDER / "page.css").read_text(encoding="utf-8"))),
    )  # fmt: skip


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
