"""Take large tables out of C for the assembler to include as data: compilers take a second for a million numbers.

The numbers are parsed from the very text that would be compiled. What is not a plain list of decimal numbers of its
type, as many as it declares, is left to the compiler.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """Take the large tables out of a rendered C file; None if it has none."""
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
    kinds = np.frombuffer(text.translate(_KIND_OF), np.uint8)
    for start in range(0, len(kinds), _AT_ONCE):
        part = kinds[start : start + _AT_ONCE + 2]
        if ((part[:-2] * 5 + part[1:-1]) * 5 + part[2:]).tobytes().translate(None, _THREES):
            return None
    values, limits = np.fromstring(listed, np.int64, sep=","), np.iinfo(kind)
    return values.astype(kind) if limits.min <= values.min() and values.max() <= limits.max else None
