"""Which processes of a process group are alive."""

from __future__ import annotations

import time
from pathlib import Path

PATIENCE = 200.0
"""Seconds that a busy machine may take to end a process."""


def alive(group: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(stat.parent.name)
    return found


def wait_until_gone(group: int) -> list[str]:
    end = time.monotonic() + PATIENCE
    while alive(group) and time.monotonic() < end:
        time.sleep(0.1)
    return alive(group)
