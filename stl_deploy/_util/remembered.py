"""Cache results per object, for the object's lifetime."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

K = TypeVar("K")
V = TypeVar("V")


def remembered(function: Callable[[K], V]) -> Callable[[K], V]:
    """Cache ``function`` of an immutable object with identity equality; the result must not be changed."""
    known: WeakKeyDictionary[K, V] = WeakKeyDictionary()

    @wraps(function)
    def once(argument: K) -> V:
        if argument not in known:
            known[argument] = function(argument)
        return known[argument]

    return once
