"""Simulate a Verilog folder in Verilator or Icarus; it returns the same arrays as the integer model."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import ToolError
from stl_deploy.exporters.c.compiler import run_program
from stl_deploy.exporters.verilog.plan import Plan
from stl_deploy.exporters.verilog.render import PREFIX
from stl_deploy.integers.simulate import IntegerRun, check_input

DEADLINE = 600.0
"""Seconds for building a simulation, and for running it."""
MISSING = "no Verilog simulator found; install one: apt install verilator g++, or apt install iverilog"
FEW_CLOCKS = 150_000
"""Icarus runs so many in less time than Verilator takes to build."""


@dataclass(frozen=True)
class Traces:
    """The testbench's output, and its clocks."""

    outputs: str
    spikes: str
    clocks: int


def simulators() -> list[str]:
    """Return verilator and iverilog if on the PATH; verilator needs a C++ compiler, too."""
    names = []
    if shutil.which("verilator") and any(shutil.which(name) for name in ("g++", "clang++")):
        names.append("verilator")
    if shutil.which("iverilog") and shutil.which("vvp"):
        names.append("iverilog")
    return names


def choose_simulator(clocks: int) -> str:
    """Return the quicker available simulator for the number of clocks; raise ToolError if there is none."""
    names = simulators()
    if not names:
        raise ToolError(MISSING)
    return names[-1] if clocks <= FEW_CLOCKS else names[0]


def input_text(x: NDArray[np.int32], outputs: int) -> str:
    """Return input.txt for the testbench: ``x`` ``[T, B, *shape]``, sample after sample."""
    steps, samples = x.shape[:2]
    values = x.swapaxes(0, 1).reshape(samples, -1)
    lines = [f"{steps * samples * outputs}"]
    for sample in values.tolist():
        lines.append(f"1 {sample[0]}")
        lines += [f"0 {value}" for value in sample[1:]]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Simulation:
    """The text of a folder's files, and the plan with the neurons' positions."""

    files: Mapping[str, str]
    plan: Plan
    prefix: str = PREFIX

    @property
    def design(self) -> tuple[str, ...]:
        """Return the files of the network without serial line."""
        return ("snn_engine.v", *(f"{self.prefix}{end}.v" for end in ("_weights", "_tables", "")))

    def run(
        self,
        x: NDArray[Any],
        *,
        simulator: str | None = None,
        pressure: int | None = None,
        reset: int | None = None,
        deadline: float = DEADLINE,
        design: Sequence[str] = (),
    ) -> tuple[IntegerRun, int]:
        """Run integers ``x`` ``[T, B, *shape]``; return outputs and spikes, and clocks.

        pressure: a seed for stops at both ends, at random. reset: a clock at which all begins anew.
        design: files in place of its own. Raises InputError as the integer model does, ToolError where there is no
        simulator, or it fails or hangs.
        """
        x = check_input(self.plan.graph.input, x)
        traces = self.trace(x, simulator=simulator, pressure=pressure, reset=reset, deadline=deadline, design=design)
        return self.unpack(x, traces), traces.clocks

    def trace(
        self,
        x: NDArray[np.int32],
        *,
        simulator: str | None = None,
        pressure: int | None = None,
        reset: int | None = None,
        deadline: float = DEADLINE,
        design: Sequence[str] = (),
    ) -> Traces:
        """Run the testbench and return its output."""
        steps, samples = x.shape[:2]
        clocks = steps * samples * self.clocks_at_most
        chosen = choose_simulator(clocks) if simulator is None else simulator
        ends = time.monotonic() + deadline
        with temporary_folder() as folder:
            for name, text in self.files.items():
                if "/" not in name:
                    (folder / name).write_text(text, encoding="ascii")
            (folder / "input.txt").write_text(input_text(x, math.prod(self.plan.graph.output.shape)), encoding="ascii")
            command = _built(folder, chosen, design or self.design, deadline)
            given = {"limit": 16 * clocks + 100_000, "pressure": pressure, "reset": reset}
            options = [f"+{name}={value}" for name, value in given.items() if value is not None]
            left = max(1.0, ends - time.monotonic())
            said = _run([*command, *options], folder, f"the simulation in {chosen}", left).decode("ascii", "replace")
            end = next((line for line in said.splitlines() if line.startswith(("done", "stalled"))), "")
            if not end.startswith("done"):
                raise ToolError(f"the simulation in {chosen} gave no result: {end or said[-200:] or 'it said nothing'}")
            texts = [(folder / name).read_text(encoding="ascii") for name in ("outputs.txt", "spikes.txt")]
            return Traces(texts[0], texts[1], int(end.split()[-2]))

    @property
    def clocks_at_most(self) -> int:
        """Return a generous bound of a step's clocks."""
        plan, total = self.plan, 64 + math.prod(self.plan.graph.input.shape) + self.plan.state_words
        for scan in plan.scans:
            fan_rows = sum(len(taps) for taps in scan.map.rows)
            fan_columns = sum(len(taps) for taps in scan.map.columns)
            lanes = 1 if scan.source == plan.graph.input.name else plan.lanes
            events = scan.map.outers * scan.map.words * lanes
            total += events * (
                4 * fan_rows * fan_columns * scan.map.groups + len(scan.map.rows) * len(scan.map.columns)
            )
        for pool in plan.pools:
            total += pool.map.words * sum(map(len, pool.map.rows)) * sum(map(len, pool.map.columns))
            total += 20 + 4 * pool.layout.words
        for layer in plan.passes:
            total += layer.layout.words * (40 + plan.widths.loads + plan.lanes + layer.most)
        return total

    def unpack(self, x: NDArray[np.int32], traces: Traces) -> IntegerRun:
        """Parse the testbench's text into arrays."""
        (steps, samples), plan = x.shape[:2], self.plan
        shape = plan.graph.output.shape
        lines = [line.split() for line in traces.outputs.splitlines()]
        if not all(value.removeprefix("-").isdecimal() for line in lines for value in line):
            raise ToolError("the simulation sent an output that is undefined (x)")
        values = np.array(lines, np.int64).reshape(-1, 2)
        last = np.zeros((steps * samples, math.prod(shape)), bool)
        last[:, -1] = True
        if not np.array_equal(values[:, 1].astype(bool), last.reshape(-1)):
            raise ToolError("the simulation marked another value than a step's last with out_last")
        y = values[:, 0].astype(np.int32).reshape(samples, steps, *shape).swapaxes(0, 1)
        return IntegerRun(np.ascontiguousarray(y), self._spikes(traces.spikes, steps, samples))

    def _spikes(self, text: str, steps: int, samples: int) -> dict[str, NDArray[np.uint8]]:
        plan = self.plan
        lines = text.split("\n")[:-1]
        words = [layer.layout.words for layer in plan.layers if layer.spiking]
        if len(lines) != sum(words) * steps * samples:
            raise ToolError(
                f"the simulation: expected {sum(words) * steps * samples:,} words of spikes; found {len(lines):,}"
            )
        bits = np.frombuffer("".join(line.rsplit(" ", 1)[1] for line in lines).encode(), np.uint8) - ord("0")
        # The text begins with the last lane, and its highest bit.
        lanes = bits.reshape(samples, steps, sum(words), plan.lanes, plan.widths.spikes)[..., ::-1, ::-1]
        frames = (lanes << np.arange(plan.widths.spikes, dtype=np.uint8)).sum(-1, dtype=np.uint8)
        spikes, at = {}, 0
        for layer in plan.layers:
            if not layer.spiking:
                continue
            frame = frames[:, :, at : at + layer.layout.words].reshape(samples, steps, -1)
            shape = plan.graph.by_name[layer.name].shape
            spikes[layer.name] = frame[..., layer.layout.place()].swapaxes(0, 1).reshape(steps, samples, *shape)
            at += layer.layout.words
        return spikes


def _built(folder: Path, simulator: str, design: Sequence[str], deadline: float) -> list[str]:
    """Build a simulation in ``folder`` and return the command that runs it."""
    if simulator == "iverilog":
        language = "-g2012" if "netlist.v" in design else "-g2005"  # yosys's models of cells are SystemVerilog
        command = ["iverilog", language, "-o", "sim.vvp", "-s", "tb", "tb.v", *design]
        _run(command, folder, "iverilog", deadline)
        return ["vvp", "-n", "sim.vvp"]
    quiet = ["-Wno-fatal", "-Wno-lint", "-Wno-style", "--x-initial", "unique"]
    fast = ["-O3", "-CFLAGS", "-O1", "-MAKEFLAGS", "-s"]
    command = ["verilator", "--binary", "--timing", *quiet, *fast, "--top-module", "tb", "-Mdir", "build", "-o", "sim"]
    _run([*command, "tb.v", *design], folder, "verilator", deadline)
    return [os.path.join("build", "sim"), "+verilator+rand+reset+2"]


def _run(command: Sequence[str], folder: Path, what: str, deadline: float) -> bytes:
    return run_program(command, b"", what=what, deadline=deadline, folder=folder)
