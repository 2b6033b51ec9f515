"""Progress in a few lines."""

from __future__ import annotations

from collections.abc import Callable

from stl_deploy._util.console import Console


def tenths(say: Console, what: str) -> Callable[[int, int], None]:
    """Called with (done, total), says so at every tenth: "``what``: 40 of 400"."""
    last = -1

    def show(done: int, total: int) -> None:
        nonlocal last
        tenth = done * 10 // total
        if tenth > last:
            last = tenth
            say.say(f"{what}: {done:,} of {total:,}")

    return show
