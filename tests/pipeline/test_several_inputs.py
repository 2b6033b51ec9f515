"""Networks of several inputs and outputs on the command line: one array of the npz for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy._util.remedies import command_line
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.exporters.targets import find_runner, why_unavailable
from tests.graph.nets import a, graph, iff

A = np.array([[[1, 0]], [[0, 1]], [[1, 1]]], np.float32)
B = np.array([[[0]], [[1]], [[1]]], bool)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Fires where a0 + a1 + b exceeds 1.5, potentials kept; ``both`` puts out the spike and ``pair`` two of them."""
    nodes = {
        "a": nir.Input(np.array([2])),
        "b": nir.Input(np.array([1])),
        "wa": nir.Linear(a([1, 1])),
        "wb": nir.Linear(a([1])),
        "sum": iff((1,), theta=1.5),
        "both": nir.Output(np.array([1])),
        "twice": nir.Linear(a([1], [1])),
        "pair": nir.Output(np.array([2])),
    }
    edges = [
        ("a", "wa"),
        ("b", "wb"),
        ("wa", "sum"),
        ("wb", "sum"),
        ("sum", "both"),
        ("sum", "twice"),
        ("twice", "pair"),
    ]
    write_nir(graph(nodes, edges, {"stl_deploy": {"dialect": {"dt": 1e-4}}}), tmp_path / "net.nir")
    np.savez(tmp_path / "x.npz", x__a=A, x__b=B)
    return tmp_path / "net.nir"


def given(source: Path) -> Path:
    return source.with_name("x.npz")


@pytest.mark.parametrize("backend", ["reference", "onnx"])
def test_they_run(source: Path, backend: str) -> None:
    # Arriving: 1, 2, 3; so the potential is 1, 3 (fires, to 0), 3 (fires).
    output = source.with_name("y.npz")
    verbs.simulate(source, given(source), backend, output)
    with np.load(output) as found:
        assert found["y__both"].ravel().tolist() == [0, 1, 1]
        assert found["y__pair"].reshape(3, 2).tolist() == [[0, 0], [1, 1], [1, 1]]


def test_they_are_exported_measured_and_costed(source: Path) -> None:
    path = source.with_name("net.onnx")
    manifest = verbs.export(source, "onnx", path, input_file=given(source))
    assert manifest["verified"]["runs"][0]["compared"] == 3
    verbs.simulate(path, given(source), "onnx", source.with_name("y.npz"))
    assert any(effect.differ for effect in verbs.measure(source, given(source)))
    layers = verbs.energy(source, given(source)).as_dict()["layers"]
    assert {name: layers[name]["synops"] for name in ("wa", "wb", "twice")} == {"wa": 4, "wb": 2, "twice": 4}


@pytest.mark.parametrize("backend", ["loihi", "lava"])
def test_hardware_takes_one(source: Path, backend: str) -> None:
    if (missing := why_unavailable(find_runner(backend))) is not None:
        pytest.skip(missing)
    with pytest.raises(InputError, match=f"expected one input for {backend}; found a, b; use another backend or"):
        verbs.simulate(source, given(source), backend, source.with_name("y.npz"))


def test_in_python_each_input_is_given_by_its_name(source: Path, tmp_path: Path) -> None:
    net = stl.read(source)
    named = {"a": A, "b": B}
    found = net.simulate(named)
    assert {name: y.shape for name, y in found.outputs.items()} == {"both": (3, 1, 1), "pair": (3, 1, 2)}
    with pytest.raises(InputError, match=r"the network has 2 outputs: pair, both; use \.outputs"):
        found.y  # noqa: B018
    net.export(tmp_path / "net.onnx", x=named)
    parity = net.verify(tmp_path / "net.onnx", named)
    assert parity.as_dict()["runs"][0]["compared"] == 3
    with pytest.raises(InputError, match="expected a network of one input; found several; integers have one"):
        net.quantised(named)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda net, x: verbs.simulate(net, x, "reference", net.with_name("y.npz"), input_grid=3),
            "input_grid applies to networks with one input; the graph has a, b",
        ),
        (
            lambda net, x: verbs.energy(net, x, ann=net.parent),
            "an ANN of the same topology has one input, not a, b; leave ann out",
        ),
    ],
)
def test_what_is_of_one_input_is_refused(source: Path, call: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call(source, given(source))


def test_one_array_for_two_inputs_is_refused(source: Path) -> None:
    np.savez(given(source), x=A)
    in_python = r"\(a dict: {'\w': \.\.\., '\w': \.\.\.}; in an npz file x__\w, x__\w\)"
    with pytest.raises(InputError, match=rf"for each of 2 inputs, by name: \w, \w {in_python}; found one"):
        verbs.simulate(source, given(source), "reference", source.with_name("y.npz"))
    with (
        command_line(),
        pytest.raises(InputError, match=r"by name: \w, \w \(in an npz file: x__\w, x__\w\); found one"),
    ):
        verbs.simulate(source, given(source), "reference", source.with_name("y.npz"))
