"""Decodes AEDAT 4 files, in a process of its own: ``python -P -m stl_deploy._util.aedat4_process``.

The package aedat panics on some damage, writes to the screen, and ends its process where memory runs out. A path (JSON)
comes in a line; a line goes out: ``{"missing": true}`` where the package is not installed, ``{"error": ...}``, or
``{"events": n}`` followed by int64 ``[4, n]`` of polarity, y, x and time in µs. The process ends itself where a file
takes a minute of processor time.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from stl_deploy._util import system
from stl_deploy._util.untrusted import one_line

_MEMORY_BYTES = 3 * 2**30
_FILE_SECONDS = 60.0


def main() -> None:
    """Answer until the input ends."""
    system.limit_memory(_MEMORY_BYTES)
    for line in sys.stdin:
        system.end_after(_FILE_SECONDS)
        answer: dict[str, Any]
        content = b""
        try:
            events = _events(json.loads(line))
            answer, content = {"events": events.shape[1]}, events.tobytes()
        except ImportError:
            answer = {"missing": True}
        except BaseException as error:  # a panic of the decoder is no Exception
            answer = {"error": one_line(error, 160)}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + content)
        sys.stdout.buffer.flush()


def _events(path: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The events of the first stream of events."""
    import aedat

    decoder = aedat.Decoder(path)
    streams = [key for key, stream in decoder.id_to_stream().items() if stream["type"] == "events"]
    parts = [packet["events"] for packet in decoder if packet["stream_id"] in streams[:1]]
    if not parts:
        raise ValueError("no events")
    return np.stack([np.concatenate([part[name] for part in parts]).astype(np.int64) for name in ("on", "y", "x", "t")])


if __name__ == "__main__":
    main()
