"""Is this graph sound, what was assumed in reading it, and which targets can hold it?

A check is total (it never raises), complete (every node has a report) and anchored (a finding names its node). It uses
the lowering itself, so rules exist once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nir
import numpy as np

from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.nir.detect_writer import Writer, asked_dialect, candidates, overlooked, recognise, unsaid
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import METADATA_KEY, Lowering, all_errors, own_metadata, try_lower
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.findings import Fidelity, Finding, NodeReport, Report, fidelities, from_error, worst
from stl_deploy.graph.program import Delay, Neuron, Node, Output, Program

TargetCheck = Callable[[Program], Iterable[Finding]]
"""Asks one target what it cannot hold, or holds only roughly; may raise an UnsupportedError for the first thing."""


def check_sums(program: Program) -> Iterator[Finding]:
    """Where another library may add the same float32 terms in another order, a spike at a tie can move."""
    for proof in prove_exact(program):
        if not proof.exact:
            yield Finding(
                "sums-not-exact",
                "warning",
                proof.node,
                f"float32 sums can depend on their order here ({proof.reason})",
                "put it on an exact grid (stl-deploy fold FILE --exact-grid, --input-grid BITS for real input), or "
                "measure the agreement with verify",
            )


TARGETS: Mapping[str, TargetCheck] = {"nir": lambda program: (), "onnx": check_sums}
"""Targets that need no exporter to be asked; the command line adds the others."""


def check_file(
    path: Path,
    dialect: object = None,
    targets: Mapping[str, TargetCheck] = TARGETS,
    declared: Mapping[str, Any] | None = None,
    seen: Mapping[str, Any] | None = None,
) -> Report:
    """Check a NIR file; see `check`. A file that cannot be read gives a report with that one finding.

    dialect: a Dialect, or what `load_dialect` takes. declared: what its metadata would say of the input, in place of
    what they say. seen: where they say nothing.
    """
    try:
        graph = read_nir(path)
        if declared is not None or seen is not None:
            said = {"input": dict(seen or {}), **own_metadata(graph)} | ({"input": dict(declared)} if declared else {})
            graph.metadata = {**graph.metadata, METADATA_KEY: said}
        chosen = None if dialect is None else asked_dialect(graph, dialect)
    except Exception as error:
        return _report({}, [from_error(error)], targets, None)
    return check(graph, chosen, targets)


def check(
    source: nir.NIRGraph | Program, dialect: Dialect | None = None, targets: Mapping[str, TargetCheck] = TARGETS
) -> Report:
    """Check a graph (or a Program already lowered) and ask each target.

    dialect: how the graph is meant; default: as its own metadata say, else as the framework means it that the graph's
    form gives away, else spec; the first finding then says so. Never raises.
    """
    try:
        if isinstance(source, Program):
            found = [*_soundness(source.nodes, _read(source.nodes)), *_asked(source, targets)]
            return _report({node.name: (node, type(node).__name__) for node in source.nodes}, found, targets, None)
        return _check_graph(source, dialect, targets)
    except Exception as error:
        return _report({}, [from_error(error)], targets, dialect)


def _check_graph(graph: nir.NIRGraph, dialect: Dialect | None, targets: Mapping[str, TargetCheck]) -> Report:
    writer = recognise(graph) if dialect is None and "dialect" not in own_metadata(graph) else None
    lowering = try_lower(graph, dialect if writer is None else writer.dialect)
    found = _told(writer) if writer is not None else []
    if writer is None and dialect is None and "dialect" not in own_metadata(graph):
        found += _unstated(graph, lowering)
    if "dialect" not in own_metadata(graph):
        found += _unsaid(graph, lowering.dialect)
    found += [from_error(error) for error in all_errors(lowering)]
    found += [
        Finding(
            "not-reached",
            "info",
            name,
            "its shapes are not judged, as the shape that arrives is unknown",
            "mend the nodes before it",
        )
        for name in lowering.unreached
    ]
    found += [Finding("shapes-assumed", "info", None, said) for said in lowering.reading.assumptions()]
    read = {source.node for sources in lowering.wiring.sources.values() for source in sources}
    found += _soundness(lowering.nodes.values(), read)
    found += _shapes_declared(lowering)
    if not lowering.errors:
        found += _asked(lowering.program, targets)
    nodes = {name: (lowering.nodes.get(name), type(node).__name__) for name, node in lowering.wiring.nodes.items()}
    return _report(nodes, found, targets, lowering.dialect)


def _report(
    nodes: Mapping[str, tuple[Node | None, str]],
    found: list[Finding],
    targets: Mapping[str, TargetCheck],
    dialect: Dialect | None,
) -> Report:
    broken = any(finding.severity == "error" and finding.target is None for finding in found)
    anchored = [finding for finding in found if finding.node is not None or not broken]
    held = fidelities(nodes, anchored, targets)
    if broken:
        for by_target in held.values():
            by_target.update({t: "unjudged" for t, fidelity in by_target.items() if fidelity != "unsupported"})
    start: Fidelity = "unsupported" if broken else "faithful"
    return Report(
        tuple(
            NodeReport(name, kind, None if node is None else node.shape, held[name])
            for name, (node, kind) in nodes.items()
        ),
        tuple(found),
        {target: worst(start, *(by_target[target] for by_target in held.values())) for target in targets},
        dialect,
    )


def _asked(program: Program, targets: Mapping[str, TargetCheck]) -> Iterator[Finding]:
    for target, ask in targets.items():
        try:
            for said in ask(program):
                yield Finding(said.slug, said.severity, said.node, said.reason, said.remedy, target)
        except StlDeployError as error:
            yield from_error(error, target)


def _read(nodes: Iterable[Node]) -> set[str]:
    return {source.node for node in nodes for source in node.sources}


def _soundness(nodes: Iterable[Node], read: Collection[str]) -> Iterator[Finding]:
    """Numbers that can be run, and structure that can be lowered, but that hardly anyone means."""
    for node in nodes:
        if node.name not in read and not isinstance(node, Output):
            yield Finding("unread", "warning", node.name, "nothing reads it", "remove it, or lead it to an Output")
        if isinstance(node, Neuron):
            yield from _neuron(node)
        if isinstance(node, Delay) and not node.steps.any():
            yield Finding("no-delay", "info", node.name, "delays by 0 steps")


def _neuron(node: Neuron) -> Iterator[Finding]:
    decays = {"τ": node.decay, "τ_syn": None if node.synapse is None else node.synapse.decay}
    for tau, decay in decays.items():
        if decay is not None and (decay < 0).any():
            worse = " and the potential can grow without bound" if (decay < -1).any() else ""
            yield Finding(
                "dt-over-tau",
                "warning",
                node.name,
                f"dt is larger than {tau}, so the decay is {float(decay.min()):g}{worse}",
                "give the dialect the dt, in the unit of τ, that the network was trained with",
            )
    if node.threshold is not None and node.decay is None and (node.threshold < 0).any():
        yield Finding("always-on", "warning", node.name, "a threshold below 0 fires without input", "")


def _shapes_declared(lowering: Lowering) -> Iterator[Finding]:
    for name, node in lowering.wiring.nodes.items():
        if isinstance(node, nir.Output) and name in lowering.nodes:
            declared = np.asarray((node.output_type or {}).get("output")).reshape(-1).tolist()
            shape = list(lowering.nodes[name].shape)
            if declared not in ([None], shape, [*declared[:1], *shape]):
                yield Finding("output-shape", "info", name, f"declares {declared[:9]}, but {shape} arrives")


def _told(writer: Writer) -> list[Finding]:
    said = f"the file does not say how it is stepped; {writer.preset} wrote it by its form ({writer.trace})"
    return [Finding("dialect-recognised", "info", None, said, "name another with --dialect if that is wrong")]


def _unsaid(graph: nir.NIRGraph, dialect: Dialect) -> Iterator[Finding]:
    if said := unsaid(graph, dialect):
        yield Finding("dialect-ambiguous", "warning", None, said, "ask who trained it, or measure with --input")
    if said := overlooked(graph, dialect):
        yield Finding("field-overlooked", "warning", None, said, "name the dialect of the framework that wrote it")


def _unstated(graph: nir.NIRGraph, lowering: Lowering) -> Iterator[Finding]:
    """Which of the dialect's options this graph leaves open and does depend on."""
    neurons = [node for node in lowering.nodes.values() if isinstance(node, Neuron)]
    kinds = {type(lowering.wiring.nodes[node.name]) for node in neurons}
    dialect = lowering.dialect
    matters = {
        "dt": kinds - {nir.Threshold} or any(isinstance(node, Delay) for node in lowering.nodes.values()),
        "leak": kinds & {nir.LI, nir.LIF, nir.CubaLI, nir.CubaLIF},
        "compare": any(node.spiking for node in neurons),
        "reset": any(node.spiking and node.decay is not None for node in neurons),
        "spikes_per_step": any(node.spiking and node.decay is not None for node in neurons),
        "synapse": kinds & {nir.CubaLI, nir.CubaLIF},
    }
    open_options = [f"{key} {getattr(dialect, key)}" for key, depends in matters.items() if depends]
    if open_options:
        yield Finding(
            "dialect-unstated",
            "warning",
            None,
            f"the file does not say how it is stepped; assumed: {', '.join(open_options)}",
            f"pass the dialect of the framework that wrote it: {', '.join(candidates(graph))}",
        )
