"""Fold a scale of each output into the weights right before it: s·(W·x + b) = (s·W)·x + s·b in real arithmetic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stl_deploy.config.options import FoldOptions
from stl_deploy.graph.program import Conv, Doubles, Linear, Program, Scale
from stl_deploy.passes.base import Nodes, Pass, Rewritten, bypassed, with_nodes


def _fold(program: Program) -> Rewritten:
    nodes: Nodes = dict(program.by_name)
    gone = []
    for scale in program.of(Scale):
        factors = _rows(program, scale)
        if factors is None:
            continue
        before: Any = nodes[scale.operands[0].node]
        column = factors.reshape(-1, *(1,) * (before.weight.ndim - 1))
        bias = None if before.bias is None else before.bias * factors
        nodes[before.name] = replace(before, weight=before.weight * column, bias=bias)
        gone.append(scale.name)
    return Rewritten(with_nodes(program, bypassed(nodes, gone)), removed=tuple(gone))


def _rows(program: Program, scale: Scale) -> Doubles | None:
    """Return one factor for each row of the weights before a scale; None if it cannot go into them."""
    if len(scale.operands) != 1 or scale.operands[0].delay:
        return None
    before = program.by_name[scale.operands[0].node]
    if not isinstance(before, Linear | Conv) or len(program.readers[before.name]) != 1:
        return None
    if any(
        source.node == scale.name and source.delay
        for reader in program.readers[scale.name]
        for source in reader.operands
    ):
        return None
    whole = np.broadcast_to(np.asarray(scale.scale, np.float64), scale.shape)
    if isinstance(before, Linear):
        return whole.copy() if len(scale.shape) == 1 else None
    flat = whole.reshape(scale.shape[0], -1)
    return flat[:, 0] if (flat == flat[:, :1]).all() else None


def _wanted(options: FoldOptions) -> bool:
    return options.thresholds == "weights"


PASS = Pass("fold_scales", _fold, "real", wanted=_wanted)
