"""Print progress and messages on the error stream: rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from stl_deploy._util.tables import columns
from stl_deploy._util.training_progress import Bar, Batch, Lines, epoch_line
from stl_deploy._util.untrusted import continued, printable


class Console:
    """Print human text on ``stream`` (default: stderr); ``quiet`` leaves only warnings, ``verbose`` adds `details`."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, stream: TextIO | None = None) -> None:
        self.quiet, self.verbose = quiet, verbose
        self._stream = stream if stream is not None else sys.stderr or StringIO()  # a closed stream is None
        self._rich: Any = None
        if self._stream.isatty():
            from rich.console import Console as RichConsole

            self._rich = RichConsole(file=self._stream, highlight=False)

    @property
    def details(self) -> Console:
        """The same console for lines that only ``verbose`` shows."""
        details = copy(self)
        details.quiet = self.quiet or not self.verbose
        return details

    def say(self, text: str = "") -> None:
        """Print one line."""
        if not self.quiet:
            self._line(text)

    def step(self, title: str) -> None:
        """Print the heading of a stage of work."""
        if not self.quiet:
            self._line(title, style="bold cyan")

    def warn(self, text: str) -> None:
        """Print a warning, even when quiet."""
        self._line(f"warning: {continued(text)}", style="yellow")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; plain: columns separated by two blanks."""
        if self.quiet:
            return
        rows = [[printable(cell) for cell in row] for row in rows]
        if self._rich is not None:
            for line in columns([headers, *rows], self._rich.width):
                self._line(line)
            return
        for line in columns([headers, *rows]):
            self._line(line)

    def keep(self, folder: Path) -> None:
        """Note the folder that keeps unfinished work; the command line says after Ctrl-C what is in it."""

    @contextmanager
    def training(self) -> Iterator[Batch]:
        """Yield a function to call after every batch: a bar on a terminal, occasional lines elsewhere."""
        if self.quiet:
            yield lambda *_: None
        elif self._rich is None:
            yield Lines(self.say)
        else:
            with Bar(self._rich) as bar:
                yield bar

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Print one epoch of training (a record of `stl_deploy.training.loop`)."""
        self.say(epoch_line(record, None if self._rich is None else self._rich.width))

    def _line(self, text: str, style: str | None = None) -> None:
        with _lost():
            if self._rich is not None:
                from rich.markup import escape

                self._rich.print(escape(printable(text)), style=style, soft_wrap=True)
            else:
                self._stream.write(f"{printable(text)}\n")  # at once: a signal's message may come in between
                self._stream.flush()


class _Quiet(Console):
    """Print warnings only, on the current standard error."""

    def __init__(self) -> None:
        super().__init__(quiet=True, stream=StringIO())

    def warn(self, text: str) -> None:
        """Print a warning."""
        Console(quiet=True).warn(text)


QUIET = _Quiet()
"""Default: warnings only."""


@contextmanager
def _lost() -> Iterator[None]:
    """Drop messages that cannot be written (full disk, closed terminal) and continue."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass
