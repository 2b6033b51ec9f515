"""Networks without spiking neurons: what check passes is exported, and outputs differ by the order of sums at most."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

import stl_deploy as stl
from stl_deploy.errors import CaptureError, ParityError
from stl_deploy.graph.compare import ROUNDING, compare
from stl_deploy.graph.program import Conv, Floats, Input, Operand, Output, Program
from stl_deploy.graph.run import Result, run
from stl_deploy.tracing.proof import layers_and_ends as proof


def _network(grid: bool) -> stl.SpikingGraph:
    rng = np.random.default_rng(27)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    conv = Conv(
        name="conv",
        shape=(4, 4, 4),
        operands=(Operand("input"),),
        weight=np.round(weight * 4) / np.float32(4) if grid else weight,
        bias=None,
        stride=(1, 1),
        padding=((1, 1), (1, 1)),
        dilation=(1, 1),
        groups=1,
        input_shape=(3, 4, 4),
    )
    nodes = (Input(name="input", shape=(3, 4, 4), operands=()), conv)
    output = Output(name="output", shape=(4, 4, 4), operands=(Operand("conv"),))
    metadata = {"input": {"coding": "spikes", "fraction_bits": 0, "max": 1.0}} if grid else {}
    return stl.SpikingGraph(Program((*nodes, output), 1e-4, metadata))


def _input(grid: bool) -> Floats:
    x = np.random.default_rng(0).random((8, 3, 3, 4, 4), np.float32) * 2
    return (x > 1).astype(np.float32) if grid else x


@pytest.mark.parametrize("form", ["sequence", "step"])
def test_what_check_passes_is_exported(form: str, tmp_path: Path) -> None:
    net = _network(grid=False)
    assert net.check("onnx").targets == {"onnx": "approximate"}
    (parity,) = net.export(tmp_path / "net.onnx", x=_input(grid=False), form=form)["verified"]["runs"]
    assert parity["exact"]
    assert parity["outputs"][0]["differing"] > 0
    assert parity["outputs"][0]["largest"] < 1e-4


def test_proved_sums_agree_on_every_bit(tmp_path: Path) -> None:
    (parity,) = _network(grid=True).export(tmp_path / "net.onnx", x=_input(grid=True))["verified"]["runs"]
    assert parity["outputs"][0]["differing"] == 0


def test_more_than_rounding_is_refused() -> None:
    program, x = _network(grid=False).program, _input(grid=False)
    expected = run(program, x)
    largest = float(np.abs(expected.y).max())
    for share, accepted in ((0.5, True), (2.0, False)):
        other = expected.y.copy()
        other[0, 0, 1, 0, 0] = np.nextafter(other[0, 0, 1, 0, 0], 1)
        other[3, 1, 2, 0, 0] += np.float32(share * ROUNDING * largest)
        parity = compare(program, expected, Result({"output": other}, {}), "a run").up_to_rounding(
            expected.outputs, by_layer=False
        )
        assert parity.exact is accepted
        if accepted:
            parity.require()
            assert parity.note.startswith("outputs differ by rounding, by at most ")
        else:
            with pytest.raises(ParityError, match=r"outputs differ .*step 3, sample 1, neuron \[2, 0, 0\]"):
                parity.require()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_no_rounding(value: float) -> None:
    program, x = _network(grid=False).program, _input(grid=False)
    expected = run(program, x)
    other = expected.y.copy()
    other[3, 1, 2, 0, 0] = value
    result = Result({"output": other}, {})
    assert not compare(program, expected, result, "a run").up_to_rounding(expected.outputs, by_layer=False).exact
    overflown = Result({"output": np.where(np.isfinite(other), np.float32(np.inf), other)}, {})
    other[3, 1, 2, 0, 0] = np.inf
    assert (
        not compare(program, Result({"output": other}, {}), overflown, "a run")
        .up_to_rounding({"output": other}, by_layer=False)
        .exact
    )


@pytest.mark.parametrize(
    ("made", "module", "passes"),
    [(np.inf, np.inf, True), (np.nan, np.nan, True), (5.0, np.inf, False), (np.nan, 1.0, False), (1.0, np.nan, False)],
)
def test_capture_compares_outputs_that_are_no_numbers(
    made: float, module: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.ones((3, 4, 2), np.float32)
    y, actual = x.copy(), x.copy()
    y[1, 1, 1], actual[1, 1, 1] = module, made
    monkeypatch.setattr(proof, "arriving_at", lambda *_: actual)
    nodes = (
        Input(name="input", shape=(2,), operands=()),
        Output(name="output", shape=(2,), operands=(Operand("input"),)),
    )
    with contextlib.nullcontext() if passes else pytest.raises(CaptureError, match="step 1, sample 1, neuron"):
        proof.prove_values(Program(nodes, 1e-4), {"output": y}, x)
