"""A stream is the reference run, step by step: the same bits, for every node, delay and loop."""

import nir
import numpy as np
import pytest
from hypothesis import given

from stl_deploy.errors import GraphError, InputError
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph import program as ir
from stl_deploy.graph.run import Stream, run
from tests.drawn import examples
from tests.graph.nets import chain, graph, iff, lif, steps
from tests.strategies import programs_and_inputs


@examples(80)
@given(programs_and_inputs())
def test_a_stream_is_the_run(case) -> None:
    program, x = case
    stream = Stream(program)
    steps = [{name: array[t] for name, array in x.items()} for t in range(len(next(iter(x.values()))))]
    try:
        expected = run(program, x).outputs
    except GraphError:
        with pytest.raises(GraphError):
            [stream.step_all(step) for step in steps]
        return
    for _ in range(2):  # and from rest again
        found = [stream.step_all(step) for step in steps]
        for name, array in expected.items():
            np.testing.assert_array_equal(np.stack([step[name] for step in found]), array)
        stream.reset()


def test_a_potential_builds_up_and_goes_by_hand() -> None:
    stream = Stream(lower(chain([1], lif((1,), theta=0.9))))  # v = 0.5·v + x·0.5
    assert [float(stream.step(np.float32([[1]]))[0, 0]) for _ in range(4)] == [0, 0, 0, 1]  # 0.5 0.75 0.875 0.9375
    stream.reset()
    assert float(stream.step(np.float32([[1]]))[0, 0]) == 0


def test_what_does_not_fit_is_refused() -> None:
    stream = Stream(lower(chain([2], iff((2,)))))
    with pytest.raises(
        InputError, match=r"takes one step, .B, ....*input 'input': expected shape .*; found \[1, 1, 3\]"
    ):
        stream.step(np.zeros((1, 3)))
    stream.step(np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"a step of 1 samples in a stream of 2; call reset"):
        stream.step(np.zeros((1, 2)))
    stream.reset()
    assert stream.step(steps([5, 0])[0]).tolist() == [[1, 0]]


def _beside_each_other():
    """Two inputs, each with neurons and an output of its own."""
    nodes = {}
    for name in "ab":
        nodes |= {name: nir.Input(np.array([1])), f"{name}_lif": iff((1,)), f"{name}_out": nir.Output(np.array([1]))}
    edges = [edge for name in "ab" for edge in ((name, f"{name}_lif"), (f"{name}_lif", f"{name}_out"))]
    return lower(graph(nodes, edges))


def test_what_leaves_float32_is_refused_as_in_a_run_also_where_a_reset_hides_it() -> None:
    nodes = (
        ir.Input(name="x", shape=(1,), operands=()),
        ir.Scale(name="s", shape=(1,), operands=(ir.Operand("x"),), scale=np.float32(3e38)),
        ir.Neuron(name="n", shape=(1,), operands=(ir.Operand("s"),), decay=np.float32(0.5), threshold=np.float32(1)),
        ir.Output(name="y", shape=(1,), operands=(ir.Operand("n"),)),
    )
    program = ir.Program(nodes, 1.0)
    for step in (lambda: run(program, np.full((1, 1, 1), 5)), lambda: Stream(program).step(np.full((1, 1), 5))):
        with pytest.raises(GraphError) as refusal:
            step()
        assert (refusal.value.slug, refusal.value.node) == ("diverges", "s")


def test_a_step_of_several_outputs_is_named() -> None:
    stream = Stream(_beside_each_other())
    x = {"a": np.full((1, 1), 2.0), "b": np.zeros((1, 1))}
    with pytest.raises(InputError, match=r"the network has 2 outputs: ._out, ._out; use step_all"):
        stream.step(x)
    stream.reset()
    assert {name: out.tolist() for name, out in stream.step_all(x).items()} == {"a_out": [[1]], "b_out": [[0]]}


def test_inputs_of_unequal_length_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected one T and B for all inputs; found \[\(2, 1\), \(3, 1\)\]"):
        run(_beside_each_other(), {"a": np.zeros((2, 1, 1)), "b": np.zeros((3, 1, 1))})
