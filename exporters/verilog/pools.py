"""Max pools in the engine, which takes the most spikes of a window: pools of sums move behind their neurons.

A neuron without memory spikes no less for a larger sum. So n(max(a, b)) = max(n(a), n(b)) where all neurons of a
channel are alike, and neurons before the pool, one for each sum, spike as those behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from stl_deploy._util.arrays import row_values
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.verilog.plan import forgets
from stl_deploy.graph.program import Input, MaxPool, Neuron, Node, Operand, Program, Shape
from stl_deploy.integers.graph import IntegerGraph, IntegerLIF, MaxPoolNode
from stl_deploy.passes.base import by_row, reads_one

_PARAMETERS = ("threshold", "drop", "v_reset")


def refused_max_pools(program: Program) -> Iterator[UnsupportedError]:
    """Yield refusals of the max pools that neither pool spikes nor are read by neurons that can move before them."""
    of_spikes = {node.name for node in program.spiking}
    for pool in program.of(MaxPool):
        reads_input = any(isinstance(program.by_name[source.node], Input) for source in pool.operands)
        if reads_one(pool) and pool.operands[0].node in of_spikes:
            of_spikes.add(pool.name)
        elif reads_input or not all(_may_move(reader) for reader in program.readers[pool.name]):
            yield _of_sums(pool.name)


def _may_move(node: Node) -> bool:
    if not isinstance(node, Neuron) or not node.spiking or node.synapse is not None:
        return False
    if node.decay is not None and node.decay.any():
        return False
    alike = all(by_channel(value, node.shape) is not None for value in (node.threshold, node.gain, node.offset))
    return alike and not node.delayed_reset and reads_one(node)


def pools_behind_neurons(graph: IntegerGraph) -> IntegerGraph:
    """Return the graph with max pools of spikes alone; raise UnsupportedError for one that cannot be one."""
    nodes: list[Node] = []
    for node in graph.nodes:
        pool = graph.by_name[node.operands[0].node] if node.operands else node
        if not isinstance(node, IntegerLIF) or not isinstance(pool, MaxPoolNode):
            nodes.append(node)
            continue
        before = _moved(node, graph.by_name[pool.operands[0].node].shape, pool)
        while before.name in graph.by_name:
            before = replace(before, name=f"{before.name}'")
        nodes += [before, replace(pool, name=node.name, operands=(Operand(before.name),))]
    read = {source.node for node in nodes for source in node.operands}
    nodes = [node for node in nodes if not isinstance(node, MaxPoolNode) or node.name in read]
    of_spikes = set[str]()
    for node in nodes:
        if isinstance(node, MaxPoolNode) and not (reads_one(node) and node.operands[0].node in of_spikes):
            raise _of_sums(node.name)
        if isinstance(node, IntegerLIF | MaxPoolNode):
            of_spikes.add(node.name)
    return replace(graph, nodes=tuple(nodes))


def _moved(node: IntegerLIF, shape: Shape, pool: MaxPoolNode) -> IntegerLIF:
    """Return the neurons before a pool of sums that spike as ``node`` behind it."""
    neuron = node.neuron
    alike = {name: by_channel(getattr(neuron, name), node.shape) for name in _PARAMETERS}
    bias = by_channel(node.bias, node.shape)
    remembers = neuron.delayed_reset or not all(map(forgets, (neuron.v_decay, neuron.i_decay)))
    if remembers or bias is None or not reads_one(node) or any(value is None for value in alike.values()):
        raise _of_sums(pool.name)
    own: dict[str, Any] = {name: alike[name] for name in _PARAMETERS if getattr(neuron, name) is not None}
    return replace(
        node,
        name=f"{node.name} before its pool",
        shape=shape,
        operands=pool.operands,
        neuron=replace(neuron, **own),
        bias=None if node.bias is None else bias,
    )


def by_channel(values: Any, shape: Shape) -> Any:
    """Return values that broadcast to ``shape`` as one for each channel; 0 for no values, None if pixels differ."""
    if values is None:
        return 0
    channels = row_values(np.broadcast_to(values, shape))
    return None if channels is None else by_row(channels, len(shape))


def _of_sums(name: str) -> UnsupportedError:
    reason = "it takes the maximum of sums; the engine takes that of spikes"
    remedy = "pool the spikes (move the pool behind the neurons), use average pooling, or export to c"
    return UnsupportedError(reason, node=name, slug="max-pool", remedy=remedy)
