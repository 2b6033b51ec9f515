"""What was meant by a name that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str], *, most: int = 1) -> str:
    """`` (did you mean 'mnist'?)`` if ``known`` has something close to ``name``, else nothing.

    most: names told. With more than one, those that contain ``name`` count as close, too.
    """
    names = sorted(known)
    within = [one for one in names if name and name in one] if most > 1 else []
    close = list(dict.fromkeys([*get_close_matches(name, names, n=most), *within]))[:most]
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
