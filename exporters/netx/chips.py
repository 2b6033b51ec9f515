"""Limits of chips and cores, with source and grade of evidence of each number (``chips.toml``)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

EVIDENCE = {
    "A": "the maker's document",
    "B": "code that ran on the chip",
    "C": "a third party's page",
    "D": "unverified",
}
_FILE = Path(__file__).with_name("chips.toml")


@dataclass(frozen=True)
class Limit:
    """A number, its source, and its grade of evidence (see the file)."""

    value: int
    source: str
    grade: str

    def __str__(self) -> str:
        return f"{self.value:,} ({self.source}; {EVIDENCE[self.grade]})"


@dataclass(frozen=True)
class Chip:
    """limits: by name, as in the file; a missing limit is unknown."""

    key: str
    name: str
    limits: Mapping[str, Limit]

    def value(self, limit: str) -> int | None:
        """Return the number, or None if it is unknown."""
        return self.limits[limit].value if limit in self.limits else None


def load_chips() -> dict[str, Chip]:
    """Return every chip by its key."""
    data = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {
        key: Chip(key, entry["name"], {name: Limit(**limit) for name, limit in entry["limits"].items()})
        for key, entry in data.items()
    }
