"""Results that are worked out once for an object, as long as it lives."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

K = TypeVar("K")
V = TypeVar("V")


def remembered(function: Callable[[K], V]) -> Callable[[K], V]:
    """``function`` of an object that never changes and is equal to itself alone; the result is not to be changed."""
    known: WeakKeyDictionary[K, V] = WeakKeyDictionary()

    @wraps(function)
    def once(argument: K) -> V:
        if argument not in known:
            known[argument] = function(argument)
        return known[argument]

    return once
