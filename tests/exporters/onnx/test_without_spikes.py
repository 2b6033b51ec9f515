"""Networks without spiking neurons: what check passes is exported, and outputs differ by the order of sums at most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import stl_deploy as stl
from stl_deploy.errors import ParityError
from stl_deploy.graph.compare import ROUNDING, compare
from stl_deploy.graph.program import Conv, Floats, Input, Operand, Output, Program
from stl_deploy.graph.run import Result, run


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
        other[3, 1, 2, 0, 0] += np.float32(share * ROUNDING * largest)
        parity = compare(program, expected, Result({"output": other}, {}), "a run").up_to_rounding(expected.outputs)
        assert parity.exact is accepted
        if accepted:
            parity.require()
            assert parity.note.startswith("outputs differ by rounding, by at most ")
        else:
            with pytest.raises(ParityError, match="outputs differ"):
                parity.require()
