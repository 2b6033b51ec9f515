"""Check that a Program is sound, and which targets can hold it; refuse nodes of kinds that a target does not take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from stl_deploy._util.remedies import option, remedy
from stl_deploy._util.units import counted
from stl_deploy.errors import StlDeployError, UnsupportedError
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import OPERATIONS, Cell
from stl_deploy.graph.exact import input_grid, prove_exact
from stl_deploy.graph.findings import CheckReport, Fidelity, Finding, NodeReport, fidelities, from_error, worst
from stl_deploy.graph.program import Delay, Neuron, Node, Output, Program

if TYPE_CHECKING:
    from stl_deploy.exporters.nir.dialect import Dialect


TargetCheck = Callable[[Program], Iterable[Finding]]
"""Asks one target what it cannot hold, or holds only roughly; may raise an UnsupportedError for the first thing."""


def check_sums(program: Program) -> Iterator[Finding]:
    """Yield findings for inexact float32 sums: another order of summation can move a spike at a tie."""
    in_float64 = "grid" in program.metadata and input_grid(program.metadata) is not None
    for proof in prove_exact(program):
        if not proof.exact:
            how = _in_float64() if in_float64 else f"put it on an exact grid ({on_a_grid()})"
            yield Finding(
                "sums-not-exact",
                "warning",
                proof.node,
                f"float32 sums can depend on their order here ({proof.reason})",
                f"{how}, or measure the agreement with verify",
            )


def on_a_grid() -> str:
    """Return the folds that declare the input's grid: of spikes and counts, or of real numbers of so many bits."""
    return remedy(
        cli="stl-deploy fold FILE --exact-grid -o OUT, named as FILE ends, with --input-grid 0 for spikes and "
        "counts, --input-grid BITS for real input",
        python="net.fold(input_grid=0) for spikes and counts, net.fold(input_grid=BITS) for real input",
    )


def _in_float64() -> str:
    """Return what is left where a fold has put weights on the finest grids that it found."""
    how = remedy(cli="stl-deploy export FILE --to onnx --exact", python="net.export(FILE, precision='exact')")
    return f"these are the finest grids that a fold finds: sum in float64 ({how})"


TARGETS: Mapping[str, TargetCheck] = {"nir": lambda program: (), "onnx": check_sums}
"""Targets that need no exporter to be asked; the command line adds the others."""


def check_program(program: Program, targets: Mapping[str, TargetCheck] = TARGETS) -> CheckReport:
    """Check a Program against each target; may raise errors of a target other than refusals."""
    read = {source.node for node in program.nodes for source in node.operands}
    findings = [*soundness(program.nodes, read), *ask(program, targets)]
    return report({node.name: (node, type(node).__name__) for node in program.nodes}, findings, targets)


def report(
    nodes: Mapping[str, tuple[Node | None, str]],
    found: list[Finding],
    targets: Mapping[str, TargetCheck],
    dialect: Dialect | None = None,
) -> CheckReport:
    """Build the report on nodes (None: not lowered, with its kind) from the findings."""
    broken = any(finding.severity == "error" and finding.target is None for finding in found)
    anchored = [finding for finding in found if finding.node is not None or not broken]
    held = fidelities(nodes, anchored, targets)
    if broken:
        for by_target in held.values():
            by_target.update({t: "unjudged" for t, fidelity in by_target.items() if fidelity != "unsupported"})
    start: Fidelity = "unsupported" if broken else "faithful"
    return CheckReport(
        tuple(
            NodeReport(name, kind, None if node is None else node.shape, held[name])
            for name, (node, kind) in nodes.items()
        ),
        tuple(found),
        {target: worst(start, *(by_target[target] for by_target in held.values())) for target in targets},
        dialect,
    )


def ask(program: Program, targets: Mapping[str, TargetCheck]) -> Iterator[Finding]:
    """Yield each target's findings on a Program."""
    for target, check in targets.items():
        try:
            yield from (replace(finding, target=target) for finding in check(program))
        except StlDeployError as error:
            yield from_error(error, target)


def soundness(nodes: Iterable[Node], read: Collection[str]) -> Iterator[Finding]:
    """Yield findings on legal numbers and structure that are rarely intended; read: the nodes that others read."""
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


Kinds = Set[type[ir.Node]]
NIR_NODES: Kinds = frozenset(
    {ir.Input, ir.Output, ir.Linear, ir.Conv, ir.Scale, ir.Pool, ir.Reshape, ir.Delay, ir.Neuron}
)
"""The nodes that every Format takes unless it says otherwise."""
ALL_NODES: Kinds = NIR_NODES | {ir.Norm, ir.MaxPool, ir.Concat, ir.Gather, ir.Product, Cell}
_NAMES: dict[type[ir.Node], str] = {ir.MaxPool: "max pool of currents", ir.Product: "product of two signals"}
_REMEDIES: dict[type[ir.Node], str] = {
    ir.Norm: "fold it into weights: the pass fold_norms",
    ir.MaxPool: "use average pooling, or pool the spikes of a neuron before it",
    ir.Product: "use constant weights instead",
    ir.Concat: "split it: the pass split_concats",
    ir.Gather: "keep one order of axes, as this target cannot rearrange values",
}


def refused(program: ir.Program, takes: Kinds, target: str) -> Iterator[UnsupportedError]:
    """Return one error for each node of a kind that ``target`` does not take, with the pass that removes it."""
    for node in program.nodes:
        if isinstance(node, Cell) and Cell not in takes:
            yield UnsupportedError(
                f"{target} has no neuron of this form ({in_the_way(node)})",
                node=node.name,
                slug="kind-not-taken",
                remedy=f"export it to ONNX, or to C with {option('numbers', 'float32')}",
            )
        elif type(node) not in takes:
            kind = _NAMES.get(type(node), type(node).__name__)
            yield UnsupportedError(
                f"{target} takes no {kind}",
                node=node.name,
                slug="kind-not-taken",
                remedy=f"{_REMEDIES.get(type(node), 'remove it')}; or choose another target",
            )


def in_the_way(cell: Cell) -> str:
    """Return the operation that no leaky neuron has, with its line; or where there is none, the Cell's size."""
    for operation in cell.operations:
        signals = [name for name in operation.args if not cell.values[name].steady]
        factors = [name for name in operation.args[:2] if name in signals and not cell.ranges[name].whole]
        multiplies = operation.op in ("mul", "fma") and len(factors) > 1
        divides = operation.op == "div" and operation.args[1] in signals
        # A leaky step only adds signals and scales them; spikes are integers, and may be factors.
        if signals and (multiplies or divides or not OPERATIONS[operation.op].exact):
            place = f" at {operation.line}" if operation.line else ""
            return f"'{operation.op}' of signals{place}"
    first = next((operation.line for operation in cell.operations if operation.line), "")
    size = f"{counted(len(cell.operations), 'operation')} on {counted(len(cell.states), 'state')}"
    return f"{size} from {first}" if first else size


def require_taken(program: ir.Program, takes: Kinds, target: str) -> None:
    """Raise UnsupportedError for the first node that ``target`` does not take."""
    for error in refused(program, takes, target):
        raise error
