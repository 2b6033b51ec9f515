"""Measure the distance of potentials to the threshold: near it, another order of summation could move a spike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stl_deploy.graph.neurons import NeuronState
from stl_deploy.graph.program import Floats, Neuron, Node, Program
from stl_deploy.graph.run import NetworkInput, run

NEAR_ULPS = 4
"""A potential this many units in the last place of the threshold away from it is near it."""


_TELLING_ULPS = 1000
"""Up to this distance units in the last place are printed, since rounding may explain it; beyond it plain numbers."""


@dataclass(frozen=True)
class Margin:
    """A neuron's potential in one step, before its reset, and its threshold.

    threshold: for a neuron that fires several times at once, the multiple of θ nearest to the potential.
    ulps: potential minus threshold, in float32 units in the last place of the threshold.
    """

    potential: float
    threshold: float
    ulps: float

    def __str__(self) -> str:
        if not self.ulps:
            return f"potential at the threshold of {self.threshold:g}"
        if abs(self.ulps) <= _TELLING_ULPS:
            return f"potential {self.ulps:+.4g} ulp from the threshold of {self.threshold:g}"
        return f"potential {self.potential - self.threshold:+.3g} from the threshold of {self.threshold:g}"


class UlpMargins:
    """Count potentials near the threshold, per spiking node: an observer for `stl_deploy.graph.run.run`.

    counts: how often (neuron, step, sample) a potential was within ``ulps`` units in the last place of its
    threshold, ties included.
    """

    def __init__(self, ulps: float = NEAR_ULPS) -> None:
        self.ulps = ulps
        self.counts: dict[str, int] = {}

    def __call__(self, node: Node, x: Floats, output: Floats) -> None:
        """Count one node's summed input ``[T, B, *shape]``."""
        if not isinstance(node, Neuron) or not node.spiking:
            return
        near = 0
        for v, theta in potentials(node, x):
            near += int((np.abs(v - theta) <= self.ulps * np.spacing(np.abs(theta))).sum())
        self.counts[node.name] = self.counts.get(node.name, 0) + near


def potentials(node: Neuron, x: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Yield potentials ``[B, *shape]`` and the levels they meet, for each step of input ``x`` ``[T, B, *shape]``."""
    state = NeuronState(node, x.shape[1])
    output = np.empty_like(x[0])
    for arriving in x:
        state.charge(arriving)
        yield state.v.copy(), nearest_level(state)
        state.release(output)


def margins_at(
    program: Program, x: NetworkInput, places: Mapping[str, tuple[int, int, tuple[int, ...]]]
) -> dict[str, Margin]:
    """Return the margin of one neuron of each of some spiking nodes, by node.

    places: step, sample and neuron, by node. The reference runs once for each sample among them, alone.
    """
    margins: dict[str, Margin] = {}
    for sample in dict.fromkeys(sample for _, sample, _ in places.values()):
        wanted = {node: (step, neuron) for node, (step, of, neuron) in places.items() if of == sample}

        def observe(seen: Node, arrived: Floats, output: Floats, wanted: Mapping[str, Any] = wanted) -> None:
            if isinstance(seen, Neuron) and seen.name in wanted:
                step, neuron = wanted[seen.name]
                *_, (v, levels) = potentials(seen, arrived[: step + 1])
                at = (0, *neuron)
                theta = levels[at]
                ulps = (float(v[at]) - float(theta)) / float(np.spacing(np.abs(theta)))
                margins[seen.name] = Margin(float(v[at]), float(theta), ulps)

        part = (slice(None, max(step for step, _ in wanted.values()) + 1), slice(sample, sample + 1))
        run(program, {name: a[part] for name, a in x.items()} if isinstance(x, Mapping) else x[part], observe=observe)
    return margins


def nearest_level(state: NeuronState) -> Floats:
    """Return the level that each charged potential is compared with; with several spikes, the nearest."""
    node, v = state.node, state.v
    theta = np.broadcast_to(state.threshold, v.shape)
    if not node.multi_spike:
        return theta
    half = np.float32(0 if node.rounding == "down" else 0.5)
    most = None if node.cap is None else node.cap - half
    multiple: Floats = theta * np.clip(np.rint(v / theta + half) - half, np.float32(1) - half, most)
    return multiple
