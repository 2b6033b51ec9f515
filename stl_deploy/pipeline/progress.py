"""Progress in a few lines."""

from __future__ import annotations

import time
from collections.abc import Callable

from stl_deploy._util.console import Console

_SECONDS = 5.0
"""Between two lines."""


def now_and_then(say: Console, what: str) -> Callable[[int, int], None]:
    """Called with (done, total), says so where it takes long: "``what``: 40 of 400"."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last >= _SECONDS:
            last = now
            say.say(f"{what}: {done:,} of {total:,}")

    return show
