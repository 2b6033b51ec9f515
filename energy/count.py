"""Exact counts from a Program and its activity, streaming over samples.

For each tapped node the non-zero inputs are counted per position over time and samples, and
multiplied by the structural fan-out of the position: integers throughout, no second run of the net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from stl_deploy.energy.arrivals import Mask, arrivals, arrived, feeders, how_many
from stl_deploy.energy.coding import op_of
from stl_deploy.energy.counts import Counts, NeuronCounts, TapCounts
from stl_deploy.energy.fold_pool import fold_pools
from stl_deploy.energy.taps import (
    Ints,
    Tapped,
    Weighted,
    bias_of,
    dense_macs,
    fan_out,
    fan_out_nonzero,
    input_shape,
    nominal_macs,
)
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Conv, Input, InputCoding, Linear, Neuron, Node, Pool, Program, Scale

_UINT8_ROWS = 255
"""So many rows of 0 and 1 add up in uint8 without wrapping round."""


@dataclass
class _Taps:
    positions: Ints
    binary: bool = True


@dataclass
class _Firing:
    touched: int = 0
    spikes: int = 0
    events: int = 0


class ActivityCounter:
    """Counts a Program's activity; give it to `stl_deploy.graph.run.run` as ``observe``.

    coding: what the inputs are coded as; with the structure it decides each node's AC or MAC.
    Memory: one int64 per input position of each tapped node, and one chunk's masks.
    """

    def __init__(self, program: Program, coding: InputCoding) -> None:
        self._program = program
        self._coding = coding
        self._taps = {n.name: _Taps(np.zeros(input_shape(n), np.int64)) for n in program.nodes if _is_tapped(n)}
        self._firing = {n.name: _Firing() for n in program.of(Neuron)}
        self._feeders = {name for n in program.of(Neuron) for name in feeders(program, n)}
        self._masks: dict[str, Mask] = {}
        self._seen: set[str] = set()
        self._steps = 0
        self._batch = 0
        self._constant = True

    def __call__(self, node: Node, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Count one node's chunk: its summed input ``x`` and output ``y``, ``[T, B, *shape]``."""
        if isinstance(node, Input):
            self._constant = self._constant and bool((x == x[:1]).all())
        if node.name in self._taps:
            self._count_taps(self._taps[node.name], x)
        if isinstance(node, Neuron):
            self._count_events(node, self._firing[node.name], y)
        if node.name in self._feeders:
            self._masks[node.name] = arrivals(node, x, y)
        self._seen.add(node.name)
        if len(self._seen) == len(self._program.nodes):
            self._end_chunk(*x.shape[:2])

    def _count_taps(self, taps: _Taps, x: NDArray[Any]) -> None:
        events = x != 0
        found = nonzero_by_position(events)
        taps.positions += found
        taps.binary = taps.binary and int(found.sum()) == int(np.count_nonzero(x == 1))

    def _count_events(self, node: Neuron, firing: _Firing, y: NDArray[Any]) -> None:
        events = int(np.count_nonzero(y != 0))
        firing.events += events
        if node.spiking:
            firing.spikes += int(y.astype(np.int64).sum()) if node.many else events

    def _end_chunk(self, steps: int, batch: int) -> None:
        if self._batch and steps != self._steps:
            raise InputError(f"activity of {steps} steps after activity of {self._steps}; one T for all is accepted")
        for node in self._program.of(Neuron):
            self._firing[node.name].touched += how_many(arrived(self._program, node, self._masks))
        self._masks.clear()
        self._seen.clear()
        self._steps = steps
        self._batch += batch

    def counts(self) -> Counts:
        """Everything counted so far; raises InputError if no whole chunk was observed."""
        if not self._batch:
            raise InputError("no activity was recorded; run the network with this counter as its observer")
        weighted = {n.name: self._tapped(n) for n in self._program.nodes if _is_weighted(n)}
        pools = {n.name: self._tapped(n) for n in self._program.of(Pool)}
        neurons = {n.name: self._neuron(n) for n in self._program.of(Neuron)}
        order = tuple(n.name for n in self._program.nodes if n.name in {*weighted, *pools, *neurons})
        return Counts(self._steps, self._batch, order, weighted, pools, neurons, self._constant)

    def _tapped(self, node: Tapped) -> TapCounts:
        taps = self._taps[node.name]
        passes = self._steps * self._batch
        synapses = dense_macs(node)
        folded = None if isinstance(node, Pool) else fold_pools(self._program, node)
        return TapCounts(
            in_nonzero=int(taps.positions.sum()),
            binary_input=taps.binary,
            synops=_weigh(taps.positions, fan_out(node)),
            synops_nonzero_w=_weigh(taps.positions, fan_out_nonzero(node)),
            synapses=synapses,
            dense_macs_exact=synapses * passes,
            dense_macs_nominal=nominal_macs(node) * passes,
            bias_adds=0 if bias_of(node) is None else prod(node.shape) * passes,
            op=op_of(self._program, node, self._coding),
            synops_pool_folded=None if folded is None else _weigh(self._taps[folded.pool].positions, folded.fan_out),
        )

    def _neuron(self, node: Neuron) -> NeuronCounts:
        neurons = prod(node.shape)
        firing = self._firing[node.name]
        updates = neurons * self._steps * self._batch
        return NeuronCounts(neurons, updates, firing.touched, firing.spikes, firing.events)


def nonzero_by_position(events: Mask) -> Ints:
    """How often each position is set, int64 ``shape``, for a mask ``[T, B, *shape]``."""
    shape: Sequence[int] = events.shape[2:]
    rows = np.ascontiguousarray(events).view(np.uint8).reshape(events.shape[0] * events.shape[1], -1)
    total = np.zeros(rows.shape[1], np.int64)
    for start in range(0, len(rows), _UINT8_ROWS):
        total += np.add.reduce(rows[start : start + _UINT8_ROWS], axis=0, dtype=np.uint8)
    return total.reshape(shape)


def _weigh(positions: Ints, table: Ints) -> int:
    return int((positions * table).sum(dtype=np.int64))


def _is_weighted(node: Node) -> TypeGuard[Weighted]:
    return isinstance(node, Linear | Conv | Scale)


def _is_tapped(node: Node) -> TypeGuard[Tapped]:
    return isinstance(node, Linear | Conv | Scale | Pool)
