"""Findings of a check, anchored to nodes, and one report with a JSON twin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from stl_deploy._util.units import counted
from stl_deploy.errors import CheckFailed, GraphError, InputError, StlDeployError, UnsupportedError
from stl_deploy.graph.program import Shape

if TYPE_CHECKING:
    from stl_deploy.exporters.nir.dialect import Dialect

Severity = Literal["error", "warning", "info"]
Fidelity = Literal["faithful", "approximate", "unsupported", "unjudged"]
"""Verdict of a target on a node. ``unjudged``: errors elsewhere in the graph keep the target from being asked."""


@dataclass(frozen=True)
class Finding:
    """One finding of a check.

    slug: short stable name for scripts. node: the node's name, None for the graph as a whole.
    target: the target it concerns, None if it holds whatever the target. An ``error`` makes the node unsupported
    there (everywhere, without a target), a target's ``warning`` makes it approximate, ``info`` changes nothing.
    """

    slug: str
    severity: Severity
    node: str | None
    reason: str
    remedy: str = ""
    target: str | None = None

    def __str__(self) -> str:
        return to_lines([self])[0]


@dataclass(frozen=True)
class NodeReport:
    """One node: its kind, the shape of its output (None if unknown), and how each target holds it."""

    node: str
    kind: str
    shape: Shape | None
    targets: Mapping[str, Fidelity]


@dataclass(frozen=True)
class CheckReport:
    """All nodes and all findings; ``targets`` holds for each target the worst of its nodes."""

    nodes: tuple[NodeReport, ...]
    findings: tuple[Finding, ...]
    targets: Mapping[str, Fidelity]
    dialect: Dialect | None
    name: str = ""

    @property
    def ok(self) -> bool:
        """Whether the graph is sound and every requested target can hold it."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def runs(self) -> bool:
        """Whether the graph itself is sound, regardless of targets."""
        return not any(finding.severity == "error" and finding.target is None for finding in self.findings)

    def raise_if_unsupported(self) -> None:
        """Raise UnsupportedError with the first error, if the graph is unsound or a requested target cannot hold it."""
        for finding in self.findings:
            if finding.severity == "error":
                where = f"{finding.target}: {finding.reason}" if finding.target is not None else finding.reason
                remedy = finding.remedy or "see the report's other findings"
                raise UnsupportedError(where, node=finding.node or "graph", slug=finding.slug, remedy=remedy)

    def require(self) -> None:
        """Raise CheckFailed if there are errors."""
        if not self.ok:
            errors = [finding.target for finding in self.findings if finding.severity == "error"]
            where = "" if None in errors else f" for {', '.join(dict.fromkeys(map(str, errors)))}"
            raise CheckFailed(f"{self.name}: {counted(len(errors), 'error')} found{where}")

    def __str__(self) -> str:
        """Return the findings, and the verdict for each target."""
        verdicts = (f"{target}: {fidelity}" for target, fidelity in self.targets.items())
        return "\n".join([*to_lines(self.findings), *verdicts])

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        return {
            "ok": self.ok,
            "dialect": None if self.dialect is None else self.dialect.as_dict(),
            "targets": dict(self.targets),
            "nodes": [asdict(node) for node in self.nodes],
            "findings": [asdict(finding) for finding in self.findings],
        }


def to_lines(findings: Iterable[Finding]) -> list[str]:
    """Return the findings as lines of text; a reason shared by several nodes or targets appears once."""
    targets: dict[tuple[Finding, bool], list[str]] = {}
    for finding in findings:
        names = targets.setdefault((replace(finding, target=None), finding.target is None), [])
        if finding.target is not None and finding.target not in names:
            names.append(finding.target)
    alike: dict[tuple[str, str, str, bool], dict[str, list[str]]] = {}
    for (finding, _), names in targets.items():
        what, where = f"{finding.severity}: {finding.slug}", f" for {_listed(names)}" if names else ""
        nodes = alike.setdefault((what, where, finding.remedy, finding.node is None), {}).setdefault(finding.reason, [])
        if finding.node is not None:
            nodes.append(f"'{finding.node}'")
    paragraphs = (_paragraph(*subject[:3], reasons) for subject, reasons in alike.items())
    return [line for paragraph in paragraphs for line in paragraph]


def _paragraph(what: str, target: str, remedy: str, reasons: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one line for one reason; several have a line each between their shared parts."""
    arrow = [f" -> {remedy}"] if remedy else []
    if len(reasons) == 1:
        ((reason, nodes),) = reasons.items()
        where = f" at {_each(nodes)}" if nodes else ""
        return ["".join([what, where, target, ": ", reason, *arrow])]
    each = [f"  {_each(nodes)}: {reason}" if nodes else f"  {reason}" for reason, nodes in reasons.items()]
    return [f"{what}{target}:", *each, *(f" {line}" for line in arrow)]


def _each(nodes: Sequence[str]) -> str:
    return nodes[0] if len(nodes) == 1 else f"each of {_listed(nodes)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def from_error(error: Exception, target: str | None = None) -> Finding:
    """Return an exception as a finding, with its node, slug and remedy if it has them."""
    match error:
        case UnsupportedError():
            return Finding(error.slug, "error", error.node, error.reason, error.remedy, target)
        case GraphError():
            return Finding(error.slug, "error", error.node, error.reason, REMEDIES.get(error.slug, ""), target)
        case InputError():
            return Finding("bad-input", "error", None, str(error), "", target)
        case StlDeployError():
            return Finding("failed", "error", None, str(error), "", target)
    return Finding("unexpected", "error", None, f"{type(error).__name__}: {error}", "report this as a bug", target)


REMEDIES: Mapping[str, str] = {
    "not-finite": "train again, or replace the values: NaN and infinity never spike",
    "bad-field": "write the field as nir 1.0.8 defines it",
    "bad-shape": "make the shapes agree; NIR's shapes have no batch axis",
    "unknown-type": "replace the node by nodes of nir 1.0.8",
    "unknown-field": "remove the field",
    "threshold-not-positive": "say in the dialect how v starts and is reset, or use thresholds above 0",
    "tau-not-positive": "write tau in the unit of dt, above 0",
    "loop-without-neuron": "put a neuron in the loop, or remove the edge that closes it",
    "no-source": "connect the node to an input, or remove it",
    "unknown-node": "add the node, or remove the edge",
    "delay-not-whole": "choose dt so that each delay is an integer number of steps",
}
"""Remedies for the errors of lowering, by slug."""


def fidelities(
    nodes: Iterable[str], findings: Iterable[Finding], targets: Iterable[str]
) -> dict[str, dict[str, Fidelity]]:
    """Return each target's fidelity for each node."""
    held: dict[str, dict[str, Fidelity]] = {node: dict.fromkeys(targets, "faithful") for node in nodes}
    for finding in findings:
        for by_target in held.values() if finding.node is None else [held.get(finding.node, {})]:
            for target in by_target:
                if finding.target in (None, target):
                    by_target[target] = worst(by_target[target], _effect(finding))
    return held


def worst(*found: Fidelity) -> Fidelity:
    """Return the least faithful; faithful without findings."""
    order: tuple[Fidelity, ...] = ("faithful", "approximate", "unjudged", "unsupported")
    return max(found, key=order.index, default="faithful")


def _effect(finding: Finding) -> Fidelity:
    if finding.severity == "error":
        return "unsupported"
    return "approximate" if finding.severity == "warning" and finding.target is not None else "faithful"


def kept_thresholds(kept: Mapping[str, str]) -> list[str]:
    """Return one sentence for each neuron that keeps its thresholds."""
    return [f"node '{name}' keeps its thresholds: {why.partition(': ')[2]}" for name, why in kept.items()]
