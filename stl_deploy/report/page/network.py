"""The network as a drawing: a box for each layer with its spikes and joules, in the order of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stl_deploy.report.page.format import count

_MOST = 24
"""Boxes that are drawn; of a longer network the dearest layers, in order."""


@dataclass(frozen=True)
class Box:
    """One layer. share: of the SNN's energy; rate: spikes per neuron and step, None where nothing fires.

    follows: whether the box before it feeds it; others: what else does, with what closes a loop marked.
    """

    name: str
    kind: str
    count: float
    unit: str
    rate: float | None
    joules: float
    share: float
    follows: bool = False
    others: tuple[str, ...] = ()


def boxes(energy: Mapping[str, Any]) -> tuple[list[Box], int]:
    """The boxes of an energy JSON, per inference, and how many layers were left out."""
    cost = {entry["layer"]: entry["snn_J"] for entry in energy["by_layer"]}
    whole, batch = sum(cost.values()) or 1.0, energy["batch"]
    found = [_box(name, layer, cost.get(name, 0.0), whole, batch) for name, layer in energy["layers"].items()]
    kept = {box.name for box in sorted(found, key=lambda box: -box.joules)[:_MOST]}
    shown = [box for box in found if box.name in kept]
    order = {name: place for place, name in enumerate(energy["edges"])}
    linked = [
        _linked(box, energy["edges"][box.name], before, order)
        for before, box in zip((None, *shown), shown, strict=False)
    ]
    return linked, len(found) - len(kept)


def _linked(box: Box, sources: Sequence[str], before: Box | None, order: Mapping[str, int]) -> Box:
    """The box with its edges; an input is said only where a box stands before it."""
    named = [name for name in sources if before is None or name != before.name]
    follows = len(named) < len(sources)
    others = [
        f"{name}, a step ago" if order.get(name, -1) >= order[box.name] else name
        for name in named
        if before is not None or name in order
    ]
    return replace(box, follows=follows, others=tuple(others))


def _box(name: str, layer: Mapping[str, Any], joules: float, whole: float, batch: int) -> Box:
    if "neurons" in layer:
        rate = layer["spikes"] / layer["neuron_updates"] if layer["spikes"] else None
        return Box(
            name, f"{count(layer['neurons'])} neurons", layer["spikes"] / batch, "spikes", rate, joules, joules / whole
        )
    pool = layer["weight_words"] == 0
    kind = "pool" if pool else f"{count(layer['weight_words'])} weights"
    unit = "pooled events" if pool else f"synops ({layer['op']})"
    return Box(name, kind, layer["synops"] / batch, unit, None, joules, joules / whole)
