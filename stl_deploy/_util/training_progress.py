"""Show training progress: a bar or occasional lines within an epoch, and one line per epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

Batch = Callable[[int, int, int, int, float], None]
"""Called after a batch with the epoch (from 1), all epochs, samples done in it, samples in it, the mean loss so far."""

LINE_SECONDS = 10.0
"""Off a terminal, an epoch tells of itself no more often than this."""


class Pace:
    """Samples per second, and the time left of all epochs, since the first call."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._first = 0

    def __call__(self, epoch: int, epochs: int, done: int, total: int) -> tuple[float, float]:
        """Return (samples per second, seconds left); zeros until they are known."""
        now, seen = time.perf_counter(), (epoch - 1) * total + done
        if self._start is None:
            self._start, self._first = now, seen
        if now == self._start or seen == self._first:
            return 0.0, 0.0
        rate = (seen - self._first) / (now - self._start)
        return rate, (epochs * total - seen) / rate


class Lines:
    """For files and pipes: a plain line during long epochs."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._pace, self._reported = say, Pace(), time.perf_counter()

    def __call__(self, epoch: int, epochs: int, done: int, total: int, loss: float) -> None:
        """Count a batch."""
        rate, left = self._pace(epoch, epochs, done, total)
        now = time.perf_counter()
        if rate == 0:  # the first batch, which compiles and loads
            self._reported = now
        elif done < total and now - self._reported >= LINE_SECONDS:
            self._reported = now
            self._say(
                f"epoch {epoch}/{epochs}: {done:,} of {total:,} samples, {rate:,.0f} samples/s, loss {loss:.4f}, "
                f"{duration(left)} left"
            )
        elif done == total:
            self._reported = now


class Bar:
    """For terminals: a bar that fills once an epoch, and vanishes at the end."""

    def __init__(self, console: RichConsole) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        fields = ("{task.fields[rate]:>9} samples/s", "loss {task.fields[loss]}", "{task.fields[left]:>7} left")
        columns = (TextColumn("{task.description}"), BarColumn(24), *map(TextColumn, fields))
        self._progress = Progress(*columns, console=console, transient=True, refresh_per_second=5)
        self._task = self._progress.add_task("", total=1, visible=False, rate="", loss="", left="")
        self._pace = Pace()

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, epoch: int, epochs: int, done: int, total: int, loss: float) -> None:
        """Count a batch."""
        rate, left = self._pace(epoch, epochs, done, total)
        self._progress.update(
            self._task,
            description=f"epoch {epoch:>{len(str(epochs))}}/{epochs}",
            total=total,
            completed=done,
            visible=True,
            rate=f"{rate:,.0f}",
            loss=f"{loss:.4f}",
            left=duration(left),
        )


def duration(seconds: float) -> str:
    """Format as ``42 s``, ``3:05 min``, ``2:10 h``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


def epoch_line(record: Mapping[str, Any], width: int | None = None) -> str:
    """Return loss, accuracies, spike rates by layer and the range of all thresholds, in one line.

    width: where the line would be longer, rates are given as a range, then the training accuracy is left out.
    """
    number = len(str(record["epochs"]))
    rates = list(record["rates"].values())
    parts = {
        "epoch": f"epoch {record['epoch']:>{number}}/{record['epochs']}",
        "loss": f"loss {record['loss']:.4f}",
        "train": f"train {record['train_accuracy']:7.2%}",
        "val": f"val {record['validation_accuracy']:7.2%}",
        "rates": f"spike rates {' '.join(f'{rate:.3f}' for rate in rates)}",
    }
    thresholds = record["thresholds"].values()
    if thresholds:
        low, high = min(t["min"] for t in thresholds), max(t["max"] for t in thresholds)
        parts["thresholds"] = f"θ {low:.2f}..{high:.2f}"
    parts["seconds"] = f"{record['seconds']:.1f} s"
    if width is not None and _length(parts) > width:
        parts["rates"] = f"rates {min(rates, default=0):.2f}..{max(rates, default=0):.2f}"
        if _length(parts) > width:
            del parts["train"]
    return "  ".join(parts.values())


def _length(parts: Mapping[str, str]) -> int:
    return len("  ".join(parts.values()))
