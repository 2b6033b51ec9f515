"""Bound potentials and currents for any input: the width of the engine's states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stl_deploy.graph.program import Node
from stl_deploy.integers.bounds import Bounds
from stl_deploy.integers.graph import IntegratorNode, PopulationNode
from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, WIDE, Ints


@dataclass(frozen=True)
class Reach:
    """farthest: no state, nor a sum on the way to it, exceeds it. clips: a state could reach its limit."""

    farthest: int
    clips: bool


def reach_of(node: Node, known: Mapping[str, Bounds]) -> Reach:
    """Return the reach of a layer, or of the output's sums."""
    low, high = (value << STATE_SHIFT for value in known[node.name].sums)
    arriving = max(-low, high)
    if not isinstance(node, PopulationNode | IntegratorNode):
        return Reach(arriving, False)
    neuron = node.neuron if isinstance(node, PopulationNode) else node
    offset = 0 if node.bias is None else int(np.abs(node.bias).max()) << STATE_SHIFT
    current = _series(arriving, neuron.i_decay)
    if current is None or current >= WIDE.u_top:
        return Reach(WIDE.u_top, True)
    put = 0
    if isinstance(node, PopulationNode):
        given = [v for v in (node.neuron.drop, node.neuron.v_reset) if v is not None]
        put = max((int(np.abs(v).max()) for v in given), default=0) << STATE_SHIFT
    farthest = _series(current + offset + put, neuron.v_decay)
    if isinstance(node, PopulationNode) and not node.neuron.resets_late and node.neuron.drop is None and low >= 0:
        # Never below 0, and what did not fire is at most at its threshold.
        least = 0 if node.bias is None else int(node.bias.min())
        if least >= 0 and node.neuron.v_reset is None:
            top = (int(node.neuron.threshold.max()) << STATE_SHIFT) + current + offset
            farthest = top if farthest is None else min(farthest, top)
    if farthest is None or farthest >= WIDE.v_top:
        return Reach(WIDE.u_top, True)
    return Reach(max(farthest, current), False)


def _series(most: int, decay: int | Ints) -> int | None:
    """Return the sum of ``most`` in every step; None if it grows without end."""
    slowest = int(np.min(decay))
    if most == 0:
        return 0
    return None if slowest == 0 else -(-most * DECAY_ONE // slowest)
