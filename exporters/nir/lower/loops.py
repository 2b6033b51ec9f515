"""Place the delay of a loop, and delay neurons' outputs, as the dialect says.

Lowering delays the edge that closes a loop. Some frameworks delay the neuron's spikes instead, before they pass
through the loop's weights, which differs at t = 0 if there is a bias on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.graph.program import Delay, Neuron, Node, Operand
from stl_deploy.graph.segments import ordered


def place_delays(nodes: Mapping[str, Node], dialect: Dialect) -> tuple[Node, ...]:
    """Return the nodes with delays at the dialect's places, in running order."""
    if dialect.loop == "closing_edge" and dialect.emit == "now":
        return tuple(nodes.values())
    moved = _to_neuron_outputs(dict(nodes))
    if dialect.emit == "next_step":
        moved = _emit_late(moved)
    return ordered(moved)


def _to_neuron_outputs(nodes: dict[str, Node]) -> dict[str, Node]:
    readers: dict[str, int] = {}
    for node in nodes.values():
        for source in node.operands:
            readers[source.node] = readers.get(source.node, 0) + 1
    for name in list(nodes):
        for source in [source for source in nodes[name].operands if source.delay]:
            reader, edge = name, source
            # A memoryless node between the two computes the same a step later, if it serves nobody else.
            while not isinstance(nodes[edge.node], Neuron):
                before = nodes[edge.node].operands
                if len(before) != 1 or readers[edge.node] != 1:
                    break
                _redelay(nodes, reader, edge, -1)
                reader, edge = edge.node, _redelay(nodes, edge.node, before[0], 1)
    return nodes


def _redelay(nodes: dict[str, Node], reader: str, edge: Operand, by: int) -> Operand:
    changed = replace(edge, delay=edge.delay + by)
    node = nodes[reader]
    nodes[reader] = replace(node, operands=tuple(changed if source == edge else source for source in node.operands))
    return changed


def _emit_late(nodes: dict[str, Node]) -> dict[str, Node]:
    """Insert a Delay of one step after each spiking neuron with memory, except on edges that are late already."""
    spiking = [node for node in nodes.values() if isinstance(node, Neuron) and node.spiking and node.decay is not None]
    late = {node.name: _unused(nodes, node.name) for node in spiking}
    placed: dict[str, Node] = {}
    for node in nodes.values():
        sources = tuple(
            Operand(late[source.node]) if source.node in late and not source.delay else source
            for source in node.operands
        )
        placed[node.name] = replace(node, operands=sources)
        if node.name in late:
            name = late[node.name]
            placed[name] = Delay(
                name=name, shape=node.shape, operands=(Operand(node.name),), steps=np.ones((), np.int64)
            )
    return placed


def _unused(nodes: Mapping[str, Node], name: str) -> str:
    name = f"{name}.late"
    while name in nodes:
        name += "_"
    return name
