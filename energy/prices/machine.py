"""Measure the energy of this machine by Linux's RAPL counters."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
LEAST_SECONDS = 0.5
"""The counters move about every millisecond; the work is repeated for at least so long."""


@dataclass(frozen=True)
class MachineEnergy:
    """Joules per sample of ``samples`` samples in ``seconds``; None if not measured, with the ``reason``."""

    joules_per_sample: float | None
    samples: int
    seconds: float | None
    domains: tuple[str, ...]
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        measured = self.joules_per_sample is not None
        return {
            "label": "measured" if measured else "not measured",
            "joules_per_sample": self.joules_per_sample,
            "samples": self.samples,
            "seconds": self.seconds,
            "domains": list(self.domains),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class _Counter:
    name: str
    file: Path
    wraps_at: int

    def read(self) -> int:
        return int(self.file.read_text())


def measure_machine(work: Callable[[], object], samples: int, *, root: Path = POWERCAP) -> MachineEnergy:
    """Run ``work`` (an inference over ``samples`` samples) for half a second or more and read Linux's RAPL counters.

    The value is the whole packages', idle power included. A counter that is unreadable or did not move gives "not
    measured" with the reason, never 0.
    """
    try:
        counters = _counters(root)
        before = [counter.read() for counter in counters]
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        return MachineEnergy(None, samples, None, (), f"the energy counters cannot be read ({text})")
    names = tuple(counter.name for counter in counters)
    if not counters:
        return MachineEnergy(None, samples, None, (), f"no CPU energy counters in {root}")
    start, rounds = time.perf_counter(), 0
    while not rounds or time.perf_counter() - start < LEAST_SECONDS:
        work()
        rounds += 1
    seconds = time.perf_counter() - start
    # the counters wrap at a value of their own, within the hour under load
    used = [(counter.read() - first) % counter.wraps_at for counter, first in zip(counters, before, strict=True)]
    if not all(used):
        return MachineEnergy(None, rounds * samples, seconds, names, "an energy counter did not move")
    return MachineEnergy(sum(used) * 1e-6 / (rounds * samples), rounds * samples, seconds, names)


def _counters(root: Path) -> list[_Counter]:
    """Return the CPU packages' counters; sub-domains (cores, memory) are left out."""
    counters = []
    for folder in sorted(root.glob("intel-rapl:*")):
        name = (folder / "name").read_text().strip()
        if name.startswith("package"):
            wraps_at = int((folder / "max_energy_range_uj").read_text()) + 1
            counters.append(_Counter(name, folder / "energy_uj", wraps_at))
    return counters
