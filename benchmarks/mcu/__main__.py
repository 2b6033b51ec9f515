"""A network on emulated Cortex-M and RISC-V boards: make mcu, or python -m benchmarks.mcu RUN... [-o OUT]

Each run's network is exported to C, cross-compiled, and given real test samples in QEMU; every spike of every layer is
compared with the integer model's. Instructions are an emulator's (simulated), not a chip's cycles.
Boards whose compiler or emulator is missing are left out. QEMU has no Cortex-M0+ with enough memory: its code runs on a
Cortex-M3, which has all of its instructions.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import read_input, write_text
from stl_deploy.exporters.c.floats.target import CFloats, CFloatsFormat
from stl_deploy.exporters.c.options import POTENTIALS, COptions
from stl_deploy.exporters.c.target import CFormat, read_folder
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Program
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate

HERE = Path(__file__).parent
LEVELS = ("-Os", "-O2", "-O3")


@dataclass(frozen=True)
class Board:
    """Commands that compile for an emulated board and run it. tick: instructions in a tick that board.c counts, one a
    nanosecond (-icount shift=0).
    """

    machine: str
    flags: tuple[str, ...]
    tools: str = "arm-none-eabi"
    emulator: str = "qemu-system-arm"
    script: str = "board.ld"
    link: tuple[str, ...] = ("-specs=nosys.specs", "-lm")
    options: tuple[str, ...] = ()
    tick: int = 40

    @property
    def missing(self) -> str | None:
        """Name of a tool that is not installed, and its package; None if all are."""
        packages = {f"{self.tools}-gcc": _PACKAGES[self.tools], self.emulator: _PACKAGES[self.emulator]}
        for tool, package in packages.items():
            if shutil.which(tool) is None:
                return f"{tool} is not installed; install {package}"
        return None


def _arm(machine: str, cpu: str, timer: str = "0x40000000", unit: str = "", **more: Any) -> Board:
    """unit: of floats."""
    floats = (f"-mfpu={unit}", "-mfloat-abi=hard") if unit else ()
    return Board(machine, (f"-mcpu={cpu}", "-mthumb", f"-DTIMER={timer}", *floats), **more)


def _riscv(isa: str, abi: str = "ilp32") -> Board:
    return Board(
        "virt",
        (f"-march={isa}_zicsr", f"-mabi={abi}", "-specs=picolibc.specs"),
        tools="riscv64-unknown-elf",
        emulator="qemu-system-riscv32",
        script="riscv.ld",
        link=("-Wl,--no-relax", "-nostdlib", "-lm", "-lc", "-lgcc"),
        options=("-bios", "none"),
        tick=1,
    )


_PACKAGES = {
    "arm-none-eabi": "gcc-arm-none-eabi and libnewlib-arm-none-eabi",
    "riscv64-unknown-elf": "gcc-riscv64-unknown-elf and picolibc-riscv64-unknown-elf",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-riscv32": "qemu-system-misc or qemu-system-riscv",
}
BOARDS = {
    "Cortex-M0+": _arm("mps2-an385", "cortex-m0plus"),
    "Cortex-M4": _arm("mps2-an386", "cortex-m4"),
    "Cortex-M7": _arm("mps2-an500", "cortex-m7"),
    "Cortex-M33": _arm("mps2-an505", "cortex-m33", "0x50000000", script="an505.ld", tick=50),
    "RV32IMC": _riscv("rv32imc"),
    "RV32IC": _riscv("rv32ic"),
}
FLOAT_BOARDS = {
    "Cortex-M4F": _arm("mps2-an386", "cortex-m4", unit="fpv4-sp-d16"),
    "Cortex-M7F": _arm("mps2-an500", "cortex-m7", unit="fpv5-sp-d16"),
    "Cortex-M33F": _arm("mps2-an505", "cortex-m33", "0x50000000", "fpv5-sp-d16", script="an505.ld", tick=50),
    "RV32IMFC": _riscv("rv32imfc", "ilp32f"),
}
"""Boards with a float unit, for C with float32."""


@dataclass(frozen=True)
class Measured:
    """One build on one board. code: bytes of instructions; constants, ram: of the network alone, without the board."""

    board: str
    level: str
    code: int
    constants: int
    ram: int
    samples: int
    compared: int
    differing: int
    instructions: float
    network: str = ""
    layers: dict[str, float] = field(default_factory=dict)
    """Instructions a sample by layer; layers whose work is interleaved stand together."""


def missing() -> str | None:
    """Reason why no board can be emulated here; None if one can."""
    reasons = [board.missing for board in BOARDS.values()]
    return None if None in reasons else reasons[0]


def here() -> list[str]:
    """Names of the boards that can be emulated on this machine."""
    return [name for name, board in BOARDS.items() if board.missing is None]


def measure(
    folder: Path, x: NDArray[Any], board: str, level: str, *, by_layer: bool = False, options: Sequence[str] = ()
) -> Measured:
    """Build a C folder for a board, run integers ``x`` ``[T, B, *shape]`` on it, compare every spike.

    by_layer: count instructions of each layer, too. options: for the compiler.
    """
    folder = folder.resolve()  # the compiler runs elsewhere
    graph, program = read_folder(folder)
    with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as name:
        place = Path(name)
        given = np.array([x.shape[1], x.shape[0]], "<i4").tobytes() + x.swapaxes(0, 1).astype("<i4").tobytes()
        (place / "net.in").write_bytes(given)
        code, constants = _build(folder, place, board, (level, *options))
        _, ticks = run_board(place, board)
        _build(folder, place, board, (level, *options, "-DNET_RECORD"))
        written, _ = run_board(place, board)
        layers = _count_layers(folder, place, board, level, program.plan.marks) if by_layer else {}
    rows = np.frombuffer(written, np.uint8).reshape(x.shape[1], x.shape[0], -1)
    model, ours = simulate(graph, x, record=True), program.unpack(rows, record=True)
    pairs = [(model.y, ours.y), *((model.spikes[node], ours.spikes[node]) for node in model.spikes)]
    return Measured(
        board=board,
        level=level,
        code=code,
        constants=constants,
        ram=program.plan.ram,
        samples=x.shape[1],
        compared=sum(a.size for a, _ in pairs),
        differing=sum(int((a != b).sum()) for a, b in pairs),
        instructions=ticks * BOARDS[board].tick / x.shape[1],
        layers={name: count / x.shape[1] for name, count in layers.items()},
    )


def measure_floats(program: Program, x: NDArray[Any], board: str, level: str) -> Measured:
    """Build a Program in C with float32 for a board, run ``x`` ``[T, B, *shape]``, compare y with this machine."""
    with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as name:
        place = Path(name)
        about = CFloatsFormat().write(program, place / "c", COptions())
        given = np.array([x.shape[1], x.shape[0]], "<i4").tobytes() + x.swapaxes(0, 1).astype("<f4").tobytes()
        (place / "net.in").write_bytes(given)
        code, constants = _build(place / "c", place, board, (level, "-ffp-contract=off", "-DVALUE=float"))
        written, ticks = run_board(place, board)
        ours = CFloats(place / "c", COptions()).run(x).y.swapaxes(0, 1)
    theirs = np.frombuffer(written, "<f4").reshape(ours.shape)
    return Measured(
        board=board,
        level=level,
        code=code,
        constants=constants,
        ram=about["ram_bytes"],
        samples=x.shape[1],
        compared=ours.size,
        differing=int((ours != theirs).sum()),
        instructions=ticks * FLOAT_BOARDS[board].tick / x.shape[1],
    )


def _count_layers(
    folder: Path, place: Path, board: str, level: str, marks: Sequence[tuple[str, ...]]
) -> dict[str, float]:
    """Instructions by layer, of all samples, from a build that reads the timer between layers."""
    _build(folder, place, board, (level, f"-DMARKS={len(marks)}", "-include", str(HERE / "marks.h")))
    written, _ = run_board(place, board)
    counted = np.frombuffer(written[-4 * len(marks) :], "<u4") * BOARDS[board].tick
    return {" + ".join(names): float(count) for names, count in zip(marks, counted, strict=True)}


def _build(folder: Path, place: Path, board: str, options: Sequence[str]) -> tuple[int, int]:
    """Compile ``net.elf``; returns bytes of code and constants of the network."""
    of = (BOARDS | FLOAT_BOARDS)[board]
    compiler = f"{of.tools}-gcc"
    flags = ["-std=gnu99", *of.flags, "-Wall", "-Wextra", "-Werror", *options]
    flags += ["-I", str(folder)]
    call([compiler, *flags, "-c", str(folder / "net.c"), "-o", "net.o"], place)
    place_of = ["-nostartfiles", "-T", str(HERE / of.script), "-Wl,--no-warn-rwx-segments"]
    call([compiler, *flags, *place_of, str(HERE / "board.c"), "net.o", *of.link, "-o", "net.elf"], place)
    sizes = {"text": 0, "rodata": 0}
    for line in call([f"{of.tools}-size", "-A", "net.o"], place).splitlines():
        words = line.split()
        if len(words) == 3 and words[0].startswith("."):
            kind = (
                words[0].split(".")[1].removeprefix("s") if words[0].startswith(".srodata") else words[0].split(".")[1]
            )
            if kind in sizes:
                sizes[kind] += int(words[1])
    return sizes["text"], sizes["rodata"]


def run_board(place: Path, board: str) -> tuple[bytes, int]:
    """Run a program on the board; return its output and its timer's ticks."""
    of = (BOARDS | FLOAT_BOARDS)[board]
    machine = ["-M", of.machine, *of.options, "-display", "none", "-serial", "none", "-monitor", "none"]
    counted = ["-icount", "shift=0,sleep=off", "-semihosting-config", "enable=on,target=native"]
    call([of.emulator, *machine, *counted, "-kernel", "net.elf"], place)
    written = (place / "net.out").read_bytes()
    return written[:-4], int.from_bytes(written[-4:], "little")


def call(command: Sequence[str], place: Path) -> str:
    """Run a program and return its standard output; raises SystemExit if it fails."""
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def table(rows: Sequence[Measured]) -> str:
    """Markdown."""
    lines = [
        "# C on emulated microcontrollers",
        "",
        "Made by `make mcu` ([how](../c.md)). Instructions are an emulator's (simulated), not a chip's cycles; code, "
        "constants and RAM are bytes of the network alone.",
        "",
        "| network | core (simulated) | builds | code | constants | RAM | instructions a sample | spikes differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    by_core: dict[tuple[str, str], list[Measured]] = {}
    for row in rows:
        by_core.setdefault((row.network, row.board), []).append(row)
    for (network, board), builds in by_core.items():
        cells = [network, board, " / ".join(row.level for row in builds)]
        cells += [" / ".join(f"{row.code:,}" for row in builds), f"{builds[0].constants:,}", f"{builds[0].ram:,}"]
        cells.append(" / ".join(f"{row.instructions:,.0f}" for row in builds))
        differing, compared = (sum(getattr(row, what) for row in builds) for what in ("differing", "compared"))
        lines.append(f"| {' | '.join(cells)} | {differing:,} of {compared:,} |")
    for network in dict.fromkeys(row.network for row in rows):
        lines += layer_table([row for row in rows if row.network == network and row.layers])
    return "\n".join(lines) + "\n"


def layer_table(rows: Sequence[Measured]) -> list[str]:
    """Lines of Markdown: instructions of one network by layer and core; empty if none were counted."""
    if not rows:
        return []
    boards = " | ".join(f"{row.board} {row.level}" for row in rows)
    lines = ["", f"{rows[0].network}: instructions a sample by layer (simulated). Layers in one line take turns.", ""]
    lines += [f"| layers | {boards} |", "|---" * (1 + len(rows)) + "|"]
    for name in rows[0].layers:
        lines.append(f"| {name} | {' | '.join(f'{row.layers[name]:,.0f}' for row in rows)} |")
    return lines


def measure_run(run: Path, samples: int) -> list[Measured]:
    """Measure a run's network on every board that can be emulated here, with potentials of 32 bits and of 16."""
    program = lower(read_nir(run / "net.nir"))
    given, labels = read_input(run / "test.npz")
    rows = []
    for potentials in POTENTIALS:
        name = run.name if potentials == 32 else f"{run.name}, {potentials}-bit potentials"
        with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as place:
            folder = Path(place) / "c"
            options = COptions(x=given, labels=labels, potentials=potentials, origin={"source": "net.nir"})
            CFormat().write(program, folder, options)
            graph, _ = read_folder(folder)
            x = to_integers(given[:, :samples], graph.input.scale)
            for board in here():
                levels = [measure(folder, x, board, level, by_layer=level == LEVELS[-1]) for level in LEVELS]
                rows += [replace(measured, network=name) for measured in levels]
    return rows


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("-o", "--output", type=Path, help="folder for mcu.json and mcu.md")
    arguments = parser.parse_args()
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    rows = [row for run in arguments.runs for row in measure_run(run, arguments.samples)]
    print(table(rows))
    if arguments.output is not None:
        write_text(arguments.output / "mcu.md", table(rows))
        write_text(arguments.output / "mcu.json", json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return int(any(row.differing for row in rows))


if __name__ == "__main__":
    sys.exit(main())
