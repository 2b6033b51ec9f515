"""Program files with Cells: format 2, read back to the bit; damaged Cells are refused in a sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.npz import read_npz, write_npz
from stl_deploy.errors import InputError
from stl_deploy.exporters.program.file import read_program, write_program
from stl_deploy.graph.run import run
from tests.exporters.program.test_file import same, small
from tests.graph.cells import drive, feed_forward, recurrent


def header(path: Path) -> dict[str, Any]:
    return json.loads(bytes(read_npz(path)["program"]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("net", [feed_forward(), recurrent()], ids=["feed-forward", "recurrent"])
def test_cells_come_back_to_the_bit(net: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.program"
    write_program(net, path)
    read = read_program(path)
    assert same(net.nodes, read.nodes)
    assert header(path)["format"] == 2
    np.testing.assert_array_equal(run(read, drive()).y, run(net, drive()).y)


def test_a_program_without_cells_keeps_format_1(tmp_path: Path) -> None:
    path = tmp_path / "net.program"
    write_program(small(), path)
    assert header(path)["format"] == 1


def operation(number: int, **values: Any) -> Any:
    return lambda cell, arrays: cell["operations"][number].update(values)


def state(number: int, **values: Any) -> Any:
    return lambda cell, arrays: cell["states"][number].update(values)


def start(array: Any) -> Any:
    return lambda cell, arrays: arrays.update({cell["states"][0]["start"]["array"]: array})


DAMAGED = {
    "an operation of its own": (operation(0, op="__import__"), "is no operation"),
    "an argument that is made later": (operation(0, args=["beta", "w2"]), "is no operation"),
    "arguments missing": (operation(0, args=["beta"]), "is no operation"),
    "another type": (operation(0, dtype="int64"), "takes no float32, float32 to make int64"),
    "a type that is none": (operation(0, dtype="object"), "dtype: expected float32, bool, int32, int64"),
    "a name twice": (operation(1, name="u1"), "two of its values are called 'u1'"),
    "states of other axes": (state(0, shape=[1, 3]), "expected operands and states with one number of axes"),
    "states without end": (state(0, shape=[2**28]), "does not start in its shape"),
    "nothing next": (state(0, next="nobody"), "takes no value of its type and shape"),
    "float64": (start(np.zeros(3)), "expected float32, bool, int32, int64; found float64"),
    "NaN": (start(np.full(3, np.nan, np.float32)), "expected finite numbers"),
    "objects": (start(np.zeros(3, "S4")), "expected finite numbers"),
    "an output that is none": (lambda cell, arrays: cell.update(outputs=["u9"]), "is no float32 value of its shape"),
    "other outputs": (lambda cell, arrays: cell.update(outputs=["s", "s"]), "do not fit together"),
    "operands of other shapes": (
        lambda cell, arrays: cell.update(operands=[[4]]),
        "expected the shapes of its operands",
    ),
    "a name too many": (lambda cell, arrays: cell.update(names=["x", "y"]), "do not fit together"),
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_cell_is_refused_in_a_sentence(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.program"
    write_program(feed_forward(), path)
    arrays = read_npz(path)
    text = json.loads(bytes(arrays["program"]))
    change[0](text["nodes"][2], arrays)
    arrays["program"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    write_npz(path, arrays)
    with pytest.raises(InputError, match=change[1]) as refused:
        read_program(path)
    assert "\n" not in str(refused.value)


def test_operations_that_would_fill_memory_are_not_run(tmp_path: Path) -> None:
    """Constants of two shapes that broadcast to 2^34 values."""
    path = tmp_path / "net.program"
    write_program(feed_forward(), path)
    arrays = read_npz(path)
    text = json.loads(bytes(arrays["program"]))
    entry, weights, cell, _ = text["nodes"]
    entry["shape"] = weights["shape"] = cell["shape"] = [1, 1]
    text["nodes"] = [entry, cell, text["nodes"][3] | {"shape": [1, 1]}]
    cell["sources"][0]["node"], cell["operands"], cell["output_shapes"] = "input", [[1, 1]], [[1, 1]]
    cell["states"] = []
    for constant, shape in zip(cell["constants"], ((2**17, 1), (1, 2**17)), strict=False):
        arrays[constant["value"]["array"]] = np.ones(shape, np.float32)
    cell["operations"] = [cell["operations"][0] | {"name": "huge", "args": ["beta", "one_less"]}]
    cell["outputs"] = ["x"]
    arrays["program"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    write_npz(path, arrays)
    with pytest.raises(InputError, match="more than"):
        read_program(path)
