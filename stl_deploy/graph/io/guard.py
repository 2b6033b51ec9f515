"""HDF5's library loops for ever, or crashes, on some damaged files. So another process reads each file first.

The process is started at the first file and kept for the next ones; it costs a quarter of a second once, then a few
milliseconds for a file. It hands over what it has read; large arrays it only looks up. It ends itself where it makes no
progress (see `_probe`); the deadline here is for what takes no processor time, such as a disk that does not answer, and
for systems on which a process cannot end itself so. Where there are no processes at all (a browser), the file is looked
through right here.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from stl_deploy._util import system
from stl_deploy.errors import InputError, ToolError

_STALL_SECONDS = 30.0
_START_SECONDS = 60.0

_lock = threading.Lock()
_process: Process | None = None


class Process:
    """The process, and what it has written so far; a thread reads that, for not every system waits for pipes."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", "-m", "stl_deploy.graph.io.probe"]
        try:
            self.popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise ToolError(f"cannot start a process to look at HDF5 files with: {error}") from None
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self._stdin, self._stdout = self.popen.stdin, self.popen.stdout
        self._parts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_read, args=(self._stdout, self._parts), daemon=True)
        self._thread.start()

    def ask(self, path: Path, kind: str, lists: bool) -> None:
        """Name a file to look through; raises OSError if the process is gone."""
        self._stdin.write(json.dumps([str(path.absolute()), kind, lists]).encode() + b"\n")
        self._stdin.flush()

    def part(self, seconds: float) -> bytes:
        """What has come next; raises TimeoutError if nothing does, EOFError if nothing will."""
        try:
            part = self._parts.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if not part:
            raise EOFError
        return part

    def exit_status(self) -> int | None:
        """Of a process that has closed its output."""
        try:
            return self.popen.wait(_STALL_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End it and close its pipes."""
        self.popen.kill()
        self.popen.wait()
        self._thread.join()
        self._stdout.close()
        with suppress(OSError):  # a question that was never read
            self._stdin.close()


def _read(stream: IO[bytes], parts: queue.SimpleQueue[bytes]) -> None:
    while part := os.read(stream.fileno(), 2**20):
        parts.put(part)
    parts.put(b"")


def probe(path: Path, kind: str, lists: bool = False) -> tuple[dict[str, Any], bytearray]:
    """All that is in a file, and the bytes of its small arrays (see `_scan`).

    Raises InputError if it cannot be read through: refused, damaged, or HDF5 crashed or looped on it.
    """
    if not system.starts_processes():
        from stl_deploy.graph.io.scan import look_through

        return look_through(path, kind, lambda: None, lists)
    with _lock:
        process = _running()
        try:
            process.ask(path, kind, lists)
            answer, content = _answer(process)
        except TimeoutError:
            _stop()
            raise _damaged(path, kind, "nothing comes for a while") from None
        except (OSError, EOFError):
            looped = system.ran_out_of_time(process.exit_status())
            _stop()
            raise _damaged(path, kind, "HDF5 loops on it" if looped else "HDF5 crashes on it") from None
    if "defect" in answer:
        raise RuntimeError(f"{path}: in the process that looks at HDF5 files: {answer['defect']}")
    if "error" in answer:
        raise InputError(answer["error"])
    return answer["found"], content


def _damaged(path: Path, kind: str, reason: str) -> InputError:
    return InputError(f"{path}: damaged, truncated or not {kind} ({reason})")


def _answer(process: Process) -> tuple[dict[str, Any], bytearray]:
    received = bytearray()
    while b"\n" not in (line := received.lstrip(b".\n")):
        received = line + process.part(_STALL_SECONDS)
    head, content = line.split(b"\n", 1)
    answer: dict[str, Any] = json.loads(head)
    while len(content) < answer.get("size", 0):
        content += process.part(_STALL_SECONDS)
    return answer, content


def _running() -> Process:
    global _process
    if _process is None or _process.popen.poll() is not None:
        _stop()
        _process = Process()
        try:
            _process.part(_START_SECONDS)
        except (TimeoutError, EOFError):
            _stop()
            raise ToolError("the process that looks at HDF5 files does not start") from None
    return _process


def _stop() -> None:
    global _process
    if _process is not None:
        _process.stop()
        _process = None


def _forget() -> None:
    """In a forked child: the process belongs to the parent."""
    global _process
    _process = None


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
