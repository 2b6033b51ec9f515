"""The edges of a NIR graph: nested graphs opened, loops found and closed with one step of delay, nodes put in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import nir

from stl_deploy.errors import GraphError
from stl_deploy.graph.program import Source
from stl_deploy.graph.segments import strongly_connected

_MAX_DEPTH = 32
_NEURONS = (nir.I, nir.IF, nir.LI, nir.LIF, nir.CubaLI, nir.CubaLIF, nir.Threshold)


@dataclass(frozen=True)
class Wiring:
    """A flat graph: nodes by name in running order, and what each reads."""

    nodes: dict[str, nir.NIRNode]
    sources: dict[str, tuple[Source, ...]]


def wire(graph: nir.NIRGraph) -> Wiring:
    """Open nested graphs, check the edges, delay those that close a loop, and order the nodes.

    An edge closes a loop if a depth-first walk from the inputs, in the order of the edge list,
    finds it leading back to a node on its own path. Raises GraphError for an edge to or from an unknown
    node, a node that nothing feeds, and a loop without a neuron.
    """
    nodes, edges = _open(graph)
    outgoing: dict[str, list[str]] = defaultdict(list)
    incoming: dict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        outgoing[source].append(target)
        incoming[target].append(source)
    _refuse_unfed(nodes, incoming)
    _refuse_empty_loops(nodes, outgoing)
    roots = [name for name, node in nodes.items() if isinstance(node, nir.Input)]
    back, finished = _walk([*roots, *nodes], outgoing)
    order = finished[::-1]
    return Wiring(
        {name: nodes[name] for name in order},
        {name: tuple(Source(s, int((s, name) in back)) for s in incoming[name]) for name in order},
    )


def _open(graph: nir.NIRGraph) -> tuple[dict[str, nir.NIRNode], list[tuple[str, str]]]:
    """Nodes and edges with nested graphs replaced by their contents, named ``outer.inner``."""
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []
    entries: dict[str, list[str]] = {}
    exits: dict[str, list[str]] = {}
    for prefix, part in _graphs(graph, "", 0):
        seen = set()
        for name, node in part.nodes.items():
            if not isinstance(node, nir.NIRGraph):
                if isinstance(node, nir.Input | nir.Output) and prefix:
                    (entries if isinstance(node, nir.Input) else exits).setdefault(prefix[:-1], []).append(
                        prefix + name
                    )
                nodes[prefix + name] = node
        for source, target in part.edges:
            for end in (source, target):
                if end not in part.nodes:
                    raise GraphError(
                        f"edge {source} -> {target} names '{end}', which is no node; "
                        f"nodes: {', '.join(map(str, part.nodes))}",
                        slug="unknown-node",
                    )
            if (source, target) in seen:
                raise GraphError(f"edge {source} -> {target} is listed twice", slug="duplicate-edge")
            seen.add((source, target))
            edges.append((prefix + source, prefix + target))
    return nodes, [(s, t) for a, b in edges for s in exits.get(a, [a]) for t in entries.get(b, [b])]


def _graphs(graph: nir.NIRGraph, prefix: str, depth: int) -> Iterator[tuple[str, nir.NIRGraph]]:
    if depth > _MAX_DEPTH:
        raise GraphError(f"graphs are nested more than {_MAX_DEPTH} deep", node=prefix[:-1], slug="too-deep")
    yield prefix, graph
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            yield from _graphs(node, f"{prefix}{name}.", depth + 1)


def _refuse_unfed(nodes: dict[str, nir.NIRNode], incoming: dict[str, list[str]]) -> None:
    if not any(isinstance(node, nir.Input) for node in nodes.values()):
        raise GraphError("the graph has no Input node", slug="no-input")
    if not any(isinstance(node, nir.Output) for node in nodes.values()):
        raise GraphError("the graph has no Output node", slug="no-output")
    for name, node in nodes.items():
        if not incoming[name] and not isinstance(node, nir.Input):
            raise GraphError("no edge leads to it; connect it or remove it", node=name, slug="no-source")


def _refuse_empty_loops(nodes: dict[str, nir.NIRNode], outgoing: dict[str, list[str]]) -> None:
    for component in strongly_connected(list(nodes), {name: outgoing[name] for name in nodes}):
        looped = len(component) > 1 or component[0] in outgoing[component[0]]
        if looped and not any(isinstance(nodes[name], _NEURONS) for name in component):
            raise GraphError(
                f"the loop {' -> '.join([*component[::-1], component[-1]])} has no neuron in it; "
                "a loop needs one to hold its state",
                node=component[-1],
                slug="loop-without-neuron",
            )


def _walk(roots: list[str], outgoing: dict[str, list[str]]) -> tuple[set[tuple[str, str]], list[str]]:
    """Depth-first: the edges that lead back to the path, and the nodes in the order they are finished."""
    back: set[tuple[str, str]] = set()
    finished: list[str] = []
    on_path: set[str] = set()
    seen: set[str] = set()
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        on_path.add(root)
        work = [(root, iter(outgoing[root]))]
        while work:
            name, rest = work[-1]
            for target in rest:
                if target in on_path:
                    back.add((name, target))
                elif target not in seen:
                    seen.add(target)
                    on_path.add(target)
                    work.append((target, iter(outgoing[target])))
                    break
            else:
                work.pop()
                on_path.discard(name)
                finished.append(name)
    return back, finished
