"""Warn at the line of the caller's own code, however many calls of this package lie between."""

from __future__ import annotations

import sys
import warnings

_OURS = ("stl_deploy", "torch")


def warn_caller(message: str) -> None:
    """Issue a UserWarning at the nearest frame outside the package, and outside torch, which calls our modules."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
