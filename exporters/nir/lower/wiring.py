"""Wire a NIR graph: open nested graphs, close loops with one step of delay, order nodes.

The edge that closes a loop is delayed. Some frameworks delay the neuron's spikes instead, before they pass through the
loop's weights, which differs at t = 0 if there is a bias on the way: the dialect decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import nir
import numpy as np

from stl_deploy.errors import GraphError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.kinds import NEURONS
from stl_deploy.graph.program import Delay, Neuron, Node, Operand
from stl_deploy.graph.segments import grouped, ordered, strongly_connected, walk

_MAX_DEPTH = 32
Edge = tuple[str, str]


@dataclass(frozen=True)
class Wiring:
    """A flat graph: nodes by name in running order, their sources, and the errors of the edges.

    ``ports``: Input and Output nodes of nested graphs, which only pass on what arrives. ``looped``: nodes in a loop.
    """

    nodes: dict[str, nir.NIRNode]
    sources: dict[str, tuple[Operand, ...]]
    ports: frozenset[str]
    looped: frozenset[str]
    errors: tuple[GraphError, ...]


def wire(graph: nir.NIRGraph, *, into_neurons: bool = False) -> Wiring:
    """Open nested graphs, check the edges, delay those that close a loop, and order the nodes.

    An edge closes a loop if a depth-first walk from the inputs, in the order of the edge list,
    finds it leading back to a node on its own path. Errors are collected, not raised: an edge to or from an
    unknown node, a node that nothing feeds, a loop without a neuron, a nested graph whose port is not clear.
    into_neurons: lead an Input past the weights of a loop (see `Dialect`, ``loop_input``).
    """
    opened = _Opened(graph, into_neurons)
    nodes, ports = opened.nodes, frozenset(opened.ports)
    edges = opened.joined()
    outgoing, incoming = grouped(edges), grouped((target, source) for source, target in edges)
    components = strongly_connected(nodes, outgoing)
    loops = [group for group in components if len(group) > 1 or group[0] in outgoing.get(group[0], [])]
    errors = [*opened.errors, *_unfed(nodes, ports, incoming, outgoing), *_empty_loops(nodes, loops)]
    roots = [name for name, node in nodes.items() if isinstance(node, nir.Input) and name not in ports]
    back, _, finished = walk([*roots, *nodes], outgoing)
    order = finished[::-1]
    return Wiring(
        {name: nodes[name] for name in order},
        {name: tuple(Operand(s, int((s, name) in back)) for s in incoming.get(name, ())) for name in order},
        ports,
        frozenset(name for loop in loops for name in loop),
        tuple(errors),
    )


class _Opened:
    """Nodes and edges of a graph with nested graphs replaced by their contents, named ``outer.inner``."""

    def __init__(self, graph: nir.NIRGraph, into_neurons: bool) -> None:
        self.nodes: dict[str, nir.NIRNode] = {}
        self.errors: list[GraphError] = []
        self._edges: list[Edge] = []
        self._entries: dict[str, list[str]] = {}
        self._exits: dict[str, list[str]] = {}
        for prefix, part in _graphs(graph, "", 0, self.errors):
            self._add_nodes(prefix, part)
            self._add_edges(prefix, part, _past_weights(part) if into_neurons else part.edges)

    @property
    def ports(self) -> list[str]:
        """Return Input and Output nodes of nested graphs."""
        return [name for ends in (self._entries, self._exits) for names in ends.values() for name in names]

    def joined(self) -> list[Edge]:
        """Return the edges, with those that name a nested graph led to its Input or from its Output."""
        edges = []
        for source, target in self._edges:
            start, end = self._port(source, self._exits, "Output"), self._port(target, self._entries, "Input")
            if start is not None and end is not None:
                edges.append((start, end))
        return edges

    def _add_nodes(self, prefix: str, part: nir.NIRGraph) -> None:
        if prefix:
            self._entries[prefix[:-1]], self._exits[prefix[:-1]] = [], []
        for name, node in part.nodes.items():
            full = prefix + name
            if isinstance(node, nir.NIRGraph):
                continue
            if full in self.nodes:
                self._fail("two nodes have this name once nested graphs are opened; rename one", full, "same-name")
            if prefix and isinstance(node, nir.Input | nir.Output):
                ends = self._entries if isinstance(node, nir.Input) else self._exits
                ends[prefix[:-1]].append(full)
            self.nodes[full] = node

    def _add_edges(self, prefix: str, part: nir.NIRGraph, edges: Iterable[Edge]) -> None:
        seen: set[Edge] = set()
        for source, target in edges:
            unknown = [end for end in (source, target) if end not in part.nodes]
            if unknown:
                shown = ", ".join(map(str, list(part.nodes)[:20]))
                self._fail(
                    f"edge {source} -> {target} names '{unknown[0]}', which is not a node; nodes: {shown}",
                    prefix[:-1] or None,
                    "unknown-node",
                )
            elif (source, target) in seen:
                self._fail(f"edge {source} -> {target} is listed twice", prefix[:-1] or None, "duplicate-edge")
            else:
                seen.add((source, target))
                self._edges.append((prefix + source, prefix + target))

    def _port(self, name: str, ends: Mapping[str, list[str]], kind: str) -> str | None:
        ports = ends.get(name, [name])
        if len(ports) == 1:
            return ports[0] if ports[0] in self.nodes else None
        self._fail(f"a nested graph with {len(ports)} {kind} nodes; an edge to or from it needs one", name, "ports")
        return None

    def _fail(self, message: str, node: str | None, slug: str) -> None:
        self.errors.append(GraphError(message, node=node, slug=slug))


def _graphs(
    graph: nir.NIRGraph, prefix: str, depth: int, errors: list[GraphError]
) -> Iterator[tuple[str, nir.NIRGraph]]:
    if depth > _MAX_DEPTH:
        errors.append(GraphError(f"graphs are nested more than {_MAX_DEPTH} deep", node=prefix[:-1], slug="too-deep"))
        return
    yield prefix, graph
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            yield from _graphs(node, f"{prefix}{name}.", depth + 1, errors)


def _past_weights(part: nir.NIRGraph) -> Iterator[Edge]:
    """Return the edges; those from an Input into weights between a neuron and itself lead to the neuron."""
    edges, reads = set(part.edges), grouped(part.edges)
    inputs = {name for name, node in part.nodes.items() if isinstance(node, nir.Input)}
    neurons = {name for name, node in part.nodes.items() if isinstance(node, NEURONS)}
    for source, target in part.edges:
        past = []
        if source in inputs and target not in neurons:
            past = [
                n for n in reads.get(target, ()) if n in neurons and (n, target) in edges and (source, n) not in edges
            ]
        yield from ((source, neuron) for neuron in past or [target])


def _unfed(
    nodes: Mapping[str, nir.NIRNode],
    ports: frozenset[str],
    incoming: Mapping[str, list[str]],
    outgoing: Mapping[str, list[str]],
) -> Iterator[GraphError]:
    for kind in (nir.Input, nir.Output):
        if not any(isinstance(node, kind) and name not in ports for name, node in nodes.items()):
            yield GraphError(f"the graph has no {kind.__name__} node", slug=f"no-{kind.__name__.lower()}")
    for name, node in nodes.items():
        enters = isinstance(node, nir.Input) and name not in ports
        leaves = isinstance(node, nir.Output) and name not in ports
        if enters and name in incoming:
            yield GraphError(f"'{incoming[name][0]}' leads into an Input of the network", node=name, slug="bad-edge")
        if leaves and name in outgoing:
            yield GraphError(f"an Output of the network leads to '{outgoing[name][0]}'", node=name, slug="bad-edge")
        if not enters and name not in incoming:
            yield GraphError("no edge leads to it; connect it or remove it", node=name, slug="no-source")


def _empty_loops(nodes: Mapping[str, nir.NIRNode], loops: list[list[str]]) -> Iterator[GraphError]:
    for component in loops:
        if not any(isinstance(nodes[name], NEURONS) for name in component):
            shown = component[::-1][:20]
            yield GraphError(
                f"the loop {' -> '.join([*shown, shown[0]])} has no neuron in it; a loop needs one to hold its state",
                node=component[-1],
                slug="loop-without-neuron",
            )


def place_delays(nodes: Mapping[str, Node], dialect: Dialect) -> tuple[Node, ...]:
    """Return the nodes with delays at the dialect's places, in running order."""
    if dialect.loop == "closing_edge" and dialect.emit == "now":
        return tuple(nodes.values())
    moved = _to_neuron_outputs(dict(nodes))
    if dialect.emit == "next_step":
        moved = _emit_late(moved)
    return ordered(moved)


def _to_neuron_outputs(nodes: dict[str, Node]) -> dict[str, Node]:
    readers: dict[str, int] = {}
    for node in nodes.values():
        for source in node.operands:
            readers[source.node] = readers.get(source.node, 0) + 1
    for name in list(nodes):
        for source in [source for source in nodes[name].operands if source.delay]:
            reader, edge = name, source
            # A memoryless node between the two computes the same a step later, if it serves nobody else.
            while not isinstance(nodes[edge.node], Neuron):
                before = nodes[edge.node].operands
                if len(before) != 1 or readers[edge.node] != 1:
                    break
                _redelay(nodes, reader, edge, -1)
                reader, edge = edge.node, _redelay(nodes, edge.node, before[0], 1)
    return nodes


def _redelay(nodes: dict[str, Node], reader: str, edge: Operand, by: int) -> Operand:
    changed = replace(edge, delay=edge.delay + by)
    node = nodes[reader]
    nodes[reader] = replace(node, operands=tuple(changed if source == edge else source for source in node.operands))
    return changed


def _emit_late(nodes: dict[str, Node]) -> dict[str, Node]:
    """Insert a Delay of one step after each spiking neuron with memory, except on edges that are late already."""
    spiking = [node for node in nodes.values() if isinstance(node, Neuron) and node.spiking and node.decay is not None]
    late = {node.name: _unused(nodes, node.name) for node in spiking}
    placed: dict[str, Node] = {}
    for node in nodes.values():
        sources = tuple(
            Operand(late[source.node]) if source.node in late and not source.delay else source
            for source in node.operands
        )
        placed[node.name] = replace(node, operands=sources)
        if node.name in late:
            name = late[node.name]
            placed[name] = Delay(
                name=name, shape=node.shape, operands=(Operand(node.name),), steps=np.ones((), np.int64)
            )
    return placed


def _unused(nodes: Mapping[str, Node], name: str) -> str:
    name = f"{name}.late"
    while name in nodes:
        name += "_"
    return name
