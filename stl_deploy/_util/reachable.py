"""Follow links from item to item, each item once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def reachable(starts: Iterable[T], following: Callable[[T], Iterable[T]]) -> Iterator[T]:
    """Yield the starts and everything that they lead to, once each, nearest first.

    >>> list(reachable([1], lambda n: [2 * n, 2 * n + 1] if n < 4 else []))
    [1, 2, 3, 4, 5, 6, 7]
    """
    waiting = list(dict.fromkeys(starts))
    seen = set(waiting)
    # the list grows while it is walked, which makes this breadth-first
    for item in waiting:
        yield item
        for other in following(item):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
