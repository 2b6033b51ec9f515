"""Off exact grids a run may part from the graph, if each layer, on the run's own spikes, parts at its thresholds."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from stl_deploy.errors import ParityError
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.compare import compare
from stl_deploy.graph.neuron_cells import as_cell
from stl_deploy.graph.program import Floats, Gather, Input, Linear, Neuron, Node, Operand, Output, Program
from stl_deploy.graph.run import Result, run
from stl_deploy.pipeline.artifacts import ParityBench

F = np.float32
SIZE, STEPS, SAMPLES = 40, 30, 24
ORDER = np.random.default_rng(1).permutation(SIZE)


def network(*, as_cells: bool, on_grid: bool = False) -> Program:
    """Two layers whose currents meet their thresholds: sums of tenths that are near whole numbers."""
    drawn = np.random.default_rng(0)
    nodes: list[Node] = [Input(name="x", shape=(SIZE,), operands=())]
    for number in (1, 2):
        weight = (drawn.integers(-2, 5, (SIZE, SIZE)) / (8 if on_grid else 10)).astype(F)
        source = Operand(nodes[-1].name)
        linear = Linear(
            name=f"fc{number}", shape=(SIZE,), operands=(source,), input_shape=(SIZE,), weight=weight, bias=None
        )
        neuron = Neuron(
            name=f"lif{number}",
            shape=(SIZE,),
            operands=(Operand(linear.name),),
            decay=F(0.5),
            threshold=F(1),
            compare="ge",
            reset="subtract",
        )
        nodes += [linear, as_cell(neuron) if as_cells else neuron]
    nodes.append(Output(name="y", shape=(SIZE,), operands=(Operand("lif2"),)))
    return Program(tuple(nodes), 1.0)


def inputs() -> Floats:
    return (np.random.default_rng(2).random((STEPS, SAMPLES, SIZE)) < 0.3).astype(F)


def in_another_order(program: Program, x: Floats, change: Callable[[Linear], Floats]) -> Result:
    """Run the network with each layer's sums in another order; change: its weights."""
    nodes = list(program.nodes)
    for at, node in enumerate(nodes):
        if isinstance(node, Linear):
            rows = change(node)
            # the first layer reads permuted input; the second, permuted spikes of the first
            columns = rows[:, ORDER]
            nodes[at] = replace(node, weight=columns[ORDER] if node.name == "fc1" else columns)
    other = run(replace(program, nodes=tuple(nodes)), x[..., ORDER], record=["lif1", "lif2"])
    back = np.argsort(ORDER)
    return Result(other.outputs, {**other.recorded, "lif1": other.recorded["lif1"][..., back]})


@pytest.mark.parametrize("as_cells", [False, True])
def test_another_order_of_sums_is_accepted_and_another_weight_is_not(as_cells: bool) -> None:
    program, x = network(as_cells=as_cells), inputs()
    assert isinstance(program.by_name["lif1"], Cell if as_cells else Neuron)
    bench = ParityBench(program, x)
    bench.add("reordered", in_another_order(program, x, lambda node: node.weight))
    (reordered,) = bench.runs
    assert reordered.differing > 5
    assert reordered.is_rounding
    bench.report.require()
    bench.add("wrong", in_another_order(program, x, lambda node: node.weight * F(0.995)))
    assert not bench.runs[1].is_rounding
    with pytest.raises(ParityError, match="spikes differ"):
        bench.report.require()


def test_on_the_grid_no_spike_may_differ() -> None:
    program, x = network(as_cells=False, on_grid=True), inputs()
    bench = ParityBench(program, x)
    bench.add("reordered", in_another_order(program, x, lambda node: node.weight))
    assert bench.runs[0].exact
    assert not bench.runs[0].differing
    flipped = bench.expected.recorded["lif1"].copy()
    flipped[4, 1, 7] = 1 - flipped[4, 1, 7]
    bench.add("flipped", Result(bench.expected.outputs, {**bench.expected.recorded, "lif1": flipped}))
    with pytest.raises(ParityError, match="1 of"):
        bench.report.require()


def beside_its_potential(program: Program) -> Program:
    """The network with a first Cell that puts out its potentials, too; a Gather takes the spikes."""
    cell = program.by_name["lif1"]
    assert isinstance(cell, Cell)
    both = replace(
        cell,
        name="both",
        shape=(2 * SIZE,),
        outputs=(*cell.outputs, cell.states[0].next),
        output_shapes=((SIZE,), (SIZE,)),
    )
    spikes = Gather(
        name="lif1", shape=(SIZE,), operands=(Operand("both"),), indices=np.arange(SIZE), input_shape=(2 * SIZE,)
    )
    nodes = list(program.nodes)
    at = nodes.index(cell)
    return replace(program, nodes=(*nodes[:at], both, spikes, *nodes[at + 1 :]))


def test_spikes_beside_potentials_are_held_against_their_cell() -> None:
    program, x = beside_its_potential(network(as_cells=True)), inputs()
    assert [node.name for node in program.compared] == ["lif1", "lif2"]
    bench = ParityBench(program, x)
    bench.add("reordered", in_another_order(network(as_cells=True), x, lambda node: node.weight))
    assert bench.runs[0].differing > 5
    assert bench.runs[0].is_rounding
    bench.add("wrong", in_another_order(network(as_cells=True), x, lambda node: node.weight * F(0.995)))
    wrong = {**bench.expected.recorded, "lif1": 1 - bench.expected.recorded["lif1"]}
    lif2 = run(network(as_cells=True), x, record=["lif2"]).recorded["lif2"]
    bench.add("inverted", Result(bench.expected.outputs, {**wrong, "lif2": lif2}))
    assert [parity.is_rounding for parity in bench.runs] == [True, False, False]


def test_states_that_differ_are_no_rounding() -> None:
    program, x = network(as_cells=False), inputs()
    expected = run(program, x, record=["lif1", "lif2"])
    states = {"lif1": np.zeros((STEPS, SAMPLES, SIZE), np.float32)}
    one, other = (replace(expected, states=each) for each in (states, {"lif1": states["lif1"] + 1}))
    parity = compare(program, one, other, "a run").up_to_rounding(expected.outputs, by_layer=True)
    assert not parity.exact


def test_a_network_without_spikes_whose_states_differ_is_refused() -> None:
    nodes = (Input(name="x", shape=(2,), operands=()), Output(name="y", shape=(2,), operands=(Operand("x"),)))
    program, x = Program(nodes, 1.0), np.ones((3, 1, 2), np.float32)
    one, other = (replace(run(program, x), states={"x": np.full((3, 1, 2), value)}) for value in (0, 1))
    parity = compare(program, one, other, "a run")
    assert not parity.up_to_rounding(one.outputs, by_layer=False).exact


def test_a_spike_far_from_its_threshold_is_no_rounding() -> None:
    program, x = network(as_cells=False), inputs()
    bench = ParityBench(program, x)
    flipped = bench.expected.recorded["lif2"].copy()
    flipped[STEPS - 1] = 1 - flipped[STEPS - 1]
    bench.add("flipped", Result(bench.expected.outputs, {**bench.expected.recorded, "lif2": flipped}))
    assert not bench.runs[0].is_rounding
