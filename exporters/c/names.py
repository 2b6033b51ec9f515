"""Names of nodes as they may stand in C: identifiers, and text in comments."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST = 40
OURS = ("list", "net", "row")
"""With a suffix of a buffer's they would be names of the templates: list_spikes, net_spikes, row_spikes."""


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """For each name a C identifier of its own; every use adds a suffix to it, so keywords need no care."""
    taken: set[str] = set(OURS)
    found: dict[str, str] = {}
    for name in names:
        base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:LONGEST].lower() or "node"
        if not base[0].isalpha():
            base = f"n{base}"
        identifier, count = base, 2
        while identifier in taken:
            identifier, count = f"{base}_{count}", count + 1
        taken.add(identifier)
        found[name] = identifier
    return found


def in_comment(text: str) -> str:
    """Text that ends no comment and holds one line of ASCII."""
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return plain.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?").replace("\\", "/")[:80]
