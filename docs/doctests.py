"""A griffe extension: the doctests of docstrings are blocks of Python on the site, not quotations."""

from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Fences the examples of each docstring; a blank line ends one."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that griffe has read."""
        if obj.docstring is None:
            return
        lines, fenced = [], False
        for line in [*obj.docstring.value.split("\n"), ""]:
            if line.startswith(">>>") and not fenced:
                lines.append("```python")
                fenced = True
            elif fenced and not line.strip():
                lines.append("```")
                fenced = False
            lines.append(line)
        obj.docstring.value = "\n".join(lines[:-1])
