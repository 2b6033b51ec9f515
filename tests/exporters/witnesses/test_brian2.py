"""A Program as Brian2's equations: read by a few lines of numpy, and by Brian2 itself where it is installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.errors import InputError, ToolError, UnsupportedError
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.targets import Options
from stl_deploy.exporters.witnesses import equations as eq
from stl_deploy.exporters.witnesses.connections import conv_connections, dense_connections
from stl_deploy.exporters.witnesses.environment import BRIAN2
from stl_deploy.exporters.witnesses.target import Brian2
from stl_deploy.graph.kernels import apply
from stl_deploy.graph.program import (
    Adaptation,
    Conv,
    Delay,
    Input,
    Linear,
    Neuron,
    Operand,
    Output,
    Pool,
    Program,
    Synapse,
)
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.exporters.witnesses import stand_in
from tests.graph.oracle import dialects, nets

F = np.float32
needs_brian2 = pytest.mark.skipif(BRIAN2.reason() is not None, reason=str(BRIAN2.reason()))
dyadic = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 1.5, 3.0])


def read(program: Program, x: Any) -> dict[str, Any]:
    """What every group puts out for one sample ``[T, n]``: block after block, float32 between blocks."""
    groups, arrays = eq.equations(program)
    steps = len(x)
    outs = [np.zeros((steps, group["size"]), F) for group in groups]
    states = [{name: np.zeros(group["size"], F) for name in ("out", *group["state"])} for group in groups]
    for place, state in enumerate(states):
        state |= {name: arrays[f"{place}.start_{name}"] for name in state if f"{place}.start_{name}" in arrays}
    for t in range(steps):
        for place, group in enumerate(groups):
            own = states[place]
            if not group["reads"]:
                own["out"] = x[t]
            for k, (source, ago) in enumerate(group["reads"]):
                value = outs[source][t - ago] if t >= ago else np.zeros(groups[source]["size"], F)
                if group["synapses"]:  # in the reference's order: off the grid another one rounds otherwise
                    node = program.by_name[group["name"]]
                    node = replace(node, divisor=1) if isinstance(node, Pool) else replace(node, bias=None)
                    value = apply(node, value.reshape(1, *node.input_shape)).reshape(-1)
                own[f"x{k}"] = value
            fixed = {name: arrays[f"{place}.{name}"] for name in group["constants"]}
            for block in group["code"]:
                names = {**fixed, **own, "int": lambda a: a.astype(np.int32), "clip": np.clip, "inf": F(np.inf)}
                names["floor"] = np.floor
                exec(block, names)
                own.update({name: np.asarray(names[name], F) for name in ("out", *group["state"])})
            outs[place][t] = own["out"]
    return {group["name"]: out for group, out in zip(groups, outs, strict=True)}


@examples(100)
@given(data=st.data(), net=nets(), dialect=dialects, steps=st.integers(1, 6))
def test_equations_are_the_reference_bit_for_bit(data: Any, net: Any, dialect: Any, steps: int) -> None:
    x = np.array([[data.draw(dyadic) for _ in range(net.size["input"])] for _ in range(steps)], F)
    program = lower(net, dialect)
    expected = run(program, x[:, None], record=[node.name for node in program.nodes]).recorded
    found = read(program, x)
    assert {*found} >= {*expected}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array[:, 0].reshape(steps, -1), err_msg=name)


@examples(60)
@given(
    axes=st.integers(1, 2),
    groups=st.integers(1, 2),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 1)),
    kernel=st.integers(1, 3),
)
def test_connections_of_a_convolution_are_its_sums(
    axes: int, groups: int, stride: int, dilation: int, padding: tuple[int, int], kernel: int
) -> None:
    node = _conv((2 * groups, *(7, 6)[:axes]), axes, groups, stride, dilation, padding, kernel)
    x = np.random.default_rng(1).integers(-4, 5, (1, *node.input_shape)).astype(F)
    found = conv_connections(
        node.weight,
        node.input_shape,
        stride=node.stride,
        padding=node.padding,
        dilation=node.dilation,
        groups=node.groups,
    )
    sums = np.bincount(found.target, found.weight * x.reshape(-1)[found.source], minlength=int(np.prod(node.shape)))
    np.testing.assert_array_equal(sums.reshape(node.shape), apply(node, x)[0])


def _conv(
    shape: tuple[int, ...], axes: int, groups: int, stride: int, dilation: int, padding: tuple[int, int], kernel: int
) -> Conv:
    weight = np.random.default_rng(0).integers(-9, 10, (3 * groups, 2, *(kernel,) * axes)).astype(F)
    made = [(n + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1 for n in shape[1:]]
    return Conv(
        name="conv",
        shape=(3 * groups, *made),
        operands=(Operand("in"),),
        weight=weight,
        bias=None,
        stride=(stride,) * axes,
        padding=(padding,) * axes,
        dilation=(dilation,) * axes,
        groups=groups,
        input_shape=shape,
    )


def test_connections_of_dense_weights_by_hand() -> None:
    found = dense_connections(np.array([[1, 2], [3, 4], [5, 6]]))
    assert list(zip(*(array.tolist() for array in found), strict=True)) == [
        (0, 0, 1), (1, 0, 2), (0, 1, 3), (1, 1, 4), (0, 2, 5), (1, 2, 6)
    ]  # fmt: skip


def small() -> Program:
    """Convolution, neurons with a threshold each, an average pool, delays of each element, a loop, and potentials."""
    rng = np.random.default_rng(3)
    conv = _conv((2, 6, 6), 2, 1, 1, 1, (1, 1), 3)
    half = np.asarray(0.5, F)
    theta = rng.integers(4, 20, (3, 6, 6)).astype(F)
    pool = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "input_shape": (3, 6, 6), "divisor": 4}
    weight = rng.integers(-3, 4, (5, 3)).astype(F)
    return Program(
        (
            Input(name="in", shape=(2, 6, 6), operands=()),
            conv,
            Neuron(name="lif", shape=(3, 6, 6), operands=(Operand("conv"),), decay=half, threshold=theta),
            Pool(name="pool", shape=(3, 3, 3), operands=(Operand("lif"),), **pool),
            Delay(name="late", shape=(3, 3, 3), operands=(Operand("pool"),), steps=rng.integers(0, 4, (3, 3, 3))),
            Linear(
                name="fc",
                shape=(3, 3, 5),
                operands=(Operand("late"),),
                weight=weight,
                bias=np.arange(-2, 3).astype(F),
                input_shape=(3, 3, 3),
            ),
            Neuron(
                name="loop",
                shape=(3, 3, 5),
                operands=(Operand("fc"), Operand("loop", 1)),
                decay=half,
                threshold=np.asarray(1, F),
                reset="subtract",
            ),
            Neuron(name="out_v", shape=(3, 3, 5), operands=(Operand("loop"),), decay=half, threshold=None),
            Output(name="out", shape=(3, 3, 5), operands=(Operand("out_v"),)),
        ),
        1e-4,
    )


def test_equations_of_weights_over_several_axes_are_the_reference_bit_for_bit() -> None:
    program = small()
    x = np.random.default_rng(4).integers(0, 3, (7, 1, 2, 6, 6)).astype(F)
    expected = run(program, x, record=[node.name for node in program.nodes]).recorded
    found = read(program, x.reshape(7, -1))
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array.reshape(7, -1), err_msg=name)


@pytest.mark.push(3)
@pytest.mark.parametrize("compare", ["gt", "ge"])
@pytest.mark.parametrize("reset", ["value", "value_delayed", "subtract", "subtract_delayed", "snntorch_subtract_now"])
def test_every_reset_is_the_reference_bit_for_bit(reset: Any, compare: Any) -> None:
    entry = Input(name="in", shape=(4,), operands=())
    lif = Neuron(
        name="lif",
        shape=(4,),
        operands=(Operand("in"),),
        decay=np.asarray(0.5, F),
        threshold=np.arange(1, 5).astype(F),
        reset=reset,
        compare=compare,
    )
    program = Program((entry, lif, Output(name="out", shape=(4,), operands=(Operand("lif"),))), 1e-4)
    x = np.random.default_rng(2).integers(0, 4, (40, 4)).astype(F)
    expected = run(program, x[:, None]).y[:, 0]
    assert 0.2 < expected.mean() < 0.9
    np.testing.assert_array_equal(read(program, x)["out"], expected)


@pytest.mark.push(2)
@pytest.mark.parametrize(
    "fields",
    [
        {"adaptation": Adaptation(F(0.9), F(0.3), "adapted", F(0.5)), "reset": "subtract"},
        {"synapse": Synapse("exp_add", F(0.7), None), "i_start": F(1.5), "v_start": F(-0.5)},
        {"multi_spike": True, "rounding": "half_up", "cap": 3, "reset": "subtract"},
        {"multi_spike": True, "reset": "subtract", "v_min": F(-1)},
    ],
    ids=["adapting", "starts", "half up", "down"],
)
def test_every_field_is_the_reference_bit_for_bit(fields: dict[str, Any]) -> None:
    lif = Neuron(name="lif", shape=(4,), operands=(Operand("in"),), decay=F(0.7), threshold=F(1.1), **fields)
    ends = Input(name="in", shape=(4,), operands=()), Output(name="out", shape=(4,), operands=(Operand("lif"),))
    program = Program((ends[0], lif, ends[1]), 1e-4)
    x = np.random.default_rng(2).normal(0.4, 1, (40, 4)).astype(F)
    expected = run(program, x[:, None]).y[:, 0]
    assert expected.mean() > 0.05
    np.testing.assert_array_equal(read(program, x)["out"], expected)


@pytest.mark.parametrize("name", ["conv", "pool", "fc"])
def test_synapses_are_the_sums_of_their_node(name: str) -> None:
    program = small()
    groups, arrays = eq.equations(program)
    (place,) = [place for place, group in enumerate(groups) if group["name"] == name]
    node: Any = program.by_name[name]
    source, target, weight = (arrays[f"{place}.{key}"] for key in ("source", "target", "weight"))
    x = np.random.default_rng(1).integers(-4, 5, node.input_shape).astype(F)
    plain = replace(node, divisor=1) if name == "pool" else replace(node, bias=None)
    sums = np.bincount(target, weight * x.reshape(-1)[source], minlength=int(np.prod(node.shape)))
    np.testing.assert_array_equal(sums.reshape(node.shape), apply(plain, x[None])[0])


@needs_brian2
def test_brian2_itself_agrees_on_every_spike() -> None:
    program = small()
    x = np.random.default_rng(4).integers(0, 3, (7, 3, 2, 6, 6)).astype(F)
    names = [node.name for node in program.spiking]
    expected = run(program, x, record=names)
    found = Brian2(program, Options()).run(x, record=True)
    for name in names:
        assert 0.05 < expected.recorded[name].mean() < 0.9
        np.testing.assert_array_equal(found.recorded[name], expected.recorded[name], err_msg=name)
    np.testing.assert_array_equal(found.y, expected.y)


@needs_brian2
def test_a_network_off_the_grid_still_runs_with_thresholds_as_they_are() -> None:
    """Decays that float32 rounds: a neuron alone is stepped with the reference's operations, in its precision."""
    theta = np.linspace(0.3, 0.9, 8).astype(F)
    neuron = Neuron(name="lif", shape=(8,), operands=(Operand("in"),), decay=np.asarray(0.9, F), threshold=theta)
    out = Output(name="out", shape=(8,), operands=(Operand("lif"),))
    program = Program((Input(name="in", shape=(8,), operands=()), neuron, out), 1e-4)
    x = np.random.default_rng(5).normal(0.1, 0.3, (40, 2, 8)).astype(F)
    np.testing.assert_array_equal(Brian2(program, Options()).run(x).y, run(program, x).y)


def test_what_it_returns_is_told_apart_by_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = small()
    x = np.random.default_rng(4).integers(0, 3, (7, 3, 2, 6, 6)).astype(F)
    expected = run(program, x, record=[node.name for node in program.spiking])
    arrays = {**expected.recorded, **expected.outputs}
    kept = [(place, group) for place, group in enumerate(eq.equations(program)[0]) if group["keep"]]
    answer = {f"out{place}": arrays[group["name"]].reshape(7, 3, -1) for place, group in kept}
    stand_in.ready(BRIAN2, tmp_path, monkeypatch, answer)
    found = Brian2(program, Options()).run(x, record=True)
    with np.load(tmp_path / "asked.npz") as asked:
        np.testing.assert_array_equal(asked["x"], x.reshape(7, 3, -1))
    np.testing.assert_array_equal(found.y, expected.y)
    assert found.recorded.keys() == expected.recorded.keys()
    for name, spikes in found.recorded.items():
        np.testing.assert_array_equal(spikes, expected.recorded[name], err_msg=name)
    assert Brian2(program, Options()).run(x).recorded == {}
    with pytest.raises(ToolError, match="Brian2 returned no array of the shape of 'lif'"):
        Brian2(program, Options()).run(x[:2])


def test_what_is_too_much_is_refused_by_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, out = Input(name="in", shape=(1,), operands=()), Output(name="out", shape=(1,), operands=(Operand("late"),))
    late = Delay(name="late", shape=(1,), operands=(Operand("in"),), steps=np.array(eq.LONGEST + 1))
    with pytest.raises(UnsupportedError, match=r"node 'late': it waits for more than 256 steps; use the reference"):
        Brian2(Program((entry, late, out), 1e-4), Options())
    monkeypatch.setattr(eq, "SYNAPSES", 9)
    with pytest.raises(UnsupportedError, match="node 'conv': the network has more than 9 synapses up to here"):
        Brian2(small(), Options())
    with pytest.raises(InputError, match=r"expected a run folder or a \.nir file for brian2; found an artifact"):
        Brian2(tmp_path / "net.net", Options())
