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

LONGEST = 256
"""Steps of the longest delay."""
SYNAPSES = 2**25
"""In the whole network: about 1 GB."""

Arrays = dict[str, NDArray[Any]]


@dataclass
class Group:
    """A node, or its summed input. reads: (place of the group, steps ago) of x0, x1, ...

    synapses: whether these come through weights. constants: names of arrays with one value a neuron; state: variables,
    which start at 0 (v at a constant ``v_start``). keep: whether its output is recorded; binary: is that 0 or 1.
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
            constants = _neuron(node, group, x)
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


def _neuron(node: ir.Neuron, group: Group, x: str) -> dict[str, NDArray[Any]]:
    if node.adaptation is not None:
        raise _not_here(node, "adapting-threshold", "its threshold adapts")
    if node.i_start is not None:
        raise _not_here(node, "i-start", "its current does not start at 0")
    given = {name: getattr(node, name) for name in ("decay", "gain", "offset", "v_reset", "v_min", "v_start")}
    given["theta"] = node.threshold
    if node.synapse is not None:
        given |= {"syn_decay": node.synapse.decay, "syn_gain": node.synapse.gain}
    constants = {name: array for name, array in given.items() if array is not None}
    group.state = ["v"]
    group.keep = node.spiking
    group.binary = node.spiking and not node.multi_spike
    over = node.reset == "snntorch_subtract_now" and node.spiking and node.decay is not None
    if over:
        group.state.append("over")
        group.code.append("over = int(v > theta)")
    group.code.append("\n".join([f"x = {x}", *_charge(node, group, over)]))
    if not node.spiking:
        group.code.append("out = v")
        return constants
    if node.multi_spike:
        if node.rounding != "down":
            raise _not_here(node, "rounding", "it rounds its number of spikes to the nearest")
        group.code += ["out = int(v/theta)", "out = out*int(out > 0)"]
        group.code += [f"out = clip(out, 0, {node.cap})"] if node.cap is not None else []
    else:
        group.code.append(f"out = int(v {'>' if node.compare == 'gt' else '>='} theta)")
    if node.decay is not None:
        resets = {
            "value": _to_value(node),
            "subtract": "v = v - theta*out",
            "snntorch_subtract_now": "v = v - theta*(out - over)",
        }
        group.code += [resets[node.reset]] if node.reset in resets else []
    return constants


def _charge(node: ir.Neuron, group: Group, over: bool) -> list[str]:
    lines: list[str] = []
    if node.synapse is not None:
        group.state.append("current")
        lines += ["x = x*syn_gain"] if node.synapse.gain is not None else []
        if node.synapse.rule == "euler":
            lines += ["current = current*syn_decay", "current = current + x"]
        else:
            lines += ["current = current + x", "current = current*syn_decay"]
        lines.append("x = current")
    lines += ["x = x*gain"] if node.gain is not None else []
    lines += ["v = x"] if node.decay is None else ["v = v*decay", "v = v + x"]
    lines += ["v = v + offset"] if node.offset is not None else []
    if node.delayed_reset:
        lines.append(_to_value(node) if node.reset == "value_delayed" else "v = v - theta*out")
    lines += ["v = v - theta*over"] if over else []
    lines += ["v = clip(v, v_min, inf)"] if node.v_min is not None else []
    return lines


def _to_value(node: ir.Neuron) -> str:
    """In the block of its own, or where ``out`` is still that of the step before."""
    return "v = v*int(out <= 0)" + (" + v_reset*int(out > 0)" if node.v_reset is not None else "")
