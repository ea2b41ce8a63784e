"""The best score of a search against the number of its trials, as numbers and as a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmark.protocol.best_so_far import BestOf, best_in_order, best_of_subsets
from benchmark.report.figures.palette import ACCENT, BAND, WARM
from benchmark.study import layout
from benchmark.study.stored import read_study

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("loss", "label", "trials", "mean", "deviation", "low", "high")
PER_ROW = 3  # panels side by side


class Best(NamedTuple):
    """The best trial.

    Attributes:
        score: its score in percent.
        place: its number, from 1, with the search if there are several.
    """

    score: float
    place: str


@dataclass(frozen=True)
class Curve:
    """The scores of one row's trials.

    Attributes:
        group: data set, trunk and protocol.
        row: identifies the method; the same for all repetitions of its search.
        name: name of the study's folder.
        label: printed name of the method.
        scores: for each search by its number, the validation MAP@R of its trials in percent, in their order; None for a
            trial without a score. A trial that was stopped counts with its estimate, which is never the best.
    """

    group: str
    row: str
    name: str
    label: str
    scores: Mapping[int, Sequence[float | None]]

    @property
    def num_trials(self) -> int:
        """Number of trials in all searches."""
        return sum(map(len, self.scores.values()))

    def best(self) -> Best:
        """The best trial of all searches, the first of equal ones."""
        scored = [(score, -search, -index) for search, scores in self.scores.items()
                  for index, score in enumerate(scores) if score is not None]  # fmt: skip
        score, search, index = max(scored)
        several = len(self.scores) > 1
        return Best(score, f"{1 - index}" + f" of search {-search}" * several)

    def of_subsets(self) -> list[BestOf]:
        """The best score of any trials from all searches, by their number."""
        return best_of_subsets([score for scores in self.scores.values() for score in scores])

    def typical(self) -> BestOf:
        """The best score of as many trials as one search has, or of half of them if there is one search."""
        longest = max(map(len, self.scores.values()))
        return self.of_subsets()[(longest if len(self.scores) > 1 else (longest + 1) // 2) - 1]


def read_search(directory: Path) -> Curve | None:
    """The scores of a study's trials; None if it does not search, or no trial has a score.

    Args:
        directory: the study's folder.

    Raises:
        UserError: the study cannot be read.
    """
    stored = read_study(directory)
    facts = stored.facts
    found = layout.read_trials(directory, stored.expected, stored.trials).records
    results = [layout.to_observation(found[index]).mean for index in sorted(found)]
    scores = [None if score is None else 100 * score for score in results]
    if facts.preset or facts.story != "search" or not any(score is not None for score in scores):
        return None
    group = "-".join((facts.dataset, facts.trunk, facts.protocol))
    return Curve(group, stored.row, directory.name, stored.row_label, {facts.search: scores})


def pooled(curves: Sequence[Curve]) -> list[Curve]:
    """Join the repetitions of each search, in the order of the first of them.

    Args:
        curves: curves of one search each.
    """
    rows: dict[str, list[Curve]] = {}
    for curve in curves:
        rows.setdefault(curve.row, []).append(curve)
    joined = []
    for same in rows.values():
        scores = {search: values for curve in same for search, values in curve.scores.items()}
        first = min(same, key=lambda curve: min(curve.scores))
        joined.append(Curve(first.group, first.row, first.name, first.label, dict(sorted(scores.items()))))
    return joined


def as_rows(curves: Sequence[Curve]) -> list[list[object]]:
    """Return the headings, and a row for each curve and number of trials: the best score of any so many, in percent.

    The columns `search0`, `search1`, ... hold the best of the first trials of each search, in their order.
    """
    numbers = sorted({search for curve in curves for search in curve.scores})
    rows: list[list[object]] = [[*COLUMNS, *(f"search{number}" for number in numbers)]]
    for curve in curves:
        own = {number: best_in_order(curve.scores.get(number, [])) for number in numbers}
        for best in curve.of_subsets():
            at = [own[number][best.k - 1] if best.k <= len(own[number]) else None for number in numbers]
            rows.append([curve.name, curve.label, best.k, best.mean, best.deviation, best.low, best.high, *at])
    return rows


def drawn(curves: Sequence[Curve], per_row: int = PER_ROW, size: tuple[float, float] = (3.2, 2.4)) -> "Figure":
    """Draw one panel per row: the band and mean over subsets of all trials, and each search in its own order.

    Args:
        curves: at least one.
        per_row: number of panels side by side.
        size: width and height of a panel in inches.
    """
    from matplotlib.figure import Figure

    rows = -(-len(curves) // per_row)
    columns = min(per_row, len(curves))
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, curve in zip(panels, curves, strict=False):
        _draw(axes, curve)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    figure.supxlabel("trials", fontsize=9)
    figure.supylabel("best validation MAP@R, %", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=7, frameon=False
    )
    return figure


def _draw(axes: "Axes", curve: Curve) -> None:
    subsets = curve.of_subsets()
    trials = [best.k for best in subsets]
    low, high = [best.low for best in subsets], [best.high for best in subsets]
    axes.fill_between(trials, low, high, color=BAND, linewidth=0, label="95 % of subsets")
    axes.plot(trials, [best.mean for best in subsets], color=ACCENT, linewidth=1.2, label="mean of subsets")
    for number, (_, scores) in enumerate(curve.scores.items()):
        best = [float("nan") if score is None else score for score in best_in_order(scores)]
        axes.step(range(1, len(best) + 1), best, where="post", color=WARM, linewidth=0.8,
                  label="each search, in its order" if number == 0 else None)  # fmt: skip
    axes.set_title(curve.label, fontsize=9, parse_math=False)
    axes.tick_params(labelsize=7)
