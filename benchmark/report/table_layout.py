"""What an experiment says about its table: rows and their order, columns, published numbers, and bases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmark.report.table import Key, Published


@dataclass(frozen=True)
class Line:
    """A row that an experiment asks for.

    Attributes:
        study: name of the study's folder; empty for a quoted row, which has published numbers only.
        label: printed name; empty for the study's own.
        published: what the paper prints, by column.
        base: name of the study with which it is compared; empty for the layout's or its loss's base.
        command: the command that runs it, for a message; empty for the usual one.
    """

    study: str
    label: str = ""
    published: Mapping[Key, Published] = field(default_factory=dict)
    base: str = ""
    command: str = ""


@dataclass(frozen=True)
class Layout:
    """The table of an experiment.

    Attributes:
        caption: a single sentence; empty for one that names the data set and the protocol.
        lines: the rows it asks for, from top to bottom; other studies of the group follow.
        columns: keys of the metrics to show; empty for all.
        base: name of the study with which all rows are compared, unless a line names another one.
        warning: a sentence that everything rendered shows, such as that it is not for reporting; empty for none.
    """

    caption: str = ""
    lines: Sequence[Line] = ()
    columns: Sequence[Key] = ()
    base: str = ""
    warning: str = ""
