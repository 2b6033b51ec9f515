"""Make node names valid in C: identifiers, and text in comments."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stl_deploy.exporters.targets import require_free_prefix

LONGEST = 40
OURS = ("list", "net", "row")
"""With a suffix of a buffer's they would be names of the templates: list_spikes, net_spikes, row_spikes."""
PREFIX = "net"
"""Default prefix of all names of an export."""
_RESERVED = """
auto break case char const continue default do double else enum extern float for goto if inline int long register
restrict return short signed sizeof static struct switch typedef union unsigned void volatile while alignas alignof and
and_eq asm bitand bitor bool catch char8_t char16_t char32_t class compl concept consteval constexpr constinit
const_cast co_await co_return co_yield decltype delete dynamic_cast explicit export false friend mutable namespace new
noexcept not not_eq nullptr operator or or_eq private protected public reinterpret_cast requires static_assert
static_cast template this thread_local throw true try typeid typename using virtual wchar_t xor xor_eq main check clean
assert math stdint stdio stdlib string
"""
"""Of C and C++, main, whose file is main.c, the goals of the Makefile, and the headers that the C includes."""


def require_prefix(prefix: str) -> str:
    """Return ``prefix``; raise InputError unless it is an identifier of C and C++, letter first, and no keyword."""
    return require_free_prefix(prefix, _RESERVED, "reserved in C or C++")


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """Return a unique C identifier for each name; every use adds a suffix, so keywords need no care."""
    taken: set[str] = set(OURS)
    by_name: dict[str, str] = {}
    for name in names:
        base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:LONGEST].lower() or "node"
        if not base[0].isalpha():
            base = f"n{base}"
        identifier, count = base, 2
        while identifier in taken:
            identifier, count = f"{base}_{count}", count + 1
        taken.add(identifier)
        by_name[name] = identifier
    return by_name


def in_comment(text: str) -> str:
    """Return text that ends no comment, as one line of ASCII."""
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    plain = plain.replace("\\", "/")  # first: of *\ it makes the end of a comment
    return re.sub(r"\?(?=\?)", "? ", plain.replace("*/", "* /").replace("/*", "/ *"))[:80]
