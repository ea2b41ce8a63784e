"""A matplotlib figure as SVG within a page: text stays text, and colours are variables of the page's theme."""

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from benchmark.report.figures.palette import VARIABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMESPACE, LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
COLOUR = re.compile(r"#[0-9a-f]{6}\b")
REFERENCE = re.compile(r"url\(#([^)]+)\)")
DROPPED = ("metadata", "style")  # a style sheet would hold for the whole page


def to_svg(figure: "Figure", name: str, label: str) -> str:
    """Return a figure as an `svg` element.

    Args:
        figure: the figure; colours of the palette become variables.
        name: prefix of all ids, unique within the page.
        label: the text that a screen reader reads.
    """
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.rpartition("}")[2] in DROPPED]:
            parent.remove(child)
    for element in root.iter():
        _adapt(element, name)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("style", f"--width:{float(root.get('viewBox', '').split()[2]):.0f}")
    ElementTree.register_namespace("", NAMESPACE)
    ElementTree.register_namespace("xlink", LINK)
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element, name: str) -> None:
    """Make the ids of an element unique within the page, and its colours variables."""
    for key, value in list(element.attrib.items()):
        plain = key.rpartition("}")[2]
        if plain == "id":
            element.set(key, f"{name}-{value}")
        elif plain == "href" and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        else:
            adapted = REFERENCE.sub(lambda found: f"url(#{name}-{found[1]})", value)
            element.set(key, COLOUR.sub(_variable, adapted))


def _variable(found: re.Match[str]) -> str:
    return f"var({VARIABLES[found[0]]})" if found[0] in VARIABLES else found[0]
