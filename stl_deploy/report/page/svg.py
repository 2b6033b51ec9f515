"""Matplotlib figures as SVG that sits inside a page: its fonts, its colours, no references out.

For a page, a figure is drawn in stand-in colours that become CSS: ink follows the text colour and the series
follow the page's palette, so that one drawing serves light, dark and print. Files have the light palette.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from html import escape
from typing import Any

from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.style import context

SERIES = tuple(f"C{number}" for number in range(6))
INK, FAINT = "C6", "C7"
"""Colours of six series, of text and axes, and of grid lines, by their place in `style`'s."""

_LONGEST = 28
_PAPER = ("#2166ac", "#c4622d", "#3d8b5f", "#8255a8", "#b08a1e", "#5f7480", "#1d2126", "#dcdfe3")
_STAND_INS = tuple(f"#0102{number:02x}" for number in range(16, 24))
_IN_CSS = (*(f"var(--s{number})" for number in range(1, 7)), "currentColor", "var(--line)")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stl-deploy",
    "pdf.fonttype": 42,
    "font.size": 8,
    "font.family": "sans-serif",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.formatter.useoffset": False,
    "text.parse_math": False,
}
_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")


def style(*, paper: bool = False) -> AbstractContextManager[None]:
    """Return a context in which figures use this style alone; the user's settings are restored after it.

    paper: real colours, for files; else stand-ins, which `inline` turns into the page's.
    """
    *series, ink, faint = _PAPER if paper else _STAND_INS
    colours = {
        "axes.prop_cycle": cycler(color=[*series, ink, faint]),
        "grid.color": faint,
        **dict.fromkeys(_INKED, ink),
    }
    styled: AbstractContextManager[None] = context(["default", _STYLE, colours])
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


FORMS: Mapping[str, Any] = {"svg": dict.fromkeys(("Creator", "Date", "Format", "Type")), "pdf": {"CreationDate": None}}
"""Files of a figure, and what is left out of their metadata: their date."""


def saved(figure: Figure, form: str) -> bytes:
    """Return the figure as a file; the same figure makes the same file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Text stays text, so the reader's fonts draw it; matplotlib's own only measures it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # Where a legend fits best takes a while to find on a busy machine; it is found all the same.
        warnings.filterwarnings("ignore", 'Creating legend with loc="best" can be slow')
        _lay_out(figure)
        figure.savefig(buffer, format=form, metadata=FORMS[form])
    return buffer.getvalue()


def inline(figure: Figure, name: str, label: str) -> str:
    """Return the figure as an ``<svg>`` element; ``name`` makes its ids unique, ``label`` describes it."""
    text = saved(figure, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for stand_in, css in zip(_STAND_INS, _IN_CSS, strict=True):
        text = text.replace(stand_in, css)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
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
