"""Corners of passes: layers that two rewrites meet, names of a user's, sums on one grid, outputs of one Cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stl_deploy.config.options import FoldOptions
from stl_deploy.graph import program as ir
from stl_deploy.graph.run import run
from stl_deploy.passes import CAPTURED, FOREIGN, apply
from stl_deploy.passes.base import LayerGrid
from stl_deploy.passes.equivalence import _error
from stl_deploy.passes.ramps_for_cells import ramps_for_cells
from tests.energy.nets import conv, f32, lif, linear, pool, program, start
from tests.graph.cells import cell

RANDOM = np.random.default_rng(0)


def test_a_convolution_takes_in_the_pools_on_both_sides() -> None:
    kernels, padding = RANDOM.normal(size=(2, 1, 3, 3)), ((1, 1), (1, 1))
    maps = conv("maps", "before", kernels, (1, 4, 4), bias=[0.1, 0.2], padding=padding)
    nodes = (pool("before", "in", (1, 8, 8), divisor=4), maps, pool("behind", "maps", (2, 4, 4), divisor=4))
    net = program(start((1, 8, 8)), *nodes, lif("n", "behind", (2, 2, 2), 0.3))
    folded = apply(net, FOREIGN, FoldOptions(merge_pools=True, exact_grid=False))
    assert set(folded.removed) == {"before", "behind"}
    x = RANDOM.normal(size=(4, 2, 1, 8, 8)).astype(np.float32)
    spikes = run(net, x).y
    assert spikes.any()
    np.testing.assert_array_equal(run(folded.program, x).y, spikes)


@pytest.mark.parametrize("bits", [0, 8, 12])
def test_recurrent_weights_are_rounded_to_the_grid_of_the_way_in(bits: int) -> None:
    size = 200
    way_in = linear("in_", "in", 3 * RANDOM.normal(size=(size, 1)))
    back = linear("back", "n", RANDOM.normal(size=(size, size)) / np.sqrt(size), delay=1)
    neuron = replace(lif("n", "in_", (size,)), operands=(ir.Operand("in_"), ir.Operand("back")))
    metadata: dict[str, object] = {"input": {"fraction_bits": bits, "max": 1.0}}
    folded = apply(program(start((1,)), way_in, back, neuron, metadata=metadata), FOREIGN)
    (grid,) = folded.grids
    weights = folded.program.by_name["back"].weight * 2.0**grid.fraction_bits  # type: ignore[attr-defined]
    np.testing.assert_array_equal(weights, np.rint(weights))


def test_only_own_spikes_share_the_grid_of_the_way_in() -> None:
    """A layer that nothing rounded may not move, though one beside it was rounded."""
    layers = (linear("rounded", "in", np.ones((2, 3))), linear("kept", "in", np.ones((2, 3))))
    neuron = replace(lif("n", "rounded", (2,)), operands=(ir.Operand("rounded"), ir.Operand("kept")))
    net, grids = program(start((3,)), *layers, neuron), {"rounded": LayerGrid("rounded", 4, 10.0, 0.25)}
    assert _error(net, "rounded", grids) == 0.25 * 4
    assert _error(net, "kept", grids) == 0


def _named(case: str) -> tuple[ir.Node, ...]:
    """Layers called as a pass would call a node of its own."""
    first = [lif("a", "in", (4,), 0.5), lif("b", "in", (4,), 0.5)]
    some = [RANDOM.normal(size=(4, n)) for n in (4, 8)]
    match case:
        case "part of a concatenation":
            both = ir.Concat(name="both", shape=(8,), operands=(ir.Operand("a"), ir.Operand("b")), sizes=(4, 4))
            return *first, both, linear("fc", "both", some[1]), lif("s", "fc", (4,)), linear("fc_2", "s", some[0])
        case "late":
            late = ir.Operand("a", 2)
            last = ir.Scale(name="last", shape=(4,), operands=(ir.Operand("a_late2"), late), scale=f32(1))
            return first[0], linear("a_late2", "a", some[0]), last
    image = ir.Reshape(name="image", shape=(1, 2, 2), operands=(ir.Operand("a"),), input_shape=(4,))
    window: dict[str, Any] = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}
    largest = ir.MaxPool(name="most", shape=(1, 1, 1), operands=(ir.Operand("image"),), input_shape=(1, 2, 2), **window)
    scaled = ir.Scale(name="most_sum", shape=(1, 1, 1), operands=(ir.Operand("most"),), scale=f32(3))
    return first[0], image, largest, scaled


@pytest.mark.parametrize("case", ["part of a concatenation", "late", "sum of a max pool"])
def test_no_layer_gives_way_to_a_node_of_a_pass(case: str) -> None:
    nodes = _named(case)
    net = program(start((4,)), *nodes, lif("last_lif", nodes[-1].name, nodes[-1].shape, 0.2))
    made = apply(net, CAPTURED).program
    assert {"a", nodes[-1].name} <= made.by_name.keys()
    x = (RANDOM.random((6, 5, 4)) < 0.6).astype(np.float32)
    np.testing.assert_array_equal(run(made, x).y.reshape(6, 5, -1), run(net, x).y.reshape(6, 5, -1))


@pytest.mark.parametrize("places", [range(4), range(4, 8), [4, 5], [3, 2, 1, 0], [7, -1, 4, 4]], ids=str)
def test_some_values_of_one_output_of_a_cell_in_any_order(places: Any) -> None:
    ends = [("zero", f32(0)), ("six", f32(6))]
    both = cell("c", [("x", ir.Operand("in"), (4,))], ["r = max x zero", "m = min r six"], constants=ends, outputs="rm")
    taken = ir.Gather(
        name="g", shape=(len(places),), operands=(ir.Operand("c"),), indices=np.array(places), input_shape=(8,)
    )
    net = program(start((4,)), both, taken)
    x = RANDOM.normal(size=(1, 9, 4)).astype(np.float32) * 8
    np.testing.assert_array_equal(run(ramps_for_cells(net), x).y, run(net, x).y)
