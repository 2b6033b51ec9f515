"""Warn of weighted sums that another model of Loihi would wrap.

nengo-loihi's emulator wraps the synaptic accumulator (64 times the weighted sum) at 2^21; Lava's models and ours do
not. The chip's own behaviour is not established, so sums that reach the limit give a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from stl_deploy.exporters.netx.chain import SynapseStage, read_chain
from stl_deploy.exporters.netx.convert import to_graph
from stl_deploy.exporters.netx.layers import NetxFile
from stl_deploy.graph.exact import input_grid
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Program
from stl_deploy.integers.bounds import bounds
from stl_deploy.integers.net import STATE_SHIFT
from stl_deploy.integers.ranges import LayerRange
from stl_deploy.integers.scales import WEIGHT_TOP
from stl_deploy.integers.simulate import entered_by

WIDE = 2**21 >> STATE_SHIFT
SLUG = "wide-sums"
_WHY = (
    f"nengo-loihi wraps the accumulator at 2^21/64 = {WIDE:,}, Lava does not, and which of them the chip follows was "
    "not established"
)
_REMEDY = "fewer inputs a neuron, smaller weights or fewer input levels avoid it"


def range_warnings(ranges: Iterable[LayerRange]) -> Iterator[str]:
    """Yield a sentence for each layer whose sums could reach 2^15 for some input."""
    for layer in ranges:
        reach = max(-layer.u_worst[0], layer.u_worst[1]) >> STATE_SHIFT
        if reach >= WIDE:
            yield f"'{layer.node}': some input brings a weighted sum to {reach:,}; {_WHY}; {_REMEDY}"


def wide_layers(net: NetxFile) -> Iterator[Finding]:
    """Yield findings for a file's integers and every input up to its scale (1 if it has none)."""
    graph = to_graph(net)
    known = bounds(entered_by(graph, np.array([0, 2 ** (net.fraction_bits or 0)])))
    for key, layer in net.spiking:
        low, high = known[key].sums
        if (reach := max(-low, high)) >= WIDE:
            reason = f"some input brings a weighted sum to {reach:,}; {_WHY}"
            yield Finding(SLUG, "warning", layer.node or key, reason, _REMEDY)


def wide_findings(program: Program) -> Iterator[Finding]:
    """Yield findings before integers are chosen: every row's largest weight is 127. Needs a readable chain."""
    grid = input_grid(program.metadata)
    bound = 1.0 if grid is None else grid.bound * 2.0**grid.fraction_bits
    for stage in read_chain(program).layers:
        if not isinstance(stage, SynapseStage):
            continue
        rows = np.abs(stage.synapse.weight.reshape(len(stage.synapse.weight), -1).astype(np.float64))
        largest = rows.max(axis=1)
        scaled = rows.sum(axis=1)[largest > 0] / largest[largest > 0]
        reach = int(scaled.max(initial=0) * WEIGHT_TOP * bound)
        bound = 1.0
        if reach >= WIDE:
            reason = f"in 8-bit weights some input brings a weighted sum to about {reach:,}; {_WHY}"
            yield Finding(SLUG, "warning", stage.neuron.name, reason, _REMEDY)
