"""Times of several ways to compute the same, taken turn by turn, so that what else the machine does falls on all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

QUIET = 2.0
"""Above this load the machine has other work, and times say little."""


def interleave(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, ``rounds`` times each, after one call of each that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times
