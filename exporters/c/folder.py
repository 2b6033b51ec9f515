"""Write a C folder from integers, and read one back only if its C matches its integers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from stl_deploy._util.files import sha256, write_text
from stl_deploy._util.remedies import remedy
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.c.code_size import code_size
from stl_deploy.exporters.c.compiler import DEADLINE
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.names import require_prefix
from stl_deploy.exporters.c.plan import Plan
from stl_deploy.exporters.c.program import Program
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.exporters.c.room import require_room
from stl_deploy.integers.graph import IntegerGraph
from stl_deploy.integers.store import NAME, About, read_integers, write_integers

MAX_TEXT = 2**28
_made: dict[str, dict[str, str]] = {}
"""Hashes of the files that the last integers written here make, by the hash of these: rendered once, not twice."""


def write_folder(
    graph: IntegerGraph,
    about: About,
    folder: Path,
    *,
    flash: int | None,
    ram: int | None,
    deadline: float = DEADLINE,
) -> Plan:
    """Write every file of a C folder; return the memory layout.

    flash, ram: available bytes. deadline: seconds for the compiler that measures the code's size.
    Raises UnsupportedError where the network takes more, or its sums do not fit.
    """
    plan = make_plan(graph)
    files = render_plan(plan, about)
    code = None if flash is None else code_size(files, about.prefix, deadline)
    require_room(plan, flash, ram, code=code)
    folder.mkdir(parents=True)
    for name, text in files.items():
        write_text(folder / name, text)
    write_integers(graph, about, folder / NAME)
    _made.clear()
    _made[sha256(folder / NAME)] = {name: _digest(text) for name, text in files.items()}
    return plan


def read_folder(folder: Path, *, trust: bool = False) -> tuple[IntegerGraph, Program]:
    """Read the integers and regenerate their program; the folder's text must equal it.

    trust: accept other text, too. Raises InputError for files that are missing, damaged or not what we
    would write.
    """
    graph, about = read_integers(folder / NAME)
    try:
        require_prefix(about.prefix)
        plan = make_plan(graph)
    except (UnsupportedError, InputError) as error:
        raise InputError(f"{folder / NAME}: {error}") from None
    files = _made.get(sha256(folder / NAME))
    if files is None:
        files = {name: _digest(text) for name, text in render_plan(plan, about).items()}
    texts = {name: _text(folder / name, files) for name in files}
    for name in files:
        if _digest(texts[name]) != files[name] and not trust:
            raise InputError(
                f"{folder / name}: expected what stl-deploy makes of {NAME}; found other text, which would be compiled "
                "and run; export it again, or, if you know it, take "
                + remedy(cli="simulate --trust", python="simulate(..., trust=True)")
            )
    return graph, Program(texts, plan, about.prefix)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _text(path: Path, names: Iterable[str]) -> str:
    try:
        if path.stat().st_size > MAX_TEXT:
            raise InputError(f"{path}: larger than {MAX_TEXT:,} bytes; export it again")
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; a C folder holds {', '.join(names)}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not ASCII text; export it again") from None
