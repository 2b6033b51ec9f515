"""Delay values: edges with a delay and Delay nodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stl_deploy.exporters.onnx.scope import Scope
from stl_deploy.graph.program import Delay


def shift(scope: Scope, x: str, steps: int, label: str) -> str:
    """Delay ``x`` ``[T, ...]`` by ``steps`` steps, zeros before; any T, and any number of steps."""
    if not steps:
        return x
    zero, axis = scope.integers(0), scope.integers(0)
    lost = scope.op("Slice", [x, zero, scope.integers(steps), axis], f"{label}/lead_in")
    shape = scope.op("Shape", [lost], f"{label}/lead_in_shape")
    zeros = scope.op("ConstantOfShape", [shape], f"{label}/zeros")
    kept = scope.op("Slice", [x, zero, scope.integers(-steps), axis], f"{label}/kept")
    return scope.op("Concat", [zeros, kept], label, axis=0)


def choose(scope: Scope, node: Delay, value_at: Callable[[int], str]) -> str:
    """Select each element of a Delay's output from its past value, which ``value_at`` names."""
    first, *others = (int(d) for d in np.unique(node.steps))
    y = value_at(first)
    for delay in others:
        mask = scope.weight(f"{node.name}.by_{delay}", node.steps == delay)
        y = scope.op("Where", [mask, value_at(delay), y], f"{node.name}/choose_{delay}")
    return y
