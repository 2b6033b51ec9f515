"""Report the counts under NeuroBench's field names and definitions, from exact integers.

Where NeuroBench looks at the values of a batch to tell AC from MAC, the structure decides here; its
MembraneUpdates (states whose value changed) and Footprint are not counts of the network's graph and left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.counts.taps import bias_of
from stl_deploy.graph.program import Conv, Linear, Program, Scale, is_spike_max_pool


def neurobench_fields(program: Program, counts: Counts) -> dict[str, Any]:
    """Return SynapticOperations per sample (zero weights left out; Dense: every tap), sparsities and parameters."""
    weighted, products = counts.weighted.values(), counts.products.values()
    nodes = [n for n in program.nodes if isinstance(n, Linear | Conv | Scale)]
    arrays = [node.scale if isinstance(node, Scale) else node.weight for node in nodes]
    biases = [bias for node in nodes if (bias := bias_of(node)) is not None]
    weights = sum(array.size for array in arrays)
    firing = [counts.neurons[n.name] for n in program.spiking if not is_spike_max_pool(program, n)]
    updates = sum(c.neuron_updates for c in firing)
    return {
        "SynapticOperations": {
            "Effective_MACs": sum(c.synops_nonzero_w for c in weighted if c.op == "MAC") / counts.batch
            + sum(c.synops for c in products if c.op == "MAC") / counts.batch,
            "Effective_ACs": sum(c.synops_nonzero_w for c in weighted if c.op == "AC") / counts.batch
            + sum(c.synops for c in products if c.op == "AC") / counts.batch,
            "Dense": counts.totals.dense_macs_exact / counts.batch,
        },
        "ActivationSparsity": 1 - sum(c.events for c in firing) / updates if updates else None,
        "ConnectionSparsity": sum(int(np.sum(a == 0)) for a in arrays) / weights if weights else None,
        "ParameterCount": weights + sum(bias.size for bias in biases),
    }
