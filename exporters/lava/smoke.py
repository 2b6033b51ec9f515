"""Check a fresh side environment with three neurons of known spikes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import ToolError
from stl_deploy.exporters.lava.process import run_worker
from stl_deploy.exporters.netx.file import write_netx
from stl_deploy.exporters.netx.layers import DenseLayer, InputLayer, NetxFile
from stl_deploy.integers.net import IntegerNeuron

EXPECTED = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 0]], np.uint8)
"""Spikes by step. Input 1 in each step; weights 12, 8, 6, threshold above 10, β = 0.5: potentials
12→spike; 8, 12→spike; 6, 9, 10.5→spike."""


def check_three_neurons(python: Path, deadline: float = 120.0) -> None:
    """Raise ToolError unless Lava under ``python`` gives the expected spikes."""
    neuron = IntegerNeuron(v_decay=2048, threshold=np.array(10, np.int32))
    layer = DenseLayer(weight=np.array([[12], [8], [6]], np.int32), neuron=neuron)
    net = NetxFile((InputLayer(shape=(1,)), layer))
    with temporary_folder() as folder:
        path = folder / "three.net"
        write_netx(net, path)
        spikes = run_worker(python, path, np.ones((4, 1, 1), np.int32), deadline=deadline)
    if not np.array_equal(spikes.get("layer1", np.zeros(0)).reshape(-1, 3), EXPECTED):
        raise ToolError("Lava ran the check network and gave other spikes than expected; reinstall it")
