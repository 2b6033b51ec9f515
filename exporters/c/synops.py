"""Measure synaptic operations of a calibration run, per step and layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.c.weights import conv_fan_out
from stl_deploy.integers.graph import ConvNode, DenseNode, GainNode, IntegerGraph
from stl_deploy.integers.simulate import values_of


def measured_synops(graph: IntegerGraph, x: NDArray[Any]) -> Mapping[str, float]:
    """Return the mean per step of one sample, by layer of weights, for integers ``x`` ``[T, B, *shape]``."""
    readers = [node for node in graph.nodes if isinstance(node, DenseNode | ConvNode | GainNode)]
    names = {source.node for node in readers for source in node.sources}
    values = values_of(graph, x, names)
    steps = x.shape[0] * x.shape[1]
    synops = {}
    for node in readers:
        arriving = np.add.reduce([values[source.node] != 0 for source in node.sources]) != 0
        if isinstance(node, ConvNode):
            taps = np.broadcast_to(conv_fan_out(node), node.input_shape).reshape(-1)
        else:
            taps = np.full(arriving[0, 0].size, len(node.weight) if isinstance(node, DenseNode) else 1)
        synops[node.name] = float(arriving.reshape(steps, -1).sum(axis=0) @ taps) / steps
    return synops
