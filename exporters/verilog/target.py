"""Verilog as a Format, and its simulation as a Runner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.integer_runner import IntegerProgram, calibration, one_input, overflows
from stl_deploy.exporters.targets import Format, Network, Options
from stl_deploy.exporters.verilog.clocks import clocks_of
from stl_deploy.exporters.verilog.devices import Device, device_of
from stl_deploy.exporters.verilog.fits import loaded_blocks, memory_bits, ram_blocks, require_fits
from stl_deploy.exporters.verilog.folder import manifest_facts, read_folder, write_folder
from stl_deploy.exporters.verilog.lower import make_plan, too_late
from stl_deploy.exporters.verilog.plan import Plan
from stl_deploy.exporters.verilog.pools import refused_max_pools
from stl_deploy.exporters.verilog.render import ENGINE, PREFIX, render, require_prefix
from stl_deploy.exporters.verilog.simulator import MISSING, Simulation, simulators
from stl_deploy.graph.check import NIR_NODES
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import MaxPool, Program
from stl_deploy.graph.readout import readout_of
from stl_deploy.graph.run import NetworkInput
from stl_deploy.graph.show import Row
from stl_deploy.integers.bounds import SUM_LIMIT
from stl_deploy.integers.fan_in import fixed_thresholds_only, refusals, zero_starts_only
from stl_deploy.integers.graph import IntegerGraph
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.rounding import rounded
from stl_deploy.integers.rows import first_rows_only
from stl_deploy.integers.simulate import IntegerRun
from stl_deploy.integers.store import About

TAKES = NIR_NODES | {MaxPool}
"""The nodes that the engine holds."""
COUNTED = 32
"""Samples by which `check` counts clocks."""
BUDGET = 5_000_000
"""Clocks that an export simulates: some 15 s in Verilator, build included, for networks of digits' size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VerilogOptions(Options):
    """lanes: neurons processed in parallel. device: the FPGA that must hold it. name: prefix of modules and files."""

    lanes: int | None = None
    device: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        """Raise InputError for a name that modules cannot have."""
        if self.name is not None:
            require_prefix(self.name)


class Verilog(IntegerProgram):
    """Simulate the Verilog of a folder, or of a Program, in Verilator or Icarus."""

    name = "verilog"
    description = "the Verilog in Verilator or Icarus (simulated, clock by clock)"
    label = "simulated"
    options = VerilogOptions
    reads = ("verilog",)
    takes = TAKES

    def __init__(self, network: Network, options: VerilogOptions) -> None:
        graph: IntegerGraph | None = None
        self._design: Simulation | None = None
        self._lanes = options.lanes
        if isinstance(network, Path):
            graph, self._design = read_folder(network)
        super().__init__(network, options, graph=graph)

    @classmethod
    def available(cls) -> str | None:
        """Return None if there is a simulator, else the reason."""
        return None if simulators() else MISSING

    def affordable(self, x: NetworkInput) -> int:
        """Return how many samples of ``x`` an export simulates: `BUDGET` clocks by the model, at least one sample."""
        assert self._design is not None
        plan = self._design.plan
        first = np.asarray(to_integers(one_input(x)[:, :COUNTED], plan.graph.input.scale), np.int32)
        return max(1, int(BUDGET / clocks_of(plan, first).mean()))

    def integers(self, graph: IntegerGraph, x: NDArray[Any], record: bool) -> IntegerRun:
        """Build and run the simulation."""
        if self._design is None:
            plan = make_plan(graph, self._lanes)
            self._design = Simulation(render(plan, About(prefix=PREFIX)), plan)
        run, _ = self._design.run(x, deadline=self._options.deadline)
        names = [node.name for node in graph.populations] if record else []
        return IntegerRun(run.y, {name: run.spikes[name] for name in names})


def _refused(program: Program) -> list[UnsupportedError]:
    """Return refusals of nodes that integers do not hold, and of those that only the engine does not."""
    engine = "the engine"
    return [
        *refusals(program),
        *refused_max_pools(program),
        *zero_starts_only(program, engine),
        *fixed_thresholds_only(program, engine),
        *first_rows_only(program, engine),
        *too_late(program),
    ]


class VerilogFormat(Format):
    """A folder of Verilog-2005 for FPGAs: one engine, the network's program and memories."""

    name = "verilog"
    description = "Verilog-2005 for FPGAs: one event-driven engine, the network as its program"
    folder = ENGINE
    options = VerilogOptions
    takes = TAKES

    def check(self, program: Program) -> Iterable[Finding]:
        """Return everything that keeps integers from holding the network, node by node, and their rounding."""
        return [*map(from_error, _refused(program)), *rounded(program)]

    def check_for(self, program: Program, options: VerilogOptions) -> Iterable[Finding]:
        """Check as `check`, with x whether its integers overflow.

        For a device or lanes, also whether the memory holds it, and the clocks that x takes.
        """
        if options.device is None and options.lanes is None:
            findings = list(self.check(program))
            return findings + overflows(program, options, findings, SUM_LIMIT, lambda x: choose(program, x))
        return self.examine(program, options)[0]

    def examine(self, program: Program, options: VerilogOptions) -> tuple[list[Finding], NDArray[np.int64] | None]:
        """Return the findings of `check_for`, and the clocks of each sample of x; None if it cannot be held."""
        device = device_of(options.device)
        findings = list(self.check(program))
        if any(finding.severity == "error" for finding in findings):
            return findings, None
        x = np.zeros((1, 1, *program.inputs[0].shape), np.float32) if options.x is None else options.x
        given = calibration(program, options, x)
        try:
            plan = make_plan(choose(program, given).graph, options.lanes, device)
            require_fits(plan, device)
        except UnsupportedError as error:
            return [*findings, from_error(error)], None
        findings.append(_memory(plan, device))
        if options.x is None:
            return findings, None
        whole = np.asarray(to_integers(given[:, :COUNTED], plan.graph.input.scale), np.int32)
        clocks = clocks_of(plan, whole)
        return [*findings, _clocks(plan, clocks)], clocks

    def write(self, program: Program, path: Path, options: VerilogOptions) -> Mapping[str, Any]:
        """Choose integers by spike agreement on the calibration input (default: the first of x), write the folder.

        Raises UnsupportedError for networks that integers, the engine or the device cannot hold, InputError for wrong
        options.
        """
        device = device_of(options.device)
        for error in _refused(program):
            raise error
        given = calibration(program, options, options.x)
        chosen = choose(program, given)
        x = np.asarray(to_integers(given, chosen.graph.input.scale), np.int32)
        about = About(
            program.metadata.get("name") or path.name or "network",
            options.origin.get("source", "a network"),
            readout=readout_of(program.metadata),
            prefix=options.name or PREFIX,
        )
        plan = make_plan(chosen.graph, options.lanes, device)
        require_fits(plan, device)
        write_folder(chosen.graph, plan, about, path, x)
        options.say.say(
            f"{plan.lanes} lanes, potentials of {plan.widths.state} bits, {len(plan.entries)} entries in the program"
        )
        return {
            "target": self.name,
            "accumulator": chosen.graph.accumulator.name,
            "input_scale": chosen.graph.input.scale,
            "output_unit": chosen.graph.output.unit,
            **manifest_facts(plan),
            "layers": [asdict(fit) for fit in chosen.fits],
        }

    def rows(self, path: Path) -> list[Row]:
        """Return its layers by its integers: nothing is run."""
        _, design = read_folder(path)
        by_name = design.plan.graph.by_name
        return [
            Row(
                layer.name,
                type(by_name[layer.name]).__name__.removesuffix("Node").removeprefix("Integer"),
                by_name[layer.name].shape,
                tuple(str(scan.source) for scan in design.plan.scans if scan.to == layer.name and scan.source),
                sum(scan.map.weights.size for scan in design.plan.scans if scan.to == layer.name),
                0,
                f"{layer.layout.words} words of {design.plan.lanes} neurons",
            )
            for layer in design.plan.passes
        ]

    def load(self, path: Path) -> Verilog:
        """Load the folder's design; raise InputError if its text does not match its integers."""
        return Verilog(path, VerilogOptions())


def _memory(plan: Plan, device: Device) -> Finding:
    said = f"memories of {memory_bits(plan):,} bits with {plan.lanes} lanes"
    if device.blocks:
        said += f": {ram_blocks(plan, device)} of the {device.blocks} RAM blocks of {device.title}"
    used, there = loaded_blocks(plan, device)
    if there:
        said += f" and {used} of its {there} single-port RAMs, which are loaded from a serial flash"
    return Finding("fpga-memory", "info", None, said)


def _clocks(plan: Plan, clocks: NDArray[np.int64]) -> Finding:
    said = f"{clocks.mean():,.0f} clocks an inference ({clocks.min():,} to {clocks.max():,}) with {plan.lanes} lanes"
    return Finding("fpga-clocks", "info", None, f"{said}, computed from the spikes of {len(clocks)} samples")


TARGETS = (VerilogFormat(), Verilog)
