"""Draw the occupancy of a chip's cores: one cell per core and resource, under each placement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from stl_deploy.report.page.svg import INK, SERIES, inline, panels, short

RESOURCES = {"neurons": "neurons", "in_axons": "input axons", "out_axons": "output axons", "synapse_bytes": "synapses"}
"""Resources that are drawn, and their labels."""
_WIDTH, _MOST, _NUMBERED, _LEVELS = 10.4, 256, 24, 20
"""Inches; cores drawn; cores whose cells carry their percentage; strengths of colour."""


def heat_map(placement: Mapping[str, Any]) -> str:
    """Draw one panel per placement, from the energy JSON's ``placement``.

    Fuller cells are stronger; cells over the limit have the other colour.
    """
    known = {key: name for key, name in RESOURCES.items() if key in placement["limits"]}
    shown = placement["placements"]
    figure, axes = panels(len(shown), _WIDTH, 0.75 + 0.24 * len(known), columns=1)
    for ax, placed in zip(axes, shown, strict=True):
        cores = placed["cores"]
        part = f"first {_MOST} of {len(cores)}" if len(cores) > _MOST else f"{len(cores)}"
        ax.set_title(f"{placed['placement']}: {part} cores")
        _panel(ax, cores[:_MOST], known, placement["limits"])
    return inline(figure, "cores", "How full each core is, by resource, as a share of its limit")


def _panel(ax: Axes, cores: Sequence[Mapping[str, Any]], known: Mapping[str, str], limits: Mapping[str, int]) -> None:
    cells: dict[float, list[tuple[int, int]]] = {}
    for row, key in enumerate(known):
        for column, core in enumerate(cores):
            share = core[key] / limits[key]
            cells.setdefault(min(round(share * _LEVELS) / _LEVELS, 1) if share <= 1 else 2, []).append((column, row))
            if len(cores) <= _NUMBERED:
                ax.text(column + 0.5, row + 0.5, f"{share:.0%}", ha="center", va="center", fontsize=6)
    for level, where in cells.items():
        colour = to_rgba(SERIES[0], 0.05 + 0.55 * level) if level <= 1 else to_rgba(SERIES[1], 0.7)
        ax.add_patch(PathPatch(_boxes(where), facecolor=colour, linewidth=0))
    start = 0
    marks = []
    for node, group in groupby(cores, key=lambda core: str(core["node"])):
        end = start + len(list(group))
        marks.append(((start + end) / 2, short(node)))
        ax.axvline(end, color=INK, lw=0.5)
        start = end
    crowded = len(marks) > 12
    ax.set_xticks([at for at, _ in marks], [name for _, name in marks], rotation=90 if crowded else 0, fontsize=7)
    ax.set_yticks([row + 0.5 for row in range(len(known))], list(known.values()))
    ax.tick_params(length=0)
    ax.set(xlim=(0, len(cores)), ylim=(len(known), 0))


def _boxes(where: Sequence[tuple[int, int]]) -> Path:
    """Return one path of a box in each cell."""
    box = np.array([(0.04, 0.06), (0.96, 0.06), (0.96, 0.94), (0.04, 0.94), (0.04, 0.06)])
    corners = (np.array(where, float)[:, None] + box).reshape(-1, 2)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(corners, np.tile(codes, len(where)))
