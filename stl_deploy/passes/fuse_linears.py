"""Fuse two linear layers with nothing between them where that is smaller: W₂·(W₁·x) + b = (W₂·W₁)·x + b."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stl_deploy.graph.program import Linear
from stl_deploy.passes.base import Nodes, Pass, readers_of, rewrite


def _fuse(nodes: Nodes) -> Nodes:
    """Two linear nodes, one behind the other without anything between, are one where that is smaller: W₂·W₁."""
    found = dict(nodes)
    for name, layer in nodes.items():
        before = found.get(layer.sources[0].node) if len(layer.sources) == 1 and not layer.sources[0].delay else None
        if not isinstance(layer, Linear) or not isinstance(before, Linear) or len(layer.input_shape) != 1:
            continue
        size = len(layer.weight) * before.weight.shape[1]
        if (
            before.bias is not None
            or len(readers_of(found, before.name)) != 1
            or size > layer.weight.size + before.weight.size
        ):
            continue
        inner = before.weight.astype(np.float64)
        rows = [layer.weight[i : i + 256].astype(np.float64) @ inner for i in range(0, len(layer.weight), 256)]
        found[name] = replace(
            layer, weight=np.concatenate(rows), sources=before.sources, input_shape=before.input_shape
        )
        del found[before.name]
    return found


PASS = Pass("fuse_linears", rewrite(_fuse), "real")
