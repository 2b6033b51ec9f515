"""Format file sizes."""

from __future__ import annotations

import os
from pathlib import Path


def folder_bytes(folder: Path) -> int | None:
    """Return the sizes of all files in a folder, links not followed; None if there is no such folder."""
    if not folder.is_dir():
        return None
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # gone in between, or not ours to look at
                continue
    return total


def in_words(size: int) -> str:
    """Format as ``512 kB``, ``1.3 GB``; decimal units, as for disks."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
