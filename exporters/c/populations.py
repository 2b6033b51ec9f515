"""Emit neurons in C: their input, the form of their row function, and its tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stl_deploy.exporters.c.plan import ByRows, Order, Table, Value, narrowest
from stl_deploy.exporters.c.pools import Pools, is_or
from stl_deploy.exporters.c.rule import Rule, drive_bounds, kept, kept_table, potential_bounds
from stl_deploy.exporters.c.weights import scratch
from stl_deploy.graph.program import Node
from stl_deploy.integers.bounds import Interval
from stl_deploy.integers.graph import ConvNode, IntegerLI, IntegerLIF, SumPoolNode
from stl_deploy.integers.net import DECAY_ONE, WIDE, Accumulator, IntegerNeuron, Ints

FEW_NEURONS = 4096
"""Where inputs add to the sums around them, so many sums stay in the first cache, and all at once is faster."""
NARROW = 2**31 // DECAY_ONE
"""Below it, a state times what it keeps of 4096 fits in 32 bits."""
_ARGUMENTS = ("keeps", "filter", "threshold", "offset", "drop", "value", "jump", "fade")
"""In the order of a row function's arguments."""


@dataclass(frozen=True, eq=False)
class Drive:
    """A neuron's input: place, C type and order of the sums, the bias still to be added to v, and `Rule.passes`.

    rows: steps that compute the sums row by row; None: all sums are there.
    """

    sums: str
    ctype: str
    order: Order
    bias: Ints | None
    passes: str
    rows: ByRows | None = None


class Populations(Pools):
    """Add neurons."""

    def _drive(self, node: IntegerLIF | IntegerLI) -> Drive:
        """Add up the input; the bias goes with it if u keeps nothing and stays within its limit."""
        order = self._order(node)
        known = self.known[node.name]
        _, passes = drive_bounds(known.sums, None, node.neuron, self.graph.accumulator)
        early = None if kept(node.neuron.i_decay) != 0 or passes else node.bias
        if len(node.operands) == 1 and not self._waits(self.graph.by_name[node.operands[0].node]):
            value = self._in_order(node, self._read(node, node.operands[0]), order)
            return Drive(value.at, value.ctype, order, node.bias, passes)
        low, high = known.sums
        if early is not None:
            low, high = low + min(0, int(early.min())), high + max(0, int(early.max()))
        ctype = narrowest((low, high), "int16_t", "int32_t")
        sums, begun = scratch(ctype), len(self.made.steps)
        self._start(node, sums, ctype, order, early)
        self._accumulate(node, sums, ctype, order, node)
        rows = self._by_rows(node, begun)
        self._set_aside(ctype, len(order) if rows is None else rows.slots * rows.conv.line)
        return Drive(sums, ctype, order, None if early is not None else node.bias, passes, rows)

    def _by_rows(self, node: IntegerLIF | IntegerLI, begun: int) -> ByRows | None:
        """Merge the convolution laid out since step ``begun`` into its neurons' step, if it alone reaches them.

        Not where it reads what is yet to be written, by these neurons perhaps: the spikes of the step before.
        """
        inner = self.graph.by_name[node.operands[0].node]
        start, conv = self.made.steps[begun], self.made.steps[-1]
        if len(node.shape) < 3 or len(node.operands) > 1:
            return None
        if math.prod(node.shape[1:]) == 1:  # no rows to take turns
            return None
        if not isinstance(inner, ConvNode) or conv.from_ not in {buffer.at for buffer in self.made.buffers}:
            return None
        _, height, width = node.shape
        kernel_height, lag = inner.weight.shape[2], inner.weight.shape[2] - 1 - inner.padding[0][0]
        if start.kind == "fill" and start.row != node.shape[0]:  # a bias of each neuron's own
            return None
        few = math.prod(node.shape) <= FEW_NEURONS
        if conv.kind == "conv_any" or (conv.kind == "conv" and (few or lag < 0 or kernel_height >= height)):
            return None
        self.made.steps = [step for step in self.made.steps if step not in (start, conv)]
        slots, lag = (kernel_height, lag) if conv.kind == "conv" else (1, 0)
        return ByRows(start, conv, height, width, slots, lag)

    def _population(self, node: IntegerLIF) -> None:
        pool = self.graph.by_name[node.operands[0].node]
        if is_or(node) and isinstance(pool, SumPoolNode) and self._or_pooled(pool):
            self._or_pool(node, pool)
            return
        self._head(node)
        drive = self._drive(node)
        fused = None if node.neuron.delayed_reset or node.neuron.adaptation else self._fusable(node)
        values = self._neurons(node, node.neuron, drive, fused[0].kernel[1] if fused else 0)
        record = self._record(node, drive.order)
        if fused is None:
            name = self._spikes_of(node, len(drive.order))
            self._do("neurons", **values, spikes=name, record=record)
            self.values[node.name] = Value(name, "uint8_t", node.neuron.cap == 1, drive.order)
        else:
            self._fuse(node, fused, values, record)

    def _neurons(
        self, node: IntegerLIF | IntegerLI, neuron: IntegerNeuron, drive: Drive, pooled: int = 0
    ) -> dict[str, Any]:
        """Return the row function, its rows, and its states and tables."""
        spikes = isinstance(node, IntegerLIF)
        if kept(neuron.v_decay) == 0 and not neuron.delayed_reset and neuron.cap == 1:
            neuron = replace(neuron, reset="value", drop=None, v_reset=None)  # nothing outlives the step
        count = len(drive.order)
        row = self._row(node)
        tables = {
            what: self._row_table(node, what, values, comment, drive.order, row)
            for what, values, comment in _row_values(neuron, drive.bias, spikes)
        }
        types = {what: table.ctype for what, (table, _) in tables.items()}
        reached = drive_bounds(self.known[node.name].sums, node.bias, neuron, self.graph.accumulator)[0]
        rule = _rule(
            neuron,
            drive,
            types,
            potential_bounds(neuron, reached) if spikes else None,
            self.graph.accumulator,
            row=row,
            by_neuron=[what for what in _ARGUMENTS if what in tables and tables[what][1]],
            pooled=pooled,
        )
        states = []
        if rule.has_state or not spikes:
            states.append(self._buffer(node, "v", rule.v, count, "potentials, in 64ths"))
            self._begin(node, "v", rule.v, neuron.v_start, drive.order)
        if rule.filtered:
            states.append(self._buffer(node, "u", "int32_t", count, "filtered input, in 64ths"))
            self._begin(node, "u", "int32_t", neuron.u_start, drive.order)
        if rule.a:
            states.append(self._buffer(node, "a", rule.a, count, "added to the thresholds, in 64ths"))
            self._begin(node, "a", rule.a, neuron.adaptation.start if neuron.adaptation else None, drive.order)
        return {
            "function": self.made.rules.setdefault(rule, f"neurons_{len(self.made.rules) + 1}"),
            "sums": drive.sums,
            "states": states,
            "tables": [(tables[what][0].name, tables[what][1]) for what in _ARGUMENTS if what in tables],
            "rows": count // row,
            "count": count,
            "by_rows": drive.rows,
        }

    def _begin(self, node: Node, what: str, ctype: str, start: Ints | None, order: Order) -> None:
        """Let a state start from other values than 0."""
        if start is None:
            return
        flat = np.broadcast_to(start, node.shape).reshape(-1)[order]
        comments = {
            "v": "potentials before the first step",
            "u": "filtered input before the first step",
            "a": "added to the thresholds in the first step",
        }
        table = self._table(node, f"{what}_start", flat, f"{comments[what]}, in 64ths", ctype)
        self.made.begins.append((self._at(node, what), table))

    def _row_table(
        self, node: Node, what: str, values: Ints, comment: str, order: Order, row: int
    ) -> tuple[Table, bool]:
        """Return a table for one row of neurons if all rows are alike, else for every neuron (then True)."""
        flat = np.broadcast_to(values, node.shape).reshape(-1)[order]
        by_neuron = not (flat.reshape(-1, row) == flat[:row]).all()
        ctype = "int16_t" if what in ("keeps", "filter", "fade") else ""
        return self._table(node, what, flat if by_neuron else flat[:row], comment, ctype), by_neuron

    def _integrator(self, node: IntegerLI) -> None:
        self._head(node)
        drive = self._drive(node)
        values = self._neurons(node, node.neuron, drive)
        self._do("neurons", **values, spikes=None, record=None)
        self.values[node.name] = Value(self._at(node, "v"), "int32_t", False, drive.order)


def _row_values(neuron: IntegerNeuron, bias: Ints | None, spikes: bool) -> Iterator[tuple[str, Ints, str]]:
    """Return the constants of a row of neurons that are tables: name, values, comment."""
    adapts = neuron.adaptation
    named: tuple[tuple[str, Ints | None, str], ...] = (
        ("threshold", neuron.threshold if spikes else None, "a neuron fires above it"),
        ("offset", bias, "added to v in every step"),
        ("drop", neuron.drop, "what a spike takes off v"),
        ("value", neuron.v_reset, "where a spike puts v"),
        ("keeps", kept_table(neuron.v_decay), "of 4096, what v keeps"),
        ("filter", kept_table(neuron.i_decay), "of 4096, what u keeps"),
        ("jump", None if adapts is None else adapts.jump, "what a spike adds to the threshold"),
        ("fade", None if adapts is None else kept_table(adapts.decay), "of 4096, what a keeps"),
    )
    return ((what, values, comment) for what, values, comment in named if values is not None)


def _rule(
    neuron: IntegerNeuron,
    drive: Drive,
    types: Mapping[str, str],
    reach: Interval | None,
    accumulator: Accumulator,
    *,
    row: int,
    by_neuron: Iterable[str],
    pooled: int,
) -> Rule:
    """Choose the form of a row function. types: of the tables; reach: bounds of v, None: it stops at its limit."""
    filtered, spikes = kept(neuron.i_decay) != 0, "threshold" in types
    adapts = neuron.adaptation
    low, high = accumulator.potentials if spikes else (1 - accumulator.v_top, accumulator.v_top - 1)
    stays = reach is not None and low <= reach[0] and reach[1] <= high
    farthest = max(-reach[0], reach[1]) if reach is not None and stays else max(-low, high)
    if neuron.v_start is not None:
        farthest = max(farthest, int(np.abs(neuron.v_start).max()))
    return Rule(
        sums=drive.ctype,
        keeps=kept(neuron.v_decay),
        filter_keeps=kept(neuron.i_decay) if filtered else None,
        filtered=filtered,
        narrow=farthest < NARROW and not filtered,
        passes=drive.passes,
        clips="" if stays else _clips(neuron, accumulator if spikes else WIDE),
        v=_kept_type(neuron, reach, accumulator) if spikes else "int32_t",
        spikes=spikes,
        reset=neuron.reset if spikes else "value",
        threshold=types.get("threshold"),
        bias=types.get("offset"),
        drop=types.get("drop"),
        value=types.get("value"),
        cap=neuron.cap,
        row=row,
        rows=row < len(drive.order),
        by_neuron=tuple("bias" if name == "offset" else name for name in by_neuron),
        pooled=pooled,
        a=None if adapts is None else narrowest((adapts.least, adapts.top), "int16_t", "int32_t"),
        fade=None if adapts is None else kept(adapts.decay),
        fades_narrow=adapts is not None and max(adapts.top, -adapts.least) < NARROW,
        jump=types.get("jump"),
        subtracts="baseline" if adapts is None else adapts.subtracts,
    )


def _kept_type(neuron: IntegerNeuron, reach: Interval | None, accumulator: Accumulator) -> str:
    """Return the C type of v after its reset to 0; values above the threshold are not kept. reach: bounds before it."""
    if accumulator.kept is not None:
        return "int16_t"
    if reach is None:
        return "int32_t"
    low, high = reach[0], min(reach[1], neuron.level_top)
    if neuron.v_start is not None:
        low, high = min(low, int(neuron.v_start.min())), max(high, int(neuron.v_start.max()))
    return "int16_t" if low >= -(2**15) and high < 2**15 else "int32_t"


def _clips(neuron: IntegerNeuron, accumulator: Accumulator) -> str:
    """Return the function that stops v; what is above 16 bits fires, and is not kept where a spike puts v."""
    if accumulator.kept is None:
        return "clip"
    fires = neuron.reset == "value" and neuron.cap == 1 and neuron.adaptation is None
    return "clip_low_int16" if fires else "clip_int16"
