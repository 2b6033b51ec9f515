"""Fuse two adjacent linear layers if the result is smaller: W₂·(W₁·x) + b = (W₂·W₁)·x + b."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stl_deploy.graph.program import Linear
from stl_deploy.passes.base import Nodes, Pass, readers_of, rewrite


def _fuse(nodes: Nodes) -> Nodes:
    """Fuse two adjacent linear nodes if the result is smaller: W₂·W₁."""
    fused = dict(nodes)
    for name in nodes:  # sources first, so that a chain becomes one
        layer = fused[name]
        before = fused.get(layer.operands[0].node) if len(layer.operands) == 1 and not layer.operands[0].delay else None
        if not isinstance(layer, Linear) or not isinstance(before, Linear) or len(layer.input_shape) != 1:
            continue
        size = len(layer.weight) * before.weight.shape[1]
        if (
            before.bias is not None
            or len(readers_of(fused, before.name)) != 1
            or size > layer.weight.size + before.weight.size
        ):
            continue
        inner = before.weight.astype(np.float64)
        rows = [layer.weight[i : i + 256].astype(np.float64) @ inner for i in range(0, len(layer.weight), 256)]
        fused[name] = replace(
            layer, weight=np.concatenate(rows), operands=before.operands, input_shape=before.input_shape
        )
        del fused[before.name]
    return fused


PASS = Pass("fuse_linears", rewrite(_fuse), "real")
