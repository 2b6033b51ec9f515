"""Render the page of a conversion: its verdict, its table, and accuracy against levels and energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, PercentFormatter

from stl_deploy.pipeline.conversion import HEAD, Conversion
from stl_deploy.report.page.svg import INK, SERIES, inline, panels, style
from stl_deploy.report.page.templates import joules, template


def render_conversion(conversion: Conversion) -> str:
    """Return one self-contained page."""
    return template("conversion.html").render(section_of(conversion))


def section_of(conversion: Conversion | None) -> dict[str, Any]:
    """Return what candidates.html shows: the verdict, the table and, with labels, the picture."""
    if conversion is None:
        return {"conversion": None}
    with style():
        drawn = None if conversion.held_out[1] is None else Markup(_draw(conversion.as_dict()))
    return {"conversion": conversion, "columns": HEAD, "plot": drawn}


def _draw(conversion: Mapping[str, Any]) -> str:
    """Draw accuracy with its intervals against levels, and against energy beside both ANNs."""
    figure, (levels, energy) = panels(2, 10.4, 3.2)
    ann = conversion["held_out"][1]
    methods = dict.fromkeys(each["method"] for each in conversion["candidates"])
    for colour, method in zip(SERIES, methods, strict=False):
        kept = [each for each in conversion["candidates"] if each["method"] == method]
        accuracy = [each["accuracy"] for each in kept]
        ends = np.abs(np.transpose([each["interval"] for each in kept]) - accuracy)
        levels.errorbar([each["levels"] for each in kept], accuracy, ends, color=colour, marker="o", ms=4, label=method)
        for each in kept:
            joules_of = each["energy"] or {}
            for side, height, drawn_in, marker in (
                ("snn", each["accuracy"], colour, "o"),
                ("int8_ann", ann, INK, "s"),
                ("quantised_ann", each["accuracy"], INK, "x"),
            ):
                if joules_of.get(side) is not None:
                    energy.scatter(joules_of[side], height, s=24, color=drawn_in, marker=marker)
    levels.axhline(ann, color=INK, lw=0.8, ls="--", label="ANN")
    tried = sorted({each["levels"] for each in conversion["candidates"]})
    levels.set_xscale("log", base=2)
    levels.set_xticks(tried, [str(each) for each in tried])
    levels.set(xlabel="levels" if conversion["form"] == "counts" else "steps", ylabel="accuracy on held-out samples")
    levels.legend(fontsize=7)
    energy.set_xlabel("energy of one inference (modelled, streaming)")
    energy.xaxis.set_major_formatter(FuncFormatter(lambda value, _: joules(value)))
    for ax in (levels, energy):
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.grid(axis="y")
    return inline(figure, "conversion", "Accuracy of every candidate against its levels and against its energy")
