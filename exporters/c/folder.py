"""A C folder: written from integers, and read back only if its C is what those integers make."""

from __future__ import annotations

from pathlib import Path

from stl_deploy._util.files import write_text
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.c.code_size import code_size
from stl_deploy.exporters.c.compiler import DEADLINE
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.plan import Plan
from stl_deploy.exporters.c.program import Program
from stl_deploy.exporters.c.render import FILES, render_plan
from stl_deploy.integers.graph import IntegerGraph
from stl_deploy.integers.store import NAME, About, read_integers, write_integers

KIB = 1024
CODE, STACK = 8 * KIB, KIB
"""Bytes set aside in flash for the code (where no compiler tells it) and in RAM for the stack, where limits are given
(measured on a Cortex-M4: docs/c.md)."""
MAX_TEXT = 2**28


def write_folder(
    graph: IntegerGraph,
    about: About,
    folder: Path,
    *,
    flash: int | None,
    ram: int | None,
    deadline: float = DEADLINE,
) -> Plan:
    """Write every file of a C folder; returns how the memory is laid out.

    flash, ram: bytes there are. deadline: seconds for the compiler that is asked for the code's size.
    Raises UnsupportedError where the network takes more, or its sums do not fit.
    """
    plan = make_plan(graph)
    files = render_plan(plan, about)
    code = None if flash is None else code_size(files, deadline)
    besides = f"{CODE // KIB} KiB of code" if code is None else f"{code:,} of code (Cortex-M4, -O3)"
    _require("flash", plan.flash + (CODE if code is None else code), flash, plan, besides)
    _require("RAM", plan.ram + STACK, ram, plan, f"{STACK // KIB} KiB of stack")
    folder.mkdir(parents=True)
    for name, text in files.items():
        write_text(folder / name, text)
    write_integers(graph, about, folder / NAME)
    return plan


def _require(what: str, needed: int, limit: int | None, plan: Plan, besides: str) -> None:
    if limit is None or needed <= limit:
        return
    node, share = max(plan.shares.items(), key=lambda one: one[1].flash if what == "flash" else one[1].ram)
    own = share.flash if what == "flash" else share.ram
    raise UnsupportedError(
        f"expected at most {limit:,} bytes of {what}; the network takes {needed:,} with {besides}, {own:,} here",
        node=node,
        slug=f"too-much-{what.lower()}",
        remedy="make this layer smaller, or take a larger chip",
    )


def read_folder(folder: Path, *, trust: bool = False) -> tuple[IntegerGraph, Program]:
    """The integers, and the program that they make; its text is compared with the folder's.

    trust: take the folder's text as it stands. Raises InputError for files that are missing, damaged or not what we
    would write.
    """
    graph, about = read_integers(folder / NAME)
    try:
        plan = make_plan(graph)
    except UnsupportedError as error:
        raise InputError(f"{folder / NAME}: {error}") from None
    files = render_plan(plan, about)
    found = {name: _text(folder / name) for name in files}
    for name in files:
        if found[name] != files[name] and not trust:
            raise InputError(
                f"{folder / name}: expected what stl-deploy makes of {NAME}; found other text, which would be compiled "
                "and run; export it again, or, if you know it, take simulate --trust"
            )
    return graph, Program(found, plan)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT:
            raise InputError(f"{path}: larger than {MAX_TEXT:,} bytes; export it again")
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; a C folder holds {', '.join(FILES)}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not ASCII text; export it again") from None


def bytes_of(size: str | int | None, option: str) -> int | None:
    """``256K``, ``1M`` or plain bytes; raises InputError for anything else."""
    if size is None:
        return None
    text = str(size)
    units = {"K": KIB, "M": KIB**2}
    digits, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    if not digits.isdecimal() or not int(digits):
        raise InputError(f"--{option}: expected bytes, as 262144, 256K or 1M; found '{text}'")
    return int(digits) * unit
