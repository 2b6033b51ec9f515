"""Check a network against chips and tools that nothing is written for: refusals, each with its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from stl_deploy._util.remedies import option
from stl_deploy.exporters.targets import Check
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Neuron, Program


def check_akida(program: Program) -> Iterator[Finding]:
    """Return an error for each population with a state that outlives a step (source: akida 2.19)."""
    for node in program.spiking:
        if _remembers(node):
            reason = "Akida's layers remember nothing from step to step (akida 2.19, the maker's software)"
            yield Finding("no-memory", "error", node.name, reason, _twin())


def check_hls4ml(program: Program) -> Iterator[Finding]:
    """Return an error for every network (source: hls4ml's main branch, read, not run)."""
    reason = "hls4ml's spiking layers are on its main branch and in no release (read, not run)"
    yield Finding("not-released", "error", None, reason, _verilog())


def _remembers(node: Neuron) -> bool:
    return node.synapse is not None or (node.decay is not None and bool(np.any(node.decay)))


def _twin() -> str:
    return f"train the ANN twin ({option('mode', 'ann')} of train) and quantise that with its own tools"


def _verilog() -> str:
    return f"export with {option('to', 'verilog')} for an FPGA"


TARGETS: Iterable[Check] = (
    Check("akida", "BrainChip Akida: layers without memory", check_akida, _twin),
    Check("hls4ml", "hls4ml's spiking layers for FPGAs", check_hls4ml, _verilog),
)
