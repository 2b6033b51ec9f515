"""The kit's graphs, in levels: single nodes, neuron parameters, shapes, wiring, time, and odd but legal files."""

from __future__ import annotations

from collections.abc import Mapping

from stl_deploy.exporters.nir.conformance.builder import Case
from stl_deploy.exporters.nir.conformance.layer_cases import neurons, nodes, shapes
from stl_deploy.exporters.nir.conformance.network_cases import files, time, wiring

LEVELS: Mapping[str, str] = {
    "nodes": "one kind of node, then spiking neurons",
    "neurons": "thresholds, leaks, resets and time constants of neurons",
    "shapes": "strides, padding, dilation, groups, pooling windows, flatten",
    "wiring": "skips, sums, loops, nested graphs",
    "time": "delays, several spikes' worth of input, long and short sequences",
    "files": "odd but legal ways to store the same graph",
}
"""Level -> what its graphs exercise."""


def cases(dt: float) -> list[Case]:
    """Every graph of the kit, for time steps of `dt` (in the unit of the graphs' time constants).

    Example:
        >>> [case.name for case in cases(1e-4)][:2]
        ['affine-lif', 'linear-lif']
    """
    levels = (nodes, neurons, shapes, wiring, time, files)
    return [case for level in levels for case in level(dt)]
