"""HDF5's library loops for ever, or crashes, on some damaged files. So another process reads each file first.

The process is started at the first file, kept for the next ones, and killed when it makes no progress; it costs a
quarter of a second once, then a few milliseconds for a file. Large arrays are not read twice, only looked up.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

from stl_deploy.errors import InputError, ToolError

_STALL_SECONDS = 5.0
_START_SECONDS = 60.0

_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None


def probe(path: Path, kind: str) -> None:
    """Raise InputError if ``path`` cannot be read through: refused, damaged, or the reader crashed or stalled."""
    with _lock:
        process = _running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([str(path.absolute()), kind]).encode() + b"\n")
            process.stdin.flush()
            answer = _answer(process)
        except (OSError, TimeoutError, EOFError) as error:
            _stop()
            stalled = isinstance(error, TimeoutError)
            reason = "HDF5 loops on it" if stalled else "HDF5 crashes on it"
            raise InputError(f"{path}: damaged, truncated or not {kind} ({reason})") from None
    if "error" in answer:
        raise InputError(answer["error"])


def _answer(process: subprocess.Popen[bytes]) -> dict[str, str]:
    assert process.stdout is not None
    received = b""
    while not received.endswith(b"\n") or not received.strip(b".\n"):
        ready, _, _ = select.select([process.stdout], [], [], _STALL_SECONDS)
        if not ready:
            raise TimeoutError
        part = os.read(process.stdout.fileno(), 2**16)
        if not part:
            raise EOFError
        received = (received + part).lstrip(b".")
    answer: dict[str, str] = json.loads(received)
    return answer


def _running() -> subprocess.Popen[bytes]:
    global _process
    if _process is None or _process.poll() is not None:
        command = [sys.executable, "-P", "-m", "stl_deploy.graph._probe"]
        try:
            _process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise ToolError(f"cannot start a process to look at HDF5 files with: {error}") from None
        assert _process.stdout is not None
        if not select.select([_process.stdout], [], [], _START_SECONDS)[0]:
            _stop()
            raise ToolError("the process that looks at HDF5 files does not start")
    return _process


def _stop() -> None:
    global _process
    if _process is not None:
        _process.kill()
        _process.communicate()
        _process = None


atexit.register(_stop)
