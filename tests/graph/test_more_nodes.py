"""Nodes that NIR does not have: what they compute, what is proved of them, and who refuses them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from stl_deploy.energy.measure import measure_energy
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.targets import find_runner, findings, registry
from stl_deploy.graph.exact import grids, on_grid, prove_exact
from stl_deploy.graph.program import (
    Concat,
    Gather,
    Input,
    MaxPool,
    Neuron,
    Norm,
    Operand,
    Output,
    Product,
    Program,
    is_binary,
)
from stl_deploy.graph.run import Stream, run
from stl_deploy.graph.show import svg, table
from stl_deploy.pipeline.artifacts import open_runner, write
from tests import program_oracle
from tests.drawn import examples
from tests.strategies import programs_and_inputs

IMAGE = (2, 4, 4)
ZERO = ((0, 0), (0, 0))


@examples(100)
@given(programs_and_inputs(more="all"))
def test_run_is_the_oracle_and_the_stream(case) -> None:
    program, x = case
    expected = program_oracle.simulate(program, x)
    found = run(program, x, record=[node.name for node in program.nodes])
    for name, values in expected.items():
        np.testing.assert_array_equal(found.recorded[name], values, err_msg=name)
    stream = Stream(program)
    for t in range(len(next(iter(x.values())))):
        for name, values in stream.step_all({name: array[t] for name, array in x.items()}).items():
            np.testing.assert_array_equal(values, found.outputs[name][t], err_msg=name)
    assert len(table(program)) == len(program.nodes)
    assert svg(program)


@examples(100)
@given(programs_and_inputs(more="all"))
def test_every_value_is_on_the_grid_that_is_known_of_it(case) -> None:
    program, x = case
    top = max(float(np.abs(array).max()) for array in x.values())
    program = Program(program.nodes, program.dt, {"input": {"fraction_bits": 0, "max": max(top, 1.0)}})
    recorded = run(program, x, record=[node.name for node in program.nodes]).recorded
    for name, grid in grids(program).items():
        if grid is not None and grid.bits <= 24:
            assert on_grid(recorded[name], grid), name
    assert not any(proof.exact for proof in prove_exact(program) if isinstance(program.by_name[proof.node], Norm))


TAKERS = {
    "Norm": {"program", "c_floats"},
    "MaxPool": {"program", "onnx", "c", "c_floats", "verilog"},
    "Concat": {"program", "onnx", "c_floats"},
    "Gather": {"program", "onnx", "c", "c_floats"},
    "Product": {"program", "onnx", "c", "c_floats"},
}


def _with(node: object) -> Program:
    assert isinstance(node, Norm | MaxPool | Concat | Gather | Product)
    entry = Input(name="input", shape=IMAGE, operands=())
    return Program((entry, node, Output(name="output", shape=node.shape, operands=(Operand(node.name),))), 1e-4)


def _programs() -> dict[str, Program]:
    read = (Operand("input"),)
    return {
        "Norm": _with(Norm(name="n", shape=IMAGE, operands=read, scale=np.ones(2), shift=np.ones(2))),
        "Product": _with(
            Product(name="n", shape=IMAGE, operands=read * 2, operand_shapes=(IMAGE, IMAGE), matrices=False),
        ),
        "MaxPool": _with(
            MaxPool(
                name="n",
                shape=(2, 2, 2),
                operands=read,
                kernel=(2, 2),
                stride=(2, 2),
                padding=ZERO,
                input_shape=IMAGE,
            )
        ),
        "Concat": _with(Concat(name="n", shape=(4, 4, 4), operands=read * 2, sizes=(2, 2))),
        "Gather": _with(Gather(name="n", shape=(3,), operands=read, indices=np.array([5, -1, 0]), input_shape=IMAGE)),
    }


@pytest.mark.parametrize("kind", _programs())
def test_every_format_says_node_kind_target_and_remedy(kind: str, tmp_path: Path) -> None:
    program = _programs()[kind]
    node = type(program.by_name["n"])
    said_as = {"MaxPool": "max pool of currents", "Product": "product of two signals"}.get(kind, kind)
    takers = {name for name, target in registry().formats.items() if node in target.takes}
    assert takers == TAKERS[kind]
    for name, target in registry().formats.items():
        if name in takers:
            continue
        with pytest.raises(UnsupportedError, match=rf"node 'n': {name} takes no {said_as}; .*another target") as caught:
            write(program, target, tmp_path / "artifact")
        assert (caught.value.node, caught.value.slug) == ("n", "kind-not-taken")
        said = findings(target, program)
        assert [f.severity for f in said if (f.node, f.slug) == ("n", "kind-not-taken")] == ["error"]
        assert list(tmp_path.iterdir()) == []
    if kind == "Norm":
        with pytest.raises(UnsupportedError, match=f"node 'n': energy takes no {kind}"):
            measure_energy(program, np.zeros((1, 1, *IMAGE), np.float32))
        with pytest.raises(UnsupportedError, match=f"node 'n': onnx takes no {kind}"):
            open_runner(find_runner("onnx"), program, program)
    open_runner(find_runner("reference"), program, program).run(np.zeros((1, 1, *IMAGE), np.float32))


def test_spikes_stay_spikes_through_what_only_moves_them() -> None:
    lif = Neuron(name="lif", shape=(2,), operands=(Operand("input"),), decay=None, threshold=np.float32(1))
    both = Concat(name="both", shape=(4,), operands=(Operand("lif"), Operand("lif", 1)), sizes=(2, 2))
    moved = Gather(name="moved", shape=(2,), operands=(Operand("both"),), indices=np.array([3, -1]), input_shape=(4,))
    mixed = Concat(name="mixed", shape=(4,), operands=(Operand("lif"), Operand("input")), sizes=(2, 2))
    program = Program((Input(name="input", shape=(2,), operands=()), lif, both, moved, mixed), 1e-4)
    assert [is_binary(program, name) for name in ("both", "moved", "mixed")] == [True, True, False]
