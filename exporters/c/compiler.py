"""Run the host's C compiler and its programs, each with a deadline and in its own process group; take tables out."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import ToolError

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
    files: Mapping[str, str],
    output: Path,
    *,
    options: Sequence[str] = (),
    libraries: Sequence[str] = (),
    deadline: float = DEADLINE,
) -> None:
    """Compile C files, text by name, in the folder of ``output``. options, libraries: for the compiler.

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
    command = [compiler, *FLAGS, *options, "-o", str(output), *sources, *objects, *libraries]
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


LARGE = 2**12
"""Numbers of a table from which it is taken out."""
DATA = "tables.bin"

_START = "\nstatic const "
_TABLE = re.compile(
    r"\nstatic (?P<declaration>const (?P<type>u?int(?:8|16|32))_t \w+\[(?P<count>\d{1,9})\])(?: STL_ALIGNED)? = "
    r"\{(?P<comment> /\* [^*\n]* \*/)\n"
)
_END = "\n};\n"
_KINDS = {"\n": 0, " ": 0, ",": 1, "-": 2, "0": 3} | dict.fromkeys("123456789", 4)
_KIND_OF = bytes(_KINDS.get(chr(code), 0) for code in range(256))
_AFTER = {0: (0, 2, 3, 4), 1: (0,), 2: (4,), 3: (1, 3, 4), 4: (1, 3, 4)}
"""Kinds of characters that may follow each kind."""
_THREES = bytes(
    (first * 5 + second) * 5 + third
    for first, seconds in _AFTER.items()
    for second in seconds
    for third in _AFTER[second]
    if (first, second) != (0, 3) or third == 1  # 010 is 8 in C
)
_AT_ONCE = 2**16
"""Characters that are checked together, so that they stay in the cache."""


@dataclass(frozen=True)
class Tables:
    """A program without its large tables.

    Attributes:
        text: The C, in which they are declared only.
        assembly: Their definitions for GNU assemblers of ELF systems, which include the file `DATA`.
        data: Contents of that file.
    """

    text: str
    assembly: str
    data: bytes


def take_tables(text: str) -> Tables | None:
    """Take the large tables out of a rendered C file; None if it has none.

    The assembler includes them as data, since compilers take a second for a million numbers. They are parsed from the
    very text that would be compiled. What is not a plain list of decimal numbers of its type, as many as it declares,
    is left to the compiler.
    """
    assembly, data, rest = [".section .rodata"], list[bytes](), list[str]()
    at, past, place = -1, 0, 0
    while (at := text.find(_START, at + 1)) >= 0:
        table = _TABLE.match(text, at)
        end = text.find(_END, at)
        if table is None or end <= table.end() or int(table["count"]) < LARGE:
            continue
        values = _numbers(text[table.end() : end], table["type"])
        if values is None or len(values) != int(table["count"]):
            continue
        label, written = f"stl_table_{len(data)}", values.tobytes()
        assembly += ".balign 64", f".globl {label}", f"{label}:", f'.incbin "{DATA}", {place}, {len(written)}'
        rest += text[past:at], f'\nextern {table["declaration"]} __asm__("{label}");{table["comment"]}'
        data.append(written)
        place += len(written)
        past = end + len("\n};")
        at = past - 1
    assembly.append('.section .note.GNU-stack,"",%progbits\n')
    return Tables("".join([*rest, text[past:]]), "\n".join(assembly), b"".join(data)) if data else None


def _numbers(listed: str, kind: str) -> NDArray[Any] | None:
    """Return the numbers of a list as C reads them; None unless it is one, without octal, and they fit their type."""
    text = f",{listed},".encode()
    if text.translate(None, "".join(_KINDS).encode()):
        return None
    # Any three neighbours tell whether C reads the same numbers: ", -5" and ",0," pass, "--" and ",01" do not.
    kinds = np.frombuffer(text.translate(_KIND_OF), np.uint8)
    for start in range(0, len(kinds), _AT_ONCE):
        part = kinds[start : start + _AT_ONCE + 2]
        if ((part[:-2] * 5 + part[1:-1]) * 5 + part[2:]).tobytes().translate(None, _THREES):
            return None
    values, limits = np.fromstring(listed, np.int64, sep=","), np.iinfo(kind)
    return values.astype(kind) if limits.min <= values.min() and values.max() <= limits.max else None
