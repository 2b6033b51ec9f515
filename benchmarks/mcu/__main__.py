"""A network on emulated Cortex-M4 and M7 boards: make mcu, or python -m benchmarks.mcu RUN [-o docs]

The run's network is exported to C, cross-compiled, and given real test images in QEMU; every spike of every layer is
compared with the integer model's. Instructions are an emulator's (simulated), not a chip's cycles.
Needs gcc-arm-none-eabi, its newlib, and qemu-system-arm.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import read_input, write_text
from stl_deploy.exporters.c.folder import read_folder
from stl_deploy.exporters.c.target import CFormat, COptions
from stl_deploy.graph.io.nir_file import read_nir
from stl_deploy.graph.lower import lower
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate

HERE = Path(__file__).parent
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
BOARDS = {"Cortex-M4": ("mps2-an386", "cortex-m4"), "Cortex-M7": ("mps2-an500", "cortex-m7")}
LEVELS = ("-Os", "-O2", "-O3")
TICK = 40
"""Instructions in a tick of the board's timer: one a nanosecond (-icount shift=0), at 25 MHz."""


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


def missing() -> str | None:
    """What keeps the boards from being emulated here, or None."""
    for tool, package in ((COMPILER, "gcc-arm-none-eabi and libnewlib-arm-none-eabi"), (EMULATOR, "qemu-system-arm")):
        if shutil.which(tool) is None:
            return f"{tool} is not installed; install {package}"
    return None


def measure(folder: Path, x: NDArray[Any], board: str, level: str) -> Measured:
    """Build a C folder for a board, run whole numbers ``x`` ``[T, B, *shape]`` on it, compare every spike."""
    graph, program = read_folder(folder)
    with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as name:
        place = Path(name)
        given = np.array([x.shape[1], x.shape[0]], "<i4").tobytes() + x.swapaxes(0, 1).astype("<i4").tobytes()
        (place / "net.in").write_bytes(given)
        code, constants = _build(folder, place, board, (level,))
        _, ticks = _run(place, board)
        _build(folder, place, board, (level, "-DNET_RECORD"))
        found, _ = _run(place, board)
    rows = np.frombuffer(found, np.uint8).reshape(x.shape[1], x.shape[0], -1)
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
        instructions=ticks * TICK / x.shape[1],
    )


def _build(folder: Path, place: Path, board: str, options: Sequence[str]) -> tuple[int, int]:
    """Compile ``net.elf``; returns bytes of code and constants of the network."""
    flags = ["-std=gnu99", f"-mcpu={BOARDS[board][1]}", "-mthumb", "-Wall", "-Wextra", "-Werror", *options]
    flags += ["-I", str(folder)]
    _call([COMPILER, *flags, "-c", str(folder / "net.c"), "-o", "net.o"], place)
    link = ["-nostartfiles", "-specs=nosys.specs", "-T", str(HERE / "board.ld"), "-Wl,--no-warn-rwx-segments"]
    _call([COMPILER, *flags, *link, str(HERE / "board.c"), "net.o", "-o", "net.elf"], place)
    sizes = {"text": 0, "rodata": 0}
    for line in _call(["arm-none-eabi-size", "-A", "net.o"], place).splitlines():
        words = line.split()
        if len(words) == 3 and words[0].startswith("."):
            kind = words[0].split(".")[1]
            if kind in sizes:
                sizes[kind] += int(words[1])
    return sizes["text"], sizes["rodata"]


def _run(place: Path, board: str) -> tuple[bytes, int]:
    """What the board wrote, and its timer's ticks."""
    machine = ["-M", BOARDS[board][0], "-display", "none", "-serial", "none", "-monitor", "none"]
    counted = ["-icount", "shift=0,sleep=off", "-semihosting-config", "enable=on,target=native"]
    _call([EMULATOR, *machine, *counted, "-kernel", "net.elf"], place)
    found = (place / "net.out").read_bytes()
    return found[:-4], int.from_bytes(found[-4:], "little")


def _call(command: Sequence[str], place: Path) -> str:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def table(found: Sequence[Measured]) -> str:
    """Markdown."""
    lines = [
        "# C on emulated microcontrollers",
        "",
        "Made by `make mcu` ([how](c.md)). Instructions are an emulator's (simulated), not a chip's cycles; code, "
        "constants and RAM are of the network alone.",
        "",
        "| board (simulated) | build | code, bytes | constants | RAM | instructions an inference | spikes differ |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        lines.append(
            f"| {one.board} | {one.level} | {one.code:,} | {one.constants:,} | {one.ram:,} | {one.instructions:,.0f} | "
            f"{one.differing:,} of {one.compared:,} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("-o", "--output", type=Path, help="folder for mcu.json and mcu.md")
    arguments = parser.parse_args()
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    program = lower(read_nir(arguments.run / "net.nir"))
    images, _ = read_input(arguments.run / "test.npz")
    with tempfile.TemporaryDirectory(prefix="stl-deploy-mcu-") as name:
        folder = Path(name) / "c"
        CFormat().write(program, folder, COptions(x=images, origin={"source": "net.nir"}))
        graph, _ = read_folder(folder)
        x = to_integers(images[:, : arguments.samples], graph.input.scale)
        found = [measure(folder, x, board, level) for board in BOARDS for level in LEVELS]
    print(table(found))
    if arguments.output is not None:
        write_text(arguments.output / "mcu.md", table(found))
        write_text(arguments.output / "mcu.json", json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return int(any(one.differing for one in found))


if __name__ == "__main__":
    sys.exit(main())
