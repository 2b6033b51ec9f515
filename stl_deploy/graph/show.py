"""Show a network as a table: kind, size and neuron constants of each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from stl_deploy._util.json_twin import JsonTwin
from stl_deploy.graph import program as ir
from stl_deploy.graph.program import Doubles, Floats, Shape


@dataclass(frozen=True)
class Row(JsonTwin):
    """One node.

    shape: of its output; parameters: stored weights and biases; synapses: connections of one sample and step, without
    those into padding (None: unknown for an artifact); constants: of neurons and pools, in words.
    """

    node: str
    kind: str
    shape: Shape
    sources: tuple[str, ...]
    parameters: int | None
    synapses: int | None
    constants: str


def table(program: ir.Program) -> tuple[Row, ...]:
    """Return one row for each node, in running order."""
    return tuple(
        Row(
            node.name,
            type(node).__name__,
            node.shape,
            tuple(source.node + f" (t-{source.delay})" * (source.delay > 0) for source in node.operands),
            _parameters(node),
            _synapses(node),
            _constants(node),
        )
        for node in program.nodes
    )


def _parameters(node: ir.Node) -> int:
    match node:
        case ir.Linear() | ir.Conv():
            return int(node.weight.size) + (0 if node.bias is None else int(node.bias.size))
        case ir.Scale():
            return int(node.scale.size)
        case ir.Norm():
            return int(node.scale.size) * (2 if node.mean is None else 3)
    return 0


def _synapses(node: ir.Node) -> int:
    match node:
        case ir.Linear():
            return int(node.weight.size) * prod(node.shape[:-1])
        case ir.Conv():
            connected = taps(
                node.input_shape[1:], node.shape[1:], node.weight.shape[2:], node.stride, node.padding, node.dilation
            )
            return int(node.weight.shape[0]) * int(node.weight.shape[1]) * connected
        case ir.Pool():
            one = (1,) * len(node.kernel)
            return node.shape[0] * taps(
                node.input_shape[1:], node.shape[1:], node.kernel, node.stride, node.padding, one
            )
    return 0


def taps(
    inputs: Shape, outputs: Shape, kernel: Shape, stride: Shape, padding: Sequence[tuple[int, int]], dilation: Shape
) -> int:
    """Count pairs of output and kernel position whose input lies inside; the axes are independent, so they multiply."""
    axes = zip(inputs, outputs, kernel, stride, padding, dilation, strict=True)
    return prod(
        sum(0 <= out * s + k * d - before < size for out in range(count) for k in range(taps))
        for size, count, taps, s, (before, _), d in axes
    )


def _constants(node: ir.Node) -> str:
    match node:
        case ir.Conv():
            padding = "/".join(f"{a}" if a == b else f"{a}+{b}" for a, b in node.padding)
            parts = [f"kernel {_by(node.weight.shape[2:])}", f"stride {_by(node.stride)}", f"padding {padding}"]
            parts += [f"dilation {_by(node.dilation)}"] * any(d > 1 for d in node.dilation)
            return ", ".join(parts + [f"groups {node.groups}"] * (node.groups > 1))
        case ir.Pool():
            return f"{'sum' if node.divisor == 1 else 'mean'} of {_by(node.kernel)}, stride {_by(node.stride)}"
        case ir.MaxPool():
            return f"maximum of {_by(node.kernel)}, stride {_by(node.stride)}"
        case ir.Reshape() | ir.Gather():
            return f"from {_by(node.input_shape)}"
        case ir.Product():
            first, second = map(_by, node.operand_shapes)
            return f"{first} times {second}, " + ("as matrices" if node.matrices else "element by element")
        case ir.Norm():
            return f"scale {_span(node.scale)}, shift {_span(node.shift)}"
        case ir.Scale():
            return f"scale {_span(node.scale)}"
        case ir.Delay():
            return f"{_span(node.steps.astype(np.float32))} steps"
        case ir.Neuron():
            return ", ".join(_neuron(node))
    return ""


def _neuron(node: ir.Neuron) -> list[str]:
    parts = []
    if node.synapse is not None:
        parts.append(f"synapse {node.synapse.rule}, decay {_span(node.synapse.decay)}")
    parts += [f"{name} {_span(array)}" for name, array in _arrays(node) if array is not None]
    if node.threshold is None:
        return [*parts, "puts out v"]
    parts.append("v >= θ" if node.compare == "ge" else "v > θ")
    if node.decay is None:
        return [*parts, "no memory"]
    parts.append(reset_words(node) + ", one step late" * node.delayed_reset)
    if node.adaptation is not None:
        parts.append(f"threshold adapts: decay {_span(node.adaptation.decay)}, jump {_span(node.adaptation.jump)}")
    several = "several spikes" if node.cap is None else f"up to {node.cap} spikes"
    nearest = {"half_up": ", halves up", "half_even": ", halves to even"}.get(node.rounding, "")
    return [*parts, *[several + nearest] * node.multi_spike]


def reset_words(node: ir.Neuron) -> str:
    """Return a neuron's reset in words: ``reset to 0``."""
    match node.reset:
        case "none":
            return "no reset"
        case "value" | "value_delayed":
            return f"reset to {'0' if node.v_reset is None else _span(node.v_reset)}"
        case "snntorch_subtract_now":
            return "reset by subtraction as snnTorch's reset_delay=False"
    adapted = node.adaptation is not None and node.adaptation.subtracts == "adapted"
    return "reset by subtraction" + " of the threshold as it is" * adapted


def _arrays(node: ir.Neuron) -> list[tuple[str, Floats | None]]:
    return [
        ("decay", node.decay),
        ("θ", node.threshold),
        ("gain", node.gain),
        ("offset", node.offset),
        ("v_min", node.v_min),
        ("starts at", node.v_start),
    ]


def _span(array: Floats | Doubles) -> str:
    low, high = float(array.min()), float(array.max())
    return f"{low:.4g}" if low == high else f"{low:.4g}…{high:.4g}"


def _by(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
