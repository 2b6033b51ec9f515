"""Passes over a Program that leave only nodes of the Program: norms, max pools and concatenations become those.

Each pass takes the layers by name and gives them back; each equality holds in real arithmetic, and where floats round
otherwise (folded norms, split sums) its caller measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from stl_deploy.errors import CaptureError
from stl_deploy.graph.convolutions import line_sum, pointwise
from stl_deploy.graph.program import (
    DT,
    Concat,
    Conv,
    Doubles,
    Floats,
    Linear,
    MaxPool,
    Neuron,
    Node,
    Norm,
    Operand,
    Pool,
    Program,
    Scale,
    is_binary,
)
from tests.oracles.fold.norm import scaled

Layers = dict[str, Node]


def fold_norms(layers: Layers) -> Layers:
    """A norm goes into the weights of the synapse before it, if that serves nobody else; else into weights of its own.

    With y = W·x + b and scale s, shift t for each channel: s·y + t = (s·W)·x + (s·b + t). A norm behind anything else
    is the same with W = 1: a depthwise 1x1 convolution, or a diagonal linear layer.
    """
    pending: dict[str, tuple[Doubles, Doubles]] = {}
    renamed: dict[str, str] = {}
    found = dict(layers)
    for name, layer in layers.items():
        if not isinstance(layer, Norm):
            continue
        sources = tuple(Operand(renamed.get(s.node, s.node), s.delay) for s in layer.operands)
        before = found.get(sources[0].node) if len(sources) == 1 and not sources[0].delay else None
        if _same_rows(before, layer) and _readers(layers, layer.operands[0].node) == 1:
            assert isinstance(before, Conv | Linear)
            weight, bias = pending.get(before.name) or _doubles(before)
            scale, shift = np.asarray(layer.scale, np.float64), np.asarray(layer.shift, np.float64)
            pending[before.name] = scaled(weight, bias, scale, shift)
            renamed[name] = before.name
            del found[name]
        else:
            found[name] = _own_weights(layer)
    for name, (weight, bias) in pending.items():
        found[name] = replace(found[name], weight=_floats(name, weight), bias=_floats(name, bias))  # type: ignore[call-arg]
    return _renamed(found, renamed)


def _same_rows(before: Node | None, norm: Norm) -> bool:
    """Whether each channel of a norm is a row of the weights before it."""
    if isinstance(before, Linear):
        return len(before.shape) == 1 or norm.axis == -1
    return isinstance(before, Conv) and norm.axis == 0


def _readers(layers: Mapping[str, Node], name: str) -> int:
    return sum(source.node == name for layer in layers.values() for source in layer.operands)


def _doubles(layer: Conv | Linear) -> tuple[Doubles, Doubles]:
    weight = layer.weight.astype(np.float64)
    return weight, np.zeros(len(weight)) if layer.bias is None else layer.bias.astype(np.float64)


def _floats(name: str, array: Doubles) -> Floats:
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise CaptureError(f"layer '{name}': weights are not finite once the norm is folded into them", layer=name)
    return rounded


def _own_weights(norm: Norm) -> Node:
    scale, shift = _floats(norm.name, np.asarray(norm.scale)), _floats(norm.name, np.asarray(norm.shift))
    if not shift.any():
        shape = (-1, *(1,) * (len(norm.shape) - 1)) if norm.axis == 0 else (-1,)
        return Scale(name=norm.name, shape=norm.shape, operands=norm.operands, scale=scale.reshape(shape))
    if len(norm.shape) == 1 or norm.axis == -1:
        return Linear(
            name=norm.name,
            shape=norm.shape,
            operands=norm.operands,
            weight=np.diag(scale),
            bias=shift,
            input_shape=norm.shape,
        )
    return pointwise(norm.name, norm.operands, norm.shape, scale[:, None], bias=shift, groups=norm.shape[0])


def _renamed(layers: Layers, names: Mapping[str, str]) -> Layers:
    def final(name: str) -> str:
        while name in names:
            name = names[name]
        return name

    return {
        name: replace(layer, operands=tuple(Operand(final(s.node), s.delay) for s in layer.operands))
        for name, layer in layers.items()
    }


def max_pools(layers: Layers) -> Layers:
    """Max pooling of spikes is sum pooling and a threshold of 1/2; raises CaptureError for that of other values."""
    found: Layers = {}
    for name, layer in layers.items():
        if not isinstance(layer, MaxPool):
            found[name] = layer
            continue
        if len(layer.operands) != 1 or not is_binary(Program(tuple(layers.values()), DT), layer.operands[0].node):
            raise CaptureError(
                f"layer '{name}' takes the maximum of currents, which no event-driven graph computes; pool "
                "the spikes (move the pool behind the neuron) or use average pooling",
                layer=name,
            )
        found[f"{name}_sum"] = _sum_pool(f"{name}_sum", layer)
        found[name] = Neuron(
            name=name,
            shape=layer.shape,
            operands=(Operand(f"{name}_sum"),),
            decay=None,
            threshold=np.asarray(0.5, np.float32),
        )
    return found


def _sum_pool(name: str, pool: MaxPool) -> Node:
    if len(pool.kernel) == 1:
        pad = pool.padding[0][0]
        return line_sum(name, pool.operands, pool.input_shape, pool.kernel[0], pool.stride[0], pad, 1)
    return Pool(
        name=name,
        shape=pool.shape,
        operands=pool.operands,
        kernel=pool.kernel,
        stride=pool.stride,
        padding=pool.padding,
        divisor=1,
        input_shape=pool.input_shape,
    )


def concatenations(layers: Layers) -> Layers:
    """A concatenation goes into its readers' weights, W·[a; b] = Wa·a + Wb·b; else weights of 0 and 1 do its work."""
    found = {name: _flat(layers, layer) if isinstance(layer, Concat) else layer for name, layer in layers.items()}
    for name in layers:
        layer = found[name]
        if isinstance(layer, Concat):
            readers = [r for r in found.values() if any(s.node == name for s in r.operands)]
            if all(_splits(found, reader) for reader in readers):
                for reader in readers:
                    _split(found, layer, reader)
                del found[name]
            else:
                _embed(found, layer)
    return found


def _flat(layers: Layers, concat: Concat) -> Concat:
    """A concatenation whose parts are no concatenations."""
    sources: list[Operand] = []
    sizes: list[int] = []
    for source, size in zip(concat.operands, concat.sizes, strict=True):
        inner = layers[source.node]
        if isinstance(inner, Concat):
            inner = _flat(layers, inner)
            sources += (Operand(part.node, part.delay + source.delay) for part in inner.operands)
            sizes += inner.sizes
        else:
            sources.append(source)
            sizes.append(size)
    return replace(concat, operands=tuple(sources), sizes=tuple(sizes))


def _splits(layers: Layers, reader: Node) -> bool:
    """Whether a concatenation goes into the weights of ``reader``, which then is a sum, that no other can read."""
    summed = not any(isinstance(r, Concat) and any(s.node == reader.name for s in r.operands) for r in layers.values())
    return (
        summed
        and len(reader.operands) == 1
        and (
            (isinstance(reader, Conv) and reader.groups == 1)
            or (isinstance(reader, Linear) and len(reader.input_shape) == 1)
        )
    )


def _split(layers: Layers, concat: Concat, reader: Node) -> None:
    """Synapses for each part; what read the reader reads all of them."""
    assert isinstance(reader, Conv | Linear)
    start, parts = 0, []
    for number, (source, size) in enumerate(zip(concat.operands, concat.sizes, strict=True)):
        name = reader.name if not number else f"{reader.name}_{number + 1}"
        part = replace(
            reader,
            name=name,
            operands=(Operand(source.node, source.delay + reader.operands[0].delay),),
            weight=np.ascontiguousarray(reader.weight[:, start : start + size]),
            bias=reader.bias if not number else None,
            input_shape=(size, *reader.input_shape[1:]),
        )
        layers[name] = part
        parts.append(name)
        start += size
    _read_all(layers, reader.name, parts)


def _embed(layers: Layers, concat: Concat) -> None:
    """Each part led to its place by weights of 0 and 1."""
    start, channels = 0, concat.shape[0]
    ends = []
    for number, (source, size) in enumerate(zip(concat.operands, concat.sizes, strict=True)):
        weight = np.zeros((channels, size), np.float32)
        weight[np.arange(start, start + size), np.arange(size)] = 1
        name = f"{concat.name}_{number + 1}"
        shape = (size, *concat.shape[1:])
        if len(shape) == 1:
            layers[name] = Linear(
                name=name, shape=concat.shape, operands=(source,), weight=weight, bias=None, input_shape=shape
            )
        else:
            layers[name] = pointwise(name, (source,), shape, weight)
        ends.append(name)
        start += size
    del layers[concat.name]
    _read_all(layers, concat.name, ends)


def _read_all(layers: Layers, name: str, parts: Sequence[str]) -> None:
    """What read ``name`` reads the sum of ``parts``."""
    for reader, layer in list(layers.items()):
        if any(s.node == name for s in layer.operands):
            wide = [Operand(p, s.delay) for s in layer.operands for p in (parts if s.node == name else [s.node])]
            layers[reader] = replace(layer, operands=tuple(wide))


def join_linears(layers: Layers) -> Layers:
    """Two linear layers, one behind the other without anything between, are one where that is smaller: W₂·W₁."""
    found = dict(layers)
    for name, layer in layers.items():
        before = found.get(layer.operands[0].node) if len(layer.operands) == 1 and not layer.operands[0].delay else None
        if not isinstance(layer, Linear) or not isinstance(before, Linear) or len(layer.input_shape) != 1:
            continue
        size = len(layer.weight) * before.weight.shape[1]
        if (
            before.bias is not None
            or _readers(found, before.name) != 1
            or size > layer.weight.size + before.weight.size
        ):
            continue
        inner = before.weight.astype(np.float64)
        rows = [layer.weight[i : i + 256].astype(np.float64) @ inner for i in range(0, len(layer.weight), 256)]
        weight = _floats(name, np.concatenate(rows))
        found[name] = replace(layer, weight=weight, operands=before.operands, input_shape=before.input_shape)
        del found[before.name]
    return found


PASSES: tuple[Callable[[Layers], Layers], ...] = (fold_norms, max_pools, concatenations)
"""In the order they run; rearrangements leave behind them, then linear layers are joined."""
