"""Tables as CSV, HTML and plain text: as wide as needed, or fitted to a terminal without a break inside a word."""

from __future__ import annotations

import csv
import html
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

_GAP = 2


def columns(rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Return rows of equal length as lines, columns separated by two blanks; the first row is the header.

    width: columns that a terminal has; None: as wide as needed. Cells are wrapped between words; where even the longest
    words do not fit side by side, each row becomes a block of its own, a line for each cell, below the first header.
    """
    natural = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is None or sum(natural) + _GAP * (len(natural) - 1) <= width:
        return [_line(row, natural) for row in rows]
    least = [max(max(map(len, cell.split()), default=0) for cell in column) for column in zip(*rows, strict=True)]
    room = width - _GAP * (len(least) - 1)
    # not even the longest words fit side by side
    if sum(least) > room:
        return _blocks(rows, width)
    widths = _fitted(natural, least, room)
    return [line for row in rows for line in _wrapped(row, widths)]


def html_table(rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return rows of equal length as an HTML table, for notebooks; the first row is the header."""
    tags = ["th", *["td"] * (len(rows) - 1)]
    cells = zip(tags, rows, strict=True)
    head, *body = ["".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) for tag, row in cells]
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV, a column for each key of any row or of a mapping in it; a list is one cell.

    A text that a spreadsheet would take for a formula gets a leading apostrophe.
    """
    flat = [{_safe(key): _safe(value) for key, value in _cells(row)} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _cells(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", cell) for name, cell in _cells(value))
        else:
            yield key, " ".join(map(str, value)) if isinstance(value, list) else value


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (" " * _GAP).join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _fitted(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return widths that fit: the widest column that can shrink is narrowed, a character at a time."""
    widths = list(natural)
    while sum(widths) > room:
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def _wrapped(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = [wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    return [_line(parts, widths) for parts in zip_longest(*cells, fillvalue="")]


def wrap(text: str, width: int) -> list[str]:
    """Wrap into lines of up to ``width`` characters, between words only; a longer word sticks out."""
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def _blocks(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    headers, *body = rows
    lines = wrap(f"{headers[0]}:", width) if headers[0] else []
    for row in body:
        lines += wrap(row[0], width)
        for header, cell in zip(headers[1:], row[1:], strict=True):
            lines += [f"  {line}" for line in wrap(f"{header}: {cell}", width - 2)]
    return lines
