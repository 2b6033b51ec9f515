"""The recipe for captured modules folds any Program that NIR can hold, and the file holds what was folded."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import event, given

from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.graph.program import Neuron, Node, Program
from stl_deploy.pipeline.fold import fold_layers
from tests.drawn import examples
from tests.strategies import programs


@examples(80)
@given(programs(max_nodes=4, more=True))
def test_what_is_folded_is_what_is_written(program: Program) -> None:
    program = Program(tuple(map(_in_nir, program.nodes)), program.dt)
    try:
        folded = fold_layers(program)
        written = to_graph(folded.program)
    except StlDeployError as error:
        event(f"refused: {type(error).__name__}")
        return
    assert written.how == "as read"
    assert lower(written.graph, written.dialect).digest() == folded.program.digest()


def _in_nir(node: Node) -> Node:
    """Take off what no NIR file of a captured module holds, so that fewer Programs are refused."""
    return replace(node, v_min=None, v_start=None, adaptation=None) if isinstance(node, Neuron) else node
