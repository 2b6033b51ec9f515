"""Compare with the float just below the threshold: v >= θ is v > θ⁻, as NIR has it.

Neurons that subtract the threshold at a spike need θ itself and stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stl_deploy.graph.program import Neuron
from stl_deploy.passes.base import Pass, rewrite_each


def _below(node: Neuron) -> Neuron:
    if node.threshold is None or node.compare != "ge" or node.reset != "value" or node.multi_spike or node.adaptation:
        return node
    threshold = np.nextafter(node.threshold.astype(np.float32), np.float32(-np.inf))
    return replace(node, compare="gt", threshold=threshold)


PASS = Pass("strict_comparison", rewrite_each(Neuron, _below), "bits")
