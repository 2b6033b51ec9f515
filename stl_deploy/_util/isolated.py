"""Parse untrusted files in a worker process, which contains crashes, hangs and unbounded allocation.

The worker is started at the first file and kept for the next ones: a quarter of a second once, then about a
millisecond a file. Platforms without processes (a browser) parse in place, without the limits.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util import system
from stl_deploy.errors import InputError, StlDeployError, ToolError

Answer = tuple[Any, Sequence[NDArray[Any]]]
"""Result of a reader: a JSON value, and arrays."""

_STALL_SECONDS = 30.0
_START_SECONDS = 60.0
_TELL_SECONDS = 0.02
_CALL = "from stl_deploy._util import isolated; isolated.serve()"

_lock = threading.Lock()
_worker: Worker | None = None


def isolated(
    reader: Callable[..., Answer], path: Path, *arguments: Any, what: str, memory: int, seconds: float
) -> Answer:
    """Call ``reader(path, *arguments)`` in the worker process.

    Args:
        reader: Module-level function, looked up by name in the worker.
        path: The untrusted file.
        arguments: Further JSON-compatible arguments.
        what: Expected kind of file, as in "an AEDAT 4 file".
        memory: Bytes that the reader may allocate beyond the worker's own.
        seconds: Allowed processor time, reset by each call of `progress`.

    Returns:
        The reader's result, with read-only arrays.

    Raises:
        InputError: If the reader raises one, crashes, or exceeds a limit.
        ToolError: If the reader raises one, or no process can be started.
    """
    if not system.starts_processes():
        about, arrays = reader(path, *arguments)
        return json.loads(json.dumps(about)), arrays
    question = [reader.__module__, reader.__qualname__, str(path.absolute()), list(arguments), memory, seconds]
    with _lock:
        worker = _running()
        try:
            worker.ask(question)
            answer, content = _answer(worker, max(_STALL_SECONDS, 10 * seconds))
        except TimeoutError:
            _stop()
            raise _damaged(path, what, "nothing comes for a while") from None
        except (OSError, EOFError):
            slow = system.ran_out_of_time(worker.exit_status())
            _stop()
            reason = f"it takes over {seconds:g} s to read" if slow else "its reader crashes on it"
            raise _damaged(path, what, reason) from None
        except BaseException:
            _stop()  # the rest of this answer would pass for the next one
            raise
    if "defect" in answer:
        raise RuntimeError(f"{path}: in the worker process: {answer['defect']}")
    if "refusal" in answer:
        raise (ToolError if answer["of tool"] else InputError)(answer["refusal"])
    return answer["about"], _arrays(answer["arrays"], content)


def progress() -> None:
    """Report a reader's progress, which renews its time; does nothing outside of the worker."""
    if _serving is not None:
        _serving.renew()


def _damaged(path: Path, what: str, reason: str) -> InputError:
    return InputError(f"{path}: damaged, truncated or not {what} ({reason})")


def _arrays(forms: Sequence[tuple[str, list[int]]], content: bytearray) -> list[NDArray[Any]]:
    arrays, place, view = [], 0, memoryview(content).toreadonly()
    for dtype, shape in forms:
        arrays.append(np.frombuffer(view, dtype, prod(shape), place).reshape(shape))
        place += arrays[-1].nbytes
    return arrays


class Worker:
    """The process and its output; a thread reads that, since not every system waits for pipes."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}  # threads that cannot start would end it
        try:
            self.popen = subprocess.Popen(
                [sys.executable, "-P", "-c", _CALL],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            raise ToolError(f"cannot start a process to read untrusted files in: {error}") from None
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self._stdin, self._stdout = self.popen.stdin, self.popen.stdout
        self._parts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_read, args=(self._stdout, self._parts), daemon=True)
        self._thread.start()

    def ask(self, question: Sequence[Any]) -> None:
        """Send a reader's name and a file; raise OSError if the process is gone."""
        self._stdin.write(json.dumps(question).encode() + b"\n")
        self._stdin.flush()

    def part(self, seconds: float) -> bytes:
        """Return the next part; raises TimeoutError if none arrives, EOFError if none will."""
        try:
            part = self._parts.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if not part:
            raise EOFError
        return part

    def exit_status(self) -> int | None:
        """Return the exit status of a process that has closed its output."""
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


def _answer(worker: Worker, seconds: float) -> tuple[dict[str, Any], bytearray]:
    received = bytearray()
    while b"\n" not in (line := received.lstrip(b".\n")):
        received = line + worker.part(seconds)
    head, content = line.split(b"\n", 1)
    answer: dict[str, Any] = json.loads(head)
    while len(content) < answer.get("size", 0):
        content += worker.part(seconds)
    return answer, content


def _running() -> Worker:
    global _worker
    if _worker is None or _worker.popen.poll() is not None:
        _stop()
        _worker = Worker()
        try:
            _worker.part(_START_SECONDS)
        except (TimeoutError, EOFError):
            _stop()
            raise ToolError("the process that reads untrusted files does not start") from None
    return _worker


def _stop() -> None:
    global _worker
    if _worker is not None:
        _worker.stop()
        _worker = None


def _forget() -> None:
    """Drop the worker in a forked child: the process belongs to the parent."""
    global _worker, _lock
    _worker, _lock = None, threading.Lock()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _Serving:
    """The worker's side: limits, and the stream of answers, kept apart from a reader's own output."""

    def __init__(self) -> None:
        self.stream = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._reported, self._seconds = 0.0, 0.0

    def begin(self, memory: int, seconds: float) -> None:
        """Set the limits of the next reader."""
        system.limit_memory(system.memory_in_use() + memory)
        self._reported, self._seconds = 0.0, seconds
        self.renew()

    def renew(self) -> None:
        """Report progress, and restart the clock, unless that was a moment ago."""
        now = time.monotonic()
        if now - self._reported > _TELL_SECONDS:
            self._reported = now
            self.write(b".")
            system.end_after(self._seconds)

    def write(self, *parts: Any) -> None:
        """Send bytes to the parent."""
        for part in parts:
            self.stream.write(part)
        self.stream.flush()


_serving: _Serving | None = None


def serve() -> None:
    """Answer requests on standard input until it ends: the worker's main function.

    A question is a line of JSON. Dots go out while there is progress, then a line of JSON: ``refusal``,
    ``defect`` (a traceback of ours), or ``about``, ``arrays`` and ``size``, followed by the arrays' bytes.
    """
    global _serving
    _serving = _Serving()
    _serving.write(b".")
    for line in sys.stdin:
        module, name, path, arguments, memory, seconds = json.loads(line)
        answer, contents = _attempt(module, name, Path(path), arguments, memory, seconds)
        system.end_after(0)
        _serving.write(b"\n", json.dumps(answer).encode(), b"\n", *contents)


def _attempt(
    module: str, name: str, path: Path, arguments: list[Any], memory: int, seconds: float
) -> tuple[dict[str, Any], list[Any]]:
    assert _serving is not None
    try:
        reader = getattr(importlib.import_module(module), name)
        _serving.begin(memory, seconds)
        about, arrays = reader(path, *arguments)
        whole = [np.ascontiguousarray(array).reshape(array.shape) for array in arrays]
        forms = [(array.dtype.str, array.shape) for array in whole]
        answer = {"about": about, "arrays": forms, "size": sum(array.nbytes for array in whole)}
        return answer, [array.data.cast("B") if array.nbytes else b"" for array in whole]
    except StlDeployError as error:
        return {"refusal": str(error), "of tool": isinstance(error, ToolError)}, []
    except MemoryError:
        return {"refusal": f"{path}: takes more memory than a file of its size may", "of tool": False}, []
    except Exception:  # a mistake of ours, which is not to be taken for a crash
        return {"defect": traceback.format_exc()}, []
