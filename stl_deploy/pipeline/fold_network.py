"""Fold a trained network into a Program, a NIR graph, and a torch module of the same numbers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray

from stl_deploy.config.options import FoldOptions
from stl_deploy.config.options import FoldThresholds as Thresholds
from stl_deploy.errors import InputError, ParityError, UnsupportedError
from stl_deploy.exporters.nir.write import to_own_graph
from stl_deploy.graph import neurons
from stl_deploy.graph.exact import random_input
from stl_deploy.graph.program import Floats, InputCoding, Neuron, Program
from stl_deploy.nn.network import Network
from stl_deploy.nn.program_module import ProgramModule
from stl_deploy.passes import OWN, apply
from stl_deploy.passes.base import LayerGrid
from stl_deploy.passes.equivalence import Cut, cut_at

_STEPS, _SAMPLES = 3, 2
_NEAR = 2.0**-10
"""Largest distance from its threshold at which float32 rounding may move a spike, relative to the threshold or to the
layer's largest potential."""


@dataclass(frozen=True, eq=False)
class Folded:
    """A folded network as a NIR graph and the Program that it reads back as; graph: None where NIR cannot hold it.

    grids: those of its numbers. kept: why neurons keep their thresholds (see `Rewritten`).
    """

    graph: nir.NIRGraph | None
    program: Program
    grids: tuple[LayerGrid, ...]
    kept: Mapping[str, str]

    @cached_property
    def network(self) -> ProgramModule:
        """Return the folded numbers as a torch module."""
        return ProgramModule(self.program).eval().requires_grad_(False)


def fold(
    network: Network,
    *,
    coding: InputCoding,
    fraction_bits: int = 0,
    bound: float = 1.0,
    exact_grid: bool = True,
    thresholds: Thresholds = "keep",
    about: Mapping[str, Any] | None = None,
) -> Folded:
    """Fold a trained network.

    coding, fraction_bits, bound: as `Network.program` takes them. exact_grid: round weights and biases so that float32
    sums are exact in any order. thresholds: ``keep`` one per neuron in the graph, or ``weights``: absorbed, so that
    each is 1. about: more metadata of the graph.
    Raises InputError where the network cannot be folded, naming layer and neurons; ParityError, naming the first spike
    that differs, where its ``forward`` is not what its layers say.
    """
    options = FoldOptions(thresholds=thresholds, exact_grid=exact_grid)
    program = network.program(coding=coding, fraction_bits=fraction_bits, bound=bound)
    require_forward(network, program)
    try:
        folded = apply(program, OWN, options)
    except UnsupportedError as error:
        raise InputError(f"layer '{error.node}': {error.reason}; {error.remedy}") from None
    metadata: dict[str, Any] = {
        **program.metadata,
        **(about or {}),
        "thresholds": thresholds,
        "decision": network.decision,
    }
    if folded.kept:
        metadata["thresholds_kept"] = sorted(folded.kept)
    if folded.grids:
        metadata["grid"] = {grid.node: grid.fraction_bits for grid in folded.grids}
    folded_program = replace(folded.program, metadata=metadata)
    # NIR has no threshold that adapts
    if any(neuron.adaptation is not None for neuron in folded_program.spiking):
        return Folded(None, folded_program, folded.grids, folded.kept)
    written = to_own_graph(folded_program)
    return Folded(written.graph, written.program, folded.grids, folded.kept)


@torch.no_grad()
def require_forward(network: Network, program: Program) -> None:
    """Raise ParityError if a network's own ``forward`` does not spike as the Program of its layers does.

    Each population gets the input that the forward's own spikes cause.
    """
    (entry,) = program.inputs
    x = random_input(np.random.default_rng(0), program.metadata, (_STEPS, _SAMPLES, *entry.shape))
    plain = network if _is_plain(network) else copy.deepcopy(network).cpu().float().eval()
    votes, recorded = plain.record(torch.from_numpy(x), every_layer=True)  # so that nothing is compiled first
    cut = Cut(program, set())
    cut.given = {entry.name: x} | {name: recorded[name].float().numpy() for name in cut_at(program, program)}
    arrived = cut.run(program, double=False)  # as the forward adds up
    for name, currents in arrived.currents.items():
        neuron = program.by_name[name]
        assert isinstance(neuron, Neuron)
        _require_spikes(neuron, currents, cut.given[name])
    y, expected = votes.float().numpy(), arrived.outputs["output"]
    if np.abs(y - expected).max() > _NEAR * max(1.0, float(np.abs(expected).max())):
        raise ParityError("the network's forward: outputs differ from what its layers compute, first in 'output'")


def _is_plain(network: Network) -> bool:
    """Return whether a network is on the CPU, in float32, and in evaluation mode already."""
    held = itertools.chain(network.parameters(), network.buffers())
    floats = all(t.device.type == "cpu" and (t.dtype == torch.float32 or not t.is_floating_point()) for t in held)
    return floats and not any(module.training for module in network.modules())


def _require_spikes(neuron: Neuron, currents: Floats, spikes: Floats) -> None:
    state = neurons.NeuronState(neuron, currents.shape[1])
    out, parted, wrong = np.empty_like(state.v), np.zeros(state.v.shape, bool), 0
    assert neuron.threshold is not None
    for x, expected in zip(currents, spikes, strict=True):
        state.charge(x)
        potentials = np.abs(state.v / state.threshold)
        steps = np.clip(np.rint(potentials), 1, neuron.cap) if neuron.multi_spike else 1
        near = np.abs(potentials - steps) <= _NEAR * max(1.0, float(potentials.max()))
        state.release(out)
        differ: NDArray[np.bool_] = out != expected
        # a neuron that rounding let fire once has another state from there on, and is judged no longer
        wrong += int((differ & ~near & ~parted).sum())
        parted |= differ
    if wrong:
        raise ParityError(
            f"the network's forward: {wrong:,} of {spikes.size:,} spikes differ from what its layers compute, first in "
            f"'{neuron.name}'"
        )
