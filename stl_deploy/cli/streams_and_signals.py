"""Handle closed, broken or full standard streams, and signals that end the process."""

from __future__ import annotations

import _imp
import _thread
import atexit
import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from stl_deploy._util import install
from stl_deploy._util.system import sleep_when_idle
from stl_deploy._util.untrusted import printable


def open_closed_streams() -> None:
    """Open /dev/null for closed standard streams, so that no file of ours takes their numbers.

    Libraries write to 1 and 2 without a check. ``sys.stdout`` stays None, so that its users notice.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)


class Endings:
    """Signals that end the process: an interrupt during a verb; ignored once its exit code is settled."""

    def __init__(self) -> None:
        self.came = False
        self._code: int | None = None
        self._before = dict[int, Any]()
        self._unraisable = sys.unraisablehook

    def watch(self) -> None:
        """Handle SIGINT, SIGTERM and SIGHUP, except those that are ignored or handled by others."""
        for number in (getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)):
            with contextlib.suppress(ValueError):  # not the main thread
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._answer)
        sys.unraisablehook = self._again

    def settle(self, code: int) -> None:
        """From here on a signal ends the process at once, with ``code``: only messages and clean-up are left."""
        self._code = code
        for number in self._before:
            signal.signal(number, self._answer)

    def restore(self) -> None:
        """Restore the former handlers."""
        sys.unraisablehook = self._unraisable
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if self._code is not None:
            os._exit(self._code)
        if _loads_extension(frame) and _comes_again(number):
            return
        self.came = True
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        raise KeyboardInterrupt

    def _again(self, ignored: sys.UnraisableHookArgs) -> None:
        """Repeat an interrupt outside, where Python can only ignore it, as in a weak reference's callback."""
        if not (self.came and issubclass(ignored.exc_type, KeyboardInterrupt)):
            self._unraisable(ignored)
            return
        for number in self._before:
            signal.signal(number, self._answer)
        _comes_again(next(iter(self._before)))


def _loads_extension(frame: FrameType | None) -> bool:
    """Return whether an extension module is loading: in C++ an exception there ends in abort, or in an ImportError.

    So it does where the top level of torch's modules calls torch's C++, as ``torch.distributed`` does.
    """
    if frame is not None and frame.f_code.co_name == "<module>":
        package, _, _ = str(frame.f_globals.get("__name__")).partition(".")
        if package == "torch":
            return True
    while frame is not None:
        by_importlib = frame.f_code.co_name == "_call_with_frames_removed"
        if by_importlib and frame.f_locals.get("f") in (_imp.create_dynamic, _imp.exec_dynamic):
            return True
        frame = frame.f_back
    return False


def _comes_again(number: int) -> bool:
    """Send a signal to the main thread again, a moment later; return whether it will come."""
    timer = threading.Timer(0.02, _signal_main_thread, [number])
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # no further thread may start
        return False
    return True


def _signal_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)  # wakes it where it waits, which interrupt_main does not
    else:
        _thread.interrupt_main(signal.Signals(number))


@contextmanager
def ended_like_interrupted(*, last: bool = False) -> Iterator[Endings]:
    """SIGTERM, and SIGHUP where it is not ignored, as Ctrl-C: an exception, so that temporary files go.

    Not while an extension module is loaded. The exception may come out as another one all the same, for others catch
    what they like. Whether a signal came is therefore kept.
    last: the process ends after this, so signals stay answered.
    """
    endings = Endings()
    endings.watch()
    try:
        yield endings
    finally:
        if not last:
            endings.restore()


def end_at_once(code: int) -> NoReturn:
    """End the process without taking Python down, after what is registered for its end.

    Taking it down waits for threads of a user's own code, without end if need be, and is deaf or deadly to a signal.
    Threads of torch's process groups that still hold a tensor ask for an interpreter that is gone, and abort the
    process though its work is done (pytorch pull request 179291). And ``python -m`` ends by SIGINT if an interrupt ever
    came while it ran code from a string, as importing dataclasses does.
    """
    atexit._run_exitfuncs()
    flush_streams()
    os._exit(code)


def flush_streams() -> str | None:
    """Flush the standard streams; return why standard output could not be written, or None.

    A stream that fails is redirected to /dev/null, since Python would try again at exit, and exit with 120.
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
    """Write one line on standard error, if possible."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{printable(message)}\n")


_FIXED = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
"""Figures go into files alone. Jupyter names a backend for its own Python, which may not be this one."""
_SET_ASIDE = ("TORCH_LOGS",)
"""Variables whose unknown values keep torch from being imported."""
_READ_HERE = {"matplotlibrc": "matplotlib", ".numba_config.yaml": "numba"}
"""Files of the current folder, and the packages that read them when they are imported, and fail if they are damaged."""


def prepare_libraries() -> None:
    """Set environment variables that libraries read, before any is imported."""
    sleep_when_idle()
    os.environ.update(_FIXED)
    for name in _SET_ASIDE:
        os.environ.pop(name, None)
    if not os.environ.get("SOURCE_DATE_EPOCH", "0").isdecimal():
        del os.environ["SOURCE_DATE_EPOCH"]
    for name, package in _READ_HERE.items():
        if os.path.lexists(name) and install.is_there(package):
            with _elsewhere():
                importlib.import_module(package)


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Set the current folder to this package's inside."""
    before = os.open(".", os.O_RDONLY) if hasattr(os, "fchdir") else os.getcwd()
    os.chdir(Path(__file__).parent)
    try:
        yield
    finally:
        os.chdir(before)
        if isinstance(before, int):
            os.close(before)
