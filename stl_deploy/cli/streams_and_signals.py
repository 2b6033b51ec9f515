"""Standard streams that are closed, broken or full, and signals that end the process."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from stl_deploy._util.printable import printable


def open_closed_streams() -> None:
    """Put /dev/null where standard streams are closed, so that no file of ours takes their numbers.

    Libraries write to 1 and 2 whatever those are. ``sys.stdout`` stays None: who needs it finds out.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)


class Endings:
    """Whether a signal came that ends the process."""

    came = False


@contextmanager
def ended_like_interrupted() -> Iterator[Endings]:
    """SIGTERM, and SIGHUP where it is not ignored, as Ctrl-C: an exception, so that temporary files go.

    The exception may come out as another one, for it can be raised anywhere: an extension module in whose first lines
    it is raised makes an ImportError of it. Whether a signal came is therefore kept.
    """
    endings = Endings()

    def stop(number: int, _: Any) -> None:
        endings.came = True
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        raise KeyboardInterrupt

    before = {}
    for number in (getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)):
        with contextlib.suppress(ValueError):  # not the main thread
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, stop)
    try:
        yield endings
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deaf_to_signals() -> None:
    """From here on a signal changes nothing: the work is done and its exit code known, and Python only cleans up."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        with contextlib.suppress(ValueError):  # not the main thread
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)


def end_at_once(code: int) -> NoReturn:
    """End the process without taking Python down, after what is registered for its end.

    Threads of torch's process groups that still hold a tensor then ask for an interpreter that is gone, and abort the
    process though its work is done (pytorch pull request 179291).
    """
    atexit._run_exitfuncs()
    flush_streams()
    os._exit(code)


def flush_streams() -> str | None:
    """Write out what the standard streams hold; why standard output could not be, or None.

    A stream that fails is led to /dev/null, for Python would try again at its end, and end with 120.
    """
    reason = _flush(sys.stdout)
    _flush(sys.stderr)
    return reason


def _flush(stream: TextIO | None) -> str | None:
    try:
        if stream is not None:
            stream.flush()
    except BrokenPipeError:  # whoever read has read enough
        _lead_away(stream)
    except (OSError, ValueError) as error:
        _lead_away(stream)
        return getattr(error, "strerror", None) or str(error)
    return None


def _lead_away(stream: TextIO | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()


def say(message: str) -> None:
    """One line on standard error, if that can be written."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(printable(message), file=sys.stderr)
