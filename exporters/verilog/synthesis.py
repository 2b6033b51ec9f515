"""Place and route a Verilog folder with open tools: cells, RAM blocks, clock over seeds, bitstream."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.remedies import named, option, require_one_of
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.c.compiler import run_program
from stl_deploy.exporters.verilog.devices import DEVICES, GENERIC, Device
from stl_deploy.exporters.verilog.fits import require_fits
from stl_deploy.exporters.verilog.folder import read_folder
from stl_deploy.exporters.verilog.render import engine_text
from stl_deploy.exporters.verilog.simulator import Simulation

SEEDS = (1, 2, 3)
DEADLINE = 3600.0
"""Seconds for each tool's run."""


@dataclass(frozen=True)
class Flow:
    """A device's tools. synth: yosys's pass; place: nextpnr and its options; pack: the packer and its options.

    used: the names in nextpnr's report of logic cells, RAM blocks and multipliers. clocks_per_bit: of the serial line,
    for 115,200 baud from a board's clock; None: as `snn_serial.v` has it. grades: speed grades, the default first.
    """

    synth: str
    place: tuple[str, ...]
    output: str
    pack: tuple[str, ...]
    bitstream: str
    used: Mapping[str, str]
    clocks_per_bit: int | None = None
    grades: tuple[int, ...] = ()


_ICE40 = {"cells": "ICESTORM_LC", "ram_blocks": "ICESTORM_RAM", "multipliers": "ICESTORM_DSP"}
_UP5K = {**_ICE40, "single_port_rams": "ICESTORM_SPRAM"}
_ECP5 = {"cells": "TRELLIS_COMB", "flip_flops": "TRELLIS_FF", "ram_blocks": "DP16KD", "multipliers": "MULT18X18D"}
_GOWIN = {"cells": "LUT4", "adders": "ALU", "flip_flops": "DFF", "ram_blocks": "BSRAM", "multipliers": "MULT18X18"}
_SLOWER = ("--timing-allow-fail",)
"""The clock asked for is beyond reach, so that the placer tries; the one that is reached is quoted."""
FLOWS = {
    "up5k": Flow(
        "synth_ice40 -dsp", ("nextpnr-ice40", "--up5k", "--package", "sg48", "--freq", "40", *_SLOWER),
        "--asc", ("icepack",), "snn.bin", _UP5K,
    ),
    "hx8k": Flow(
        "synth_ice40", ("nextpnr-ice40", "--hx8k", "--package", "ct256", "--freq", "100", *_SLOWER),
        "--asc", ("icepack",), "snn.bin", _ICE40,
    ),
    "ecp5-25f": Flow(
        "synth_ecp5",
        ("nextpnr-ecp5", "--25k", "--package", "CABGA256", "--lpf-allow-unconstrained", "--freq", "120",
         *_SLOWER),
        "--textcfg", ("ecppack",), "snn.bit", _ECP5, None, (6, 7, 8),
    ),
    "ecp5-85f": Flow(
        "synth_ecp5",
        ("nextpnr-ecp5", "--85k", "--package", "CABGA381", "--lpf-allow-unconstrained", "--freq", "120",
         *_SLOWER),
        "--textcfg", ("ecppack",), "snn.bit", _ECP5, None, (6, 7, 8),
    ),
    "gw1nr-9": Flow(
        "synth_gowin",
        ("nextpnr-himbaechel-gowin", "--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C",
         "--vopt", "cst=tang_nano_9k.cst", "--freq", "80", *_SLOWER),
        "--write", ("gowin_pack", "-d", "GW1N-9C", "-o"), "snn.fs", _GOWIN, 234,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Seed:
    """One placement. clock_hz: as nextpnr's timing analysis states the routed clock."""

    seed: int
    clock_hz: float


@dataclass(frozen=True)
class Synthesis:
    """Placed and routed. used: cells, RAM blocks and so on; seeds: each placement's clock; bitstream: of the fastest.

    tools: versions. available: what the device has of each. grade: the speed grade, None where there is one only.
    """

    device: str
    used: Mapping[str, int]
    available: Mapping[str, int]
    seeds: tuple[Seed, ...]
    bitstream: str
    tools: Mapping[str, str]
    clock_hz: float
    grade: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        return {"label": "placed and routed", **asdict(self)}


def tool(name: str) -> str:
    """Return the program ``name`` on the PATH, or pip's yowasp-NAME; raise ToolError if neither is there."""
    program = shutil.which(name) or shutil.which(f"yowasp-{name}")
    if program is None:
        raise ToolError(
            f"{name} is not installed; install it: apt install yosys nextpnr-ice40 nextpnr-ecp5 fpga-icestorm "
            "fpga-trellis, or pip install 'stl-deploy[fpga]' (its first call compiles for minutes)"
        )
    return program


TOOLS = (
    "verilator",
    "iverilog",
    "yosys",
    "nextpnr-ice40",
    "nextpnr-ecp5",
    "nextpnr-himbaechel-gowin",
    "icepack",
    "ecppack",
    "gowin_pack",
)


def tool_versions() -> dict[str, str | None]:
    """Return the path of each tool that simulates or synthesises; None for missing ones."""
    return {name: shutil.which(name) or shutil.which(f"yowasp-{name}") for name in TOOLS}


def synthesise(
    folder: Path,
    device: str,
    *,
    seeds: Sequence[int] = SEEDS,
    grade: int | None = None,
    output: Path | None = None,
    deadline: float = DEADLINE,
    say: Console = QUIET,
) -> Synthesis:
    """Synthesise, place and route the folder's design behind a serial line, and pack the fastest seed's bitstream.

    grade: speed grade of an ECP5 (default: 6, the slowest). output: the bitstream (default: ``<folder>/snn.bin``,
    ``snn.bit`` or ``snn.fs``; on GW1NR-9 with Tang Nano 9K's pins). Raises InputError for an edited folder, an unknown
    device or grade, UnsupportedError where the device is too small, ToolError where a tool is missing or fails.
    """
    require_one_of(device, FLOWS, named("device"))
    chosen, flow = DEVICES[device], _of_grade(device, grade)
    _, design = read_folder(folder)
    made_for = design.plan.device
    if made_for not in (GENERIC, chosen):
        raise InputError(f"{folder}: was exported for {made_for.name}; export it with {option('device', chosen.name)}")
    if chosen.loaded and made_for is GENERIC:
        raise InputError(
            f"{folder}: {chosen.title} takes its weights from a flash; export it with {option('device', device)}"
        )
    require_fits(design.plan, chosen)
    programs = {name: tool(name) for name in ("yosys", flow.place[0], flow.pack[0])}
    target = output or folder / flow.bitstream
    with temporary_folder() as work:
        for name, text in design.files.items():
            if "/" not in name or name.startswith("boards/"):
                (work / Path(name).name).write_text(text, encoding="ascii")
        say.say(f"yosys: {flow.synth}")
        _synthesised(programs["yosys"], flow, design, work, deadline)
        placements = [_placed(programs[flow.place[0]], flow, work, seed, deadline, say) for seed in seeds]
        best = max(placements, key=lambda placed: placed[0].clock_hz)
        packer, *options = flow.pack
        _call([programs[packer], f"{best[0].seed}.cfg", *options, flow.bitstream], work, packer, deadline)
        target.write_bytes((work / flow.bitstream).read_bytes())
        return _result(chosen, flow, placements, best, target, programs, work)


def _of_grade(device: str, grade: int | None) -> Flow:
    """Return the device's flow with one speed grade."""
    flow = FLOWS[device]
    if grade is not None and grade not in flow.grades:
        grades = f"{named('grade')}: expected one of {', '.join(map(str, flow.grades))} for {device}; found {grade}"
        raise InputError(grades if flow.grades else f"{named('grade')}: {device} has no speed grades; leave it out")
    chosen = flow.grades[:1] if grade is None else (grade,)
    return replace(flow, grades=chosen, place=(*flow.place, *(f"--speed={number}" for number in chosen)))


NETLIST = ("cells_sim.v", "cells_more.v", "netlist.v")
"""In place of the design's own text, to simulate it after synthesis."""
FAMILIES = {"ice40": "synth_ice40 -dsp", "ecp5": "synth_ecp5"}


_NO_EXTRAS = {"ice40": "NO_ICE40_DEFAULT_ASSIGNMENTS", "ecp5": "NO_INCLUDES"}
"""Macros that leave out parts of yosys's models that Verilator does not read."""


def after_synthesis(design: Simulation, family: str = "ice40", *, deadline: float = DEADLINE) -> Simulation:
    """Return the design as cells of a family (`FAMILIES`), to be run with ``design=NETLIST``.

    Cells are yosys's models; those of ECP5's block RAM and multiplier are ours (``ecp5_cells.v``), as yosys has none.
    Raises ToolError if yosys is missing or fails.
    """
    yosys = tool("yosys")
    with temporary_folder() as work:
        for name, text in design.files.items():
            if "/" not in name:
                (work / name).write_text(text, encoding="ascii")
        made = f"{FAMILIES[family]} -top {design.prefix}; write_verilog -noattr netlist.v"
        script = f"read_verilog -defer {' '.join(design.design)}; {made}"
        _call([yosys, "-p", script], work, "yosys", deadline)
        netlist = (work / "netlist.v").read_text(encoding="ascii")
    cells, more = f"`define {_NO_EXTRAS[family]}\n{_cells(yosys, family)}", ""
    if family == "ecp5":
        cells = re.sub(r"\(\* blackbox \*\)\s*module DP16KD.*?endmodule", "", cells, flags=re.S)
        more = engine_text("ecp5_cells.v")
    files = {**design.files, "netlist.v": netlist, "cells_sim.v": cells, "cells_more.v": more}
    return replace(design, files=files)


def _cells(yosys: str, family: str) -> str:
    """Return yosys's own models of a family's cells."""
    places = [Path(yosys).resolve().parent.parent / "share" / "yosys", Path("/usr/share/yosys")]
    for place in places:
        if (place / family / "cells_sim.v").is_file():
            return (place / family / "cells_sim.v").read_text(encoding="utf-8")
    raise ToolError(f"yosys's models of cells ({family}/cells_sim.v) are not beside it; install Debian's yosys")


def _synthesised(yosys: str, flow: Flow, design: Simulation, work: Path, deadline: float) -> None:
    top = f"{design.prefix}_serial"
    sources = " ".join((*design.design, f"{top}.v", "snn_flash.v"))
    rate = "" if flow.clocks_per_bit is None else f"chparam -set CLOCKS_PER_BIT {flow.clocks_per_bit} {top}; "
    script = f"read_verilog -defer {sources}; {rate}{flow.synth} -top {top} -json snn.json"
    said = _call([yosys, "-p", script], work, "yosys", deadline)
    for line in said.splitlines():
        if "out of bounds" in line and "Warning" in line:  # yosys goes on, and reads x there
            raise ToolError(f"yosys found a range that is too wide: {line.strip()[:200]}")


def _placed(
    program: str, flow: Flow, work: Path, seed: int, deadline: float, say: Console
) -> tuple[Seed, Mapping[str, Any]]:
    report = f"{seed}.json"
    command = [program, *flow.place[1:], "--json", "snn.json", flow.output, f"{seed}.cfg"]
    _call([*command, "--seed", str(seed), "--report", report, "--quiet"], work, flow.place[0], deadline)
    facts = json.loads((work / report).read_text(encoding="utf-8"))
    clock = min(float(entry["achieved"]) for entry in facts["fmax"].values()) * 1e6
    say.say(f"{flow.place[0]}, seed {seed}: {clock / 1e6:.1f} MHz")
    return Seed(seed, clock), facts["utilization"]


def _result(
    device: Device,
    flow: Flow,
    placements: Sequence[tuple[Seed, Mapping[str, Any]]],
    best: tuple[Seed, Mapping[str, Any]],
    target: Path,
    programs: Mapping[str, str],
    work: Path,
) -> Synthesis:
    used = {name: int(best[1].get(key, {}).get("used", 0)) for name, key in flow.used.items()}
    available = {name: int(best[1].get(key, {}).get("available", 0)) for name, key in flow.used.items()}
    tools = {name: _version(path, work) for name, path in programs.items() if name != flow.pack[0]}
    seeds = tuple(seed for seed, _ in placements)
    grade = flow.grades[0] if flow.grades else None
    return Synthesis(device.name, used, available, seeds, str(target), tools, best[0].clock_hz, grade)


def _version(path: str, work: Path) -> str:
    said = _call(["sh", "-c", 'exec "$0" --version 2>&1', path], work, path, 60.0)
    return said.strip().splitlines()[0][:80] if said.strip() else "unknown"


def _call(command: Sequence[str], folder: Path, what: str, deadline: float) -> str:
    return run_program(command, b"", what=what, deadline=deadline, folder=folder).decode("utf-8", "replace")
