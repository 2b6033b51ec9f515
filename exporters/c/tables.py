"""Take large tables out of C for the assembler to include as data: compilers take a second for a million numbers.

The numbers are parsed from the very text that would be compiled. What is not a plain list of decimal numbers of its
type, as many as it declares, is left to the compiler.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

LARGE = 2**12
"""Numbers of a table from which it is taken out."""
DATA = "tables.bin"

_NUMBER = "(?:0|-?[1-9][0-9]{0,9}+)"
_TABLE = re.compile(
    r"^static (const (u?int(?:8|16|32))_t \w+\[(\d{1,9})\])(?: STL_ALIGNED)? = \{( /\* [^*\n]* \*/)\n"
    rf"( *+{_NUMBER}(?:,[ \n]++{_NUMBER})*+)\n\}};$",
    re.MULTILINE,
)


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
    assembly, data, place = [".section .rodata"], list[bytes](), 0

    def declared(table: re.Match[str]) -> str:
        nonlocal place
        declaration, kind, count, comment, listed = table.groups()
        if int(count) < LARGE or listed.count(",") + 1 != int(count):
            return table[0]
        values, limits = np.fromstring(listed, np.int64, sep=","), np.iinfo(kind)
        if values.min() < limits.min or values.max() > limits.max:
            return table[0]
        written, label = values.astype(kind).tobytes(), f"stl_table_{len(data)}"
        assembly.extend([".balign 64", f".globl {label}", f"{label}:", f'.incbin "{DATA}", {place}, {len(written)}'])
        data.append(written)
        place += len(written)
        return f'extern {declaration} __asm__("{label}");{comment}'

    rest = _TABLE.sub(declared, text)
    assembly.append('.section .note.GNU-stack,"",%progbits\n')
    return Tables(rest, "\n".join(assembly), b"".join(data)) if data else None
