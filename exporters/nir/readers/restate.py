"""Restate a network as a NIR file that one framework's reader reads faithfully.

Readers differ in time step, comparison, reset, the fields that they use (see the classes in
`stl_deploy.exporters.nir.readers.reading_rules`), and the edges that they delay by a step
(`stl_deploy.exporters.nir.readers.reading_rules`). A restatement starts from the Program, so the graph's writer does
not matter. What a reader ignores moves to where it looks: gains and average pools into the weights (exact in real
arithmetic, and in float32 if the factor is a power of two), and ``>=`` into the next smaller threshold for readers that
compare with ``>``. No reader supports max pooling of spikes; it becomes a sum pool and integrate-and-fire neurons,
which keep no state: a spike resets them to 0, and without one nothing has arrived. Other unsupported nodes are refused
with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import nir
import numpy as np

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.nir.lower import METADATA_KEY
from stl_deploy.exporters.nir.lower.wiring import wire
from stl_deploy.exporters.nir.readers.node_forms import Restating
from stl_deploy.exporters.nir.readers.reading_rules import READERS, Edge, Reader, loops, refusal
from stl_deploy.graph.check import TargetCheck
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Conv, Linear, Neuron, Node, Pool, Program, Reshape, Scale, is_spike_max_pool
from stl_deploy.graph.segments import ordered


@dataclass(frozen=True)
class Restated:
    """The graph for a reader, and the Python lines that load it there."""

    graph: nir.NIRGraph
    load: str


def restate(program: Program, reader: str) -> Restated:
    """Return a NIR graph that ``reader`` (a name in `READERS`) reads faithfully.

    The graph's metadata hold the dialect in which it is meant, so reading it back here gives the same spikes.
    Raises InputError for an unknown reader, UnsupportedError naming the first node it cannot hold.
    """
    if reader not in READERS:
        raise InputError(f"expected a reader: {', '.join(READERS)}; found '{reader}'")
    graph, refused = _restate(program, READERS[reader])
    if refused:
        raise refused[0]
    graph.metadata = {
        METADATA_KEY: {**program.metadata, "dialect": READERS[reader].dialect.as_dict(), "reader": reader}
    }
    # nir 1.0.8 infers wrong shapes for some sound graphs and then refuses to read them; nir 1.0.4 does not check.
    checked = reader == "sinabs" or _nir_agrees(graph)
    read = 'nir.read("net.nir")' if checked else 'nir.read("net.nir", type_check=False)'
    return Restated(graph, READERS[reader].load.format(graph=read))


def _nir_agrees(graph: nir.NIRGraph) -> bool:
    """Return whether nir's own inference of shapes accepts the graph."""
    nodes = {name: copy(node) for name, node in graph.nodes.items()}
    for node in nodes.values():
        node.input_type, node.output_type = dict(node.input_type or {}), dict(node.output_type or {})
    try:
        nir.NIRGraph(nodes, list(graph.edges), type_check=True)
    except Exception:
        return False
    return True


def _restate(program: Program, reader: Reader) -> tuple[nir.NIRGraph, Sequence[UnsupportedError]]:
    """Return the graph, and one error for each node that the reader cannot hold."""
    nodes = _delayed_at_neurons(
        {node.name: _remembering(node) if is_spike_max_pool(program, node) else node for node in program.nodes}
    )
    made = Restating(nodes, reader)
    graph = nir.NIRGraph(made.nodes, _arranged(made), type_check=False)
    return graph, made.refused or list(_mistimed(graph, made))


def _remembering(node: Node) -> Node:
    """Return max pooling's threshold as integrate-and-fire neurons; input is integral, so below 1 will do."""
    assert isinstance(node, Neuron)
    return replace(node, decay=np.array(1, np.float32), threshold=np.array(0.5, np.float32), reset="value")


def _delayed_at_neurons(nodes: dict[str, Node]) -> dict[str, Node]:
    """Move delays from before a stateless layer to behind it, towards the neuron, where all readers support them.

    The same values come a step later; with a bias in the layer they would not at t = 0.
    """
    work = list(nodes)
    while work:
        name = work.pop()
        node = nodes[name]
        still = isinstance(node, Linear | Conv | Scale | Pool | Reshape) and getattr(node, "bias", None) is None
        if not still or not node.operands or not all(source.delay for source in node.operands):
            continue
        nodes[name] = replace(node, operands=tuple(replace(source, delay=source.delay - 1) for source in node.operands))
        for reader in [reader for reader in nodes.values() if any(source.node == name for source in reader.operands)]:
            moved = (replace(s, delay=s.delay + (s.node == name)) for s in reader.operands)
            nodes[reader.name] = replace(reader, operands=tuple(moved))
            work.append(reader.name)
    return {node.name: node for node in ordered(nodes)}


def _arranged(made: Restating) -> list[Edge]:
    """Order the edges so that a walk in their order goes round a loop before it leaves it, and the long way first."""
    looped = loops(list(made.places), list(made.edges))

    def key(edge: Edge) -> tuple[float, bool, float]:
        source, target = edge
        inside = source in looped and looped[source] == looped.get(target)
        return made.places[source], not inside, made.places[target]

    return sorted(made.edges, key=key)


def _mistimed(graph: nir.NIRGraph, made: Restating) -> Iterator[UnsupportedError]:
    """Return edges that the reader, or stl-deploy itself as it reads the file, takes at another step than meant."""
    (start,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.Input))
    (end,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.Output))
    late, last = made.reader.runs(list(graph.nodes), graph.edges, start)
    here = {(source.node, name) for name, sources in wire(graph).sources.items() for source in sources if source.delay}
    for edge, delay in made.edges.items():
        if delay == (edge in late) == (edge in here):
            continue
        source, target = edge
        if delay == (edge in late):
            reason = f"and stl-deploy would not agree on when it takes what comes from '{source}'"
        else:
            when = "in the same step, not a later one" if delay else "one step late"
            reason = f"would take what comes from '{source}' {when}"
        remedy = "export to ONNX, or use a chain of layers"
        yield refusal(made.stands_for.get(target, target), "edge-timing", made.reader, reason, remedy)
    if last not in (None, end):
        name = made.stands_for.get(last, last)
        yield refusal(name, "not-the-output", made.reader, "would take it for the output", "let every layer lead on")


def _asking(reader: Reader) -> TargetCheck:
    def ask(program: Program) -> Iterable[Finding]:
        return [from_error(error) for error in _restate(program, reader)[1]]

    return ask


READER_TARGETS: Mapping[str, TargetCheck] = {name: _asking(reader) for name, reader in READERS.items()}
"""The readers as targets of `stl_deploy.exporters.nir.check.check`; each names every node that it cannot hold."""
