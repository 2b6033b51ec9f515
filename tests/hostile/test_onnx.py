"""ONNX files of a kilobyte that ask for gigabytes, and names that a terminal or a file system would obey."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx.model import OnnxModel
from tests.exporters.onnx.nets import digits, write


def _ours(folder, form="sequence"):
    return onnx.load(write(digits(), folder, form).path)


def _load(model, folder):
    path = folder / "bomb.onnx"
    path.write_bytes(model.SerializeToString())
    return OnnxModel.load(path)


def _add(model, nodes, initializers=()):
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in initializers)
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    return model


def _doublings(kind, count, start="seed"):
    nodes = [helper.make_node("Concat", [f"d{i}" if i else start] * 2, [f"d{i + 1}"], axis=0) for i in range(count)]
    return nodes, [(start, np.ones(2, kind))]


@pytest.mark.parametrize("kind", [np.float32, np.int64])
@pytest.mark.parametrize("count", [28, 45])
def test_doublings_of_a_constant_are_refused(tmp_path, kind, count):
    with pytest.raises(InputError, match=r"bomb\.onnx: .*(numbers of one sample|a shape of more than|damaged)"):
        _load(_add(_ours(tmp_path), *_doublings(kind, count)), tmp_path)


def test_a_constant_of_a_large_shape_is_refused(tmp_path):
    node = helper.make_node("ConstantOfShape", ["size"], ["zeros"])
    model = _add(_ours(tmp_path), [node], [("size", np.array([2**17, 2**17], np.int64))])
    with pytest.raises(InputError, match=r"makes 17,1\d\d,\d\d\d,\d\d\d numbers of one sample"):
        _load(model, tmp_path)


def test_what_grows_with_a_power_of_the_steps_is_refused(tmp_path):
    model = _ours(tmp_path)
    x = model.graph.input[0].name
    nodes = [
        helper.make_node("Shape", [x], ["s0"]),
        helper.make_node("Mul", ["s0", "s0"], ["s1"]),
        helper.make_node("Mul", ["s1", "s1"], ["s2"]),
        helper.make_node("ConstantOfShape", ["s2"], ["zeros"]),
    ]
    with pytest.raises(InputError, match=r"numbers of one sample|damaged"):
        _load(_add(model, nodes), tmp_path)


def test_weights_that_declare_more_than_they_hold_are_refused(tmp_path):
    model = _ours(tmp_path)
    model.graph.initializer.append(TensorProto(name="w", dims=[2**30], data_type=1, raw_data=b"1234"))
    with pytest.raises(InputError, match=r"weights 'w' declare \[1073741824\], which they do not hold"):
        _load(model, tmp_path)


def test_no_bomb_takes_a_gigabyte(tmp_path):
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29, 3 * 2**29))  # of which half a gigabyte is libraries
from pathlib import Path
import numpy as np
from stl_deploy.errors import InputError
from tests.hostile.test_onnx import _add, _doublings, _load, _ours
folder = Path({str(tmp_path)!r})
for kind in (np.float32, np.int64):
    for count in (25, 31, 45, 62):
        try:
            _load(_add(_ours(folder), *_doublings(kind, count)), folder)
            sys.exit(3)
        except InputError as error:
            assert "memory" not in str(error), error
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("name", ["../../../evil", "a/b", "a\\b", "a\x1b[2Jb", "a\u202eb", ""])
def test_names_of_nodes_that_are_paths_or_escapes_are_refused(tmp_path, name):
    model = _ours(tmp_path)
    for entry in model.metadata_props:
        if entry.key.endswith("spikes"):
            entry.value = '{"' + name.encode("unicode_escape").decode().replace("\\x", "\\u00") + '": "lif1"}'
    with pytest.raises(InputError, match=r"found a node|metadata"):
        _load(model, tmp_path)


@pytest.mark.parametrize("edit", ["offset", "length", "location", "gone"])
def test_damaged_external_data_is_a_sentence(tmp_path, edit):
    model = _ours(tmp_path)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    (tmp_path / "w.data").write_bytes(tensor.raw_data)
    entries = {"location": "w.data", "offset": "0", "length": str(len(tensor.raw_data))}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries |= {"offset": {"offset": "-1"}, "length": {"length": "9" * 40}, "location": {"location": "../w.data"}}.get(
        edit, {}
    )
    if edit == "gone":
        (tmp_path / "w.data").unlink()
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    with pytest.raises(InputError, match=r"w\.data|weights"):
        _load(model, tmp_path)
