"""Let a potential that starts at its leak's end, up to rounding, start there exactly: o = (1 - β)·v₀."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stl_deploy.graph.program import Neuron
from stl_deploy.passes.base import Pass, full, leak_end, rewrite_each


def _from_leak(node: Neuron) -> Neuron:
    """Derive the offset from the start if they agree up to rounding."""
    if node.v_start is None or node.offset is None or node.decay is None:
        return node
    start = full(node, node.v_start)
    if not np.allclose(start, leak_end(node), rtol=1e-5):
        return node
    return replace(node, offset=((1 - full(node, node.decay)) * start).astype(np.float32))


PASS = Pass("start_at_leak", rewrite_each(Neuron, _from_leak), "grid")
