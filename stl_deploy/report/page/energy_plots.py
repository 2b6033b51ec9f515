"""Drawings of the first screens: energy by layer, and the region of spike rates in which the SNN costs less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter

from stl_deploy.report.page.format import joules
from stl_deploy.report.page.svg import FAINT, INK, SERIES, inline, panels, short

_WIDTH = 6.6
"""Inches: a telephone shows all of it, still legible."""
_MOST = 16
_LEAST_RATE = 1e-3


def by_layer(layers: Sequence[Mapping[str, Any]]) -> str:
    """Joules of one inference by layer, SNN above ANN; the cheapest layers of a long network as one bar."""
    kept = [dict(layer) for layer in layers if layer["snn_J"] or layer["ann_J"]]
    if len(kept) > _MOST:
        ranked = sorted(kept, key=lambda layer: -max(layer["snn_J"], layer["ann_J"]))
        names = {layer["layer"] for layer in ranked[: _MOST - 1]}
        rest = [layer for layer in kept if layer["layer"] not in names]
        others = {"layer": f"{len(rest)} others", **{k: sum(r[k] for r in rest) for k in ("snn_J", "ann_J")}}
        kept = [*(layer for layer in kept if layer["layer"] in names), others]
    figure, (ax,) = panels(1, _WIDTH, 0.9 + 0.34 * max(1, len(kept)))
    for side, offset, colour, name in (("snn_J", -0.19, SERIES[0], "SNN"), ("ann_J", 0.19, SERIES[1], "ANN twin")):
        places = [place + offset for place in range(len(kept))]
        ax.barh(places, [layer[side] for layer in kept], height=0.34, color=colour, label=name)
        for place, layer in zip(places, kept, strict=True):
            ax.annotate(joules(layer[side]), (layer[side], place), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(list(range(len(kept))), [short(layer["layer"]) for layer in kept])
    most = max((max(layer["snn_J"], layer["ann_J"]) for layer in kept), default=0.0)
    ax.set_xlim(0, (most or 1.0) * 1.15)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: joules(value)))
    ax.set_xlabel("energy of one inference")
    ax.invert_yaxis()
    if kept:
        ax.legend(fontsize=7, loc="lower right")
    return inline(figure, "by-layer", "Energy of one inference by layer, of the SNN and of its ANN twin")


def region(break_even: Mapping[str, Any], price: str) -> str | None:
    """For each dataflow the spike rates at which the SNN costs less, and where this network lies; None without any.

    break_even: as the energy JSON has it; price: the list to show.
    """
    models, rate = break_even["models"], break_even["spike_rate"]
    rows = [m for m in models if m["price"] == price and m["name"].startswith("weights")]
    rows = [m for m in rows if m["verdict"] != "not defined"]
    if not rows or not rate:
        return None
    figure, (ax,) = panels(1, _WIDTH, 0.9 + 0.3 * len(rows))
    for place, row in enumerate(rows):
        ax.barh(place, 1 - _LEAST_RATE, left=_LEAST_RATE, height=0.5, color=SERIES[1], alpha=0.25)
        end = (
            {"above": None, "below": 1.0}.get(row["verdict"])
            if row["spike_rate"] is None
            else sum(row["spike_rate"]) / 2
        )
        if end is not None and end > _LEAST_RATE:
            ax.barh(place, min(end, 1.0) - _LEAST_RATE, left=_LEAST_RATE, height=0.5, color=SERIES[0], alpha=0.8)
        said = "never" if end is None or end <= _LEAST_RATE else "always" if end >= 1 else f"below {100 * end:.2g} %"
        ax.annotate(said, (1.0, place), (4, 0), textcoords="offset points", va="center")
    ax.axvline(rate, color=INK, lw=1.2)
    ax.annotate(f"this network, {100 * rate:.2g} %", (rate, -0.6), (4, 0), textcoords="offset points", va="center")
    ax.set_xscale("log")
    ax.set_xlim(_LEAST_RATE, 1.0)
    ax.set_ylim(len(rows) - 0.5, -0.9)
    ax.set_yticks(list(range(len(rows))), [row["name"] for row in rows])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ax.set_xlabel("spikes per neuron and step; solid: the SNN costs less, pale: the ANN does")
    ax.grid(axis="x", color=FAINT)
    return inline(figure, "region", "Spike rates at which the SNN costs less than its ANN twin, by dataflow")
