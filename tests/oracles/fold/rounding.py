"""Every layer of a network onto its exact grid, from the input on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from stl_deploy.graph.exact import MANTISSA_BITS, SPIKES, Grid, sum_grids, synaptic
from stl_deploy.nn.layers import SumPool2d
from stl_deploy.nn.network import INPUT, Network
from stl_deploy.nn.neuron import LI, LIF
from tests.oracles.fold.grid import LayerGrid, choose
from tests.oracles.fold.stages import Stages


def round_stages(network: Network, stages: Stages, arriving: Grid) -> tuple[LayerGrid, ...]:
    """Round weights and biases in place so that all float32 sums are exact; ``arriving`` is the input's grid.

    Returns the grids chosen, by layer. An average pool over a window that is no power of two leaves the grid;
    what follows it until the next spikes is then left unrounded, and the proof on the graph says so.
    """
    grids: dict[str, Grid | None] = {INPUT: arriving}
    chosen = []
    for name, layer in network.layers.items():
        grid = sum_grids([grids[source] for source in network.sources[name]])
        if isinstance(layer, LIF):
            grid = SPIKES
        elif isinstance(layer, nn.AvgPool2d | SumPool2d) and grid is not None:
            grid = _pooled(layer, grid)
        elif name in stages.synapses and grid is not None:
            chosen.append(_round(name, stages, grid))
            grid = None if not _feeds_neuron(network, name) else grid
        grids[name] = grid
    return tuple(chosen)


def _round(name: str, stages: Stages, arriving: Grid) -> LayerGrid:
    """Round a synapse, together with the one of a recurrent population's own spikes, for their terms make one sum."""
    synapse = stages.synapses[name]
    back = next((p.recurrent for p in stages.populations.values() if p.synapse == name and p.recurrent), None)
    if back is None:
        weight, bias, grid = choose(name, synapse.weight, synapse.bias, arriving)
        synapse.weight[...], synapse.bias[...] = weight, bias
        return grid
    inputs, together = synapse.weight.shape[1], np.concatenate([synapse.weight, stages.synapses[back].weight], axis=1)
    bound = Grid(arriving.fraction_bits, max(arriving.bound, SPIKES.bound))
    for mantissa in (MANTISSA_BITS, MANTISSA_BITS - 1):
        weight, bias, grid = choose(name, together, synapse.bias, bound, mantissa)
        # The proof adds the largest sum of either, maybe of two neurons: at most twice the largest of both, one bit.
        sums = sum_grids([synaptic(weight[:, :inputs], bias, arriving), synaptic(weight[:, inputs:], None, SPIKES)])
        assert sums is not None
        proved = sums.bits
        if proved <= MANTISSA_BITS:
            break
    synapse.weight[...], synapse.bias[...] = weight[:, :inputs], bias
    stages.synapses[back].weight[...] = weight[:, inputs:]
    return replace(grid, bits=proved)


def _pooled(layer: nn.AvgPool2d | SumPool2d, grid: Grid) -> Grid | None:
    window = int(layer.kernel_size) ** 2  # type: ignore[arg-type]  # our pools are square
    if isinstance(layer, SumPool2d):
        return Grid(grid.fraction_bits, grid.bound * window)
    exact = window & (window - 1) == 0
    return Grid(grid.fraction_bits + window.bit_length() - 1, grid.bound) if exact else None


def vote_weight(population: int) -> np.float32:
    """1/population on the finest grid on which the sum of all votes is exact."""
    weight, _, _ = choose("vote", np.full((1, population), 1 / population), np.zeros(1), SPIKES)
    return np.float32(weight[0, 0])


def _feeds_neuron(network: Network, synapse: str) -> bool:
    kinds = LIF | LI | nn.modules.batchnorm._BatchNorm | nn.Dropout
    return all(isinstance(network.layers[reader], kinds) for reader in network.readers(synapse))
