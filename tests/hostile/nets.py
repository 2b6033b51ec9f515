"""A small network that every target holds."""

import nir
import numpy as np


def small_graph() -> nir.NIRGraph:
    """4 inputs, 2 LIF neurons, whole weights."""
    weight = np.array([[1, -1, 2, 1], [0, 1, 1, -2]], np.float32)
    ones = np.ones(2, np.float32)
    lif = nir.LIF(tau=ones * 2e-4, r=ones, v_leak=ones * 0, v_threshold=ones, v_reset=ones * 0)
    nodes = {
        "input": nir.Input({"input": np.array([4])}),
        "fc": nir.Linear(weight),
        "lif": lif,
        "output": nir.Output({"output": np.array([2])}),
    }
    graph = nir.NIRGraph(nodes, [("input", "fc"), ("fc", "lif"), ("lif", "output")])
    graph.metadata = {"stl_deploy": {"dialect": {"leak": "euler"}}}
    return graph
