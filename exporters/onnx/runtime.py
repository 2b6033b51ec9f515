"""Import ONNX Runtime, in this one place, with its telemetry off.

The official Linux builds from 1.29 on report models and machine to their maker unless ``ORT_DISABLE_TELEMETRY`` stands
in the environment when the library is loaded: a device id and a database go into the user's cache, and ``.ses`` into
the folder for temporary files, through whatever link lies there. ``disable_telemetry_events()`` comes too late for the
files, but is all that helps where somebody else has imported the library before us.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]


T = TypeVar("T")


def interruptible(work: Callable[[], T]) -> T:
    """Run ``work`` so that signals are handled at once, even if the call spends minutes outside Python.

    Python runs signal handlers only between instructions of its main thread. So another thread runs ``work`` and the
    main thread waits. After an interrupt the other thread continues until its call returns or the process ends.

    Args:
        work: Must release Python's global lock, or nothing is gained.

    Returns:
        The result of ``work``; its exceptions are raised here.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised in the main thread
            errors.append(error)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(0.1)
    if errors:
        raise errors[0]
    return results[0]
