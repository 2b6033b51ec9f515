"""Weights of 8 bits: how they are rounded, how they stand in the file, and that every runtime sees the same net."""

import dataclasses

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx import OnnxModel, export_onnx, to_int8
from stl_deploy.exporters.onnx.int8 import dequantise, quantise
from stl_deploy.exporters.onnx.runtime import onnxruntime
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.exporters.onnx.nets import F, chain, conv, digits, flatten, linear, neuron, pool, spikes, write
from tests.exporters.onnx.weights import shallow, with_weights
from tests.refusals import refuses
from tests.strategies import programs_and_inputs

FORMS = ["sequence", "step"]


def test_rounding_by_hand():
    # 127/128 -> 127 · 2^-7; 1 needs 2^-6: 64, and 0.3 · 64 = 19.2; all zeros have scale 1; 128 -> 64 · 2
    values, scale = quantise(np.array([[127 / 128, 1 / 128], [1, 0.3], [0, 0], [128, -3]], F))
    assert values.tolist() == [[127, 1], [64, 19], [0, 0], [64, -2]]
    assert scale.tolist() == [2**-7, 2**-6, 1, 2]
    assert dequantise(values, scale).tolist() == [[127 / 128, 1 / 128], [1, 19 / 64], [0, 0], [128, -4]]


@given(arrays.arrays(F, (3, 4), elements=st.floats(-(2.0**40), 2.0**40, width=32)))
def test_the_scale_is_the_least_power_of_two_and_nothing_is_off_by_more_than_half_a_step(weight):
    values, scale = quantise(weight)
    mantissa, _ = np.frexp(scale)
    assert (mantissa == 0.5).all()
    assert (np.abs(dequantise(values, scale).astype(float) - weight) <= scale[:, None] / 2).all()
    largest = np.abs(weight.astype(float)).max(axis=1)
    used = (largest > 0) & (scale > 2.0**-100)
    assert (largest[used] <= 127 * scale[used]).all()
    assert (largest[used] > 127 * scale[used] / 2).all()


@pytest.mark.parametrize("form", FORMS)
@examples(80, suppress_health_check=list(HealthCheck))
@given(case=programs_and_inputs(), seed=st.integers(0, 2**32 - 1))
def test_the_file_computes_the_rounded_network_bit_for_bit(form, case, seed, tmp_path_factory):
    assume(shallow(case[0]))
    program, x = with_weights(case[0], seed), case[1]
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    if not any(hasattr(node, "weight") for node in program.nodes):
        with pytest.raises(InputError, match="the graph has no weights"):
            export_onnx(program, path, form=form, precision="int8")
        return
    rounded, _ = to_int8(program)
    spiking = [node.name for node in program.spiking]
    expected = run(rounded, x, record=spiking)
    export_onnx(program, path, form=form, precision="int8")
    found = OnnxModel.load(path, threads=1).run(x, record=spiking)
    for name in spiking:
        np.testing.assert_array_equal(found.recorded[name], expected.recorded[name], name)
    for node in program.outputs:
        np.testing.assert_array_equal(found.outputs[node.name], expected.outputs[node.name], node.name)


def _net():
    rng = np.random.default_rng(3)
    return chain(
        (1, 8, 8),
        conv(rng.normal(0, 1, (32, 1, 3, 3)), "conv1"),
        neuron("lif1"),
        pool(),
        neuron("max", decay=None, threshold=0.5),
        conv(rng.normal(0, 0.2, (32, 32, 3, 3)), "conv2"),
        neuron("lif2"),
        flatten(),
        linear(rng.normal(0, 0.1, (200, 512)), bias=rng.normal(0, 0.1, 200), name="fc"),
        neuron("lif3"),
        metadata={"input": {"fraction_bits": 4, "max": 1}},
    )


def test_int8_weights_per_output_and_uint8_spikes_where_spikes_arrive(tmp_path):
    model = onnx.load(write(_net(), tmp_path, precision="int8").path)
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    scales = {t.name: list(t.dims) for t in model.graph.initializer if t.name.endswith(".scale")}
    for name, outputs in {"conv1": 32, "conv2": 32, "fc": 200}.items():
        assert kinds[f"{name}.weight"] == onnx.TensorProto.INT8
        assert scales[f"{name}.scale"] == [outputs]
    quantised = [node.name for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert quantised == ["conv2/spikes", "fc/spikes"]


@pytest.mark.parametrize("form", FORMS)
def test_a_quarter_of_the_size(form, tmp_path):
    whole = write(_net(), tmp_path, form).path.stat().st_size
    assert write(_net(), tmp_path, form, precision="int8").path.stat().st_size < 0.3 * whole


def test_sums_stay_exact_in_any_order(tmp_path):
    rounded, _ = to_int8(_net())
    proofs = prove_exact(rounded)
    assert proofs
    assert all(proof.exact for proof in proofs)
    assert not all(proof.exact for proof in prove_exact(_net()))


@pytest.mark.push(2)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("level", [onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, None])
def test_integer_kernels_and_the_operators_one_by_one_agree(form, level, tmp_path):
    program = _net()
    model = write(program, tmp_path, form, precision="int8")
    if level is not None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(model.path, options, providers=["CPUExecutionProvider"])
        model = dataclasses.replace(model, session=session)
    x = spikes(3, 2, 1, 8, 8)
    expected = run(to_int8(program)[0], x)
    assert 0 < expected.y.mean() < 1
    np.testing.assert_array_equal(model.run(x).y, expected.y)


def test_what_is_on_the_grid_of_8_bits_is_kept(tmp_path):
    program = digits()
    x = spikes(4, 3, 1, 6, 6)
    np.testing.assert_array_equal(write(program, tmp_path, precision="int8").run(x).y, run(program, x).y)


def test_a_layer_of_nothing_but_zeros_is_one(tmp_path):
    silent, always = linear(np.zeros((3, 2)), bias=np.zeros(3)), neuron("lif", threshold=0.0, compare="ge")
    program = chain((2,), silent, always, metadata={"input": {"fraction_bits": 0, "max": 1}})
    rounded, _ = to_int8(program)
    assert rounded.by_name["fc"].bias.tolist() == [0, 0, 0]
    assert write(program, tmp_path, precision="int8").run(np.ones((2, 1, 2), F)).y.all()


def test_unknown_precision(tmp_path):
    with refuses("unknown-name", where="precision"):
        export_onnx(digits(), tmp_path / "net.onnx", precision="fp16")
