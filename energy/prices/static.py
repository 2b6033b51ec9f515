"""Static power x time: its own line, because no count of events contains it.

Time per step is what the list says (real-time chips), else a barrier model from the list's latencies: all
cores work, then wait for the slowest and synchronise. Each layer's work is shared by its neurons; without a placement
it is spread over as few cores as hold it. Low end: all layers' cores work at once; high end: one layer after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stl_deploy.energy.counts.arrivals import feeders
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.prices.chip import CORES_PER_TILE, Placement
from stl_deploy.energy.prices.price_list import PriceList, Range
from stl_deploy.graph.program import Conv, Neuron, Program

NEURONS_PER_CORE = 1024
"""Loihi 1 (Davies et al. 2018)."""
_BARRIER = ("latency_neuron_access", "latency_neuron_update", "latency_spike_out", "latency_synop_dense")
_SYNC = {1: "step_sync_1_tiles", 2: "step_sync_2_tiles", 4: "step_sync_4_tiles", 29: "step_sync_29_tiles"}


@dataclass(frozen=True)
class Static:
    """Power in W that flows whether or not events do, and the seconds of one step, over ``steps`` steps."""

    power: Range
    step: Range
    steps: int
    how: str

    @property
    def joules(self) -> Range:
        """Static energy of one inference."""
        low, high = (power * step * self.steps for power, step in zip(self.power, self.step, strict=True))
        return low, high

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "power_W": list(self.power),
            "step_s": list(self.step),
            "steps": self.steps,
            "joules": list(self.joules),
            "how": self.how,
            "label": "modelled",
        }


def static(program: Program, counts: Counts, prices: PriceList, placement: Placement | None = None) -> Static | None:
    """The static line under one list; None if the list has no idle power or no way to tell the time of a step."""
    power = prices.terms.get("idle_power")
    if prices.scope != "marginal" or power is None:
        return None
    watts = (power.low, power.high)
    if "step_time" in prices.terms:
        step = prices.terms["step_time"]
        return Static(watts, (step.low, step.high), counts.T, "whole board; the list's time per step")
    if not {*_BARRIER, *_SYNC.values()} <= set(prices.terms):
        return None
    step_range, cores = barrier(program, counts, prices, placement)
    how = f"each layer on as few cores as hold it ({cores} cores), no placement known"
    if placement is not None:
        how = f"the '{placement.name}' placement ({cores} cores)"
    return Static(watts, step_range, counts.T, f"whole chip; barrier model, {how}")


def barrier(
    program: Program, counts: Counts, prices: PriceList, placement: Placement | None = None
) -> tuple[Range, int]:
    """Seconds of a mean step (all layers at once .. one after the other), and the cores used."""
    steps = counts.T * counts.batch
    busy, cores = [], 0
    for node in program.of(Neuron):
        counted = counts.neurons[node.name]
        used, share = _spread(counted.neurons, node.name, placement)
        cores += used
        busy.append(_neuron_time(program, counts, node, prices) / steps * share)
    tiles = -(-cores // CORES_PER_TILE)
    wait = float(np.interp(tiles, list(_SYNC), [prices.terms[term].low for term in _SYNC.values()]))
    return (max(busy, default=0.0) + wait, sum(busy) + wait), cores


def _spread(neurons: int, node: str, placement: Placement | None) -> tuple[int, float]:
    """Cores of a layer, and the share of its neurons that the fullest of them holds."""
    if placement is None:
        used = -(-neurons // NEURONS_PER_CORE)
        return used, 1 / used
    held = [core.last - core.first for core in placement.cores if core.node == node]
    return len(held), max(held, default=0) / neurons


def _neuron_time(program: Program, counts: Counts, node: Neuron, prices: PriceList) -> float:
    """Seconds that one layer's cores work, summed over them, all steps and samples."""
    counted, terms = counts.neurons[node.name], prices.terms
    seconds = counted.neuron_updates * terms["latency_neuron_access"].low
    seconds += counted.neuron_updates_touched * terms["latency_neuron_update"].low
    seconds += counted.spikes * terms["latency_spike_out"].low
    for name in feeders(program, node):
        if name in counts.weighted:
            kind = "latency_synop_conv" if isinstance(program.by_name[name], Conv) else "latency_synop_dense"
            seconds += counts.weighted[name].synops * terms.get(kind, terms["latency_synop_dense"]).low
    return seconds
