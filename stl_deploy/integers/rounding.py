"""Report where integers replace real numbers, so that spikes can differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from stl_deploy._util.remedies import option, remedy
from stl_deploy._util.units import counted
from stl_deploy.graph.exact import fraction_bits, input_grid
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Conv, Floats, Linear, Neuron, Product, Program, is_spike_max_pool
from stl_deploy.integers.fan_in import ELSEWHERE
from stl_deploy.integers.fields import by_reason
from stl_deploy.integers.lava_layers import untrainable
from stl_deploy.integers.scales import WEIGHT_TOP


def _trained(program: Program) -> str:
    """Return the remedy against rounding, in a network that can be trained with it; else what keeps it from that."""
    if any(neuron.adaptation is not None for neuron in program.spiking) or any(program.of(Product)):
        return "export counts the spikes that differ"
    how = remedy(
        cli="'stl-deploy quantise RUN' of a run folder, net.quantised() in Python of a captured module",
        python="net.quantised() of a captured module, stl_deploy.verbs.quantise of a run folder",
    )
    if _is_trained(program):
        return "export counts the spikes that differ; its weights are integers, as training in integers leaves them"
    refused = untrainable(program)
    counts = "export counts the spikes that differ"
    if not refused:
        return f"{counts}; for quantisation-aware training, after which the module spikes as its integers do: {how}"
    changed = "; ".join(
        f"at {names} {error.reason}: {error.remedy.removesuffix(ELSEWHERE)}" for names, error in by_reason(refused)
    )
    return f"{counts}; quantisation-aware training, in Loihi's integers, needs a changed network: {changed}; then {how}"


def _is_trained(program: Program) -> bool:
    """Whether the weights of all neurons are integers of 8 bits."""
    layers = [node for node in program.nodes if isinstance(node, Linear | Conv)]
    read = [node for node in layers if any(isinstance(reader, Neuron) for reader in program.readers[node.name])]
    return bool(read) and all(
        np.array_equal(node.weight, np.trunc(node.weight)) and np.abs(node.weight).max(initial=0) <= WEIGHT_TOP
        for node in read
    )


def rounded(program: Program, host: Collection[str] = ()) -> Iterator[Finding]:
    """Return one finding for each node that integers round; host: names of nodes that stay in float32.

    Nothing is rounded in flattening and in max pooling of spikes. The integers of every other layer are those that
    agree best on calibration data, so nothing makes them agree on all.
    """
    yield from _input(program)
    trained = _trained(program)
    for node in program.nodes:
        if node.name in host:
            continue
        if isinstance(node, Linear | Conv):
            yield Finding("quantisation", "warning", node.name, _weights(node.weight), trained)
        elif isinstance(node, Neuron) and node.threshold is not None and not is_spike_max_pool(program, node):
            yield Finding("quantisation", "warning", node.name, _neuron(node, node.threshold), trained)


def _input(program: Program) -> Iterator[Finding]:
    """Return the finding on the input: integer targets take integers, or real numbers on a grid."""
    declared = program.metadata.get("input", {})
    if not program.inputs or not isinstance(declared, Mapping) or input_grid(program.metadata) is not None:
        return
    name = program.inputs[0].name
    if declared.get("coding") == "analog":
        refused = "real input has no declared grid, and export refuses it"
        yield Finding("analog-input", "error", name, refused, f"give {option('input_grid', 'BITS')} here and to export")
    elif "coding" not in declared:
        taken = "no input grid is declared: integers are used unchanged, and export refuses other values"
        yield Finding(
            "input-unstated", "info", name, taken, f"give real numbers a grid with {option('input_grid', 'BITS')}"
        )


def _weights(weight: Floats) -> str:
    largest = float(np.abs(weight).max(initial=0)) * 2.0 ** fraction_bits(weight)  # as an integer
    signed = int(largest).bit_length() + 1
    if largest > WEIGHT_TOP:
        return f"weights are rounded to 8 bits; exact integers would take {signed}"
    return f"weights of {counted(signed, 'bit')}, sign included, fit into 8; export chooses their scale from its input"


def _neuron(neuron: Neuron, threshold: Floats) -> str:
    count = np.unique(threshold).size
    held = "its threshold is an integer" if count == 1 else f"{count} thresholds become integers"
    leaks = neuron.decay is not None and not np.isin(neuron.decay, (0, 1)).all()
    if neuron.rounding == "half_even":
        held += ", halves round up to the next count, not to the even one"
    starts = [neuron.v_start, neuron.i_start, None if neuron.adaptation is None else neuron.adaptation.start]
    if any(start is not None for start in starts):
        held += ", its start becomes 64ths"
    if neuron.adaptation is not None:
        held += ", its jumps become integers and their decay 12 bits"
    return held + ", and the leak is rounded toward zero in each step" * leaks
