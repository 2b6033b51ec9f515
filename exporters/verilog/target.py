"""Verilog as a Format, its simulation as a Runner, and its clocks by the integer model, without running Verilog."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.integer_runner import IntegerProgram, calibration
from stl_deploy.exporters.targets import Format, Network, Options
from stl_deploy.exporters.verilog.devices import Device, device_of
from stl_deploy.exporters.verilog.fits import loaded_blocks, memory_bits, ram_blocks, require_fits
from stl_deploy.exporters.verilog.folder import ENGINE, manifest_facts, read_folder, write_folder
from stl_deploy.exporters.verilog.lower import check_lanes, make_plan, too_late
from stl_deploy.exporters.verilog.memories import Memories, memories_of
from stl_deploy.exporters.verilog.plan import Layout, Map, Pass, Plan, Pool, Scan
from stl_deploy.exporters.verilog.render import PREFIX, render, require_prefix
from stl_deploy.exporters.verilog.simulator import MISSING, Simulation, simulators
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import readout_of
from stl_deploy.graph.show import Row
from stl_deploy.integers.fan_in import SEVERAL, fixed_thresholds_only, one_spike_only, refusals, zero_starts_only
from stl_deploy.integers.graph import IntegerGraph
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.rounding import rounded
from stl_deploy.integers.rows import first_rows_only
from stl_deploy.integers.simulate import IntegerRun, simulate
from stl_deploy.integers.store import About

REREAD = 4
"""Clocks until a word of potentials that was added to is read again."""
ADD_STAGES, POOL_STAGES = 7, 5
"""Clocks from an event's last tap until its pipeline is empty."""


def clocks_of(plan: Plan, x: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return clocks of each sample ``[B]`` of integer inputs ``x`` ``[T, B, *shape]``, if neither end waits."""
    spikes = simulate(plan.graph, x, record=True).spikes
    made, inputs = memories_of(plan), math.prod(plan.graph.input.shape)
    words = {layer.name: _words(layer.layout, spikes[layer.name]) for layer in plan.layers if layer.spiking}
    words[plan.graph.input.name] = (x.reshape(*x.shape[:2], -1) != 0).astype(np.int64)
    total = np.full(x.shape[1], plan.state_words, np.int64)
    for step in range(len(x)):
        total += inputs + 3  # the program's end, and the step's
        for index, entry in enumerate(plan.entries):
            total += 2  # an entry is read
            if isinstance(entry, Pass):
                total += _pass(plan, entry, made, index)
            elif isinstance(entry, Pool):
                total += _walk(entry.map, np.ones(_places(entry.map), np.int64), 1, POOL_STAGES)
            elif entry.delay <= step:
                total += _scan(entry, words, step)
    return total


def _words(layout: Layout, spikes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return spikes in each word of a layer ``[T, B, words]``."""
    spread = np.zeros((*spikes.shape[:2], layout.words * layout.lanes), np.int64)
    spread[..., layout.place()] = spikes.reshape(*spikes.shape[:2], -1)
    return np.asarray(spread.reshape(*spikes.shape[:2], layout.words, layout.lanes).sum(-1))


def _places(how: Map) -> int:
    return how.outers * len(how.rows) * len(how.columns) * how.words


def _scan(scan: Scan, words: dict[str, NDArray[np.int64]], step: int) -> NDArray[np.int64]:
    if scan.source is None:
        return np.asarray(_walk(scan.map, np.ones(_places(scan.map), np.int64), REREAD, ADD_STAGES))
    events = words[scan.source][step - scan.delay]
    return np.array([_walk(scan.map, sample, REREAD, ADD_STAGES) for sample in events], np.int64)


def _walk(how: Map, events: Sequence[int] | NDArray[np.int64], reread: int, stages: int) -> int:
    """Return the clocks of a scan or a pool: a place is read during the walk of the one before."""
    fans = np.outer([len(taps) for taps in how.rows], [len(taps) for taps in how.columns]).reshape(-1)
    taps = np.tile(np.repeat(fans, how.words), how.outers) * how.groups
    counts = np.where(taps > 0, events, 0)
    always = _reaches_one_place(how)
    handed, last, free = 0, -2, 0  # when the place before was handed on; which it was; when the next can be
    for place in np.flatnonzero(counts).tolist():
        pace = max(int(taps[place]), reread)
        taken = max(handed + place - last, free) + (int(counts[place]) - 1) * pace
        handed, last, free = taken, place, taken + (pace if always else int(taps[place]))
    read = handed + len(counts) - last - 2
    added = handed + int(taps[last]) + stages + 1 if last >= 0 else 0
    return max(read + 2, added) + 1


def _reaches_one_place(how: Map) -> bool:
    """Return whether every event adds to the same words."""
    return all(len({tuple(to for to, _ in taps) for taps in axis}) == 1 for axis in (how.rows, how.columns))


def _pass(plan: Plan, layer: Pass, made: Memories, index: int) -> int:
    fields, loads, words = made.entries[index], plan.widths.loads, layer.layout.words
    body = 2 + (plan.widths.value > 0) + 13 - fields.get("keep_from", 0) + (layer.soft and layer.late)
    if layer.filtered:
        body += 1 + 13 - fields.get("filter_from", 0)
    # The next word is read while this one leaks.
    ahead = not (layer.filtered or layer.late or layer.emits) and fields.get("keep_from", 0) < 12
    outputs = layer.layout.channels * layer.layout.height * layer.layout.width if layer.emits else 0
    return 1 + loads + (words - 1) * max(body - ahead, loads) + body + outputs


COUNTED = 32
"""Samples by which `check` counts clocks."""


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

    def integers(self, graph: IntegerGraph, x: NDArray[Any], record: bool) -> IntegerRun:
        """Build and run the simulation."""
        if self._design is None:
            plan = make_plan(graph, self._lanes)
            self._design = Simulation(render(plan, About(prefix=PREFIX)), plan)
        run, _ = self._design.run(x, deadline=self._options.deadline)
        return run if record else IntegerRun(run.y, {})


def _not_of_the_engine(program: Program) -> list[UnsupportedError]:
    """Return refusals of nodes that integers hold and the engine does not."""
    engine = "the engine"
    return [
        *one_spike_only(program, engine),
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

    def check(self, program: Program) -> Iterable[Finding]:
        """Return everything that keeps integers from holding the network, node by node, and their rounding."""
        errors = [error for error in refusals(program) if error.slug != SEVERAL] + _not_of_the_engine(program)
        return [*(from_error(error) for error in errors), *rounded(program)]

    def check_for(self, program: Program, options: VerilogOptions) -> Iterable[Finding]:
        """Check as `check`; for a device or lanes, also whether the memory holds it, and the clocks that x takes."""
        if options.device is None and options.lanes is None:
            return self.check(program)
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
        for error in _not_of_the_engine(program):
            raise error
        given = calibration(program, options, options.x)
        chosen = choose(program, given)
        check_lanes(chosen.graph, options.lanes)
        x = np.asarray(to_integers(given, chosen.graph.input.scale), np.int32)
        about = About(
            program.metadata.get("name") or path.name or "network",
            options.origin.get("source", "a network"),
            readout=readout_of(program.metadata),
            prefix=options.name or PREFIX,
        )
        require_fits(make_plan(chosen.graph, options.lanes, device), device)
        plan = write_folder(chosen.graph, about, path, lanes=options.lanes, x=np.asarray(x, np.int32), device=device)
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
