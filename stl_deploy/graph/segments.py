"""Split a Program into parts that take all time steps at once, and parts that go step by step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from stl_deploy._util.remembered import remembered
from stl_deploy.graph.program import Node, Operand, Program

N = TypeVar("N", bound=Hashable)


def segments(program: Program) -> tuple[tuple[Node, ...], ...]:
    """Return the program's strongly connected components, each after its sources.

    A component of one node without a self-edge is feed-forward and can be run over the whole
    sequence; any other is a loop and must be stepped (see `is_loop`). Nodes inside a component keep the
    program's order.
    """
    names = [node.name for node in program.nodes]
    position = {name: i for i, name in enumerate(names)}
    reads = {node.name: [source.node for source in node.operands] for node in program.nodes}
    components = strongly_connected(names, reads)
    return tuple(tuple(program.by_name[name] for name in sorted(part, key=position.__getitem__)) for part in components)


def is_loop(segment: Sequence[Node]) -> bool:
    """Return whether a segment feeds back into itself."""
    return len(segment) > 1 or any(source.node == segment[0].name for source in segment[0].operands)


@remembered
def looped(program: Program) -> frozenset[str]:
    """Return the names of the nodes in loops, which need the previous time step."""
    return frozenset(node.name for segment in segments(program) if is_loop(segment) for node in segment)


def strongly_connected(names: Iterable[N], successors: Mapping[N, Sequence[N]]) -> list[list[N]]:
    """Return strongly connected components, each after those it can reach (Kosaraju and Sharir)."""
    _, met, finished = walk(names, successors)
    place = {name: i for i, name in enumerate(met)}
    before: dict[N, list[N]] = defaultdict(list)
    for name in met:
        for successor in successors.get(name, ()):
            before[successor].append(name)
    components: list[list[N]] = []
    taken: set[N] = set()
    # Last finished first, on reversed edges: a search from there stays inside one component.
    for root in reversed(finished):
        component, waiting = list[N](), [root]
        while waiting:
            if (name := waiting.pop()) not in taken:
                taken.add(name)
                component.append(name)
                waiting += before[name]
        if component:
            components.append(sorted(component, key=place.__getitem__, reverse=True))
    return components[::-1]


def walk(roots: Iterable[N], successors: Mapping[N, Sequence[N]]) -> tuple[set[tuple[N, N]], list[N], list[N]]:
    """Walk depth-first without recursion: return back edges, and the nodes in order of visit and of completion."""
    back: set[tuple[N, N]] = set()
    met: dict[N, None] = {}
    finished: list[N] = []
    on_path: set[N] = set()
    for root in roots:
        work = [] if root in met else [(root, iter(successors.get(root, ())))]
        while work:
            name, rest = work[-1]
            met[name] = None
            on_path.add(name)
            for target in rest:
                if target in on_path:
                    back.add((name, target))
                elif target not in met:
                    work.append((target, iter(successors.get(target, ()))))
                    break
            else:
                work.pop()
                on_path.discard(name)
                finished.append(name)
    return back, list(met), finished


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Group the second of each pair under the first, in order."""
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def ordered(nodes: Mapping[str, Node]) -> tuple[Node, ...]:
    """Order every undelayed source before its reader; otherwise keep the given order."""
    done: dict[str, Node] = {}
    for root in nodes:
        path = {root: None}
        while path:
            name = next(reversed(path))
            missing = _missing(nodes[name].operands, done)
            if missing is not None:
                assert missing not in path, f"{missing} waits for itself within one step"
                path[missing] = None
            else:
                del path[name]
                done[name] = nodes[name]
    return tuple(done.values())


def _missing(sources: Sequence[Operand], done: Mapping[str, Node]) -> str | None:
    return next((source.node for source in sources if not source.delay and source.node not in done), None)
