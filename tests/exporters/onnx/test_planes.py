"""Sums in integers: the planes by hand, and the float form's bits from every graph that has them."""

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.exporters.onnx import exact_sums as planes_module
from stl_deploy.exporters.onnx.exact_sums import split, to_planes
from stl_deploy.graph.program import Conv
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.exporters.onnx.nets import F, chain, conv, flatten, linear, neuron
from tests.exporters.onnx.weights import with_weights
from tests.strategies import programs_and_inputs


def test_planes_by_hand():
    # in multiples of 2^-3: 300 = 256·1 + 44; -129 = 256·-1 + 127; 127; 3
    planes = split(np.array([[37.5, -16.125], [15.875, 0.375]], F))
    assert planes.fraction_bits == 3
    assert planes.values.tolist() == [[[1, -1], [0, 0]], [[44, 127], [127, 3]]]


@given(arrays.arrays(np.int32, (3, 5), elements=st.integers(-(2**22), 2**22)), st.integers(-5, 30))
def test_planes_add_up_to_the_weight(integers, bits):
    weight = (integers * 2.0**-bits).astype(F)
    planes = split(weight)
    powers = 256.0 ** np.arange(len(planes.values))[::-1].reshape(-1, 1, 1)
    total = (planes.values * powers).sum(0) * 2.0**-planes.fraction_bits
    np.testing.assert_array_equal(total.astype(F), weight)
    assert len(planes.values) <= 3


def _on_grid(rng, size, bits, step):
    return (rng.integers(-(2**bits), 2**bits + 1, size) * 2.0**-step).astype(F)


def _crooked(weight, bias, name):
    """A convolution of 7x6 maps that is nowhere symmetric."""
    return lambda shape, sources: Conv(
        name=name,
        shape=(len(weight), 3, 3),
        operands=sources,
        weight=weight,
        bias=bias,
        stride=(2, 1),
        padding=((1, 1), (0, 1)),
        dilation=(1, 2),
        groups=1,
        input_shape=shape,
    )


def _net():
    rng = np.random.default_rng(3)
    return chain(
        (1, 7, 6),
        conv(_on_grid(rng, (30, 1, 3, 3), 7, 6), "conv1"),
        neuron("lif1"),
        _crooked(_on_grid(rng, (20, 30, 4, 3), 11, 12), _on_grid(rng, 20, 12, 12), "conv2"),
        neuron("lif2", threshold=3.0),
        flatten(),
        linear(_on_grid(rng, (40, 180), 14, 15), bias=_on_grid(rng, 40, 14, 15), name="fc"),
        neuron("lif3"),
        metadata={"input": {"fraction_bits": 4, "max": 1}},
    )


@pytest.mark.parametrize("form", ["sequence", "step"])
def test_the_file_computes_the_float_network_bit_for_bit(form, tmp_path):
    program, path = _net(), tmp_path / "net.onnx"
    assert set(to_planes(program)) == {"conv2", "fc"}
    x = np.random.default_rng(0).integers(0, 17, (5, 8, 1, 7, 6)).astype(F) / 16
    names = [node.name for node in program.spiking]
    expected = run(program, x, record=names)
    assert 0.02 < expected.recorded["lif2"].mean() < 0.98
    export_onnx(program, path, form=form, precision="integer")
    found = OnnxModel.load(path, threads=1).run(x, record=names)
    for name in names:
        np.testing.assert_array_equal(found.recorded[name], expected.recorded[name], name)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("MatMulInteger") == 2


def test_a_wrong_plane_is_noticed(tmp_path, monkeypatch):
    program, x = _net(), np.random.default_rng(0).integers(0, 17, (5, 8, 1, 7, 6)).astype(F) / 16
    honest = planes_module.split

    def wrong(weight):
        planes = honest(weight)
        planes.values[0, 0] += 1
        return planes

    monkeypatch.setattr(planes_module, "split", wrong)
    export_onnx(program, tmp_path / "net.onnx", precision="integer")
    found = OnnxModel.load(tmp_path / "net.onnx").run(x, record=["lif2"])
    assert not np.array_equal(found.recorded["lif2"], run(program, x, record=["lif2"]).recorded["lif2"])


@pytest.mark.parametrize("form", ["sequence", "step"])
@examples(60, suppress_health_check=list(HealthCheck))
@given(case=programs_and_inputs())
def test_graphs_of_all_kinds(form, case, tmp_path_factory):
    program, x = case
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    if not to_planes(program):
        return
    spiking = [node.name for node in program.spiking]
    expected = run(program, x, record=spiking)
    export_onnx(program, path, form=form, precision="integer")
    found = OnnxModel.load(path, threads=1).run(x, record=spiking)
    for name in spiking:
        np.testing.assert_array_equal(found.recorded[name], expected.recorded[name], name)


@pytest.mark.parametrize("why", ["a scale that float32 has no room beside", "too many inputs for int32"])
def test_a_layer_whose_sums_int32_or_the_scale_cannot_hold_stays_float(why, monkeypatch):
    rng = np.random.default_rng(0)
    weight, wide = rng.integers(-3, 4, (3, 4)).astype(F), rng.integers(-3, 4, (5, 3)).astype(F)
    if why.startswith("a scale"):
        weight *= F(2.0**-101)
    else:
        monkeypatch.setattr(planes_module, "_MOST_TAPS", 3)
    program = chain((4,), neuron("in"), linear(weight, name="fc"), neuron("lif"), linear(wide, name="end"))
    assert set(to_planes(program)) == {"end"}


def test_a_net_off_the_grid_is_refused_in_one_sentence(tmp_path):
    program = chain((4,), neuron("in"), linear(np.full((3, 4), 0.1, F), name="fc"), neuron("lif"))
    rough = with_weights(program, 0)
    with pytest.raises(InputError, match="no layer's sums can be made in integers"):
        export_onnx(rough, tmp_path / "net.onnx", precision="integer")
    assert not list(tmp_path.iterdir())
