"""Chips and tools beside Loihi as targets to check: named refusals, each with its source.

Only what was found is refused: a network without findings of this kind may still have no room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stl_deploy._util.remedies import option
from stl_deploy.exporters.chips import speck
from stl_deploy.exporters.targets import Check
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Neuron, Program


@dataclass(frozen=True)
class Rule:
    """A limit of a chip. refuses: a population. reason, remedy: sentences; source: how it is known."""

    slug: str
    refuses: Callable[[Neuron], bool]
    reason: str
    remedy: str | Callable[[], str]
    source: str


@dataclass(frozen=True)
class Other:
    """A chip or tool.

    instead: what to export for it. rules: asked of every spiking population. whole: a refusal of every network, or
    None.
    """

    name: str
    description: str
    instead: Callable[[], str]
    rules: tuple[Rule, ...]
    whole: Rule | None = None

    def check(self, program: Program) -> Iterator[Finding]:
        """Return an error for each population and rule that refuses it."""
        for node in program.spiking:
            yield from (_finding(rule, node.name) for rule in self.rules if rule.refuses(node))
        if self.whole is not None:
            yield _finding(self.whole, None)


def _finding(rule: Rule, node: str | None) -> Finding:
    remedy = rule.remedy if isinstance(rule.remedy, str) else rule.remedy()
    return Finding(rule.slug, "error", node, f"{rule.reason} ({rule.source})", remedy)


def remembers(node: Neuron) -> bool:
    """Return whether any state outlives a step."""
    filtered = node.synapse is not None
    return filtered or (node.decay is not None and bool(np.any(node.decay)))


def _twin() -> str:
    return f"train the ANN twin ({option('mode', 'ann')} of train) and quantise that with its own tools"


def _graph() -> str:
    return f"export with {option('to', 'nir')} and give that to its tool"


_AKIDA = "akida 2.19, the maker's software"

OTHERS = (
    Other(
        "akida",
        "BrainChip Akida: layers without memory",
        _twin,
        (
            Rule(
                "no-memory",
                remembers,
                "Akida's layers remember nothing from step to step; its licence forbids publishing benchmarks",
                _twin,
                _AKIDA,
            ),
        ),
    ),
    Other(
        "spinnaker2",
        "SpiNNaker 2: thresholds for each neuron, hard or soft reset",
        _graph,
        (),
        Rule(
            "tool-not-available",
            lambda node: True,
            "its neurons could hold this (a threshold each, hard or soft reset), but its tool py-spinnaker2 is not on "
            "the package registry: nothing was run, so nothing is written",
            _graph,
            "the registry, looked up",
        ),
    ),
    Other(
        "hls4ml",
        "hls4ml's spiking layers for FPGAs",
        lambda: f"export with {option('to', 'verilog')} for an FPGA",
        (),
        Rule(
            "not-released",
            lambda node: True,
            "spiking layers are on its main branch since June 2026 and in no release; they have a threshold for each "
            "layer or neuron, and their reset to zero is this neuron's; not tried",
            lambda: f"export with {option('to', 'c')} for a microcontroller now, and watch for its release",
            "hls4ml's main branch, read, not run",
        ),
    ),
)

TARGETS: Iterable[Check] = (
    Check(
        "speck",
        "SynSense Speck and DYNAP-CNN: IF neurons, one threshold a core, nine cores",
        speck.check,
        lambda: f"export with {option('to', 'nir')} and {option('reader', 'sinabs')}, and deploy that with Sinabs",
    ),
    *(Check(chip.name, chip.description, chip.check, chip.instead) for chip in OTHERS),
)
