"""What an artifact was made from and with: hashes, versions, dialect, grids, scales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stl_deploy._util.files import sha256, write_json
from stl_deploy.graph.lower import metadata_dialect
from stl_deploy.graph.program import Program
from stl_deploy.pipeline.listings import versions

SCHEMA_VERSION = 1


def manifest(program: Program, files: Iterable[Path], **facts: Any) -> dict[str, Any]:
    """A manifest of ``files``, all made from ``program``; ``facts`` are added as they are (JSON-ready)."""
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "dialect": metadata_dialect(program.metadata).as_dict() | {"dt": program.dt},
        "input": program.metadata.get("input"),
        "grid": program.metadata.get("grid"),
        **facts,
        "files": {path.name: {"sha256": sha256(path), "bytes": path.stat().st_size} for path in files},
    }


def write_manifest(path: Path, contents: Mapping[str, Any]) -> None:
    """Write a manifest whole or not at all."""
    write_json(path, contents)
