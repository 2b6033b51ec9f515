"""Thresholds that differ between the pixels of a channel: projected to one per channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stl_deploy.graph.program import Conv, Floats, Neuron, Node, Program


def project_thresholds(program: Program) -> Program:
    """``program`` with each convolutional neuron's thresholds replaced by their mean over the channel's pixels.

    Nodes whose thresholds are one per channel already are left as they are.
    """
    return replace(program, nodes=tuple(_projected(program, node) for node in program.nodes))


def per_pixel(program: Program) -> tuple[str, ...]:
    """Names of the neurons behind a convolution whose thresholds differ within a channel."""
    return tuple(node.name for node in program.spiking if _mean(program, node) is not None)


def _projected(program: Program, node: Node) -> Node:
    if not isinstance(node, Neuron):
        return node
    mean = _mean(program, node)
    return node if mean is None else replace(node, threshold=mean)


def _mean(program: Program, node: Neuron) -> Floats | None:
    """One threshold per channel ``(C, 1, 1)``, or None if there is nothing to project."""
    behind = program.by_name[node.sources[0].node]
    if node.threshold is None or not isinstance(behind, Conv) or len(node.shape) != 3:
        return None
    theta = np.broadcast_to(node.threshold, node.shape)
    if (theta == theta[:, :1, :1]).all():
        return None
    mean: Floats = theta.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return mean
