"""Measure the code size of a network's C on a Cortex-M4, if its compiler is installed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import ToolError
from stl_deploy.exporters.c.compiler import DEADLINE, run_program

COMPILER, SIZES = "arm-none-eabi-gcc", "arm-none-eabi-size"
FLAGS = ("-std=c99", "-O3", "-mcpu=cortex-m4", "-mthumb")


def code_size(files: Mapping[str, str], prefix: str, deadline: float = DEADLINE) -> int | None:
    """Return bytes of instructions at -O3; None if the compiler is missing, fails or exceeds ``deadline`` seconds."""
    if shutil.which(COMPILER) is None or shutil.which(SIZES) is None:
        return None
    with temporary_folder() as folder:
        for name in (f"{prefix}.c", f"{prefix}.h"):
            (folder / name).write_text(files[name], encoding="ascii")
        compiled = folder / "net.o"
        try:
            command = [COMPILER, *FLAGS, "-c", str(folder / f"{prefix}.c"), "-o", str(compiled)]
            run_program(command, b"", what=COMPILER, deadline=deadline)
            listed = run_program([SIZES, "-A", str(compiled)], b"", what=SIZES, deadline=deadline)
        except ToolError:
            return None
    rows = [line.split() for line in listed.decode("ascii", "replace").splitlines()]
    return sum(int(row[1]) for row in rows if len(row) == 3 and row[0].split(".")[1:2] == ["text"])
