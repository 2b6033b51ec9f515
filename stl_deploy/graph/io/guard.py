"""HDF5's library loops for ever, or crashes, on some damaged files. So another process reads each file first.

The process is started at the first file and kept for the next ones; it costs a quarter of a second once, then a few
milliseconds for a file. It hands over what it has read; large arrays it only looks up. It ends itself where it makes no
progress (see `_probe`); the deadline here is for what takes no processor time, such as a disk that does not answer.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from stl_deploy.errors import InputError, ToolError

_STALL_SECONDS = 30.0
_START_SECONDS = 60.0

_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None


def probe(path: Path, kind: str) -> tuple[dict[str, Any], bytearray]:
    """All that is in a file, and the bytes of its small arrays (see `_scan`).

    Raises InputError if it cannot be read through: refused, damaged, or HDF5 crashed or looped on it.
    """
    with _lock:
        process = _running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([str(path.absolute()), kind]).encode() + b"\n")
            process.stdin.flush()
            answer, content = _answer(process)
        except (OSError, EOFError) as error:
            ended = None if isinstance(error, TimeoutError) else _ended(process)
            _stop()
            reason = {None: "nothing comes for a while", -signal.SIGPROF: "HDF5 loops on it"}.get(ended)
            raise InputError(f"{path}: damaged, truncated or not {kind} ({reason or 'HDF5 crashes on it'})") from None
    if "error" in answer:
        raise InputError(answer["error"])
    return answer["found"], content


def _answer(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], bytearray]:
    received = bytearray()
    while b"\n" not in (line := received.lstrip(b".\n")):
        received = line + _part(process)
    head, content = line.split(b"\n", 1)
    answer: dict[str, Any] = json.loads(head)
    while len(content) < answer.get("size", 0):
        content += _part(process)
    return answer, content


def _part(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], _STALL_SECONDS)[0]:
        raise TimeoutError
    part = os.read(process.stdout.fileno(), 2**20)
    if not part:
        raise EOFError
    return part


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status of a process that has closed its output."""
    try:
        return process.wait(_STALL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _running() -> subprocess.Popen[bytes]:
    global _process
    if _process is None or _process.poll() is not None:
        command = [sys.executable, "-P", "-m", "stl_deploy.graph.io.probe"]
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
