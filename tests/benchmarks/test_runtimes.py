"""The table of runtimes: a runtime that is there agrees, one that is not is a row, and the table says both."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.runtimes import __main__ as runtimes
from benchmarks.runtimes.networks import NETWORKS
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.run import run


def test_the_networks_have_every_kind_of_node_between_them():
    kinds = {type(node) for make in NETWORKS.values() for node in make().nodes}
    every = {kind for kind in vars(ir).values() if isinstance(kind, type) and issubclass(kind, ir.Node)}
    assert kinds == (every | {Cell}) - {ir.Node, ir.Norm}, "norms are folded before"


@pytest.mark.parametrize("network", NETWORKS)
def test_sums_of_the_networks_do_not_depend_on_their_order(network):
    """Or a runtime that rounds where NumPy does not would look wrong."""
    program = NETWORKS[network]()
    x = runtimes.drawn(program)
    np.testing.assert_array_equal(run(program, x).y, run(program, x, double=True).y)


@pytest.mark.parametrize("form", runtimes.FORMS)
def test_onnx_runtime_agrees_with_the_reference(form, tmp_path):
    program = NETWORKS["recurrent"]()
    x = np.ones((runtimes.STEPS, runtimes.SAMPLES, 6), np.float32)
    found = runtimes._one(program, x, runtimes.FORMS[form], runtimes.OWN, Path(sys.executable), tmp_path)
    assert found["spikes"] == found["outputs"] == 8 * 2 * 8
    assert found["spikes_differing"] == found["outputs_differing"] == 0
    assert found["seconds"] > 0
    missing = runtimes._one(program, x, runtimes.FORMS[form], "tract", Path(sys.executable), tmp_path)
    assert missing == {"failed": "ModuleNotFoundError: No module named 'tract'"}


def test_the_table_names_what_fails():
    ran = {"spikes": 8, "spikes_differing": 1, "outputs": 2, "outputs_differing": 0}
    rows = [
        {"network": "a", "form": "step", "runtime": "onnxruntime", "seconds": 0.5, "over_own": 1.0, **ran},
        {"network": "a", "form": "step", "runtime": "tract", "seconds": 1.0, "over_own": 2.0, **ran},
        {"network": "b", "form": "step", "runtime": "tract", "failed": 'Failed for node #7 "x" Scan\nbecause'},
    ]
    report = {"rows": rows, "versions": {"onnxruntime": "1", "tract": "2"}, "load": [0, 0], "steps": 8, "samples": 2}
    table = runtimes.table(report)
    assert "| tract 2 | step | lowest | 1 of 2 | 8 | 1 | 2 | 0 | 2.00 |" in table
    assert "| tract | step | b | `Failed for Scan` |" in table
    assert "no results" not in table
