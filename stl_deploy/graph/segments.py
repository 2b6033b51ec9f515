"""Which parts of a Program can take all time steps at once, and which must go step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stl_deploy.graph.program import Node, Program


def segments(program: Program) -> tuple[tuple[Node, ...], ...]:
    """The program's strongly connected components, each after all it reads from.

    A component of one node without a self-edge is feed-forward and can be run over the whole
    sequence; any other is a loop and must be stepped (see `is_loop`). Nodes inside a component keep the
    program's order.
    """
    names = [node.name for node in program.nodes]
    position = {name: i for i, name in enumerate(names)}
    reads = {node.name: [source.node for source in node.sources] for node in program.nodes}
    return tuple(
        tuple(program.nodes[i] for i in sorted(position[name] for name in component))
        for component in strongly_connected(names, reads)
    )


def is_loop(segment: Sequence[Node]) -> bool:
    """Whether a segment feeds back into itself."""
    return len(segment) > 1 or any(source.node == segment[0].name for source in segment[0].sources)


def strongly_connected(names: Sequence[str], successors: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Strongly connected components, each after those it can reach (Tarjan 1972, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    components: list[list[str]] = []
    for root in names:
        if root in index:
            continue
        work = [(root, iter(successors[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, rest = work[-1]
            for successor in rest:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    stack.append(successor)
                    on_stack.add(successor)
                    work.append((successor, iter(successors[successor])))
                    break
                if successor in on_stack:
                    low[name] = min(low[name], index[successor])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[name])
                if low[name] == index[name]:
                    component: list[str] = []
                    while not component or component[-1] != name:
                        component.append(stack.pop())
                        on_stack.discard(component[-1])
                    components.append(component)
    return components
