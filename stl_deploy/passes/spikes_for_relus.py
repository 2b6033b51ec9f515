"""Give ReLUs thresholds: each becomes a spiking neuron, and a scale behind it restores its height.

A ReLU r(v) = max(v, 0) rounded to D levels of height u = θ/D is, per channel,

    r(v) ≈ u·k,  k = min(max(floor(v/u + ½), 0), D)        form "counts": a memoryless neuron of threshold u, T = 1
    r(v) ≈ θ·mean of s[t], v[t] = v[t−1] + v + θ/2T − θ·s  form "rates": integrate-and-fire over T = D steps

Counts equal the quantised ReLU in every bit. Rates start half a threshold up, as θ/2T of each step, since many readers
start potentials at 0 (Bu et al. 2022 for the shift; Rueckauer et al. 2017 for the reset by subtraction).

A neuron that reads another one without weights between them (a skip connection), or its maxima, max(u·k) = u·max(k),
shares its thresholds, so that a skipping spike weighs 1 in integers (`tied`). No threshold of a ReLU with a cap, as
ReLU6, is above the cap, so that its counts need no other bound (see `ramps_for_cells`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.segments import ordered
from stl_deploy.passes import fold_affine, narrow
from stl_deploy.passes.base import Nodes, divided, free, read_instead, readers_of, with_nodes
from stl_deploy.passes.ramps_for_cells import without_caps

Form = Literal["counts", "rates"]
FORMS = get_args(Form)
Heights = Mapping[str, ir.Floats]
"""A number per channel ``[C]`` of each ReLU, by its name."""


def is_relu(node: ir.Node) -> bool:
    """Return whether a node is max(gain·x + offset, 0): a neuron without memory, threshold or synapse."""
    if not isinstance(node, ir.Neuron) or node.spiking or node.v_min is None or np.any(node.v_min):
        return False
    rises = node.gain is None or bool(np.all(node.gain > 0))
    return rises and node.decay is None and node.synapse is None


def relus(program: ir.Program) -> tuple[ir.Neuron, ...]:
    """Return the ReLUs of a Program, in order."""
    return tuple(node for node in program.of(ir.Neuron) if is_relu(node))


def channel_axis(program: ir.Program, node: ir.Node) -> int:
    """Return the axis of a node's shape that has a threshold per entry: the last behind weights over tokens, else 0."""
    return max((_row_axis(_pooled(program, operand.node)) for operand in node.operands), default=0)


def _pooled(program: ir.Program, name: str) -> ir.Node:
    """Return what a node takes maxima of; the node itself if it is no max pool of one signal."""
    node = program.by_name[name]
    return _pooled(program, node.operands[0].node) if _takes_maxima(node) else node


def _row_axis(layer: ir.Node) -> int:
    """Return the axis of the output along which weights have a row each: the last of a Linear over tokens, else 0."""
    return len(layer.shape) - 1 if isinstance(layer, ir.Linear) else 0


def tied(program: ir.Program) -> tuple[tuple[str, ...], ...]:
    """Group the ReLUs that share thresholds: one that another reaches without weights belongs to that one's group."""
    program = without_caps(program)
    group = {relu.name: {relu.name} for relu in relus(program)}
    for relu in relus(program):
        for operand in relu.operands:
            other = _pooled(program, operand.node)
            fits = program.by_name[operand.node].shape == relu.shape and other.name in group
            if fits and channel_axis(program, other) == channel_axis(program, relu):
                joined = group[relu.name] | group[other.name]
                group |= dict.fromkeys(joined, joined)
    distinct = {id(names): names for names in group.values()}
    return tuple(tuple(name for name in program.by_name if name in names) for names in distinct.values())


def _takes_maxima(node: ir.Node) -> bool:
    return isinstance(node, ir.MaxPool) and len(node.operands) == 1  # a maximum of sums is no sum of maxima


def relus_behind_pools(program: ir.Program) -> ir.Program:
    """Move each ReLU, and its cap, behind the max pool that alone reads it: max(r(x)) = r(max(x)), in every bit."""
    nodes: Nodes = dict(program.by_name)
    for name in reversed(nodes):
        node = nodes[name]
        if not is_relu(node) and not isinstance(node, Cell):
            continue
        readers = readers_of(nodes, name)
        if len(readers) != 1 or not _takes_maxima(pool := readers[0]) or len(node.operands) != 1:
            continue
        for reader in readers_of(nodes, pool.name):
            read_instead(nodes, reader.name, pool.name, (ir.Operand(name),))
        nodes[pool.name] = replace(pool, operands=node.operands)
        moved: Any = replace(node, operands=(ir.Operand(pool.name),), shape=pool.shape)
        if isinstance(moved, Cell):
            moved = replace(moved, operand_shapes=(pool.shape,), output_shapes=(pool.shape,))
        nodes[name] = moved
    return with_nodes(program, nodes)


def relus_into_counts(program: ir.Program) -> ir.Program:
    """Remove each ReLU that only counts read, through positive scales: below 0 they are 0 anyway, in every bit."""
    nodes: Nodes = dict(program.by_name)
    for relu in relus(program):
        readers = readers_of(nodes, relu.name)
        if relu.gain is not None or relu.offset is not None or not all(_counts(nodes, reader) for reader in readers):
            continue
        for reader in readers:
            read_instead(nodes, reader.name, relu.name, relu.operands)
        del nodes[relu.name]
    return with_nodes(program, nodes)


def _counts(nodes: Nodes, node: ir.Node) -> bool:
    """Return whether what a node takes below 0 alone is a count of 0."""
    if len(node.operands) != 1:
        return False
    if isinstance(node, ir.Scale):
        return bool(np.all(node.scale > 0)) and all(_counts(nodes, reader) for reader in readers_of(nodes, node.name))
    if not isinstance(node, ir.Neuron) or not node.spiking or node.offset is not None:
        return False
    return node.decay is None and node.synapse is None and (node.gain is None or bool(np.all(node.gain > 0)))


def spikes_for_relus(
    program: ir.Program, thresholds: Heights, levels: int, form: Form = "counts", shifts: Heights | None = None
) -> ir.Program:
    """Return a Program whose ReLUs are spiking neurons of these thresholds.

    Args:
        program: An ANN as a Program: ReLUs are neurons without memory (`is_relu`).
        thresholds: The activation θ per channel at which a neuron is at its highest level.
        levels: D, the levels of a count, or the steps T of a rate.
        form: ``counts`` at T = 1, or ``rates`` over T = D steps.
        shifts: What is added to each neuron's input per channel and step, as calibrated biases are.

    Returns:
        The Program, in which a scale by its height stands behind each neuron, for learning (see `heights_in_weights`).
    """
    program = without_caps(program)
    nodes: Nodes = dict(program.by_name)
    units: dict[str, ir.Floats] = {}
    for relu in relus(program):
        axis = channel_axis(program, relu)
        theta = _along(thresholds[relu.name], relu, axis)
        unit = units[relu.name] = (theta / levels if form == "counts" else theta).astype(np.float32)
        shift = np.zeros_like(unit) if shifts is None else _along(shifts[relu.name], relu, axis)
        if form == "rates":
            shift = (shift + unit / (2 * levels)).astype(np.float32)
        own: Any = nodes[relu.name]  # which may read a height by now
        neuron = _counting(own, unit, levels) if form == "counts" else _firing(own, unit)
        neuron = _shifted(nodes, neuron, shift)
        nodes[relu.name] = _in_thresholds(nodes, neuron, units, unit)
        for last in _behind_maxima(nodes, relu) if axis == 0 else [relu]:
            units[last.name] = unit
            name, read = free(nodes, f"{last.name}_height"), (ir.Operand(last.name),)
            height = ir.Scale(name=name, shape=last.shape, operands=read, scale=unit)
            for reader in readers_of(nodes, last.name):
                if axis or not _takes_maxima(reader):
                    read_instead(nodes, reader.name, last.name, (ir.Operand(name),))
            nodes[name] = height
    return replace(program, nodes=ordered(nodes), origin=None)


def _behind_maxima(nodes: Nodes, node: ir.Node) -> list[ir.Node]:
    """Return a node and the max pools behind it, those that anything but a max pool reads."""
    readers = readers_of(nodes, node.name)
    pools = [reader for reader in readers if _takes_maxima(reader)]
    own = [node] if len(pools) < len(readers) else []
    return sum((_behind_maxima(nodes, pool) for pool in pools), own)


def heights_in_weights(program: ir.Program) -> ir.Program:
    """Move the heights of spikes into the weights behind them, where only weights read them; rounds once."""
    return narrow.PASS.run(fold_affine.PASS.run(program).program).program


def _in_thresholds(nodes: Nodes, neuron: ir.Neuron, units: Heights, unit: ir.Floats) -> ir.Neuron:
    """Divide what reaches a neuron behind a skip by its thresholds, so that a spike of the same unit weighs 1."""
    skips = {
        each.node: nodes[each.node].operands[0].node
        for each in neuron.operands
        if isinstance(nodes[each.node], ir.Scale)
    }
    if not skips or not all(np.array_equal(units.get(name, 0), unit) for name in skips.values()):
        return neuron
    layers: list[Any] = [_own_weights(nodes, each.node) for each in neuron.operands if each.node not in skips]
    if not all(_has_rows_of(layer, unit) for layer in layers):
        return neuron
    for layer in layers:
        nodes[layer.name] = divided(layer, unit.reshape(-1))
    offset = None if neuron.offset is None else neuron.offset / unit
    read = tuple(ir.Operand(skips.get(each.node, each.node), each.delay) for each in neuron.operands)
    return replace(neuron, operands=read, threshold=np.ones_like(unit), offset=offset)


def _along(values: ir.Floats, node: ir.Node, axis: int) -> ir.Floats:
    """Return one number per channel as an array that broadcasts to the node's shape."""
    shape = [1] * len(node.shape)
    shape[axis] = -1
    return np.asarray(values, np.float32).reshape(shape)


def _counting(relu: Any, unit: ir.Floats, levels: int) -> ir.Neuron:
    counts: dict[str, Any] = {"multi_spike": True, "cap": levels, "rounding": "half_up"}
    neuron: ir.Neuron = replace(relu, v_min=None, threshold=unit, **counts)
    return neuron


def _firing(relu: Any, unit: ir.Floats) -> ir.Neuron:
    one = np.asarray(1, np.float32)
    neuron: ir.Neuron = replace(relu, v_min=None, threshold=unit, decay=one, reset="subtract", compare="ge")
    return neuron


def _shifted(nodes: Nodes, neuron: ir.Neuron, shift: ir.Floats) -> ir.Neuron:
    """Add a number per channel to a neuron's input: to the bias of weights of its own, else as its offset."""
    if not shift.any():
        return neuron
    for operand in neuron.operands:
        layer: Any = _own_weights(nodes, operand.node)
        if neuron.gain is None and _has_rows_of(layer, shift):
            bias = np.zeros(shift.size, np.float32) if layer.bias is None else layer.bias
            nodes[layer.name] = replace(layer, bias=(bias + shift.reshape(-1)).astype(np.float32))
            return neuron
    return replace(neuron, offset=shift if neuron.offset is None else neuron.offset + shift)


def _has_rows_of(layer: ir.Node | None, values: ir.Floats) -> bool:
    """Return whether the numbers per channel are one for each row of the weights, along their axis."""
    if not isinstance(layer, ir.Conv | ir.Linear) or values.size != len(layer.weight):
        return False
    return values.size == 1 or values.shape[_row_axis(layer)] == values.size


def _own_weights(nodes: Nodes, name: str) -> ir.Node | None:
    """Return the weights that nothing else reads, through max pools; None if there are none."""
    node = nodes[name]
    alone = len(readers_of(nodes, name)) == 1
    if _takes_maxima(node) and alone:
        return _own_weights(nodes, node.operands[0].node)
    return node if alone and isinstance(node, ir.Conv | ir.Linear) else None
