"""Small random Programs with every node type, and hand-made ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from hypothesis import strategies as st

from stl_deploy.graph.program import (
    Concat,
    Conv,
    Delay,
    Gather,
    Input,
    Linear,
    MaxPool,
    Neuron,
    Node,
    Operand,
    Output,
    Pool,
    Program,
    Reshape,
    Scale,
    Shape,
)

Draw = Callable[..., object]


def f32(values: object) -> np.ndarray:
    return np.asarray(values, np.float32)


def lif(name: str, source: str, shape: Shape, threshold: float = 1.0, decay: float | None = 0.5) -> Neuron:
    return Neuron(
        name=name,
        shape=shape,
        operands=(Operand(source),),
        decay=None if decay is None else f32(decay),
        threshold=f32(threshold),
        compare="ge",
        v_reset=f32(0),
    )


def linear(name: str, source: str, weight: object, bias: object = None, delay: int = 0) -> Linear:
    w = f32(weight)
    return Linear(
        name=name,
        shape=(w.shape[0],),
        operands=(Operand(source, delay),),
        weight=w,
        bias=None if bias is None else f32(bias),
        input_shape=(w.shape[1],),
    )


def conv(
    name: str,
    source: str,
    weight: np.ndarray,
    input_shape: Shape,
    *,
    stride: Sequence[int] | None = None,
    padding: Sequence[tuple[int, int]] | None = None,
    dilation: Sequence[int] | None = None,
    groups: int = 1,
    bias: object = None,
) -> Conv:
    axes = weight.ndim - 2
    stride, dilation = tuple(stride or (1,) * axes), tuple(dilation or (1,) * axes)
    padding = tuple(padding or ((0, 0),) * axes)
    space = tuple(
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, (before, after), d, k, s in zip(
            input_shape[1:], padding, dilation, weight.shape[2:], stride, strict=True
        )
    )
    return Conv(
        name=name,
        shape=(weight.shape[0], *space),
        operands=(Operand(source),),
        weight=f32(weight),
        bias=None if bias is None else f32(bias),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        input_shape=input_shape,
    )


def pool(
    name: str,
    source: str,
    input_shape: Shape,
    kernel: Shape = (2, 2),
    stride: Shape = (2, 2),
    padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0)),
    divisor: int = 1,
) -> Pool:
    space = tuple(
        (n + before + after - k) // s + 1
        for n, (before, after), k, s in zip(input_shape[-2:], padding, kernel, stride, strict=True)
    )
    return Pool(
        name=name,
        shape=(*input_shape[:-2], *space),
        operands=(Operand(source),),
        kernel=kernel,
        stride=stride,
        padding=padding,
        divisor=divisor,
        input_shape=input_shape,
    )


def program(*nodes: Node, metadata: dict[str, object] | None = None) -> Program:
    last = nodes[-1]
    return Program((*nodes, Output(name="out", shape=last.shape, operands=(Operand(last.name),))), 1e-3, metadata or {})


def start(shape: Shape) -> Input:
    return Input(name="in", shape=shape, operands=())


_WEIGHTS = st.sampled_from([-1.0, 0.0, 0.0, 0.5, 1.0])


def _weights(draw: st.DrawFn, *shape: int) -> np.ndarray:
    count = prod(shape)
    return f32(draw(st.lists(_WEIGHTS, min_size=count, max_size=count))).reshape(shape)


@st.composite
def _conv(draw: st.DrawFn, name: str, source: str, shape: Shape) -> Conv:
    groups = draw(st.sampled_from([g for g in (1, 2) if shape[0] % g == 0]))
    padding = [draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape[1:]]
    dilation = [draw(st.integers(1, 2)) for _ in shape[1:]]
    kernel = [
        draw(st.integers(1, max(1, min(3, (n + sum(p) - 1) // d + 1))))
        for n, p, d in zip(shape[1:], padding, dilation, strict=True)
    ]
    out = groups * draw(st.integers(1, 2))
    weight = _weights(draw, out, shape[0] // groups, *kernel)
    bias = _weights(draw, out) if draw(st.booleans()) else None
    stride = [draw(st.integers(1, 3)) for _ in shape[1:]]
    return conv(
        name, source, weight, shape, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias
    )


@st.composite
def _pool(draw: st.DrawFn, name: str, source: str, shape: Shape) -> Pool:
    padding = tuple(draw(st.tuples(st.integers(0, 1), st.integers(0, 1))) for _ in range(2))
    kernel = tuple(draw(st.integers(1, min(3, n + sum(p)))) for n, p in zip(shape[-2:], padding, strict=True))
    stride = tuple(draw(st.integers(1, 2)) for _ in range(2))
    return pool(name, source, shape, kernel, stride, padding, draw(st.sampled_from([1, prod(kernel)])))


@st.composite
def _max_pool(draw: st.DrawFn, name: str, source: str, shape: Shape) -> MaxPool:
    kernel = tuple(draw(st.integers(1, min(3, n))) for n in shape[1:])
    padding = tuple((draw(st.integers(0, (k - 1) // 2)),) * 2 for k in kernel)
    stride = tuple(draw(st.integers(1, 2)) for _ in kernel)
    space = ((n + sum(p) - k) // s + 1 for n, p, k, s in zip(shape[1:], padding, kernel, stride, strict=True))
    return MaxPool(
        name=name,
        shape=(shape[0], *space),
        operands=(Operand(source),),
        kernel=kernel,
        stride=stride,
        padding=padding,
        input_shape=shape,
    )


@st.composite
def _neuron(draw: st.DrawFn, name: str, source: str, shape: Shape) -> Neuron:
    kind = draw(st.sampled_from(["lif", "lif", "max", "many", "li"]))
    if kind == "max":
        return lif(name, source, shape, threshold=1.0, decay=None)
    return Neuron(
        name=name,
        shape=shape,
        operands=(Operand(source),),
        decay=f32(0.5),
        threshold=None if kind == "li" else f32(0.5),
        multi_spike=kind == "many",
        reset="subtract",
        compare="ge",
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A chain with forks back into it, delays, and now and then a recurrent population."""
    shape: Shape = draw(st.sampled_from([(4,), (2, 3), (2, 5), (2, 4, 3), (1, 4, 4), (2, 3, 2)]))
    nodes: list[Node] = [start(shape)]
    for number in range(draw(st.integers(1, 5))):
        name, before = f"n{number}", nodes[-1]
        shape = before.shape
        kinds = ["linear", "scale", "neuron", "neuron", "delay", "flatten", "loop"]
        kinds += ["conv", "conv"] if len(shape) > 1 else []
        kinds += ["pool", "pool"] if len(shape) == 3 else []
        kinds += ["max pool"] if len(shape) > 1 else []
        kinds += ["gather", "concat"]
        node: Node
        match draw(st.sampled_from(kinds)):
            case "linear":
                out = draw(st.integers(1, 3))
                bias = _weights(draw, out) if draw(st.booleans()) else None
                node = Linear(
                    name=name,
                    shape=(*shape[:-1], out),
                    operands=(Operand(before.name),),
                    weight=_weights(draw, out, shape[-1]),
                    bias=bias,
                    input_shape=shape,
                )
            case "scale":
                scale = _weights(draw, *shape) if draw(st.booleans()) else f32(0.5)
                node = Scale(name=name, shape=shape, operands=(Operand(before.name),), scale=scale)
            case "neuron":
                node = draw(_neuron(name, before.name, shape))
            case "delay":
                steps = np.asarray(
                    draw(st.lists(st.integers(0, 2), min_size=prod(shape), max_size=prod(shape))), np.int64
                ).reshape(shape)
                node = Delay(name=name, shape=shape, operands=(Operand(before.name),), steps=steps)
            case "flatten":
                node = Reshape(name=name, shape=(prod(shape),), operands=(Operand(before.name),), input_shape=shape)
            case "loop":
                cell = lif(name, before.name, shape)
                back = Linear(
                    name=f"{name}_back",
                    shape=shape,
                    operands=(Operand(name),),
                    weight=_weights(draw, shape[-1], shape[-1]),
                    bias=None,
                    input_shape=shape,
                )
                sources = (Operand(before.name), Operand(back.name, delay=1))
                nodes += [Neuron(**{**vars(cell), "operands": sources}), back]
                continue
            case "gather":
                count = draw(st.integers(1, 4))
                places = draw(st.lists(st.integers(-1, prod(shape) - 1), min_size=count, max_size=count))
                node = Gather(
                    name=name,
                    shape=(count,),
                    operands=(Operand(before.name),),
                    indices=np.asarray(places, np.int64),
                    input_shape=shape,
                )
            case "concat":
                parts = (Operand(before.name), Operand(before.name, delay=draw(st.integers(0, 1))))
                nodes.append(Concat(name=name, shape=(2 * shape[0], *shape[1:]), operands=parts, sizes=(shape[0],) * 2))
                continue
            case "max pool":
                node = draw(_max_pool(name, before.name, shape))
            case "conv":
                node = draw(_conv(name, before.name, shape))
            case _:
                node = draw(_pool(name, before.name, shape))
        nodes.append(_with_fork(draw, nodes, node, shape))
    return program(*nodes)


def _with_fork(draw: st.DrawFn, nodes: list[Node], node: Node, shape: Shape) -> Node:
    """Now and then a delayed source, or a second, possibly delayed, one of the same shape."""
    if not draw(st.integers(0, 5)):
        node = type(node)(**{**vars(node), "operands": (Operand(node.operands[0].node, delay=1),)})
    others = [n.name for n in nodes[:-1] if n.shape == shape]
    if not others or draw(st.integers(0, 3)):
        return node
    other = Operand(draw(st.sampled_from(others)), delay=draw(st.integers(0, 1)))
    return type(node)(**{**vars(node), "operands": (*node.operands, other)})


@st.composite
def inputs(draw: st.DrawFn, program: Program) -> np.ndarray:
    """``[T, B, *shape]`` of spikes, integers or reals."""
    steps, batch = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    values = draw(st.sampled_from([[0.0, 1.0], [0.0, 0.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, -0.5, 1.0]]))
    seed = draw(st.integers(0, 2**32 - 1))
    shape = (steps, batch, *program.inputs[0].shape)
    return np.random.default_rng(seed).choice(f32(values), size=shape)
