"""Estimate whether a chip's flash and RAM can hold a network, before its integers are chosen; measure its code."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from stl_deploy._util.remedies import option
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import ToolError, UnsupportedError
from stl_deploy.exporters.c.compiler import DEADLINE, run_program
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.plan import KIB, Plan, Share
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.graph.program import Program
from stl_deploy.integers.net import WIDE, Accumulator
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.store import About

STACK = KIB
"""Bytes of RAM reserved for the stack where limits are given (measured on a Cortex-M4: docs/c.md)."""
UNROLLED = 12
"""Neurons of a row up to which the compiler writes out its loop."""
SURE = 1.1
"""Factor by which an estimate must exceed the limit to be refused: tables and sums may take smaller types."""


def estimate(program: Program, accumulator: Accumulator = WIDE) -> Plan:
    """Lay out the network with integers from one silent step, which takes about a second.

    Weights, neurons and buffers are final; the types of some tables and sums may differ.
    """
    silent = np.zeros((1, 1, *program.inputs[0].shape), np.float32)
    return make_plan(choose(program, silent, accumulator=accumulator).graph)


def estimated_excesses(
    program: Program, flash: int | None, ram: int | None, deadline: float, accumulator: Accumulator
) -> Iterator[UnsupportedError]:
    """Yield an error for each memory that the estimate exceeds by more than a tenth.

    deadline: seconds for the compiler that is asked for the code's size, where the rest fits into the flash.
    """
    plan, about = estimate(program, accumulator), About()
    fits = flash is not None and plan.flash <= flash * SURE
    code = code_size(render_plan(plan, about), about.prefix, deadline) if fits else None  # else weights alone do not
    yield from excesses(plan, flash, ram, code, SURE)


def excesses(
    plan: Plan, flash: int | None, ram: int | None, code: int | None, sure: float = 1.0
) -> Iterator[UnsupportedError]:
    """Yield an error, at the largest layer, for each memory that a plan exceeds by more than the factor ``sure``.

    flash, ram: bytes; None: no limit. code: bytes of instructions; None: reserve what `estimated_code` says.
    """
    reserved = estimated_code(plan) if code is None else code
    besides = f"{reserved:,} of code ({'an estimate: ' if code is None else ''}Cortex-M4, -O3)"
    flashed = plan.flash + reserved
    if flash is not None and flashed > flash * sure:
        yield _excess("flash", flashed, flashed, flash, plan, besides, sure)
    if ram is not None and plan.ram + STACK > ram * sure:
        yield _excess("RAM", plan.ram + STACK, plan.least_ram + STACK, ram, plan, f"{STACK // KIB} KiB of stack", sure)


def _excess(what: str, needed: int, least: int, limit: int, plan: Plan, besides: str, sure: float) -> UnsupportedError:
    def size(share: Share) -> int:
        return share.flash if what == "flash" else share.ram

    node = max(plan.shares, key=lambda name: size(plan.shares[name]))
    about = "about " if sure > 1 else ""
    narrow, smaller = option("potentials", 16), "take a chip with"
    if size(plan.shares[node]) > needed - limit:
        smaller = f"make this layer smaller, or {smaller}"
    if least == needed:
        remedy = f"{smaller} {about}{needed:,} bytes of {what}"
    elif least <= limit:
        remedy = f"use {narrow}: the network then takes about {least:,} bytes"
    else:
        remedy = f"{smaller} at least {least:,} bytes of {what}, which the network takes with {narrow}"
    return UnsupportedError(
        f"expected at most {limit:,} bytes of {what}; the network takes {about}{needed:,} with {besides}, "
        f"{size(plan.shares[node]):,} here",
        node=node,
        slug=f"too-much-{what.lower()}",
        remedy=remedy,
    )


def estimated_code(plan: Plan) -> int:
    """Estimate bytes of instructions on a Cortex-M4 at -O3 by the functions that the layers need, and their calls.

    1.0 to 2.9 times what the compiler measures on random networks: rows of few neurons are written out.
    """
    functions = {(step.kind, tuple(step.fields["form"])) for step in plan.statements if "form" in step.fields}
    neurons = sum(100 * rule.row if rule.row <= UNROLLED else 500 for rule in plan.rules)
    # 88 a call: compilers copy small functions that several layers share into their calls
    return KIB + 88 * len(plan.statements) + 500 * len(functions) + neurons


def estimate_note() -> str | None:
    """Return the sentence that says that the code's size is estimated; None if the compiler is there to measure it."""
    if shutil.which(COMPILER) is not None and shutil.which(SIZES) is not None:
        return None
    return f"flash: the code's size is an estimate by kinds of layers; with {COMPILER} it is measured"


COMPILER, SIZES = "arm-none-eabi-gcc", "arm-none-eabi-size"
FLAGS = ("-std=c99", "-O3", "-mcpu=cortex-m4", "-mthumb")


def code_size(
    files: Mapping[str, str], prefix: str, deadline: float = DEADLINE, *, flags: Sequence[str] = ()
) -> int | None:
    """Return bytes of instructions at -O3; None if the compiler is missing, fails or exceeds ``deadline`` seconds.

    flags: more of them.
    """
    if estimate_note() is not None:
        return None
    with temporary_folder() as folder:
        for name in (f"{prefix}.c", f"{prefix}.h"):
            (folder / name).write_text(files[name], encoding="ascii")
        compiled = folder / "net.o"
        try:
            command = [COMPILER, *FLAGS, *flags, "-c", str(folder / f"{prefix}.c"), "-o", str(compiled)]
            run_program(command, b"", what=COMPILER, deadline=deadline)
            listed = run_program([SIZES, "-A", str(compiled)], b"", what=SIZES, deadline=deadline)
        except ToolError:
            return None
    rows = [line.split() for line in listed.decode("ascii", "replace").splitlines()]
    return sum(int(row[1]) for row in rows if len(row) == 3 and row[0].split(".")[1:2] == ["text"])
