"""Handle signals during long C++ calls of a library."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def interruptible(work: Callable[[], T]) -> T:
    """Run ``work`` so that a signal is handled at once, although the call may spend minutes outside Python.

    Python runs signal handlers in its main thread between two of its own instructions only. So another thread does the
    work, and this one waits. After an interrupt the other thread goes on until its call returns or the process ends.

    Args:
        work: Must release Python's global lock while it works, or nothing is gained.

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
