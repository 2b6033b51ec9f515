import json
from functools import partial

import numpy as np
import onnx
import pytest

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.onnx import OnnxModel, OnnxStream, export_onnx
from stl_deploy.graph.program import Delay, Input, Operand, Output, Program, Scale
from stl_deploy.graph.run import run
from tests.exporters.onnx.nets import F, chain, conv, digits, linear, neuron, pool, spikes, write
from tests.refusals import refuses

FORMS = ["sequence", "step"]


@pytest.mark.parametrize("form", FORMS)
def test_nodes_and_tensors_are_called_as_in_the_nir_graph(form, tmp_path):
    program = digits()
    export_onnx(program, tmp_path / "net.onnx", form=form)
    graph = onnx.load(tmp_path / "net.onnx").graph
    names = {node.name for node in graph.node}
    assert {"conv", "pool", "flat", "fc", "output"} <= names
    if form == "sequence":
        assert {node.name: node.op_type for node in graph.node}["lif1"] == "Scan"
    lead = ["T", "B"] if form == "sequence" else ["B"]
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }
    expected = {"input": [1, 6, 6], "output": [3], "spikes__lif1": [4, 6, 6], "spikes__max": [4, 3, 3]}
    expected |= {"spikes__lif2": [3]}
    if form == "step":
        expected |= {"state__lif1__v": [4, 6, 6], "next__lif1__v": [4, 6, 6]}
        expected |= {"state__lif2__v": [3], "next__lif2__v": [3]}
    assert shapes == {name: [*lead, *shape] for name, shape in expected.items()}
    weights = {tensor.name for tensor in graph.initializer}
    assert {"conv.weight", "fc.weight", "fc.bias", "lif1.threshold", "lif1.decay", "lif2.threshold"} <= weights


@pytest.mark.parametrize(
    ("options", "opset", "ir"),
    [
        ({}, 15, 8),
        ({"opset": 18}, 18, 8),
        ({"batch": 2}, 13, 7),
        ({"form": "step"}, 13, 7),
        ({"form": "step", "batch": 1, "opset": 22}, 22, 10),
        ({"form": "unrolled", "steps": 3}, 15, 8),
        ({"form": "unrolled", "steps": 3, "batch": 2}, 13, 7),
    ],
)
def test_only_standard_operators_of_the_lowest_opset_and_every_shape_inferred(options, opset, ir, tmp_path):
    export_onnx(digits(), tmp_path / "net.onnx", **options)
    model = onnx.load(tmp_path / "net.onnx")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    assert model.ir_version == ir
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    known = {value.name for value in [*inferred.graph.value_info, *inferred.graph.output]}
    assert {name for node in model.graph.node for name in node.output} <= known


@pytest.mark.parametrize("form", ["sequence", "unrolled"])
def test_static_shapes_leave_none_open(form, tmp_path):
    program = digits()
    model = write(program, tmp_path, form, steps=4, batch=2)
    graph = onnx.load(model.path).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    weights = [tensor.name for tensor in graph.initializer]
    assert {"conv.weight", "lif1.threshold", "fc.weight"} <= set(weights)
    assert not [name for name in weights if name.endswith(".1")], "each is there once"
    assert all(dim.dim_value > 0 for value in values for dim in value.type.tensor_type.shape.dim)
    operators = {node.op_type for node in graph.node}
    assert "Shape" not in operators
    assert ("Scan" in operators) == (form == "sequence")
    x = spikes(3, 5, 1, 6, 6)  # fewer steps, and samples that fill no batch
    expected, found = (runner(x, record=["lif1"]) for runner in (partial(run, program), model.run))
    np.testing.assert_array_equal(found.y, expected.y)
    np.testing.assert_array_equal(found.recorded["lif1"], expected.recorded["lif1"])
    with pytest.raises(InputError, match="takes 4 steps; found 5"):
        model.run(spikes(5, 1, 1, 6, 6))


def test_a_stream_of_a_static_batch_takes_no_other(tmp_path):
    stream = OnnxStream(write(digits(), tmp_path, "step", batch=2))
    with pytest.raises(InputError, match="got 1 samples after 2"):
        stream.step(spikes(1, 1, 6, 6))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"steps": 0}, "expected at least 1; found 0"),
        ({"batch": 0}, "expected at least 1; found 0"),
        ({"form": "step", "steps": 3}, "found step, which takes one step"),
        ({"form": "unrolled"}, "expected 1 to 1024 for the form unrolled; found no number of steps"),
        ({"form": "unrolled", "steps": 1025}, "expected 1 to 1024 for the form unrolled; found 1025"),
        ({"opset": 13}, "expected 15 to [0-9]+ without batch=B; found 13"),
        ({"batch": 1, "opset": 12}, "expected 13 to [0-9]+; found 12"),
        ({"opset": 999}, "expected 15 to [0-9]+ without batch=B; found 999"),
    ],
)
def test_sizes_that_a_form_does_not_take(options, found, tmp_path):
    with pytest.raises(InputError, match=found):
        export_onnx(digits(), tmp_path / "net.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_metadata(tmp_path):
    export_onnx(digits(), tmp_path / "net.onnx", form="step", provenance={"source": "net.nir", "sha256": "ab12"})
    model = onnx.load(tmp_path / "net.onnx")
    found = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert model.producer_name == "stl-deploy"
    assert found["stl_deploy.version"] == model.producer_version
    assert found["stl_deploy.form"] == "step"
    assert found["stl_deploy.dt"] == 1e-4
    assert found["stl_deploy.spiking"] == ["lif1", "max", "lif2"]
    assert found["stl_deploy.provenance"] == {"source": "net.nir", "sha256": "ab12"}
    assert found["stl_deploy.graph.dialect"]["compare"] == "ge"
    assert found["stl_deploy.graph.input"] == {"coding": "spikes"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (1, 5), (9, 1), (4, 3)])
def test_one_file_takes_any_number_of_steps_and_samples(form, steps, batch, tmp_path):
    program = digits()
    model = write(program, tmp_path, form)
    x = spikes(steps, batch, 1, 6, 6)
    expected = run(program, x, record=["lif1", "lif2"])
    found = model.run(x, record=["lif1", "lif2"])
    assert list(found.recorded) == ["lif1", "lif2"]
    np.testing.assert_array_equal(found.y, expected.y)
    np.testing.assert_array_equal(found.recorded["lif1"], expected.recorded["lif1"])
    np.testing.assert_array_equal(model.run(x, chunk=2).y, expected.y)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "fields", [{"gain": 0.1234}, {"offset": 0.1234}, {"decay": 0.73}, {"decay": None, "gain": 0.3}]
)
def test_what_follows_a_product_is_not_merged_into_it(form, fields, tmp_path):
    # enough channels for ONNX Runtime's blocked convolution, numbers off the grid behind it
    rng = np.random.default_rng(0)
    weight = rng.integers(-4, 5, (32, 16, 3, 3)) / 4
    program = chain(
        (16, 6, 6),
        conv(weight),
        lambda shape, sources: Scale(
            name="scale", shape=shape, operands=sources, scale=rng.random((32, 1, 1)).astype(F)
        ),
        neuron(**({"threshold": None} | fields)),
    )
    straight = chain((16, 6, 6), conv(weight), neuron(**({"threshold": None} | fields)))
    dense = chain((300,), linear(rng.integers(-4, 5, (20, 300)) / 4), neuron(**({"threshold": None} | fields)))
    for net in (program, straight, dense):
        x = rng.integers(0, 3, (3, 2, *net.inputs[0].shape))
        np.testing.assert_array_equal(write(net, tmp_path, form).run(x).y, run(net, x).y)


@pytest.mark.parametrize("form", FORMS)
def test_average_of_a_full_window_is_one(form, tmp_path):
    # 49 spikes times 1/49 in float32 is not 1
    model = write(chain((1, 7, 7), pool(49, (7, 7))), tmp_path, form)
    assert model.run(np.ones((1, 1, 1, 7, 7))).y.item() == 1.0


def test_sums_follow_the_order_of_the_edges(tmp_path):
    # float32: (2^24 + 1) - 2^24 = 0, (2^24 - 2^24) + 1 = 1
    inputs = tuple(Input(name=name, shape=(1,), operands=()) for name in "abc")
    big = np.full((1, 1, 1), 2.0**24)
    for order, expected in (("abc", 0.0), ("acb", 1.0)):
        output = Output(name="y", shape=(1,), operands=tuple(Operand(name) for name in order))
        model = write(Program((*inputs, output), 1.0), tmp_path)
        assert model.run({"a": big, "b": np.ones((1, 1, 1)), "c": -big}).y.item() == expected


def test_without_recording_only_the_outputs_leave(tmp_path):
    model = write(digits(), tmp_path, record=False)
    assert [value.name for value in onnx.load(model.path).graph.output] == ["output"]
    with pytest.raises(
        InputError, match="cannot record 'lif1'; spikes that it puts out: none, it was exported without"
    ):
        model.run(spikes(2, 1, 1, 6, 6), record=["lif1"])


def test_large_weights_go_to_a_file_beside(tmp_path):
    program = chain((40,), linear(np.arange(40 * 40).reshape(40, 40) % 7 - 3), neuron())
    (plain,) = export_onnx(program, tmp_path / "plain.onnx")
    path, data = export_onnx(program, tmp_path / "net.onnx", external_above=1000)
    assert path.stat().st_size + 6000 < plain.stat().st_size
    assert data.parent == tmp_path
    assert data.name.startswith("net.onnx.")
    x = spikes(4, 2, 40)
    np.testing.assert_array_equal(OnnxModel.load(path, threads=1).run(x).y, run(program, x).y)
    other = chain((40,), linear(np.ones((40, 40))), neuron())
    _, newer = export_onnx(other, path, external_above=1000)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "plain.onnx", path, newer])
    np.testing.assert_array_equal(OnnxModel.load(path, threads=1).run(x).y, run(other, x).y)


@pytest.mark.parametrize("above", [0, 2**30])
def test_a_file_that_fails_its_check_is_not_written(above, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise onnx.checker.ValidationError("broken")

    monkeypatch.setattr(onnx.checker, "check_model", fail)
    with pytest.raises(onnx.checker.ValidationError):
        export_onnx(chain((40,), linear(np.ones((40, 40)))), tmp_path / "net.onnx", external_above=above)
    assert list(tmp_path.iterdir()) == []


def test_unknown_form(tmp_path):
    with refuses("unknown-name", where="form"):
        export_onnx(digits(), tmp_path / "net.onnx", form="rolled")


def test_a_delay_too_long_to_keep_every_value(tmp_path):
    program = chain(
        (1,), lambda shape, sources: Delay(name="late", shape=shape, operands=sources, steps=np.array(2**31))
    )
    y = write(program, tmp_path).run(np.ones((3, 1, 1))).y
    assert not y.any()
    with pytest.raises(
        UnsupportedError, match=r"^node 'late': expected a delay of at most .*; found 2147483648.* use a larger dt"
    ):
        export_onnx(program, tmp_path / "net.onnx", form="step")


def test_names_that_look_like_ours_do_not_collide(tmp_path):
    program = chain((2,), neuron("lif"), neuron("lif.decay"), neuron("spikes__lif"), neuron("shape_0"))
    x = spikes(4, 2, 2)
    for form in FORMS:
        found = write(program, tmp_path, form).run(x, record=["lif", "spikes__lif"])
        expected = run(program, x, record=["lif", "spikes__lif"])
        for name in expected.recorded:
            np.testing.assert_array_equal(found.recorded[name], expected.recorded[name])
