"""Choose power-of-two grids for weights and biases on which float32 sums are exact (see `graph.exact`).

Let a layer's inputs be multiples of 2^-p with magnitude at most X. With weights and biases on the grid 2^-k, every
partial sum is a multiple of 2^-(k+p), at most M = max over outputs of X·Σ|w| + |b|. All are exact in float32 if
M ≤ 2^(24−k−p). `finest_exact_grid` takes the finest such k. Numbers whose sums are already exact stay: integer weights
for an input in 256ths may be multiples of 256, and their biases of 1.

The pass visits the Program in running order. Where the incoming grid is known, a layer is rounded whose weights or bias
are float64; one all in float32 counts as rounded. Spikes are a grid; input is one if the metadata declare it. A layer
keeps its weights, without exact sums, if no grid holds them as finely as 8 bits do; `check` reports it. A dense
population's recurrent weights are rounded together with its feed-forward ones, since their terms add up in one sum.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.graph.exact import (
    MANTISSA_BITS,
    SPIKES,
    Grid,
    fraction_bits,
    largest_difference,
    largest_sum,
    output_grid,
    round_to_grid,
    sum_grids,
    synaptic,
)
from stl_deploy.graph.program import Conv, Doubles, Floats, Linear, Neuron, Program, is_binary
from stl_deploy.passes.base import LayerGrid, Nodes, Pass, Rewritten, with_nodes

_COARSEST = -24
_FINEST = 100
_LEAST = 64
"""Steps up to a layer's largest weight that its grid has at least: those of 8-bit weights with their sign."""


class NoGridError(InputError):
    """No grid with exact sums keeps the weights of a layer as fine as 8 bits do."""


def finest_exact_grid(
    node: str, weight: NDArray[np.floating[Any]], bias: Doubles, arriving: Grid, mantissa: int = MANTISSA_BITS
) -> tuple[Floats, Floats, LayerGrid]:
    """Round a layer's weight and bias to the finest grid with exact sums, unless their sums are exact already.

    mantissa: bits that sums may take. Returns the rounded float32 weight and bias, and the grid. Raises InputError if
    the sum of magnitudes is not finite, and NoGridError if every grid with exact sums is coarser than 8-bit weights,
    as behind another layer without a neuron between, whose values take most of the 24 bits already.
    """
    magnitude = largest_sum(weight, bias, arriving)
    if not np.isfinite(magnitude):
        raise InputError(f"layer '{node}': weights add up to {magnitude}; no grid holds them")
    enough = mantissa + 1 - Grid(arriving.fraction_bits, magnitude).bits
    given = Grid(max(fraction_bits(weight, enough) + arriving.fraction_bits, fraction_bits(bias)), magnitude)
    if given.bits <= mantissa:
        own = max(fraction_bits(weight), fraction_bits(bias))
        return weight.astype(np.float32), bias.astype(np.float32), LayerGrid(node, own, given.bits, 0.0)
    finest = mantissa - arriving.fraction_bits - int(np.ceil(np.log2(max(magnitude, 2.0**-60))))
    largest = float(max(weight.max(initial=0.0), -weight.min(initial=0.0)))
    # `finest` is for real weights: rounded up, their sum may take one bit more, and the next coarser grid holds it.
    for k in range(min(finest, _FINEST), _COARSEST, -1):
        if largest * 2.0**k < _LEAST:
            break
        w, b = round_to_grid(weight, k), round_to_grid(bias, k)
        grid = Grid(k + arriving.fraction_bits, largest_sum(w, b, arriving))
        if grid.bits <= mantissa:
            change = max(largest_difference(w, weight), largest_difference(b, bias))
            return w, b, LayerGrid(node, k, grid.bits, change)
    raise NoGridError(f"layer '{node}': sums of {magnitude:g} fit on no grid")


def _round(program: Program) -> Rewritten:
    nodes: Nodes = dict(program.by_name)
    known: dict[str, Grid | None] = {n.name: SPIKES for n in program.compared if is_binary(program, n.name)}
    known |= {node.name: _spikes(node) for node in program.spiking if _is_bounded(node)}
    chosen: list[LayerGrid] = []
    rounded: set[str] = set()
    for node in program.nodes:
        if node.name in known:
            continue
        arriving = sum_grids([known.get(source.node) for source in node.operands])
        wide = isinstance(node, Linear | Conv) and _is_wide(node) and node.name not in rounded
        if wide and arriving is not None:
            back = _back(program, nodes, node.name)
            try:
                if back is None:
                    made = _rounded(nodes, node.name, arriving)
                else:
                    made = _together(nodes, node.name, back, arriving)
            except NoGridError:
                known[node.name] = None
                continue
            chosen.append(made)
            rounded |= {node.name} if back is None else {node.name, back}
        if any(reader.name not in known for reader in program.readers[node.name]):  # spikes need no grid of currents
            known[node.name] = output_grid(nodes[node.name], arriving, program.metadata)
    return Rewritten(with_nodes(program, nodes), grids=tuple(chosen))


def _is_wide(node: Linear | Conv) -> bool:
    return any(array is not None and array.dtype == np.float64 for array in (node.weight, node.bias))


def _is_bounded(node: Neuron) -> bool:
    return not node.multi_spike or node.cap is not None


def _spikes(node: Neuron) -> Grid:
    """Return the grid of a population with a cap."""
    return Grid(0, node.cap) if node.multi_spike and node.cap is not None else SPIKES


def _rounded(nodes: Nodes, name: str, arriving: Grid) -> LayerGrid:
    node = nodes[name]
    assert isinstance(node, Linear | Conv)
    bias = np.zeros(len(node.weight)) if node.bias is None else node.bias.astype(np.float64)
    weight, rounded, grid = finest_exact_grid(name, node.weight, bias, arriving)
    nodes[name] = replace(node, weight=weight, bias=None if node.bias is None else rounded)
    return grid


def _back(program: Program, nodes: Nodes, name: str) -> str | None:
    """Return the dense weights through which the spikes of the only population that reads ``name`` return to it."""
    readers = program.readers[name]
    if len(readers) != 1 or not isinstance(readers[0], Neuron) or not isinstance(nodes[name], Linear):
        return None
    others = [nodes[source.node] for source in readers[0].operands if source.node != name]
    dense = [other for other in others if isinstance(other, Linear) and len(other.input_shape) == 1]
    if len(others) != 1 or len(dense) != 1:
        return None
    neuron, back = readers[0], dense[0]
    returns = [source.node for source in back.operands] == [neuron.name] and len(program.readers[back.name]) == 1
    # Weights in float64 are not rounded yet; `_together` chooses one bias, that of the weights on the way in.
    takes_a_grid = back.bias is None and back.weight.dtype == np.float64
    return back.name if returns and takes_a_grid and neuron.spiking and _is_bounded(neuron) else None


def _together(nodes: Nodes, name: str, back: str, arriving: Grid) -> LayerGrid:
    """Round weights and those of a population's own spikes to one grid."""
    node, other = nodes[name], nodes[back]
    assert isinstance(node, Linear)
    assert isinstance(other, Linear)
    inputs, both = node.weight.shape[1], np.concatenate([node.weight, other.weight], axis=1).astype(np.float64)
    bias = np.zeros(len(both)) if node.bias is None else node.bias.astype(np.float64)
    (source,) = other.operands
    neuron = nodes[source.node]
    spikes = _spikes(neuron) if isinstance(neuron, Neuron) and _is_bounded(neuron) else SPIKES
    bound = Grid(arriving.fraction_bits, max(arriving.bound, spikes.bound))
    sums: Grid | None = None
    for mantissa in (MANTISSA_BITS, MANTISSA_BITS - 1):
        weight, rounded, grid = finest_exact_grid(name, both, bias, bound, mantissa)
        # The proof adds the largest sum of either, maybe of two neurons: at most twice the largest of both, one bit.
        sums = sum_grids([synaptic(weight[:, :inputs], rounded, arriving), synaptic(weight[:, inputs:], None, spikes)])
        assert sums is not None
        if sums.bits <= MANTISSA_BITS:
            break
    assert sums is not None
    nodes[name] = replace(node, weight=weight[:, :inputs], bias=None if node.bias is None else rounded)
    nodes[back] = replace(other, weight=weight[:, inputs:])
    return replace(grid, bits=sums.bits)


PASS = Pass("exact_grids", _round, "grid", wanted=lambda options: options.exact_grid is not False)
