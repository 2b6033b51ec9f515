"""Suggest known names for an unknown one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return `` (did you mean 'mnist'?)`` if ``known`` has a name close to ``name``, else nothing.

    most: names suggested. With more than one, those that contain ``name`` count as close, too.
    """
    names = sorted(known)
    containing = [candidate for candidate in names if name and name in candidate] if most > 1 else []
    close = list(dict.fromkeys([*get_close_matches(name, names, n=most), *containing]))[:most]
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
