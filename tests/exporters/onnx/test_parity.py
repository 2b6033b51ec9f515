"""ONNX Runtime, in each form, against two other implementations of the Program's equations, bit for bit."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given

from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.graph.program import Norm
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.program_oracle import Inexact, simulate
from tests.strategies import programs_and_inputs


@pytest.mark.push(3)
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("form", ["sequence", "unrolled", "step"])
@examples(80, suppress_health_check=list(HealthCheck))
@given(case=programs_and_inputs(more="all"))
def test_random_programs_spike_alike_in_oracle_reference_and_onnx_runtime(form, static, case, tmp_path_factory):
    program, x = case
    assume(not any(program.of(Norm)))
    try:
        expected = simulate(program, x)
    except Inexact:
        assume(False)
    spiking = [node.name for node in program.spiking]
    reference = run(program, x, record=spiking)
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    steps, batch = (next(iter(x.values())) if isinstance(x, dict) else x).shape[:2]
    fixed = {"steps": steps} if form == "unrolled" or (static and form == "sequence") else {}
    export_onnx(program, path, form=form, **fixed, batch=batch if static else None)
    found = OnnxModel.load(path, threads=1).run(x, record=spiking)
    for name in spiking:
        np.testing.assert_array_equal(reference.recorded[name], expected[name], f"reference, {name}")
        np.testing.assert_array_equal(found.recorded[name], expected[name], f"{form}, {name}")
    for node in program.outputs:
        np.testing.assert_array_equal(reference.outputs[node.name], expected[node.name], f"reference, {node.name}")
        np.testing.assert_array_equal(found.outputs[node.name], expected[node.name], f"{form}, {node.name}")
