"""Files that a stranger may have written, cut or changed: one sentence each, and nothing is run."""

import contextlib
import json
import os

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.exporters.onnx import foreign as reader
from tests.drawn import examples
from tests.exporters.onnx.nets import chain, digits, linear, spikes


@pytest.fixture
def path(tmp_path):
    export_onnx(digits(), tmp_path / "net.onnx", form="step")
    return tmp_path / "net.onnx"


def change(path, edit):
    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())


def set_property(path, key, value):
    def edit(model):
        for entry in model.metadata_props:
            if entry.key == f"stl_deploy.{key}":
                entry.value = value if isinstance(value, str) else json.dumps(value)

    change(path, edit)


def test_missing(tmp_path):
    with pytest.raises(InputError, match=r"net\.onnx: expected an \.onnx.*; found no such file"):
        OnnxModel.load(tmp_path / "net.onnx")


@pytest.mark.parametrize("content", [b"hello, this is text", b"\x89PNG\r\n\x1a\n" * 9])
def test_another_kind_of_file(content, tmp_path):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"not an ONNX file \(or truncated\)"):
        OnnxModel.load(tmp_path / "net.onnx")


def test_empty(tmp_path):
    (tmp_path / "net.onnx").touch()
    with pytest.raises(InputError, match="found an ONNX model of another writer"):
        OnnxModel.load(tmp_path / "net.onnx")


def test_foreign_model(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y])), tmp_path / "net.onnx")
    with pytest.raises(InputError, match=r"expected what net\.export wrote"):
        OnnxModel.load(tmp_path / "net.onnx")


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_truncated_anywhere(share, path):
    whole = path.read_bytes()
    short = path.with_name("short.onnx")
    short.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"short\.onnx"):
        OnnxModel.load(short)


@examples(80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_still_runs(where, value, path):
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] = value
    changed = path.with_name("changed.onnx")
    changed.write_bytes(content)
    with contextlib.suppress(InputError):
        model = OnnxModel.load(changed, threads=1)
        model.run(spikes(2, 1, 1, 6, 6))
        assert isinstance(model.metadata, dict)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "written by a later stl-deploy"),
        ("form", '"loop"', "metadata 'stl_deploy.form' is damaged"),
        ("dt", "not json", "its metadata is damaged"),
        ("states", [{"node": "lif1"}], "metadata 'stl_deploy.states.0.tensor' is damaged"),
        ("states", [], "does not name the graph's inputs and outputs"),
        ("outputs", {"output": "elsewhere"}, "does not name the graph's inputs and outputs"),
    ],
)
def test_damaged_metadata(key, value, message, path):
    set_property(path, key, value)
    with pytest.raises(InputError, match=message):
        OnnxModel.load(path)


@pytest.mark.parametrize("start", ["zero", [0.0, 1.0], {"a": 1}, None, [[1], [1, 2]]])
def test_a_state_without_a_value_at_rest(start, path):
    states = json.loads({e.key: e.value for e in onnx.load(path).metadata_props}["stl_deploy.states"])
    set_property(path, "states", [{**states[0], "start": start}, *states[1:]])
    with pytest.raises(InputError, match="'state__lif1__v' has no readable value at rest"):
        OnnxModel.load(path)


def test_an_operator_that_we_do_not_write_even_inside_a_scan(tmp_path):
    path = tmp_path / "net.onnx"
    export_onnx(digits(), path)

    def edit(model):
        (scan,) = (node for node in model.graph.node if node.name == "lif1")
        (body,) = (a.g for a in scan.attribute if a.name == "body")
        body.node[0].op_type = "RandomNormalLike"

    change(path, edit)
    with pytest.raises(InputError, match=r"node 'lif1/mul_0' is a RandomNormalLike, which stl-deploy never writes"):
        OnnxModel.load(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kept", ["raw", "listed", "double"])
def test_weights_that_are_no_numbers(value, kept, path):
    def edit(model):
        tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
        values = onnx.numpy_helper.to_array(tensor).copy()
        values.flat[-1] = value
        if kept == "listed":
            tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, tensor.dims, values.ravel()))
        else:
            values = values.astype(float) if kept == "double" else values
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    change(path, edit)
    with pytest.raises(InputError, match=r"weights '.*': expected finite numbers; found NaN or infinity"):
        OnnxModel.load(path)


def _functions(model):
    model.functions.append(helper.make_function("", "mine", ["x"], ["y"], [], [helper.make_opsetid("", 17)]))


def _sparse(model):
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, helper.make_tensor("at", TensorProto.INT64, [1], [0]), [4])
    )


def _shapeless(model):
    model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value = 0


def _written(model):
    model.graph.node[0].attribute.append(helper.make_attribute("odd", onnx.numpy_helper.from_array(np.ones(2**17))))


def _nested(model):
    """In a body of several, where an operator takes a list of them."""
    body = helper.make_graph([helper.make_node("Constant", [], ["c"], "inner")], "body", [], [])
    body.node[0].attribute.append(helper.make_attribute("value", onnx.numpy_helper.from_array(np.ones(2**17))))
    model.graph.node[0].attribute.append(helper.make_attribute("bodies", [body]))


def _proto(model):
    model.metadata_props.add(key="stl_deploy.graph.readout", value="{")


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (_functions, "holds functions or sparse weights, which stl-deploy does not write; export it again"),
        (_sparse, "holds functions or sparse weights, which stl-deploy does not write; export it again"),
        (_shapeless, r"input '.*' declares sizes \[.*0\]; export it again"),
        (_written, "node '.*' holds a large constant, which stl-deploy never writes"),
        (_nested, "node 'inner' (holds a large constant|is a Constant), which stl-deploy never writes"),
    ],
)
def test_what_we_never_write_is_not_read(edit, sentence, path):
    change(path, edit)
    with pytest.raises(InputError, match=sentence):
        OnnxModel.load(path)


def test_what_the_author_wrote_beside_it_is_damaged(path):
    change(path, _proto)
    with pytest.raises(InputError, match=r"net\.onnx: its metadata is damaged \(Expecting .*\); export it again"):
        OnnxModel.load(path).metadata  # noqa: B018


def test_more_steps_than_memory_holds_are_refused(tmp_path, monkeypatch):
    export_onnx(digits(), tmp_path / "net.onnx")
    model = OnnxModel.load(tmp_path / "net.onnx")
    monkeypatch.setattr("stl_deploy.exporters.onnx.model._MOST_BYTES", 1)
    with pytest.raises(InputError, match="expected fewer steps; found 2, of which one sample takes 0 GiB"):
        model.run(spikes(2, 1, 1, 6, 6))


def test_what_onnx_runtime_says_of_a_failure_is_one_line(path, monkeypatch):
    def fails(*_arguments):
        raise RuntimeError("[ONNXRuntimeError] : 6 : out of memory\nat node 'lif1'\n")

    model = OnnxModel.load(path)
    for call in ("run", "run_with_iobinding"):
        monkeypatch.setattr(model.session, call, fails)
    with pytest.raises(InputError, match=r"net\.onnx: ONNX Runtime failed \(.*6 : out of memory\)$"):
        model.run(spikes(2, 1, 1, 6, 6))


def test_a_size_over_the_limit(path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_MODEL_BYTES", -(2**20))
    with pytest.raises(InputError, match="expected an ONNX file of at most 2 GiB"):
        OnnxModel.load(path)


class TestWeightsBeside:
    @pytest.fixture
    def files(self, tmp_path):
        program = chain((40,), linear(np.ones((40, 40))))
        return export_onnx(program, tmp_path / "folder" / "net.onnx", external_above=0)

    def test_more_than_the_format_holds(self, files, monkeypatch):
        monkeypatch.setattr(reader, "MAX_DATA_BYTES", 100)
        with pytest.raises(InputError, match="expected at most 0 GiB of weights; found 0 GiB"):
            OnnxModel.load(next(file for file in files if file.suffix == ".onnx"))

    @staticmethod
    def point(path, key, value):
        def edit(model):
            (tensor,) = (t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
            for entry in tensor.external_data:
                if entry.key == key:
                    entry.value = value

        change(path, edit)

    @pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/b", "..", "", ".", "a\\b"])
    def test_elsewhere(self, location, files):
        path, _ = files
        (path.parent.parent / "secret").write_bytes(bytes(10000))
        self.point(path, "location", location)
        with pytest.raises(InputError, match="only a file in the same folder is read"):
            OnnxModel.load(path)

    def test_through_a_link(self, files):
        path, data = files
        secret = path.parent.parent / "secret"
        os.replace(data, secret)
        data.symlink_to(secret)
        with pytest.raises(InputError, match="which is not beside it; copy both files"):
            OnnxModel.load(path)

    def test_left_behind(self, files):
        path, data = files
        data.unlink()
        with pytest.raises(InputError, match="which is not beside it; copy both files"):
            OnnxModel.load(path)

    def test_truncated(self, files):
        path, data = files
        os.truncate(data, 6000)
        with pytest.raises(InputError, match=r"ends before the weights 'fc\.weight'; it is truncated"):
            OnnxModel.load(path)

    @pytest.mark.parametrize(("key", "value"), [("offset", "-1"), ("length", "many"), ("offset", str(2**70))])
    def test_a_range_that_is_none(self, key, value, files):
        path, _ = files
        self.point(path, key, value)
        with pytest.raises(InputError, match="ends before the weights"):
            OnnxModel.load(path)

    def test_no_numbers(self, files):
        path, data = files
        data.write_bytes(b"\xff" * len(data.read_bytes()))
        with pytest.raises(InputError, match=r"weights 'fc\.weight': expected finite numbers; found NaN or infinity"):
            OnnxModel.load(path)
