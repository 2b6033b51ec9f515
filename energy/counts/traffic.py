"""Count messages between placed cores: one per spike and destination core.

Zero weights are synapses, too. Exact integers: events by position, as counted, times the structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stl_deploy.energy.counts.arrivals import Mask
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.counts.taps import Ints, spread, windows
from stl_deploy.energy.prices.chip import CORES, OnChip, hops, tile_of, tiles
from stl_deploy.graph.placement import PlacedCore, Placement
from stl_deploy.graph.program import Conv, Linear, Pool, Program, origin_of


@dataclass(frozen=True, eq=False)
class Traffic:
    """Messages of a placement, summed over all samples and steps.

    between: ``[cores, cores]``, from the row's core to the column's. from_input: spikes of the network's input times
    the cores they go to; they come from outside the chip. read_out: spikes of the last layer, which leave it.
    """

    placement: Placement
    host: tuple[str, ...]
    between: Ints
    from_input: int
    read_out: float

    @property
    def messages(self) -> int:
        """Messages from core to core."""
        return int(self.between.sum())

    @cached_property
    def hops(self) -> tuple[int, int] | None:
        """Return tile borders crossed east or west, and north or south; None for more than one chip."""
        count = len(self.between)
        if count > CORES:
            return None
        each = np.array([[hops(a, b) for b in range(count)] for a in range(count)], np.int64).reshape(count, count, 2)
        east, north = (self.between[..., None] * each).sum(axis=(0, 1)).tolist()
        return east, north

    def as_dict(self, batch: int) -> dict[str, Any]:
        """Return a JSON-ready dict; messages and hops of one inference, the mean over ``batch`` samples."""
        crossed = self.hops
        return {
            "placement": self.placement.name,
            "tiles": tiles(self.placement),
            "messages": self.messages / batch,
            "hops_ew": None if crossed is None else crossed[0] / batch,
            "hops_ns": None if crossed is None else crossed[1] / batch,
            "input_messages": self.from_input / batch,
            "output_spikes": self.read_out / batch,
            "cores": [
                {"node": core.node, "first": core.first, "last": core.last, "tile": list(tile_of(number)), **core.used}
                for number, core in enumerate(self.placement.cores)
            ],
        }


def placement_json(chip: OnChip, messages: tuple[Traffic, ...], batch: int) -> dict[str, Any]:
    """Return the energy JSON's ``placement``."""
    return {
        "chip": chip.chip or None,
        "reason": None if messages else chip.reason,
        "limits": dict(chip.limits or {}),
        "notes": list(chip.notes),
        "placements": [placement.as_dict(batch) for placement in messages],
    }


def traffic(program: Program, counts: Counts, chip: OnChip) -> tuple[Traffic, ...]:
    """Count the messages of each placement; ``counts`` come from an `ActivityCounter`."""
    return tuple(_traffic(program, counts, chip, placement) for placement in chip.placements)


def _traffic(program: Program, counts: Counts, chip: OnChip, placement: Placement) -> Traffic:
    cores = placement.cores
    between = np.zeros((len(cores), len(cores)), np.int64)
    from_input = 0
    for number, core in enumerate(cores):
        tapped = program.by_name[program.by_name[core.node].operands[0].node]
        assert isinstance(tapped, Linear | Conv | Pool)
        arriving = np.where(_reaching(tapped, core), counts.arriving[tapped.name].ravel(), 0)
        before = origin_of(program, tapped)
        senders = [] if before is None else list(_cores_of(placement, before.name))
        for sender, (first, last) in senders:
            between[sender, number] = arriving[first:last].sum()
        # in a chain only the network's input has no cores
        from_input += 0 if senders else int(arriving.sum())
    return Traffic(placement, chip.host, between, from_input, counts.neurons[cores[-1].node].events)


def _cores_of(placement: Placement, node: str) -> Iterator[tuple[int, tuple[int, int]]]:
    return ((i, (core.first, core.last)) for i, core in enumerate(placement.cores) if core.node == node)


def _reaching(node: Linear | Conv | Pool, core: PlacedCore) -> Mask:
    """Return which input positions of ``node`` (flattened) have a tap to an output on the core."""
    held: Mask = np.zeros(node.shape, np.bool_)
    held.reshape(-1)[core.first : core.last] = True
    if isinstance(node, Linear):
        return np.broadcast_to(held.any(axis=-1, keepdims=True), node.input_shape).ravel()
    if isinstance(node, Conv):
        held = np.any(held.reshape(node.groups, -1, *node.shape[1:]), axis=1)
    held = spread(windows(node), held)
    if isinstance(node, Conv):
        held = np.repeat(held, node.input_shape[0] // node.groups, axis=0)
    return held.ravel()
