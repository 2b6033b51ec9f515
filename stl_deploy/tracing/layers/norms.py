"""Build batch norms, as one scale and one shift for each channel."""

from __future__ import annotations

import numpy as np

from stl_deploy.graph.program import Doubles, Norm
from stl_deploy.tracing.layers.arguments import doubles
from stl_deploy.tracing.layers.builder import Builder, refusal
from stl_deploy.tracing.layers.draft import Operands
from stl_deploy.tracing.nodes import Node
from stl_deploy.tracing.steps import Ref, Signal


def batch_norm(build: Builder, signal: Signal) -> Operands:
    """With running statistics: y = w·(x - mean) / √(var + ε) + b."""
    x, weight, bias, mean, var, *rest = signal.args
    training = rest[0] if signal.node.name in ("native_batch_norm", "_native_batch_norm_legit") else False
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
