"""How many examples a property is tried on: a quarter on a push, all of them every night (``make explore``)."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

FEWEST = 5


def examples(most: int, **others: Any) -> settings:
    """Return the settings of a property that is tried on ``most`` examples nightly.

    A push, whose profile draws the same examples every time, takes a quarter of them, and five at least. others: more
    settings of hypothesis.
    """
    of_a_push = bool(settings.default.derandomize)
    return settings(max_examples=min(most, max(most // 4, FEWEST)) if of_a_push else most, **others)
