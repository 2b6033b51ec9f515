"""Matplotlib figures as SVG that sits inside a page: its fonts, its colours, no references out.

A figure is drawn in stand-in colours that become CSS: ink follows the text colour and the series
follow the page's palette, so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import io
import re
import warnings
from contextlib import AbstractContextManager
from html import escape
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.style import context

INK, FAINT = "#010203", "#010204"
SERIES = tuple(f"#0102{number:02x}" for number in range(16, 22))
"""Stand-in colours: text and axes, grid lines, and six series."""

_LONGEST = 28
_CSS = {INK: "currentColor", FAINT: "var(--line)", **{c: f"var(--s{i})" for i, c in enumerate(SERIES, start=1)}}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stl-deploy",
    "font.size": 8,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.formatter.useoffset": False,
    "text.parse_math": False,
}


def style() -> AbstractContextManager[None]:
    """Return a context in which figures use the page's style alone; the user's settings are restored after it."""
    styled: AbstractContextManager[None] = context(["default", _STYLE])
    return styled


def panels(count: int, width: float, height: float, columns: int | None = None) -> tuple[Figure, list[Axes]]:
    """Create a figure of ``count`` axes, ``columns`` to a row, each row ``height`` inches tall."""
    columns = min(count, columns or count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    axes = list(grid.ravel())
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def short(name: str) -> str:
    """Shorten an untrusted name to one line, without a leading ``_`` (matplotlib hides those)."""
    line = " ".join(name.split()) or "(blank)"
    line = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
    return f" {line}" if line.startswith("_") else line


def inline(figure: Figure, name: str, label: str) -> str:
    """Return the figure as an ``<svg>`` element; ``name`` makes its ids unique, ``label`` describes it."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text, so the reader's fonts draw it; matplotlib's own only measures it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # Where a legend fits best takes a while to find on a busy machine; it is found all the same.
        warnings.filterwarnings("ignore", 'Creating legend with loc="best" can be slow')
        _lay_out(figure)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for stand_in, css in _CSS.items():
        text = text.replace(stand_in, css)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height|version)="[^"]*"', "", head)
    width = figure.get_figwidth() * 96
    return f'{head} role="img" aria-label="{escape(label, quote=True)}" style="max-width:{width:.0f}px">{rest}'


def _lay_out(figure: Figure) -> None:
    """Place the axes as saving would, which draws the figure once more to do it."""
    engine, dpi = figure.get_layout_engine(), figure.dpi
    if engine is None:
        return
    FigureCanvasSVG(figure)
    figure.dpi = FigureCanvasSVG.fixed_dpi
    engine.execute(figure)
    figure.set_layout_engine(None)  # "none" would leave one in its place, for which saving draws once more
    figure.dpi = dpi
