"""What a pass over a NIR graph returns is run against what it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stl_deploy.graph.compare import compare
from stl_deploy.graph.exact import input_grid, random_input
from stl_deploy.graph.program import Conv, Input, Linear, Neuron, Pool, Program, Scale
from stl_deploy.graph.run import run
from tests.oracles.fold.grid import LayerGrid

ROUNDING_ULPS = 64
"""Off an exact grid, a spike may differ whose potential is no further from its threshold than this."""
STEPS, SAMPLES = 8, 2


def check_graph(given: Program, folded: Program, grids: Sequence[LayerGrid] = ()) -> None:
    """Run a graph and what a pass made of it on drawn input; ``grids``: how far weights were rounded on purpose.

    Raises ParityError at the first spike that differs, unless its potential is nearer to the threshold than
    `ROUNDING_ULPS` and than what the rounded weights can move it.
    """
    rng = np.random.default_rng(0)
    x = {node.name: random_input(rng, folded.metadata, (STEPS, SAMPLES, *node.shape)) for node in folded.inputs}
    names = [node.name for node in given.spiking]
    expected, made = run(given, x, record=names), run(folded, x, record=names)
    found = compare(given, expected, made, "the folded graph", x=x, against="the graph it was made of")
    first = found.first
    if first is None:
        return
    neuron = given.by_name[first.node]
    assert isinstance(neuron, Neuron)
    margin = first.margin
    moved = _moved(given, neuron, {grid.node: grid for grid in grids})
    allowed = (
        moved + ROUNDING_ULPS * float(np.spacing(np.float32(abs(margin.threshold)))) if margin is not None else 0.0
    )
    if margin is None or abs(margin.potential - margin.threshold) > allowed:
        found.require()


def _moved(program: Program, neuron: Neuron, grids: Mapping[str, LayerGrid]) -> float:
    """How far rounded weights can move a potential whose inputs are as before, in `STEPS` steps."""
    arriving = sum(_error(program, source.node, grids) for source in neuron.operands)
    decay = 0.0 if neuron.decay is None else float(np.max(neuron.decay))
    kept = STEPS if decay >= 1 else min(STEPS, 1 / (1 - decay))
    if neuron.synapse is not None:
        kept *= STEPS
    return float(arriving * kept * (1.0 if neuron.gain is None else np.abs(neuron.gain).max()))


def _error(program: Program, name: str, grids: Mapping[str, LayerGrid]) -> float:
    """The largest difference of a node's output that the rounded weights before it make, spikes being equal."""
    node = program.by_name[name]
    if isinstance(node, Neuron | Input):
        return 0.0
    before = sum(_error(program, source.node, grids) for source in node.operands if not source.delay)
    if isinstance(node, Linear | Conv):
        rows = np.abs(node.weight.astype(np.float64)).reshape(len(node.weight), -1).sum(axis=1).max(initial=0)
        change = grids[name].largest_change if name in grids else 0.0
        fan_in = node.weight[0].size
        bound = max((grid.bound for grid in [input_grid(program.metadata)] if grid is not None), default=1.0)
        return float(rows * before + change * (fan_in * max(1.0, bound) + 1))
    if isinstance(node, Pool):
        return before * float(np.prod(node.kernel)) / node.divisor
    return before * (float(np.abs(node.scale).max()) if isinstance(node, Scale) else 1.0)
