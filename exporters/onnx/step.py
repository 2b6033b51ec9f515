"""Emit nodes one time step at a time: the step form of a Program, and the body of a Scan over a loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import TensorProto

from stl_deploy.exporters.onnx.neurons import neuron_step
from stl_deploy.exporters.onnx.scope import Scope
from stl_deploy.exporters.onnx.states import Past, States, choose
from stl_deploy.exporters.onnx.synapses import memoryless
from stl_deploy.graph.program import Delay, Input, Neuron, Node, Operand, Product


def step_nodes(
    scope: Scope,
    nodes: Sequence[Node],
    states: States,
    given: Mapping[Operand, str],
    names: Mapping[str, str],
) -> dict[str, str]:
    """Add one step of ``nodes``; return the name of each node's output ``[B, *shape]``.

    given: values that come from outside, by edge. names: how outputs shall be called, for
    inputs, spikes and Output nodes.
    """
    inside = {node.name: node for node in nodes}
    pasts = {
        name: Past(scope, states, name, "past", inside[name].shape, depth)
        for name, depth in _depths(nodes, given).items()
    }
    values: dict[str, str] = {}

    def arrive(source: Operand) -> str:
        if source in given:
            return given[source]
        return pasts[source.node].read(source.delay) if source.delay else values[source.node]

    for node in nodes:
        if isinstance(node, Input):
            values[node.name] = names[node.name]
        else:
            x = together(scope, node, [arrive(source) for source in node.operands], axis=1)
            values[node.name] = _step(scope, node, x, states, names.get(node.name))
    for name, past in pasts.items():
        past.write(values[name])
    return values


def together(scope: Scope, node: Node, values: Sequence[str], *, axis: int) -> str:
    """Combine a node's sources: their sum, left to right, or their concatenation along ``axis``."""
    if isinstance(node, Product):
        return _product(scope, node, values)
    if node.combine == "each":
        return scope.op("Concat", values, f"{node.name}/together", axis=axis)
    total, *others = values
    for other in others:
        total = scope.op("Add", [total, other], f"{node.name}/sum")
    return total


def _product(scope: Scope, node: Product, values: Sequence[str]) -> str:
    """Multiply two values, ``[..., *shape]`` each; as matrices in the type in which sums are made."""
    if not node.matrices:
        return scope.op("Mul", values, f"{node.name}/product")
    if not scope.double:
        return scope.op("MatMul", values, f"{node.name}/product")
    wide = [scope.op("Cast", [value], f"{node.name}/wide", to=TensorProto.DOUBLE) for value in values]
    product = scope.op("MatMul", wide, f"{node.name}/product")
    return scope.op("Cast", [product], f"{node.name}/rounded", to=TensorProto.FLOAT)


def _depths(nodes: Sequence[Node], given: Mapping[Operand, str]) -> dict[str, int]:
    """Return the number of past values of each node that its readers need."""
    depths: dict[str, int] = {}
    for node in nodes:
        for source in node.operands:
            if source.delay and source not in given:
                depths[source.node] = max(source.delay, depths.get(source.node, 0))
    return depths


def _step(scope: Scope, node: Node, x: str, states: States, output: str | None) -> str:
    if isinstance(node, Neuron):
        return neuron_step(scope, node, x, states, output)
    if isinstance(node, Delay):
        return _delay(scope, node, x, states)
    return memoryless(scope, node, x, None, output)


def _delay(scope: Scope, node: Delay, x: str, states: States) -> str:
    depth = int(node.steps.max())
    if not depth:
        return x
    line = Past(scope, states, node.name, "line", node.shape, depth)
    y = choose(scope, node, lambda delay: line.read(delay) if delay else x)
    line.write(x)
    return y
