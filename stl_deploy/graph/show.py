"""Show a network as a table (kind, size and neuron constants of each node) and as a small SVG.

The drawing has boxes from top to bottom, and loops dashed at the side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import prod

import numpy as np

from stl_deploy._util.json_twin import JsonTwin
from stl_deploy._util.units import counted
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import Conv, Doubles, Floats, Input, Linear, Neuron, Node, Output, Program, Shape


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
        case Cell():
            return sum(int(constant.value.size) for constant in node.constants if constant.value.ndim)
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
        case Cell():
            return ", ".join(_cell(node))
    return ""


def _cell(node: Cell) -> list[str]:
    kinds = Counter(operation.op for operation in node.operations if not node.values[operation.name].steady)
    counts = " ".join(f"{kind}×{times}" if times > 1 else kind for kind, times in kinds.most_common())
    return [counted(len(node.states), "state"), f"operations {counts}"]


def _neuron(node: ir.Neuron) -> list[str]:
    parts = []
    if node.synapse is not None:
        parts.append(f"synapse {node.synapse.rule}, decay {_span(node.synapse.decay)}")
    parts += [f"{name} {_span(array)}" for name, array in _arrays(node) if array is not None]
    if node.threshold is None:
        return [*parts, "puts out v"]
    parts.append("v >= θ" if node.compare == "ge" else "v > θ")
    several = "several spikes" if node.cap is None else f"up to {node.cap} spikes"
    nearest = {"half_up": ", halves up", "half_even": ", halves to even"}.get(node.rounding, "")
    counts = [several + nearest] * node.multi_spike
    if node.decay is None:
        return [*parts, "no memory", *counts]
    parts.append(reset_words(node) + ", one step late" * node.delayed_reset)
    if node.adaptation is not None:
        adapts = node.adaptation
        begins = "" if adapts.start is None else f", from {_span(adapts.start)}"
        parts.append(f"threshold adapts{begins}: decay {_span(adapts.decay)}, jump {_span(adapts.jump)}")
    return [*parts, *counts]


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
        ("current starts at", node.i_start),
    ]


def _span(array: Floats | Doubles) -> str:
    low, high = float(array.min()), float(array.max())
    return f"{low:.4g}" if low == high else f"{low:.4g}…{high:.4g}"


def _by(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))


_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 176, 40, 24, 28, 16
_FILL: tuple[tuple[type[Node], str], ...] = (
    (Input, "#e8eef7"),
    (Output, "#e8eef7"),
    (Neuron, "#fde8d0"),
    (Cell, "#fde8d0"),
    (Linear, "#e3f2e1"),
    (Conv, "#e3f2e1"),
)
_OTHER = "#f3f3f3"


def svg(program: Program) -> str:
    """Return the network as SVG text; solid arrows carry this step's values, dashed ones an earlier step's."""
    places = _places(program)
    right = max(x for x, _ in places.values()) + _WIDTH + _MARGIN
    loops = sum(source.delay > 0 for node in program.nodes for source in node.operands)
    width, height = right + 14 * loops + _MARGIN * (loops > 0), max(y for _, y in places.values()) + _HEIGHT + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L6 3L0 6z" fill="#555"/></marker></defs>',
        *_edges(program, places, right),
        *(_box(node, *places[node.name]) for node in program.nodes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _places(program: Program) -> dict[str, tuple[int, int]]:
    """Return the top left corner of each box; the row is the longest path from an input."""
    rows: dict[int, list[str]] = {}
    depth: dict[str, int] = {}
    for node in program.nodes:
        before = [depth[source.node] for source in node.operands if not source.delay]
        depth[node.name] = max(before, default=-1) + 1
        rows.setdefault(depth[node.name], []).append(node.name)
    widest = max(len(names) for names in rows.values())
    step = _WIDTH + _GAP_X
    return {
        name: (_MARGIN + column * step + (widest - len(names)) * step // 2, _MARGIN + row * (_HEIGHT + _GAP_Y))
        for row, names in rows.items()
        for column, name in enumerate(names)
    }


def _edges(program: Program, places: dict[str, tuple[int, int]], right: int) -> list[str]:
    lines, lane = [], right
    for node in program.nodes:
        x, y = places[node.name]
        for source in node.operands:
            from_x, from_y = places[source.node]
            if source.delay:
                start, end = (from_x + _WIDTH, from_y + _HEIGHT // 2), (x + _WIDTH, y + _HEIGHT // 2)
                path = f"M{start[0]} {start[1]}H{lane}V{end[1]}H{end[0]}"
                lane += 14
            else:
                start, end = (from_x + _WIDTH // 2, from_y + _HEIGHT), (x + _WIDTH // 2, y)
                middle = (start[1] + end[1]) // 2
                path = f"M{start[0]} {start[1]}C{start[0]} {middle} {end[0]} {middle} {end[0]} {end[1]}"
            dashes = ' stroke-dasharray="4 3"' if source.delay else ""
            lines.append(f'<path d="{path}" fill="none" stroke="#555"{dashes} marker-end="url(#tip)"/>')
    return lines


def _box(node: Node, x: int, y: int) -> str:
    fill = next((colour for kind, colour in _FILL if isinstance(node, kind)), _OTHER)
    shape = _by(node.shape) or "1"
    name = node.name if len(node.name) <= 26 else f"{node.name[:25]}…"
    title, label = (escape(text, quote=False) for text in (node.name, name))
    return (
        f'<g><title>{title}</title><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" '
        f'fill="{fill}" stroke="#888"/>'
        f'<text x="{x + _WIDTH // 2}" y="{y + 17}" text-anchor="middle" font-weight="bold">{label}</text>'
        f'<text x="{x + _WIDTH // 2}" y="{y + 32}" text-anchor="middle" fill="#555">'
        f"{type(node).__name__} {shape}</text></g>"
    )
