"""Dataclasses with a JSON form of the same fields."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class JsonTwin:
    """A dataclass whose JSON twin has its fields, under their names."""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin: every field under its name."""
        return asdict(self)
