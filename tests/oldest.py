"""The oldest release of every dependency that pyproject.toml allows, as requirements: ``python -m tests.oldest``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "jsonschema")
"""What the tests themselves need comes as new as it is: these bounds are not the users'."""


def oldest(requirements: list[str]) -> list[str]:
    """Each requirement pinned to its lower bound; raises ValueError for one that has none."""
    pinned = []
    for requirement in requirements:
        found = re.match(r"([\w.-]+)>=([\d.]+)", requirement)
        if found is None:
            raise ValueError(f"{requirement!r} in pyproject.toml has no lower bound")
        pinned.append(f"{found[1]}=={found[2]}")
    return pinned


def main() -> None:
    """Print them, and what the tests need."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    print("\n".join([*oldest(project["dependencies"] + extras["fast"]), *TOOLS]))


if __name__ == "__main__":
    main()
