"""Program files: every node comes back to the bit, and a file that is damaged is refused in one sentence."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy._util.npz import read_npz, write_npz
from stl_deploy.errors import CaptureError, InputError, UnsupportedError
from stl_deploy.exporters.nir.write import to_own_graph
from stl_deploy.exporters.program.file import read_program, write_program
from stl_deploy.graph.program import (
    Concat,
    Conv,
    Delay,
    Gather,
    Input,
    Linear,
    MaxPool,
    Neuron,
    Operand,
    Output,
    Pool,
    Program,
)
from tests.drawn import examples
from tests.exporters.netx.programs import Builder
from tests.strategies import programs


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_a_program_that_would_not_be_read_back_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Builder((4,)).lif("lif", 1.0).program()
    monkeypatch.setattr("stl_deploy.exporters.program.file._MOST_VALUES", 11)
    with pytest.raises(UnsupportedError) as error:
        write_program(program, tmp_path / "net.program")
    assert error.value.slug == "too-many-values"
    assert not (tmp_path / "net.program").exists()


@examples(60)
@given(program=programs(more="all"))
def test_a_program_comes_back_to_the_bit(program: Program, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("program") / "net.program"
    write_program(program, path)
    read = read_program(path)
    assert read.dt == program.dt
    assert same(program.nodes, read.nodes)


def small() -> Program:
    pool = MaxPool(
        name="pool",
        shape=(1, 2),
        operands=(Operand("in"),),
        kernel=(2,),
        stride=(2,),
        padding=((0, 0),),
        input_shape=(1, 4),
    )
    weight = np.ones((3, 2), np.float32)
    linear = Linear(name="fc", shape=(1, 3), operands=(Operand("pool"),), weight=weight, bias=None, input_shape=(1, 2))
    lif = Neuron(
        name="lif", shape=(1, 3), operands=(Operand("fc"),), decay=np.float32(0.5), threshold=np.asarray(1, np.float32)
    )
    nodes = (Input(name="in", shape=(1, 4), operands=()), pool, linear, lif)
    return Program((*nodes, Output(name="out", shape=(1, 3), operands=(Operand("lif"),))), 1e-4, {"a": [1, 2]})


def rewritten(path: Path, change: Any) -> None:
    arrays = read_npz(path)
    header = json.loads(bytes(arrays["program"]))
    change(header, arrays)
    arrays["program"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    write_npz(path, arrays)


def _set(node: int, **values: Any) -> Any:
    return lambda header, arrays: header["nodes"][node].update(values)


DAMAGED: dict[str, tuple[Any, str]] = {
    "another version": (lambda h, a: h.update(format=3), "expected format 1 or 2; found 3"),
    "no nodes": (lambda h, a: h.update(nodes=[]), "expected a time step above 0 and a list of nodes"),
    "time": (lambda h, a: h.update(dt=float("nan")), "expected a time step above 0"),
    "a kind that is none": (_set(1, kind="Os"), "not a Program file .KeyError"),
    "a field too many": (_set(1, other=1), "a MaxPool: expected .*; found other fields"),
    "a word that is none": (_set(3, reset="never"), "reset: expected value, .*; found 'never'"),
    "two of one name": (_set(1, name="in"), "'in': expected a name of its own"),
    "an edge to nowhere": (_set(4, sources=[{"kind": "Source", "node": "x", "delay": 0}]), "'out': expected to read"),
    "an edge from later": (
        _set(4, sources=[{"kind": "Source", "node": "lif", "delay": -1}]),
        "'out': expected to read",
    ),
    "a wrong shape": (_set(1, shape=[1, 3]), "to make"),
    "a list for an array": (_set(3, threshold=[1]), "threshold: expected an array or null; found 'tuple'"),
    "a number for a list": (_set(1, kernel=2), "kernel: expected a list; found 'int'"),
    "truth for an array": (_set(3, gain=True), "gain: expected an array or null; found 'bool'"),
    "a decay of other neurons": (
        lambda h, a: a.update({h["nodes"][3]["decay"]["array"]: np.ones(5, np.float32)}),
        "'lif': decay: expected a shape that broadcasts to .1, 3.; found .5.",
    ),
    "a huge shape": (_set(0, shape=[2**20, 2**20]), "more than 268,435,456 values"),
    "no shape": (_set(0, shape="x"), "shape: expected a list; found 'x'"),
    "weights that do not fit": (
        lambda h, a: a.update(a0=np.ones((3, 5), np.float32)),
        r"weight: expected shape .3, 2., of 2 axes; found .3, 5.",
    ),
    "weights of one axis": (
        lambda h, a: a.update(a0=np.ones(3, np.float32)),
        r"weight: expected shape .3, 2., of 2 axes; found .3.",
    ),
    "a bias that broadcasts": (
        lambda h, a: (h["nodes"][2].update(bias={"array": "b"}), a.update(b=np.ones((3, 1), np.float32))),
        r"bias: expected a value for each output, .3.; found .3, 1.",
    ),
    "weights of text": (lambda h, a: a.update(a0=np.array(["x"])), "expected finite numbers in float32"),
    "infinite weights": (
        lambda h, a: a.update(a0=np.full((3, 2), np.inf, np.float32)),
        "expected finite numbers in float32",
    ),
    "a missing array": (lambda h, a: a.pop("a0"), "not a Program file .KeyError"),
    "an array in the window": (_set(1, kernel=[2, 2]), "do not fit together|not a Program file|no valid|expected"),
    "nested": (_set(1, kernel=[[[[[[[[[[1]]]]]]]]]]), "nested too deep"),
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_in_a_sentence(change: tuple[Any, str], tmp_path: Path) -> None:
    path = tmp_path / "net.program"
    write_program(small(), path)
    rewritten(path, change[0])
    with pytest.raises(InputError, match=change[1]) as caught:
        read_program(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@examples(40)
@given(data=st.data())
def test_bytes_that_are_changed_are_refused_or_read(data: st.DataObject, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("program") / "net.program"
    write_program(small(), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    said = ""
    try:
        read_program(path)
    except InputError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("cc", "sizes", (2, 2_000_000)),
        ("pool", "input_shape", (4, 2_000_000, 2)),
        ("conv", "input_shape", (2, 20_000, 2_000)),
        ("pool", "stride", (2, 1)),
        ("top", "stride", (-1, 1)),
        ("top", "kernel", (9, 9)),
        ("pick", "indices", np.array([0, 1, 99])),
        ("late", "steps", np.array(-1)),
        ("fc", "operands", (Operand("pick"), Operand("input"))),
        ("pool", "divisor", -4),
        ("pool", "divisor", 0),
        ("conv", "groups", -1),
    ],
)
def test_sizes_that_do_not_fit_what_arrives_are_refused(name: str, field: str, value: Any, tmp_path: Path) -> None:
    """Numpy broadcasts some, and C would read and write beyond its arrays."""
    rng, geometry = np.random.default_rng(0), {"stride": (2, 2), "padding": ((0, 0), (0, 0))}
    weight = rng.normal(size=(4, 2, 3, 3)).astype(np.float32)
    nodes = (
        Input(name="input", shape=(2, 6, 6), operands=()),
        Conv(
            name="conv", shape=(4, 4, 4), operands=(Operand("input"),), weight=weight, bias=None, stride=(1, 1),
            padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1, input_shape=(2, 6, 6),
        ),
        Pool(
            name="pool", shape=(4, 2, 2), operands=(Operand("conv"),), kernel=(2, 2), divisor=4, input_shape=(4, 4, 4),
            **geometry,
        ),
        MaxPool(
            name="top", shape=(4, 2, 2), operands=(Operand("conv"),), kernel=(2, 2), input_shape=(4, 4, 4), **geometry
        ),
        Concat(name="cc", shape=(8, 2, 2), operands=(Operand("pool"), Operand("top")), sizes=(4, 4)),
        Gather(
            name="pick", shape=(3,), operands=(Operand("cc"),), indices=np.array([0, -1, 31]), input_shape=(8, 2, 2)
        ),
        Delay(name="late", shape=(3,), operands=(Operand("pick"),), steps=np.array(2)),
        Linear(
            name="fc", shape=(2,), operands=(Operand("late"),), weight=np.ones((2, 3), np.float32), bias=None,
            input_shape=(3,),
        ),
        Output(name="output", shape=(2,), operands=(Operand("fc"),)),
    )  # fmt: skip
    write_program(Program(nodes, 1e-4), tmp_path / "whole.program")
    read_program(tmp_path / "whole.program")
    damaged = tuple(replace(node, **{field: value}) if node.name == name else node for node in nodes)
    write_program(Program(damaged, 1e-4), tmp_path / "net.program")
    with pytest.raises(InputError, match=rf"net\.program: .*'{name}'"):
        read_program(tmp_path / "net.program")


def test_another_npz_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "x.program"
    write_npz(path, {"x": np.zeros(3)})
    with pytest.raises(
        InputError, match=r"expected a Program file, with an array 'program'; found an \.npz of another"
    ):
        read_program(path)


def test_a_neuron_with_neither_memory_nor_threshold_has_no_nir_node() -> None:
    nodes = (
        Input(name="in", shape=(3,), operands=()),
        Neuron(name="passing", shape=(3,), operands=(Operand("in"),), decay=None, threshold=None),
        Output(name="out", shape=(3,), operands=(Operand("passing"),)),
    )
    with pytest.raises(CaptureError, match="'passing' has neither memory nor a threshold"):
        to_own_graph(Program(nodes, 1e-4, {}))
