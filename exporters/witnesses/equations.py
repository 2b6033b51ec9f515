"""Express a Program as groups of equations, which Brian2 steps in order within a time step of length 1.

Every node is a group with a variable ``out``; each line of ``code`` is one of the equations of
`stl_deploy.graph.program`, each string of lines a block that is run for the whole group before the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.witnesses.connections import Connections, conv_connections, dense_connections
from stl_deploy.graph import program as ir
from stl_deploy.graph.neuron_cells import as_cell

LONGEST = 256
"""Steps of the longest delay."""
SYNAPSES = 2**25
"""In the whole network: about 1 GB."""

Arrays = dict[str, NDArray[Any]]


@dataclass
class Group:
    """A node, or its summed input. reads: (place of the group, steps ago) of x0, x1, ...

    synapses: whether these come through weights. constants: names of arrays with one value a neuron; state: variables,
    which start at 0, or at a constant ``start_NAME``. keep: whether its output is recorded; binary: is that 0 or 1.
    """

    name: str
    size: int
    reads: list[tuple[int, int]] = field(default_factory=list)
    synapses: bool = False
    constants: list[str] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    keep: bool = False
    binary: bool = False


def equations(program: ir.Program) -> tuple[list[dict[str, Any]], Arrays]:
    """Return groups in order (JSON-ready), and their arrays as ``PLACE.name``.

    Raises UnsupportedError where delays or synapses are more than Brian2 should be given.
    """
    nodes = list(_with_sums(program))
    places = {node.name: place for place, node in enumerate(nodes)}
    groups: list[dict[str, Any]] = []
    arrays: Arrays = {}
    count = 0
    for place, node in enumerate(nodes):
        group = Group(node.name, math.prod(node.shape))
        group.reads = [(places[source.node], source.delay) for source in node.operands]
        own = _fill(node, group)
        count += len(own.get("weight", ()))
        if count > SYNAPSES:
            reason = f"the network has more than {SYNAPSES:,} synapses up to here, which Brian2 keeps one by one"
            raise _not_here(node, "too-many-synapses", reason)
        if max((ago for _, ago in group.reads), default=0) > LONGEST:
            raise _not_here(node, "delay-too-long", f"it waits for more than {LONGEST} steps")
        arrays |= {f"{place}.{name}": array for name, array in own.items()}
        groups.append(asdict(group))
    return groups, arrays


def _not_here(node: ir.Node, slug: str, reason: str) -> UnsupportedError:
    return UnsupportedError(
        reason, node=node.name, slug=slug, remedy=f"use the reference ({option('backend', 'reference')})"
    )


def _with_sums(program: ir.Program) -> Iterator[ir.Node]:
    """Insert an adding group before weights that read several nodes, as the reference sums first."""
    for node in program.nodes:
        if isinstance(node, ir.Linear | ir.Conv | ir.Pool) and len(node.operands) > 1:
            total, shape = f"{node.name}, in", node.input_shape
            yield ir.Reshape(name=total, shape=shape, operands=node.operands, input_shape=shape)
            node = replace(node, operands=(ir.Operand(total),))
        yield node


def _fill(node: ir.Node, group: Group) -> Arrays:
    """Write the group's code and names; return its arrays."""
    x = " + ".join(f"x{k}" for k in range(len(group.reads)))
    constants: dict[str, NDArray[Any]] = {}
    match node:
        case ir.Input():
            pass
        case ir.Output() | ir.Reshape():
            group.code, group.keep = [f"out = {x}"], isinstance(node, ir.Output)
        case ir.Linear() | ir.Conv() | ir.Pool():
            return _synapses(node, group)
        case ir.Scale():
            group.code, constants = [f"out = ({x})*scale"], {"scale": node.scale}
        case ir.Delay():
            constants = _delay(node, group)
        case _:
            assert isinstance(node, ir.Neuron)
            constants = _neuron(node, group)
    group.constants = list(constants)
    return {name: _each(array, node) for name, array in constants.items()}


def _each(values: NDArray[Any], node: ir.Node) -> NDArray[np.float32]:
    return np.broadcast_to(np.asarray(values, np.float32), node.shape).reshape(-1)


def _synapses(node: ir.Linear | ir.Conv | ir.Pool, group: Group) -> Arrays:
    group.synapses, connections = True, _connections(node)
    arrays: Arrays = {name: np.ascontiguousarray(array) for name, array in connections._asdict().items()}
    if isinstance(node, ir.Pool):
        group.code = ["out = x0" if node.divisor == 1 else f"out = x0/{node.divisor}.0"]
    elif node.bias is None:
        group.code = ["out = x0"]
    else:
        group.code, group.constants = ["out = x0 + bias"], ["bias"]
        axes = 0 if isinstance(node, ir.Linear) else len(node.shape) - 1
        arrays["bias"] = _each(node.bias.reshape(-1, *(1,) * axes), node)
    return arrays


def _connections(node: ir.Linear | ir.Conv | ir.Pool) -> Connections:
    if isinstance(node, ir.Linear):
        rows = math.prod(node.input_shape[:-1])
        connections = dense_connections(node.weight)
        if rows == 1:
            return connections
        outs, ins = node.weight.shape
        row = np.arange(rows, dtype=np.int32)[:, None]
        source, target = connections.source + row * ins, connections.target + row * outs
        return Connections(source.reshape(-1), target.reshape(-1), np.tile(connections.weight, rows))
    if isinstance(node, ir.Conv):
        weight, dilation, groups = node.weight, node.dilation, node.groups
    else:
        groups = node.input_shape[0]
        weight, dilation = np.ones((groups, 1, *node.kernel), np.float32), (1,) * len(node.kernel)
    return conv_connections(
        weight, node.input_shape, stride=node.stride, padding=node.padding, dilation=dilation, groups=groups
    )


def _delay(node: ir.Delay, group: Group) -> dict[str, NDArray[Any]]:
    """Take each element's value of the given number of steps ago: others are multiplied by 0."""
    steps = np.unique(node.steps).tolist()
    each, count = group.reads, len(group.reads)
    # The group reads its inputs once for every number of steps; takes<i> picks one of them for each element.
    group.reads = [(place, ago + step) for step in steps for place, ago in each]
    sums = [" + ".join(f"x{k}" for k in range(i * count, (i + 1) * count)) for i in range(len(steps))]
    group.code = ["out = " + " + ".join(f"({x})*takes{i}" for i, x in enumerate(sums))]
    return {f"takes{i}": node.steps == step for i, step in enumerate(steps)}


def _neuron(node: ir.Neuron, group: Group) -> dict[str, NDArray[Any]]:
    """Write the operations of a neuron's Cell; integers end a block, so that the next one reads them in float32."""
    cell = as_cell(node)
    block = list[str]()
    for operation in cell.operations:
        if operation.op not in _WRITTEN:
            raise _not_here(node, "rounding", "it rounds its number of spikes to the nearest, halves to even")
        args = [name if name in cell.names else f"n_{name}" for name in operation.args]
        block.append(f"n_{operation.name} = {_WRITTEN[operation.op].format(*args)}")
        if operation.dtype == "bool" or operation.op == "trunc":
            group.code.append("\n".join(block))
            block = []
    group.state = [f"n_{operation.name}" for operation in cell.operations] + [
        f"n_{state.name}" for state in cell.states
    ]
    block += [f"out = n_{cell.outputs[0]}", *(f"n_{state.name} = n_{state.next}" for state in cell.states)]
    group.code.append("\n".join(block))
    group.keep = node.spiking
    group.binary = node.spiking and not node.multi_spike
    started = {f"start_n_{state.name}": state.start for state in cell.states if state.start.any()}
    return started | {f"n_{constant.name}": constant.value for constant in cell.constants}


_WRITTEN = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0}*{1}",
    "div": "{0}/{1}",
    "gt": "int({0} > {1})",
    "ge": "int({0} >= {1})",
    "cast": "{0}",
    "where": "{1}*{0} + {2}*(1 - {0})",
    "max": "clip({0}, {1}, inf)",
    "min": "clip({0}, -inf, {1})",
    "floor": "floor({0})",
    "trunc": "int({0})",
}
"""Brian2's expressions of a Cell's operations on finite values."""
