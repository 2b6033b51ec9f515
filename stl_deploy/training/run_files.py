"""Names of a run folder's files, and whether its run has ended; imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

from stl_deploy._util.untrusted import read_text
from stl_deploy.errors import InputError

CONFIG = "config.yaml"
CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
METRICS = "metrics.jsonl"
MANIFEST = "manifest.json"
UNDER_WAY = "under way"
"""The ``state`` of a manifest until its run has ended; a finished run's has none."""


def is_finished(run_dir: Path) -> bool:
    """Return whether the folder holds a run that has ended."""
    try:
        manifest = json.loads(read_text(run_dir / MANIFEST, "a manifest"))
    except (InputError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and "state" not in manifest
