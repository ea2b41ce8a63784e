"""The colours of figures, and the CSS variables that replace them in a page, so that figures follow its theme."""

INK, MUTED, GRID = "#1b1f24", "#57606a", "#d0d7de"  # text, what recedes, lines of the grid
ACCENT, WARM, BAND = "#1f4e8c", "#b4530f", "#b9cfe8"  # what the figure is about, what it is compared with, a spread
PAPER = "#ffffff"
SERIES = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip  # matplotlib's C0 to C9

VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", ACCENT: "--accent", WARM: "--warm", BAND: "--band",
    PAPER: "--paper", **{colour: f"--series-{number}" for number, colour in enumerate(SERIES)},
}  # fmt: skip
