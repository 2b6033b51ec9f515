"""Parameters of neurons, one for each neuron."""

from __future__ import annotations

from typing import Any

import numpy as np

from stl_deploy.graph.program import Doubles, Neuron, Node


def leak_end(node: Neuron) -> Doubles:
    """Return the potential that leaks end at: offset/(1 - decay)."""
    assert node.decay is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(full(node, 0 if node.offset is None else node.offset) / (1 - full(node, node.decay)))


def full(node: Node, array: Any) -> Doubles:
    """Return a parameter in float64, of the node's shape."""
    return np.broadcast_to(np.asarray(array, np.float64), node.shape).copy()
