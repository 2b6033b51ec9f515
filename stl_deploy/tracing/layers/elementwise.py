"""Build sums, products (spiking attention among them), and batch norms: one scale and one shift for each channel."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stl_deploy.graph.program import Doubles, Norm, Operand, Product, Reshape, Scale, Shape
from stl_deploy.tracing.layers import weights
from stl_deploy.tracing.layers.arguments import alpha, doubles, number
from stl_deploy.tracing.layers.builder import Builder, refusal
from stl_deploy.tracing.layers.draft import Operands
from stl_deploy.tracing.layers.thresholds import gate, is_binary, turned_spike
from stl_deploy.tracing.recognition.populations import compact
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import NoNeuronError, Ref, Signal


def negated(build: Builder, signal: Signal) -> Operands:
    """Build ``-x``."""
    return build.scaled(build.read(signal.args[0]), -1, build.shape(signal))


def turned(build: Builder, signal: Signal) -> Operands:
    """Build ``not s`` of spikes: 1 - s."""
    (x,) = signal.args
    if signal.node.name == "bitwise_not" and signal.node.dtype != torch.bool:
        raise refusal(signal, "'bitwise_not' of integers is -1 - s; negate spikes by ~s.bool(), or write 1 - s")
    if not is_binary(build, build.read(x)):
        raise NoNeuronError(signal)
    ones = np.ones(build.shape(signal)[0])
    return norm(build, signal, x, -ones, ones)


def added(build: Builder, signal: Signal) -> Operands:
    """Build ``left + alpha·right``, or with a minus; two signals, or one and a constant for each channel."""
    left, right = signal.args[:2]
    if signal.node.name == "rsub":
        left, right = right, left
    scale = alpha(signal) * (-1 if signal.node.name in ("sub", "rsub") else 1)
    if isinstance(left, Ref) and isinstance(right, Ref):
        return _sum(build, signal, left, right, scale)
    x, constant = (left, right) if isinstance(left, Ref) else (right, left)
    shift, axis = _by_channel(build, signal, constant)
    if x is left and not shift.any():  # a bias before training
        return build.widened(build.read(x), build.shape(x.signal), build.shape(signal))
    if x is right:
        return norm(build, signal, x, np.full(len(shift), float(scale)), shift, axis=axis)
    return norm(build, signal, x, np.ones(len(shift)), shift * scale, axis=axis)


def _sum(build: Builder, signal: Signal, left: Ref, right: Ref, scale: float) -> Operands:
    shape = build.shape(signal)
    first, second = (build.widened(build.read(ref), build.shape(ref.signal), shape) for ref in (left, right))
    # A source that is added twice is scaled by 2, as an edge is in a graph only once.
    counted = Counter((*first, *build.scaled(second, scale, shape)))
    return tuple(source for term, count in counted.items() for source in build.scaled((term,), count, shape))


def _by_channel(build: Builder, signal: Signal, constant: Any) -> tuple[NDArray[np.float64], int]:
    """Return a constant as one float64 for each channel, and the channel axis: the first, or else the last."""
    shape = build.shape(signal)
    full = number(constant).double().expand((1, *shape))
    array = compact(full, shape)
    if array.ndim == 0:
        return np.full(shape[0], float(full.reshape(-1)[0])), 0
    last = full[0].reshape(-1, shape[-1])
    if len(shape) > 1 and bool((last == last[0]).all()):
        return last[0].numpy(), -1
    if array.shape[1:] != (1,) * (len(shape) - 1):
        raise refusal(
            signal,
            "expected a constant of one number for each channel to be added; found one that differs between pixels; "
            "add it in the neuron's update, v = beta * v + x + p, which holds one number for each pixel",
        )
    return full[0].reshape(shape[0], -1)[:, 0].numpy(), 0


def multiplied(build: Builder, signal: Signal) -> Operands:
    """Build ``left·right`` or ``left/right``: a signal scaled by a constant, or two spikes."""
    left, right = signal.args[:2]
    divided = signal.node.name == "div"
    if isinstance(left, Ref) and isinstance(right, Ref):
        if divided:
            raise refusal(
                signal,
                "expected division by a constant; found one signal divided by another, which no spiking graph "
                "holds; compare a potential without dividing it, v >= theta; where it is a norm of each sample, "
                "normalise x before it is given to capture",
            )
        if not all(is_binary(build, build.read(spike)) for spike, _ in map(turned_spike, (left, right))):
            return product(build, signal, (left, right))
        return gate(build, signal, (left, right))
    if divided and not isinstance(left, Ref):
        raise refusal(signal, "expected division by a constant; found a constant divided by a signal; scale instead")
    x, constant = (left, right) if isinstance(left, Ref) else (right, left)
    shape = build.shape(signal)
    factor = number(constant).double()
    gain = compact((1 / factor if divided else factor).expand((1, *shape)), shape)
    terms = build.widened(build.read(x), build.shape(x.signal), shape)
    return build.scaled(terms, gain, shape, signal.node.place.module)


def batched(build: Builder, signal: Signal) -> Operands:
    """``bmm`` of two signals, or of one and weights."""
    left, right = signal.args[:2]
    if isinstance(left, Ref) and isinstance(right, Ref):
        return product(build, signal, (left, right), matrices=True)
    return weights.linear(build, signal)


def product(build: Builder, signal: Signal, operands: tuple[Ref, Ref], *, matrices: bool = False) -> Operands:
    """Two signals multiplied, as matrices or element by element; the latter in the shape of the result."""
    shape = build.shape(signal)
    sources, shapes = [], []
    for ref in operands:
        before = build.shape(ref.signal)
        terms = build.read(ref)
        if not matrices:
            terms = build.widened(terms, before, shape)
            before = shape
        sources.append(_one_source(build, terms, before))
        shapes.append(before)
    node = Product(
        name=build.name("product", signal.node.place.module),
        shape=shape,
        operands=tuple(sources),
        operand_shapes=(shapes[0], shapes[1]),
        matrices=matrices,
    )
    return build.add(node)


def _one_source(build: Builder, terms: Operands, shape: Shape) -> Operand:
    """Terms as one source of a shape, for operands are not summed."""
    if len(terms) > 1:
        name = build.name("sum", "")
        known = build.shape_of(terms) or shape
        terms = build.add(Scale(name=name, shape=known, operands=terms, scale=np.ones((), np.float32)))
    (source,) = terms
    node = build.nodes.get(source.node)
    if node is None or node.shape == shape:
        return source
    (source,) = build.add(Reshape(name=build.name("flatten", ""), shape=shape, operands=terms, input_shape=node.shape))
    return source


def batch_norm(build: Builder, signal: Signal) -> Operands:
    """With running statistics: y = w·(x - mean) / √(var + ε) + b."""
    x, weight, bias, mean, var, *rest = signal.args
    training = rest[0] if signal.node.name in ("native_batch_norm", "_native_batch_norm_legit") else False
    if training and isinstance(mean, Node):
        raise refusal(
            signal,
            "expected a batch norm in eval mode; found one that model.eval() leaves in train mode (a train() of its "
            "own?), so that it takes statistics from the batch; let eval() reach it",
        )
    if training or not isinstance(mean, Node):
        raise refusal(
            signal,
            "expected a batch norm with running statistics; found one that takes them from the batch; "
            "train it with track_running_stats=True",
        )
    inverse = 1 / np.sqrt(doubles(var) + float(rest[-1]))
    scale = inverse if weight is None else inverse * doubles(weight)
    shift = (0.0 if bias is None else doubles(bias)) - doubles(mean) * scale
    return norm(build, signal, x, scale, shift, axis=0 if len(signal.node.layout[0]) == 1 else -1)


def norm(build: Builder, signal: Signal, x: Ref, scale: Doubles, shift: Doubles, *, axis: int = 0) -> Operands:
    """y = scale·x + shift, ``[C]`` each."""
    return build.add(
        Norm(
            name=build.name("norm", signal.node.place.module),
            shape=build.shape(signal),
            operands=build.widened(build.read(x), build.shape(x.signal), build.shape(signal)),
            scale=scale,
            shift=shift,
            axis=axis,
        )
    )


def banded(build: Builder, signal: Signal) -> Operands:
    """Build a banded matrix over time: its input, read late and scaled for each tap; the last one adds the bias."""
    (*late, now), weights, bias = signal.args
    shape = build.shape(signal)
    each = np.ones(shape[0])
    first, *others = number(weights).tolist()
    terms = norm(build, signal, now, first * each, float(number(bias)) * each)
    for tap, weight in zip(reversed(late), others, strict=True):
        terms += build.scaled(build.read(tap), weight, shape)
    return terms
