"""Reads HDF5 files through, in a process of its own, for `_guard`: ``python -P -m stl_deploy.graph.io.probe``.

A line with path, kind and, where it is so, that lists are taken (JSON) comes in. Dots go out while there is progress,
then a line: ``{"error": ...}``, ``{"defect": ...}`` (a traceback of ours), or ``{"found": ..., "size": n}`` followed
by the n bytes of the arrays in it (see `_scan`). The process ends itself (with the signal SIGPROF) where HDF5 takes
half a second of processor time for one object, as it does in damage that it loops on.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from stl_deploy._util import system

_MEMORY_BYTES = 3 * 2**30
_OBJECT_SECONDS = 0.5
_TELL_SECONDS = 0.02


class _Progress:
    """Called for every object; tells so, and winds the clock again, when it has not for a while."""

    def __init__(self) -> None:
        self._told = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._told > _TELL_SECONDS:
            self._told = now
            os.write(1, b".")
            system.end_after(_OBJECT_SECONDS)


def main() -> None:
    """Answer until the input ends."""
    from stl_deploy.errors import InputError
    from stl_deploy.graph.io.scan import look_through

    system.limit_memory(_MEMORY_BYTES)
    os.write(1, b".")
    for line in sys.stdin:
        name, kind, *lists = json.loads(line)
        answer: dict[str, Any]
        content = bytearray()
        try:
            found, content = look_through(Path(name), kind, _Progress(), any(lists))
            answer = {"found": found, "size": len(content)}
        except InputError as error:
            answer = {"error": str(error)}
        except Exception:  # a mistake of ours, which is not to be taken for a crash of HDF5
            answer = {"defect": traceback.format_exc()}
        system.end_after(0)
        sys.stdout.buffer.write(b"\n" + json.dumps(answer).encode() + b"\n" + content)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
