"""--exact: synapses and pools that add up in float64, against the reference run that does."""

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.graph.program import Conv
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.exporters.onnx.nets import chain, digits, linear, neuron, pool, spikes, write
from tests.exporters.onnx.weights import shallow, with_weights
from tests.strategies import programs_and_inputs

FORMS = ["sequence", "step"]
BIG = 2.0**24


@pytest.mark.parametrize("form", FORMS)
@examples(80, suppress_health_check=list(HealthCheck))
@given(case=programs_and_inputs(), seed=st.integers(0, 2**32 - 1))
def test_weights_on_no_grid_give_the_same_bits(form, case, seed, tmp_path_factory):
    assume(shallow(case[0]))
    program, x = with_weights(case[0], seed), case[1]
    spiking = [node.name for node in program.spiking]
    expected = run(program, x, record=spiking, double=True)
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    export_onnx(program, path, form=form, precision="exact")
    found = OnnxModel.load(path, threads=1).run(x, record=spiking)
    for name in spiking:
        np.testing.assert_array_equal(found.recorded[name], expected.recorded[name], name)
    for node in program.outputs:
        np.testing.assert_array_equal(found.outputs[node.name], expected.outputs[node.name], node.name)


@pytest.mark.parametrize("form", FORMS)
def test_a_tie_that_float32_misses(form, tmp_path):
    # 20 times (2^24 + 1 - 2^24) is 20, the threshold; float32 loses the ones
    program = chain((60,), linear([[BIG, 1, -BIG] * 20]), neuron(threshold=20.0, compare="ge"))
    ones = np.ones((1, 1, 60))
    assert write(program, tmp_path, form, precision="exact").run(ones).y.item() == 1
    assert write(program, tmp_path, form).run(ones).y.item() == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_tie_in_a_convolution_and_in_a_pool(form, tmp_path):
    weight = np.tile(np.array([BIG, 1, -BIG], np.float32), 20).reshape(1, 1, 60)

    def line(shape, sources):
        return Conv(
            name="conv",
            shape=(1, 1),
            operands=sources,
            weight=weight,
            bias=None,
            stride=(1,),
            padding=((0, 0),),
            dilation=(1,),
            groups=1,
            input_shape=shape,
        )

    program = chain((1, 60), line, neuron(threshold=20.0, compare="ge"))
    assert write(program, tmp_path, form, precision="exact").run(np.ones((1, 1, 1, 60))).y.item() == 1
    x = np.array([BIG, 1, 0, 1], np.float32).reshape(1, 1, 1, 2, 2)
    pooled = chain((1, 2, 2), pool(4))
    assert write(pooled, tmp_path, form, precision="exact").run(x).y.item() == 2.0**22 + 0.5
    assert write(pooled, tmp_path, form).run(x).y.item() == 2.0**22


@pytest.mark.parametrize("form", FORMS)
def test_the_file_is_standard_and_weights_stay_float32(form, tmp_path):
    program = digits()
    plain = write(program, tmp_path, form).path.stat().st_size
    model = write(program, tmp_path, form, precision="exact")
    assert model.interface.precision == "exact"
    # graph nodes only: no weight is kept twice or wider
    loaded = onnx.load(model.path)
    assert {t.data_type for t in loaded.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    weights = sum(int(np.prod(t.dims)) for t in loaded.graph.initializer if ".weight" in t.name)
    assert weights == sum(node.weight.size for node in program.nodes if hasattr(node, "weight"))
    assert model.path.stat().st_size < plain + 60_000
    assert {node.domain for node in loaded.graph.node} == {""}
    x = spikes(4, 3, 1, 6, 6)
    np.testing.assert_array_equal(model.run(x).y, run(program, x, double=True).y)


def test_a_bias_is_added_behind_the_product_as_tract_takes_no_other(tmp_path):
    program = chain((3,), linear(np.ones((2, 3)), bias=np.ones(2)), neuron())
    export_onnx(program, tmp_path / "net.onnx", precision="exact")
    nodes = onnx.load(tmp_path / "net.onnx").graph.node
    assert [len(node.input) for node in nodes if node.op_type == "Gemm"] == [2]
