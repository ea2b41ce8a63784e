"""The HTML of a page, from a template that escapes everything it is given."""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from benchmark.core.escape import BREAKS, visible
from benchmark.report.page.content import Group

FOLDER = Path(__file__).parent


def html(
    title: str, intro: str, groups: Sequence[Group], left_out: Sequence[str], has_searches: bool = False
) -> str:  # fmt: skip
    """Return the page.

    Args:
        title: its title.
        intro: a sentence below the title.
        groups: what it shows.
        left_out: sentences about studies that cannot be read.
        has_searches: whether the page of the searches lies beside this one.
    """
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    return rendered(
        "page.html.j2", [script], title=title, intro=intro, groups=groups, left_out=left_out, has_searches=has_searches
    )


def rendered(template: str, scripts: Sequence[str], **given: object) -> str:
    """Return a page from a template, with the style sheet, and with scripts that no other one may join.

    Args:
        template: name of the template's file.
        scripts: this project's own scripts, and libraries.
        given: what the template shows; texts are escaped, and invisible characters in them become visible.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> object:
        is_text = isinstance(value, str) and not isinstance(value, Markup)
        return visible(BREAKS.sub(" ", str(value))) if is_text else value

    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, finalize=shown, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["svg"] = Markup  # only for what `svg.to_svg` returns, an XML tree that was written anew
    # As data, JSON must not contain what ends a script.
    environment.filters["data"] = lambda text: Markup(text.replace("<", "\\u003c"))
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    style = _without_comments((FOLDER / "page.css").read_text(encoding="utf-8"))
    own = {"style": Markup(style), "scripts": [Markup(script) for script in scripts], "digests": digests}
    return environment.get_template(template).render(own | given)


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
