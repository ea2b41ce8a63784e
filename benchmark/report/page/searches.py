"""The page of the searches: Ax's own analyses of the trials, drawn by plotly, which the page holds once.

Parallel coordinates show every trial; slices, importance and cross-validation come from a Gaussian process that is
fitted to the trials here, on their scores alone. It is the surrogate that Ax uses today, which need not equal those
that proposed the trials of a stored search. A stopped trial has its estimate as score. Only validation scores are read.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.core.records import JsonObject
from benchmark.report.comparison import at
from benchmark.report.group_table import Entry
from benchmark.report.page import render
from benchmark.study import layout

if TYPE_CHECKING:
    from ax.api.client import Client

SCORE = "validation_map_at_r"
LEAST = 5  # trials with a score, below which no surrogate is fitted
KEPT = ("data", "layout")  # of a figure of plotly


@dataclass(frozen=True)
class Analysis:
    """A figure of plotly.

    Attributes:
        title: its heading.
        text: what it shows.
        figure: the figure as JSON.
    """

    title: str
    text: str
    figure: str


@dataclass(frozen=True)
class Search:
    """The analyses of a search.

    Attributes:
        label: printed name of the loss.
        folder: the study's folder.
        analyses: the figures; empty with fewer than two trials that have a score.
        note: why there is no more; empty for a complete search.
    """

    label: str
    folder: str
    analyses: Sequence[Analysis]
    note: str


def analysed(entry: Entry) -> Search | None:
    """Return the analyses of a study's search; None for a study that does not search.

    Args:
        entry: the study.
    """
    stored = entry.stored
    space = at(stored.science, "loss", "space")
    if stored.facts.preset or stored.facts.story != "search" or not isinstance(space, dict) or not space:
        return None
    records = layout.read_trials(entry.directory, stored.expected, stored.trials).records.values()
    trials = map(layout.to_observation, records)
    scored = [(trial.parameters, 100 * trial.mean) for trial in trials if trial.mean is not None]
    label, folder = stored.label, str(entry.directory)
    if len(scored) < 2:
        return Search(label, folder, [], f"{len(scored)} of its trials have a score.")
    with _quiet():
        found = list(_analyses(_client(space, scored), list(space), len(scored) >= LEAST))
    few = f"With {len(scored)} trials that have a score, no surrogate is fitted." * (len(scored) < LEAST)
    return Search(label, folder, found, few)


def _client(space: Mapping[str, Any], scored: Sequence[tuple[JsonObject, float]]) -> "Client":
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig

    client = Client(random_seed=0)
    numbers = {name: int if node["type"] == "int" else float for name, node in space.items()}
    client.configure_experiment(parameters=[
        RangeParameterConfig(
            name=name, bounds=(numbers[name](node["bounds"][0]), numbers[name](node["bounds"][1])),
            parameter_type=node["type"], scaling=node["scale"],
        )
        for name, node in space.items()
    ])  # fmt: skip
    client.configure_optimization(objective=SCORE)
    client.configure_generation_strategy(method="fast", initialization_budget=LEAST, initialize_with_center=False)
    for setting, score in scored:
        index = client.attach_trial({name: numbers[name](setting[name]) for name in space})
        client.complete_trial(index, raw_data={SCORE: score})
    return client


def _analyses(client: "Client", names: Sequence[str], with_surrogate: bool) -> Iterator[Analysis]:
    from ax.analysis.plotly.cross_validation import CrossValidationPlot
    from ax.analysis.plotly.parallel_coordinates import ParallelCoordinatesPlot
    from ax.analysis.plotly.sensitivity import SensitivityAnalysisPlot
    from ax.analysis.plotly.surface.slice import SlicePlot

    asked: list[tuple[Any, str, str]] = [
        (ParallelCoordinatesPlot(SCORE), "Parallel coordinates", "Each line is a trial; its colour is its score.")
    ]
    if with_surrogate:
        asked += [
            (SensitivityAnalysisPlot(metric_name=SCORE), "Importance",
             "Share of the surrogate's variation that each hyper-parameter causes."),
            (CrossValidationPlot(metric_names=[SCORE]), "Cross-validation of the surrogate",
             "What the surrogate, fitted to the other trials, predicts for each trial; standardised."),
            *((SlicePlot(name, SCORE), f"Slice: {name}",
               "What the surrogate predicts along one hyper-parameter, at the other values of the best trial.")
              for name in names),
        ]  # fmt: skip
    for analysis, title, text in asked:
        for card in client.compute_analyses(analyses=[analysis], display=False):
            for one in card.flatten():
                figure = json.loads(one.blob) if "Plotly" in type(one).__name__ else {}
                if figure.get("data") and figure["data"][0].get("type") != "table":
                    yield Analysis(title, text, json.dumps({key: figure[key] for key in KEPT}))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Ax reports about single trials off the terminal, by its own switch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ax.utils.common.logger import set_ax_logger_levels

        set_ax_logger_levels(logging.ERROR)
        yield


def html(title: str, searches: Sequence[Search]) -> str:
    """Return the page.

    Args:
        title: its title.
        searches: what it shows.
    """
    from plotly.offline import get_plotlyjs

    plotly = get_plotlyjs().replace("</script", "<\\/script")
    own = (render.FOLDER / "search.js").read_text(encoding="utf-8")
    return render.rendered("search.html.j2", [plotly, own], title=title, searches=searches)
