"""Check a network against Xylo, before any input is at hand."""

from __future__ import annotations

from collections.abc import Iterator

from stl_deploy.exporters.xylo.choose import fitting
from stl_deploy.exporters.xylo.decays import decay_findings
from stl_deploy.exporters.xylo.devices import DEVICES, excesses, find_device
from stl_deploy.exporters.xylo.specification import INPUT_CAP
from stl_deploy.exporters.xylo.structure import Structure, outline, refusals
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Neuron, Program


def check(program: Program, device: str | None = None, round_decays: bool = False) -> Iterator[Finding]:
    """Return everything that keeps a network off a Xylo, and its approximations on the chip.

    device: a name of `DEVICES`; None: the first that holds the network. Raises InputError for another name.
    """
    chip = None if device is None else find_device(device)
    refused = refusals(program)
    yield from (from_error(error) for error in refused)
    yield from _input(program)
    for node in program.of(Neuron):
        yield from decay_findings(node, round_decays)
    net = outline(program)
    if net is None:
        return
    chip = chip or fitting(net)
    yield from excesses(net, chip)
    if not refused:
        yield _placement(net, chip.title)
        yield from _rounded(net)


def _input(program: Program) -> Iterator[Finding]:
    """Return the finding that the chip takes spike counts alone."""
    declared = program.metadata.get("input", {})
    coding = declared.get("coding") if isinstance(declared, dict) else None
    remedy = f"encode it as spike counts 0 to {INPUT_CAP}: values that rise and that fall on a channel each"
    for node in program.inputs:
        if coding == "analog":
            yield Finding("analog-input", "error", node.name, "real numbers enter; Xylo takes spike counts", remedy)
        elif coding is None:
            reason = f"no input coding is declared; export takes spike counts 0 to {INPUT_CAP} and refuses others"
            yield Finding("input-unstated", "info", node.name, reason, remedy)


def _placement(net: Structure, title: str) -> Finding:
    late = ", ".join(f"'{population.name}' {population.depth}" for population in net.populations)
    hidden, outputs = (sum(population.size for population in part) for part in (net.hidden, net.outputs))
    others = [chip.title for chip in DEVICES.values() if not any(f.severity == "error" for f in excesses(net, chip))]
    holders = ", ".join(others) or "no Xylo"
    return Finding(
        "placement",
        "info",
        None,
        f"{hidden} hidden and {outputs} output neurons, checked for {title}; {holders} can hold them. Steps late on "
        f"the chip, which simulate takes out: {late}",
    )


def _rounded(net: Structure) -> Iterator[Finding]:
    for population in net.populations:
        if population.depth > 0 and population.neuron.offset is not None and population.neuron.offset.any():
            yield Finding(
                "early-bias",
                "warning",
                population.name,
                f"its bias acts {population.depth} steps before its input arrives on the chip",
                "train without v_leak behind the first layer, or compare the agreement that export reports",
            )
        held = "thresholds and states to 16" if population.neuron.spiking else "states to 16"
        yield Finding(
            "quantisation",
            "warning",
            population.name,
            f"weights are rounded to 8 bits and {held}; decays are rounded in each step",
            "export reports how many spikes differ on its input, and how many states leave 16 bits",
        )
