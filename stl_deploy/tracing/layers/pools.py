"""Maximum, average and sum over windows or whole axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stl_deploy._util.windows import places
from stl_deploy.graph.program import Pool, Shape
from stl_deploy.nn.layer_graph import MaxPool
from stl_deploy.tracing.layers.arguments import pair, with_defaults
from stl_deploy.tracing.layers.builder import Builder, refusal
from stl_deploy.tracing.layers.draft import Terms
from stl_deploy.tracing.layers.shapes import reshaped
from stl_deploy.tracing.layers.weights import dense
from stl_deploy.tracing.steps import Ref, Signal


@dataclass(frozen=True)
class _Windows:
    """Windows over the last two axes; the sum over each is divided by ``divisor``."""

    size: Shape
    stride: Shape
    divisor: int
    pads: Shape = (0, 0)


def maximum(build: Builder, signal: Signal) -> Terms:
    """A max pool; whether what it reads are spikes is found later, by the fold."""
    x, kernel, stride, padding, dilation, ceil = with_defaults(signal.args, (None, None, [], 0, 1, False))
    if set(pair(dilation)) != {1} or ceil:
        raise refusal(
            signal,
            "expected max pooling without dilation and ceil_mode; found "
            f"dilation={list(pair(dilation))}, ceil_mode={bool(ceil)}; NIR has no node for it",
        )
    return build.add(
        MaxPool(
            name=build.name("pool", signal.node.place.module),
            shape=build.shape(signal),
            sources=build.read(x),
            kernel=pair(kernel),
            stride=pair(stride or kernel),
            padding=tuple((p, p) for p in pair(padding)),
            input_shape=build.shape(x.signal),
        )
    )


def average(build: Builder, signal: Signal) -> Terms:
    """An average pool, or with ``divisor_override=1`` a sum pool."""
    defaults: tuple[Any, ...] = (None, None, [], 0, False, True, None)
    x, kernel, stride, padding, ceil, counts, divisor = with_defaults(signal.args, defaults)
    size, pads = pair(kernel), pair(padding)
    area = size[0] * size[1]
    if ceil or (any(pads) and not counts) or divisor not in (None, 1, area):
        raise refusal(
            signal,
            f"expected average pooling with ceil_mode=False, count_include_pad=True and a divisor of 1 or {area}; "
            f"found ceil_mode={bool(ceil)}, count_include_pad={bool(counts)}, divisor_override={divisor}; "
            "NIR has no node for it",
        )
    return _pooled(build, signal, x, _Windows(size, pair(stride or kernel), 1 if divisor == 1 else area, pads))


def adaptive(build: Builder, signal: Signal) -> Terms:
    """An average pool whose windows make a given size."""
    x, size = signal.args[:2]
    before = build.shape(x.signal)
    if before[1:] == tuple(size):
        return build.read(x)
    if any(n % k for n, k in zip(before[1:], size, strict=True)):
        return dense(build, signal, x)  # windows of several sizes
    window = tuple(n // k for n, k in zip(before[1:], size, strict=True))
    return _pooled(build, signal, x, _Windows(window, window, window[0] * window[1]))


def over_axes(build: Builder, signal: Signal) -> Terms:
    """The mean or sum over whole axes."""
    x, axes, _ = signal.args
    before = build.shape(x.signal)
    if len(before) != 3 or sorted(axes) != [2, 3]:
        return dense(build, signal, x)
    divisor = 1 if signal.node.name == "sum" else before[1] * before[2]
    return _pooled(build, signal, x, _Windows(before[1:], before[1:], divisor))


def _pooled(build: Builder, signal: Signal, x: Ref, windows: _Windows) -> Terms:
    before = build.shape(x.signal)
    from_line = x.signal.node.name == "reshape" and len(build.shape(x.signal.args[0].signal)) < 3
    if len(before) != 3 or from_line:
        return dense(build, signal, x)
    sizes = [
        places(n, k, s, 2 * p)
        for n, k, s, p in zip(before[1:], windows.size, windows.stride, windows.pads, strict=True)
    ]
    node = Pool(
        name=build.name("pool", signal.node.place.module),
        shape=(before[0], *sizes),
        sources=build.read(x),
        kernel=windows.size,
        stride=windows.stride,
        padding=tuple((p, p) for p in windows.pads),
        divisor=windows.divisor,
        input_shape=before,
    )
    terms = build.add(node)
    return terms if node.shape == build.shape(signal) else reshaped(build, signal, terms, node.shape)
