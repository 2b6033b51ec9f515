"""Show that long work goes on: a line that is replaced on a terminal, a plain line now and then elsewhere.

    with working("capturing Net", progress):
        stage("tracing")
        ...
        stage("proving", done, total)

Work that takes no more than a few seconds shows nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from stl_deploy._util.console import Console
from stl_deploy._util.training_progress import Batch, duration
from stl_deploy._util.untrusted import printable

FIRST, TERMINAL, ELSEWHERE = 3.0, 0.5, 10.0
"""Seconds until the first line, and between two of them on a terminal and elsewhere."""
_shown: list[_Reporter] = []


@contextmanager
def working(what: str, progress: bool | None = None) -> Iterator[None]:
    """Inside, a thread tells on standard error what is done and for how long; inner calls add to the outer one.

    progress: False: nothing is shown; None or True: after `FIRST` seconds.
    """
    if progress is False or _shown:
        yield
        return
    reporter = _Reporter(what)
    _shown.append(reporter)
    reporter.start()
    try:
        yield
    finally:
        _shown.remove(reporter)
        reporter.end()


def stage(name: str, done: int | None = None, total: int | None = None) -> None:
    """Name what is being done, and how much of it is; does nothing outside of `working`."""
    if _shown:
        text = name if done is None else f"{name} {done:,} of {total:,}"
        _shown[-1].stage = ": ".join([*_shown[-1].parts, text])


@contextmanager
def part(name: str) -> Iterator[None]:
    """Inside, put this name before that of every stage, which may begin anew in the next part."""
    parts = _shown[-1].parts if _shown else []
    parts.append(name)
    try:
        yield
    finally:
        parts.pop()


class StageConsole(Console):
    """A quiet console whose epochs and batches become stages of the work that is shown."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Name the epoch that is done, with its validation accuracy."""
        stage(f"epoch {record['epoch']} of {record['epochs']} done, validation {record['validation_accuracy']:.1%}")

    @contextmanager
    def training(self) -> Iterator[Batch]:
        """Name the epoch, and how many of its samples are done."""
        yield lambda epoch, epochs, done, total, loss: stage(f"epoch {epoch} of {epochs}, samples", done, total)


class _Reporter(threading.Thread):
    def __init__(self, what: str) -> None:
        super().__init__(daemon=True, name="stl-deploy progress")
        self.what, self.stage = what, ""
        self.parts: list[str] = []
        self._began, self._over, self._width = time.monotonic(), threading.Event(), 0

    def run(self) -> None:
        """Tell now and then until the end."""
        if self._over.wait(FIRST):
            return
        while True:
            stream = sys.stderr
            terminal = stream is not None and stream.isatty()
            self._tell(stream, terminal)
            if self._over.wait(TERMINAL if terminal else ELSEWHERE):
                return

    def end(self) -> None:
        """Stop, and take the line of a terminal away."""
        self._over.set()
        self.join()
        if self._width:
            _write(sys.stderr, f"\r{' ' * self._width}\r")

    def _tell(self, stream: TextIO | None, terminal: bool) -> None:
        text = printable(": ".join(part for part in (self.what, self.stage) if part))
        text = f"{text} ({duration(time.monotonic() - self._began)})"
        if not terminal:
            _write(stream, f"{text}\n")
            return
        _write(stream, f"\r{text[:79]:<{self._width}}")
        self._width = len(text[:79])


def _write(stream: TextIO | None, text: str) -> None:
    try:
        if stream is not None:
            stream.write(text)
            stream.flush()
    except (OSError, ValueError):  # a full disk, a closed stream
        pass


_SECONDS = 5.0
"""Between two lines of `now_and_then`, at least."""


def now_and_then(say: Console, what: str) -> Callable[[int, int], None]:
    """Return a callback of (done, total) that prints a line such as "steps: 40 of 400" at most every `_SECONDS`."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last >= _SECONDS:
            last = now
            say.say(f"{what}: {done:,} of {total:,}")

    return show
