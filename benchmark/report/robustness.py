"""The table of scores on corrupted test images, and a sheet of examples."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmark.core.records import Record
from benchmark.images.corruptions import CORRUPTIONS
from benchmark.protocol.statistics import t_interval
from benchmark.report.table import Column, Row, Section, Table
from benchmark.study.stored import StoredStudy

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.figure import Figure

NONE = "none"  # the test images as they are
TRAINING = "training"  # the images of the training classes as they are, in place of the test images
METRICS = {"precision_at_1": "R@1", "map_at_r": "MAP@R"}
MODES = ("concatenated", "separated")
CHOSEN = "The models are those of the epoch that is best on the test classes without corruption."


def title(corruption: str) -> str:
    """The name of a corruption in tables."""
    names = {NONE: "None", TRAINING: "None, training classes"}
    return names[corruption] if corruption in names else CORRUPTIONS[corruption].title


def table(name: str, stored: StoredStudy, scores: Mapping[str, Sequence[Record]]) -> Table:
    """The table of a study: a row for each corruption, with the mean over runs.

    Args:
        name: base name of its files.
        stored: the study.
        scores: for each corruption, the records of the same runs.
    """
    facts = stored.facts
    modes = {"concatenated": ""} if facts.story == "traditional" else {mode: mode.capitalize() for mode in MODES}
    columns = [Column((mode, key), text, modes[mode]) for mode in modes for key, text in METRICS.items()]
    rows = []
    for corruption, found in scores.items():
        row = Row(corruption, stored.label, num_runs=len(found), settings={"Corruption": title(corruption)})
        for mode, key in (column.key for column in columns):
            row.cells[mode, key] = t_interval([100 * r.result[mode][key] for r in found], facts.confidence)
        rows.append(row)
    caption = f"{facts.dataset_label}, {facts.trunk}, protocol {facts.protocol}: scores on corrupted test images."
    remark = CHOSEN if facts.story == "traditional" else ""
    return Table(name, caption, [Section(columns, rows, facts.confidence, remark)])


def sheet(rows: Mapping[str, np.ndarray]) -> "Figure":
    """A sheet of examples: one row of images for each corruption.

    Args:
        rows: for each corruption, uint8 (N, H, W, Ch), the same N images.
    """
    from matplotlib.figure import Figure

    number, height, width, _ = next(iter(rows.values())).shape
    figure = Figure(figsize=(0.9 * number * width / height + 1.4, 0.95 * len(rows)))
    for line, (corruption, images) in zip(
        figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows.items(), strict=True
    ):
        apart = np.pad(images, ((0, 0), (0, 0), (0, max(1, width // 16)), (0, 0)), constant_values=255)
        strip = np.concatenate(list(apart), axis=1)
        line.imshow(strip[..., 0] if strip.shape[2] == 1 else strip, cmap="gray", vmin=0, vmax=255)
        line.set_axis_off()
        line.text(-0.01, 0.5, title(corruption), transform=line.transAxes, ha="right", va="center", fontsize=8)
    return figure
