"""The last pass: what fold returns is run against what it was given, and must spike alike."""

from __future__ import annotations

import nir
import numpy as np
import torch

from stl_deploy.errors import ParityError
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.compare import compare
from stl_deploy.graph.exact import prove_exact, random_input
from stl_deploy.graph.margins import Margin
from stl_deploy.graph.run import Result, run
from stl_deploy.nn.network import Network
from tests.oracles.fold.check_graph import ROUNDING_ULPS, SAMPLES, STEPS

_VOTE = 2.0**-16
"""Outputs may differ by so much, absolutely and relatively: a vote's weight is rounded to a grid, too."""


@torch.no_grad()
def check_fold(network: Network, graph: nir.NIRGraph) -> None:
    """Run ``network``, the given class's own ``forward`` over the folded numbers, and the graph, on drawn input.

    Raises ParityError at the first spike (or output) that differs: any, where every sum is proved exact; else one whose
    potential is farther than `ROUNDING_ULPS` from its threshold.
    """
    program = lower(graph)
    (node,) = program.inputs
    x = random_input(np.random.default_rng(0), program.metadata, (STEPS, SAMPLES, *node.shape))
    votes, spikes = network.record(torch.from_numpy(x), every_layer=True)  # so that nothing must be compiled first
    theirs = Result({"output": votes.numpy()}, {name: array.numpy() for name, array in spikes.items()})
    ours = run(program, x, record=[node.name for node in program.spiking])
    found = compare(program, ours, theirs, "the network's forward", x=x, against="its folded graph")
    exact = all(proof.exact for proof in prove_exact(program))
    rounding = not exact and found.first is not None and _rounded(found.first.margin)
    if not found.exact and not rounding:
        found.require()
    if exact and not np.allclose(votes.numpy(), ours.y, rtol=_VOTE, atol=_VOTE):
        where = found.outputs[0].first
        raise ParityError(f"the network's forward: outputs differ from its folded graph, first in {where}")


def _rounded(margin: Margin | None) -> bool:
    return margin is not None and abs(margin.ulps) <= ROUNDING_ULPS
