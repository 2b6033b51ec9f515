"""Escape control characters in untrusted text."""

from __future__ import annotations

import re

_OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but the line feed, those that turn the direction of text, and halves of characters."""


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped, as in ``\\x1b``."""
    return _OBEYED.sub(lambda match: ascii(match.group())[1:-1], text)


def continued(message: str) -> str:
    """Indent a message's further lines, so that a name with a line break cannot pass for a line of ours."""
    return message.replace("\n", "\n  ")
