"""Check that a graph is sound, list the assumptions in reading it, and find the targets that can hold it.

A check is total (it never raises), complete (every node has a report) and anchored (a finding names its node). It uses
the lowering itself, so rules exist once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.json_twin import JsonTwin
from stl_deploy._util.remedies import option, remedy
from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.nir.detect_writer import (
    asked_dialect,
    candidates,
    detect_writer,
    ignored_fields,
    unspecified_options,
    with_reasons,
)
from stl_deploy.exporters.nir.dialect import CHOICES, Dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import (
    Lowering,
    all_errors,
    lower,
    metadata_dialect,
    own_metadata,
    try_lower,
    with_metadata,
)
from stl_deploy.graph.check import TARGETS, TargetCheck, ask, check_program, report, soundness
from stl_deploy.graph.compare import Tally
from stl_deploy.graph.exact import with_input
from stl_deploy.graph.findings import CheckReport, Finding, from_error
from stl_deploy.graph.program import Delay, Floats, Neuron, Program
from stl_deploy.graph.run import run


def check_file(
    path: Path,
    dialect: object = None,
    targets: Mapping[str, TargetCheck] = TARGETS,
    declared: Mapping[str, Any] | None = None,
    seen: Mapping[str, Any] | None = None,
) -> CheckReport:
    """Check a NIR file; see `check`. An unreadable file gives a report with that one finding.

    dialect: a Dialect, or what `load_dialect` takes. declared, seen: as `with_input` takes them.
    """
    try:
        graph = read_nir(path)
        graph = with_metadata(graph, with_input(own_metadata(graph), declared, seen))
        chosen = None if dialect is None else asked_dialect(graph, dialect)
    except Exception as error:
        return report({}, [from_error(error)], targets, None)
    return check(graph, chosen, targets)


def check(
    source: nir.NIRGraph | Program, dialect: Dialect | None = None, targets: Mapping[str, TargetCheck] = TARGETS
) -> CheckReport:
    """Check a graph (or a Program already lowered) against each target.

    dialect: how the graph is meant; default: as its own metadata say, else as the framework means it that the graph's
    form gives away, else spec; the first finding then says so. Never raises.
    """
    try:
        if isinstance(source, Program):
            return check_program(source, targets)
        return _check_graph(source, dialect, targets)
    except Exception as error:
        return report({}, [from_error(error)], targets, dialect)


def _check_graph(graph: nir.NIRGraph, dialect: Dialect | None, targets: Mapping[str, TargetCheck]) -> CheckReport:
    is_stated = "dialect" in own_metadata(graph)
    writer = detect_writer(graph) if dialect is None and not is_stated else None
    lowering = try_lower(graph, dialect if writer is None else writer.dialect)
    findings: list[Finding] = []
    if writer is not None:
        said = f"the file does not state how time is stepped; {writer.preset} wrote it by its form ({writer.trace})"
        instead = f"name another with {option('dialect', 'NAME')} if that is wrong"
        findings.append(Finding("dialect-recognised", "info", None, said, instead))
    elif dialect is None and not is_stated:
        findings += _unstated(graph, lowering)
    if not is_stated:
        findings += _unsaid(graph, lowering.dialect)
    findings += [from_error(error) for error in all_errors(lowering)]
    findings += [
        Finding(
            "not-reached",
            "info",
            name,
            "its shapes are not judged, as the shape that arrives is unknown",
            "mend the nodes before it",
        )
        for name in lowering.unreached
    ]
    findings += [Finding("shapes-assumed", "info", None, said) for said in lowering.reading.assumptions()]
    read = {source.node for sources in lowering.wiring.sources.values() for source in sources}
    findings += soundness(lowering.nodes.values(), read)
    findings += _shapes_declared(lowering)
    if not lowering.errors:
        findings += ask(lowering.program, targets)
    nodes = {name: (lowering.nodes.get(name), type(node).__name__) for name, node in lowering.wiring.nodes.items()}
    return report(nodes, findings, targets, lowering.dialect)


def _shapes_declared(lowering: Lowering) -> Iterator[Finding]:
    for name, node in lowering.wiring.nodes.items():
        if isinstance(node, nir.Output) and name in lowering.nodes:
            declared = np.asarray((node.output_type or {}).get("output")).reshape(-1).tolist()
            shape = list(lowering.nodes[name].shape)
            if declared not in ([None], shape, [*declared[:1], *shape]):
                yield Finding("output-shape", "info", name, f"declares {declared[:9]}, but {shape} arrives")


def _unsaid(graph: nir.NIRGraph, dialect: Dialect) -> Iterator[Finding]:
    if said := unspecified_options(graph, dialect):
        yield Finding(
            "dialect-ambiguous",
            "warning",
            None,
            said,
            "ask who trained it, or measure with " + remedy(cli="--input X.npz", python="stl_deploy.verbs.measure"),
        )
    if said := ignored_fields(graph, dialect):
        yield Finding("field-overlooked", "warning", None, said, "name the dialect of the framework that wrote it")


def _unstated(graph: nir.NIRGraph, lowering: Lowering) -> Iterator[Finding]:
    """Yield findings for dialect options that this graph leaves open and depends on."""
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
            f"the file does not state how time is stepped; assumed: {', '.join(open_options)}",
            f"pass the dialect of the framework that wrote it: {with_reasons(candidates(graph))}",
        )


@dataclass(frozen=True)
class Effect(JsonTwin):
    """Effect of another choice for one option.

    differ: of ``compared`` outputs of spiking neurons (of Output nodes, if nothing spikes), how many change; None if
    the graph cannot be run that way, and ``reason`` says why.
    """

    option: str
    assumed: Any
    instead: Any
    differ: int | None
    compared: int
    reason: str = ""


def effects(
    graph: nir.NIRGraph, x: NDArray[Any] | Mapping[str, NDArray[Any]], dialect: Dialect | None = None
) -> tuple[Effect, ...]:
    """Return the effect of each other choice, largest first; choices without an effect are kept, with 0.

    x: input as for `run`. dialect: the assumption; default: the graph's own, else spec.
    Raises GraphError or InputError if the graph cannot be run as assumed.
    """
    assumed = dialect or metadata_dialect(own_metadata(graph))
    program = lower(graph, assumed)
    expected = _outputs(program, x)
    results = [_effect(graph, x, assumed, option, value, expected) for option, value in _alternatives(assumed)]
    return tuple(sorted(results, key=lambda effect: -(effect.differ or 0)))


def _alternatives(assumed: Dialect) -> list[tuple[str, Any]]:
    choices: dict[str, tuple[Any, ...]] = {
        **CHOICES,
        "spikes_per_step": ("one", "many"),
        "v_min": (None, "-threshold"),
        "dt": (assumed.dt / 10, assumed.dt * 10),
    }
    return [(key, value) for key, values in choices.items() for value in values if value != getattr(assumed, key)]


def _effect(
    graph: nir.NIRGraph, x: Any, assumed: Dialect, option: str, value: Any, expected: Mapping[str, Floats]
) -> Effect:
    compared = sum(array.size for array in expected.values())
    try:
        outputs = _outputs(lower(graph, replace(assumed, **{option: value})), x)
    except StlDeployError as error:
        return Effect(option, getattr(assumed, option), value, None, compared, str(error))
    tally = Tally()
    tally.add(expected, outputs)
    return Effect(option, getattr(assumed, option), value, tally.differing, compared)


def _outputs(program: Program, x: Any) -> dict[str, Floats]:
    names = [node.name for node in program.spiking] or [node.name for node in program.outputs]
    return {name: np.asarray(array) for name, array in run(program, x, record=names).recorded.items()}
