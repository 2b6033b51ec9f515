"""Every package of a network, built by its own tool: make packages, or python -m benchmarks.packages RUN

Where the tool is not installed it is listed as not built (pip has platformio and idf-component-manager). All sources
are compiled for Cortex-M0+ and RV32IMC.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from stl_deploy._util.files import read_input
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.packages import Package
from stl_deploy.exporters.c.target import CFormat
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
CROSS = {
    "Cortex-M0+": ("arm-none-eabi-gcc", "-Os", "-mcpu=cortex-m0plus", "-mthumb"),
    "RV32IMC": ("riscv64-unknown-elf-gcc", "-Os", "-march=rv32imc", "-mabi=ilp32", "-specs=picolibc.specs"),
}
TOOLS: dict[Package, list[list[str]]] = {
    "cmake": [["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"], ["ctest", "--test-dir", "build"]],
    "arduino": [["arduino-lint", "--compliance", "specification", "."]],
    "platformio": [["pio", "pkg", "pack", "."]],
    "zephyr": [["west", "build", "-b", "qemu_cortex_m3", "examples/selftest"]],
    "esp-idf": [
        ["compote", "component", "pack", "--name", "net", "--dest-dir", "dist"],
        ["idf.py", "-C", "examples/selftest", "build"],
    ],
    "cmsis-pack": [["packchk", "stl-deploy.net.pdsc"]],
}


def build(kind: Package, place: Path) -> str:
    """Build a package with its own tool; return 'built' or the reason why it was not."""
    accepted = ""
    for command in TOOLS[kind]:
        tool = command[0]
        lacks = f"{tool} is not installed" if shutil.which(tool) is None else ""
        if not lacks and tool == "west" and "ZEPHYR_BASE" not in os.environ:
            lacks = "west needs Zephyr's tree (ZEPHYR_BASE)"
        if lacks:
            return f"{accepted}; not compiled: {lacks}" if accepted else f"not built: {lacks}"
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            return f"FAILED: {tool}: {(done.stdout + done.stderr).strip()[-300:]}"
        accepted = accepted or f"accepted by {tool}"
    return accepted


def compile_for(target: str, place: Path) -> str:
    """Whether all C of a package compiles for a bare processor, without a warning."""
    compiler, *flags = CROSS[target]
    if shutil.which(compiler) is None:
        return "no compiler"
    includes = [f"-I{header.parent}" for header in place.rglob("*.h")]
    for file in sorted(place.rglob("*.c")):
        command: Sequence[str] = [compiler, *WARNINGS, *flags, *includes, "-c", str(file), "-o", "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"FAILED: {file.name}: {done.stderr.strip()[-300:]}"
    return "compiles"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    arguments = parser.parse_args()
    program = lower(read_nir(arguments.run / "net.nir"))
    x, _ = read_input(arguments.run / "test.npz")
    failed = False
    print(f"| package | its own tool | {' | '.join(CROSS)} |\n|{'---|' * (2 + len(CROSS))}")
    for kind in get_args(Package):
        with tempfile.TemporaryDirectory(prefix="stl-deploy-packages-") as name:
            CFormat().write(program, Path(name) / "c", COptions(x=x, package=kind))
            place = Path(name) / "c" / f"net_{kind}"
            answers = [*(compile_for(target, place) for target in CROSS), build(kind, place)]
        print(f"| {kind} | {answers[-1]} | {' | '.join(answers[:-1])} |", flush=True)
        failed |= any(answer.startswith("FAILED") for answer in answers)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
