"""Run one Lava worker process: started in a group of its own, watched, timed, and cleaned up after."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util import system
from stl_deploy._util.files import read_json, read_npz, write_json, write_npz
from stl_deploy._util.temporary import is_alive, temporary_folder
from stl_deploy.errors import StlDeployError, ToolError

WORKER = Path(__file__).parent / "side" / "worker.py"

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

_SHARED_MEMORY = re.compile(r"stl-(\d{1,10})-")
_LONGEST = 70
"""Of a folder in which processes make sockets, whose names may have 107 characters."""
_POLL_SECONDS = 0.1
GRACE_SECONDS = 3.0
"""Between asking the process group to end (Lava then frees its shared memory) and ending it."""


def run_worker(
    python: Path,
    net_path: Path,
    x: NDArray[Any],
    *,
    deadline: float,
    progress: Progress | None = None,
    script: Path | None = None,
    tool: str = "Lava",
) -> dict[str, NDArray[np.uint8]]:
    """Return each layer's spikes from one worker process; all its processes are ended in any case.

    deadline: seconds without progress after which the run is ended; script: the worker, by default the one for netx
    files; net_path: its network; tool: its name in messages.
    """
    with temporary_folder() as folder:
        write_npz(folder / "input.npz", {"x": x})
        job = {
            "net": str(net_path.resolve()),
            "input": str(folder / "input.npz"),
            "folder": str(folder),
            "parent": os.getpid(),
        }
        write_json(folder / "job.json", job)
        _sweep_shared_memory()
        with (folder / "errors.txt").open("wb") as errors:
            worker = start_worker(python, script or WORKER, folder, errors.fileno(), tool)
            try:
                _wait(worker, folder, deadline, progress, tool)
            finally:
                end_group(worker)
                _sweep_shared_memory()
        return _collect(worker, folder, tool)


def start_worker(python: Path, script: Path, folder: Path, errors: int, tool: str = "Lava") -> subprocess.Popen[bytes]:
    """Start the worker at the head of a process group of its own; raise ToolError if that fails."""
    try:
        return subprocess.Popen(
            [str(python), "-I", str(script), str(folder / "job.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=folder,
            env=os.environ | {"TMPDIR": str(folder) if len(str(folder)) < _LONGEST else "/tmp"},
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(f"{tool}'s Python {python} cannot be started: {error.strerror or error}") from None


def _wait(worker: subprocess.Popen[bytes], folder: Path, deadline: float, progress: Progress | None, tool: str) -> None:
    shown, since = None, time.monotonic()
    running = True
    while running:
        running = worker.poll() is None
        now = _steps(folder)
        if now != shown:
            shown, since = now, time.monotonic()
            if progress is not None and now is not None:
                progress(*now)
        if running and time.monotonic() - since > deadline:
            raise ToolError(f"{tool} was ended after {deadline:g} s without progress{_reason(folder)}")
        if running:
            time.sleep(_POLL_SECONDS)


def _steps(folder: Path) -> tuple[int, int] | None:
    """Return (done, total); None before the worker has reported any."""
    if not (folder / "progress.json").is_file():
        return None
    progress = read_json(folder / "progress.json")
    return int(progress["done"]), int(progress["total"])


_AT_EVERY_START = "No CUDA runtime is found"
"""torch says so when it is loaded."""


def _reason(folder: Path) -> str:
    text = (folder / "errors.txt").read_bytes()[-20_000:].decode("utf-8", "replace")
    lines = [line for line in text.rstrip().splitlines() if not line.startswith(_AT_EVERY_START)]
    return f" (its last words: {lines[-1][:200]})" if lines else ""


def _collect(worker: subprocess.Popen[bytes], folder: Path, tool: str) -> dict[str, NDArray[np.uint8]]:
    if worker.returncode == errno.ENOSPC:
        raise ToolError(
            f"no space left for {tool}'s files in {folder.parent}; free some, or name a larger folder with TMPDIR"
        )
    if (folder / "failure.json").is_file():
        raise ToolError(f"{tool} could not run the network: {read_json(folder / 'failure.json')['reason'][:300]}")
    if not (folder / "done.json").is_file():
        code = worker.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise ToolError(f"{tool}'s worker {how} before it finished{_reason(folder)}")
    try:
        return read_npz(folder / "spikes.npz")
    except StlDeployError as error:
        raise ToolError(f"{tool}'s result cannot be read: {error}") from None


def _sweep_shared_memory() -> None:
    """Remove the shared memory of workers that are gone (see `SHARED_MEMORY` in the worker); only Linux shows it."""
    with contextlib.suppress(OSError), os.scandir("/dev/shm") as entries:
        for entry in entries:
            match = _SHARED_MEMORY.match(entry.name)
            with contextlib.suppress(OSError):
                if match and entry.stat(follow_symlinks=False).st_uid == os.geteuid() and not is_alive(int(match[1])):
                    os.unlink(entry.path)


def end_group(worker: subprocess.Popen[bytes]) -> None:
    """End the worker and every process of its group, gently first."""
    for signal_, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        end = time.monotonic() + seconds
        try:
            system.signal_group(worker, signal_)
            while time.monotonic() < end:
                worker.poll()
                system.signal_group(worker, 0)
                time.sleep(0.02)
        except (ProcessLookupError, PermissionError):
            break
    worker.wait()
