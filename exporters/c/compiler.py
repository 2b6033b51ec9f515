"""Run the host's C compiler and its programs, each with a deadline and in its own process group."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from stl_deploy.errors import ToolError
from stl_deploy.exporters.c.tables import DATA, Tables, take_tables

DEADLINE = 600.0
"""Seconds for a compilation or a run."""
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")
MISSING = "no C compiler found (tried cc, gcc, clang); install one, for example gcc"


def find_compiler() -> str | None:
    """Return the compiler in $CC; if that is not set, cc, gcc or clang; None if it is missing (see `why_none`)."""
    named = os.environ.get("CC")
    paths = (shutil.which(name) for name in ([named] if named else ["cc", "gcc", "clang"]))
    return next((path for path in paths if path is not None), None)


def why_none() -> str:
    """Explain why `find_compiler` returned None, with a remedy."""
    named = os.environ.get("CC")
    return f"$CC: expected a C compiler, without options; found no program '{named}'; unset CC" if named else MISSING


def compile_program(
    files: Mapping[str, str], output: Path, *, options: Sequence[str] = (), deadline: float = DEADLINE
) -> None:
    """Compile C files, text by name, in the folder of ``output``.

    Large tables are included as data where the assembler can (see `take_tables`), else compiled like the rest.
    Raises ToolError if there is no compiler, or it fails or hangs.
    """
    compiler = find_compiler()
    if compiler is None:
        raise ToolError(why_none())
    folder, objects = output.parent, list[str]()
    for name, text in files.items():
        tables = take_tables(text) if name.endswith(".c") and not objects else None
        if tables is not None and (made := _assembled(compiler, folder / name, tables, deadline)):
            text = tables.text
            objects.append(made)
        (folder / name).write_text(text, encoding="ascii")
    sources = sorted(str(path) for path in folder.glob("*.c"))
    command = [compiler, *FLAGS, *options, "-o", str(output), *sources, *objects]
    run_program(command, b"", what=f"the compiler {compiler}", deadline=deadline)


def _assembled(compiler: str, source: Path, tables: Tables, deadline: float) -> str | None:
    """Return the object file of a source's tables; None where the assembler does not take them."""
    assembly = source.with_suffix(".s")
    made = str(source.with_suffix(".o"))
    (source.parent / DATA).write_bytes(tables.data)
    assembly.write_text(tables.assembly, encoding="ascii")
    try:
        run_program(
            [compiler, "-c", "-o", made, str(assembly)], b"", what=compiler, deadline=deadline, folder=source.parent
        )
    except ToolError:
        return None
    return made


def run_program(
    command: Sequence[str], given: bytes, *, what: str, deadline: float = DEADLINE, folder: Path | None = None
) -> bytes:
    """Run a program in ``folder`` and return its stdout; raise ToolError with its first error, or the last line."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd=folder,
        )
    except OSError as error:
        raise ToolError(f"{what} cannot be run: {error.strerror or error}") from None
    try:
        output, errors = process.communicate(given, timeout=deadline)
    except subprocess.TimeoutExpired:
        _end(process)
        raise ToolError(f"{what} did not end within {deadline:g} s and was stopped") from None
    except BaseException:
        _end(process)
        raise
    if process.returncode != 0:
        raise ToolError(f"{what} failed with exit code {process.returncode}: {_last_line(errors)}")
    return output


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended just now
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _last_line(said: bytes) -> str:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line.lower()]
    return (errors or lines[-1:] or ["it said nothing"])[0][:300]
