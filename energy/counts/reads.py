"""Find by structure the steps of a node that are read, and the nodes whose values the input alone decides."""

from __future__ import annotations

from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import Program
from stl_deploy.graph.segments import segments


def lateness(program: Program) -> dict[str, int]:
    """Return the steps around a loop from each node's output to the nearest Output: in the last ones nothing reads it.

    A recurrent weight that is read one step later sends nothing that is read in the last step. Delays outside of loops
    hold values that a longer run reads, so what is before them counts in full.
    """
    loop_of = {node.name: number for number, part in enumerate(segments(program)) for node in part}
    late = dict.fromkeys((node.name for node in program.outputs), 0)
    changed = True
    # Bellman-Ford: a loop may shorten a way that was taken as settled
    while changed:
        changed = False
        for node in reversed(program.nodes):
            if node.name not in late:
                continue
            own = int(node.steps.min()) if isinstance(node, ir.Delay) else 0
            for source in node.operands:
                in_loop = source.node != node.name and loop_of[source.node] == loop_of[node.name]
                steps = late[node.name] + (own + source.delay if in_loop else 0)
                if steps < late.get(source.node, steps + 1):
                    late[source.node], changed = steps, True
    return {node.name: late.get(node.name, 0) for node in program.nodes}


def driven_by_input(program: Program, *, at_once: bool = False) -> frozenset[str]:
    """Return the nodes with no neuron before them; ``at_once``: with no delay either."""
    driven: set[str] = set()
    for node in program.nodes:
        waits = isinstance(node, ir.Delay) or any(source.delay for source in node.operands)
        stops = isinstance(node, ir.Neuron | Cell) or (at_once and waits)
        if not stops and driven.issuperset(source.node for source in node.operands):
            driven.add(node.name)
    return frozenset(driven)


def steady_nodes(program: Program) -> frozenset[str]:
    """Return the nodes that compute the same at every step if the network's input is the same.

    Layer by layer they are computed once in such a sample: their sums stay in registers for all steps.
    """
    late = lateness(program)
    return frozenset(name for name in driven_by_input(program, at_once=True) if not late[name])
