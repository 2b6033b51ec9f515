"""What dominates: the dearest terms as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import PercentFormatter

from stl_deploy.report.page.svg import SERIES, inline, panels, short

_WIDTH = 10.4
_MOST = 14


def dominating(items: Sequence[Mapping[str, Any]]) -> str:
    """The dearest items (dearest first in ``items``) as shares of the sum; the others as one bar."""
    costs = [float(item["joules"][1]) for item in items]
    names = [f"{short(item['layer'])}: {item['term']}" for item in items]
    if len(items) > _MOST:
        names = [*names[: _MOST - 1], f"{len(items) - _MOST + 1} others"]
        costs = [*costs[: _MOST - 1], sum(costs[_MOST - 1 :])]
    everything = sum(costs) or 1.0
    figure, (ax,) = panels(1, _WIDTH, 0.8 + 0.24 * max(1, len(costs)))
    places = list(range(len(costs)))
    shares = [cost / everything for cost in costs]
    ax.barh(places, shares, color=SERIES[0], height=0.6)
    for place, share in zip(places, shares, strict=True):
        ax.annotate(f"{share:.1%}", (share, place), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(places, names)
    ax.set_xlim(0, max([0.01, *shares]) * 1.15)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("share of the energy of one inference")
    ax.invert_yaxis()
    return inline(figure, "dominating", "The terms that cost most, by layer, as shares of the whole")
