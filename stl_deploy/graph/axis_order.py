"""Warn of input whose axes may be in another order than a graph's ``[T, B, ...]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stl_deploy._util.caller import warn_caller
from stl_deploy._util.units import counted
from stl_deploy.graph.program import CAPTURED


def swapped(steps: int, samples: int, usual: object) -> bool:
    """Return whether the numbers of steps and samples look swapped; usual: steps of the capture."""
    return bool(steps != usual and samples == usual)


def axes_in_doubt(metadata: Mapping[str, Any], x: Any, trained: int | None = None) -> str | None:
    """Return a warning if x ``[T, B, *shape]`` may be ``[B, T, *shape]``; trained: the steps of training.

    x: an array or tensor, or one for each input by name.
    A module captured with time second takes ``[B, T, ...]``; its graph, read from a file, takes ``[T, B, ...]``.
    """
    if min(np.ndim(array) for array in (x.values() if isinstance(x, Mapping) else [x])) < 2:
        return None
    steps, samples = next(iter(x.values() if isinstance(x, Mapping) else [x])).shape[:2]
    captured = metadata.get(CAPTURED)
    captured = captured if isinstance(captured, Mapping) else {}
    read = f"x is read as [T, B, ...], {counted(steps, 'step')} of {counted(samples, 'sample')}; this "
    if swapped(steps, samples, captured.get("steps", trained)):
        learnt = "graph was captured from a module" if captured else "network was trained"
        return f"{read}{learnt} on {counted(samples, 'step')}: if x is [B, T, ...], swap its first two axes"
    if captured.get("time") == "second" and steps == samples > 1:
        return f"{read}graph's module takes [B, T, ...]: if x is as the module takes it, swap its first two axes"
    return None


def warn_of_order(time: str | None) -> None:
    """Warn that a module made of a graph takes ``[T, B, ...]``; time: of the captured one, which may not."""
    if time == "second":
        warn_caller(
            "this module and its graph take [T, B, ...], not [B, T, ...] as the captured one: x.transpose(0, 1)"
        )
