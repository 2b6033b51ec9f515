"""Fold factors before pricing, so that equivalent graphs cost the same.

A neuron's gain is a factor on its weights, or on its threshold; a scale behind weights is in the weights; an offset
that is the same at every step is a bias. Hardware gets the folded form.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stl_deploy._util.arrays import row_values
from stl_deploy.energy.counts.record import Counts
from stl_deploy.graph.program import Conv, Floats, Linear, Neuron, Operand, Program, Scale


def folded_for_pricing(program: Program, counts: Counts) -> tuple[Program, Counts]:
    """Fold gains, scales and constant offsets into the weights; return the network and its remaining counts."""
    scales = {node.name: before.name for node in program.of(Scale) if (before := _behind(program, node)) is not None}
    offsets = {n.operands[0].node: n for n in program.of(Neuron) if _is_bias(program, n)}
    nodes = []
    for node in program.nodes:
        if node.name in scales:
            continue
        node = replace(node, operands=tuple(_through(scales, source) for source in node.operands))
        if isinstance(node, Neuron):
            node = _without_gain(program, node, is_bias=node.name in {n.name for n in offsets.values()})
        elif isinstance(node, Linear | Conv) and node.bias is None and node.name in offsets:
            outputs = node.shape if isinstance(node, Linear) else node.shape[:1]
            node = replace(node, bias=np.ones(outputs, np.float32))
        nodes.append(node)
    weighted = {name: c for name, c in counts.weighted.items() if name not in scales}
    for name in offsets:
        neurons = counts.neurons[offsets[name].name].neurons
        weighted[name] = replace(weighted[name], bias_adds=neurons * counts.T * counts.batch)
    order = tuple(name for name in counts.order if name not in scales)
    return replace(program, nodes=tuple(nodes)), replace(counts, weighted=weighted, order=order)


def _through(scales: dict[str, str], source: Operand) -> Operand:
    return source if source.node not in scales else Operand(scales[source.node], source.delay)


def _behind(program: Program, node: Scale) -> Linear | Conv | None:
    """Return the weights to fold a scale into: its only source, with no other reader."""
    if len(node.operands) != 1 or node.operands[0].delay or not bool(np.all(node.scale)):
        return None
    before = program.by_name[node.operands[0].node]
    is_channelwise = isinstance(before, Linear) or _per_channel(node.scale, node.shape)
    own = isinstance(before, Linear | Conv) and len(program.readers[before.name]) == 1 and before.shape == node.shape
    return before if own and is_channelwise and isinstance(before, Linear | Conv) else None


def _is_bias(program: Program, node: Neuron) -> bool:
    """Return whether a neuron's offset is a bias of the only weights that feed it."""
    if node.offset is None or not bool(np.any(node.offset)) or len(node.operands) != 1 or node.synapse is not None:
        return False
    before = program.by_name[node.operands[0].node]
    if not isinstance(before, Linear | Conv) or len(program.readers[before.name]) != 1 or node.operands[0].delay:
        return False
    return isinstance(before, Linear) or _per_channel(node.offset, node.shape)


def _per_channel(values: Floats, shape: tuple[int, ...]) -> bool:
    """Return whether values are constant within each channel."""
    return row_values(np.broadcast_to(values, shape)) is not None


def _without_gain(program: Program, node: Neuron, *, is_bias: bool) -> Neuron:
    fed = [program.by_name[source.node] for source in node.operands]
    if node.decay is not None and (node.spiking or all(isinstance(before, Linear | Conv | Scale) for before in fed)):
        synapse = None if node.synapse is None else replace(node.synapse, gain=None)
        node = replace(node, gain=None, synapse=synapse)
    return replace(node, offset=None) if is_bias else node
