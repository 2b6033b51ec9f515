"""What a person sees on the error stream while things run: rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.table import Table

from stl_deploy._util.printable import printable


class Console:
    """Human text on ``stream`` (default: stderr); ``quiet`` leaves only warnings."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self._stream = stream if stream is not None else sys.stderr or StringIO()  # a closed stream is None
        self._rich = RichConsole(file=self._stream, highlight=False) if self._stream.isatty() else None

    def say(self, text: str = "") -> None:
        """One line."""
        if not self.quiet:
            self._line(text)

    def step(self, title: str) -> None:
        """The heading of a stage of work."""
        if not self.quiet:
            self._line(title, style="bold cyan")

    def warn(self, text: str) -> None:
        """A warning, shown even when quiet."""
        self._line(f"warning: {text}", style="yellow")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; plain: columns parted by two blanks."""
        if self.quiet:
            return
        rows = [[printable(cell) for cell in row] for row in rows]
        if self._rich is not None:
            table = Table(*headers, box=None, header_style="bold", pad_edge=False)
            for row in rows:
                table.add_row(*(escape(cell) for cell in row))
            with _lost():
                self._rich.print(table)
            return
        for line in columns([headers, *rows]):
            self._line(line)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """One epoch of training (a record of `stl_deploy.training.loop`)."""
        self.say(epoch_line(record))

    def _line(self, text: str, style: str | None = None) -> None:
        with _lost():
            if self._rich is not None:
                self._rich.print(escape(printable(text)), style=style, soft_wrap=True)
            else:
                print(printable(text), file=self._stream, flush=True)


@contextmanager
def _lost() -> Iterator[None]:
    """What cannot be written for people (a full disk, a terminal that is gone) is lost; work goes on without."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equal length as lines, columns parted by two blanks."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def epoch_line(record: Mapping[str, Any]) -> str:
    """Loss, accuracies, spike rates by layer and the range of all thresholds, in one line."""
    width = len(str(record["epochs"]))
    rates = " ".join(f"{rate:.3f}" for rate in record["rates"].values())
    parts = [
        f"epoch {record['epoch']:>{width}}/{record['epochs']}",
        f"loss {record['loss']:.4f}",
        f"train {record['train_accuracy']:7.2%}",
        f"val {record['validation_accuracy']:7.2%}",
        f"spike rates {rates}",
    ]
    thresholds = record["thresholds"].values()
    if thresholds:
        low, high = min(t["min"] for t in thresholds), max(t["max"] for t in thresholds)
        parts.append(f"θ {low:.2f}..{high:.2f}")
    return "  ".join([*parts, f"{record['seconds']:.1f} s"])
