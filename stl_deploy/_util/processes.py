"""Rank and world size from torchrun's environment variables; imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from stl_deploy._util.remedies import option
from stl_deploy.errors import ToolError


def world_size() -> int:
    """Return the number of processes that torchrun started; 1 without it, or if its variables are incomplete."""
    numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")]
    started = "MASTER_ADDR" in os.environ and all(number.isdecimal() for number in numbers)
    return int(os.environ["WORLD_SIZE"]) if started else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def local_rank() -> int:
    """Return its number among those on the same machine."""
    return _number("LOCAL_RANK", 0) if world_size() > 1 else 0


def on_this_machine() -> int:
    """Return the number of processes on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1) if world_size() > 1 else 1


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default


@contextmanager
def others_here(what: str) -> Iterator[None]:
    """Guard work of all processes together: raise ToolError if it fails, as one of them is then gone."""
    try:
        yield
    except RuntimeError as error:
        raise lost(f"they cannot {what}") from error


def lost(why: str) -> ToolError:
    """Return the error of the remaining processes when another one has ended."""
    return ToolError(
        f"one of the {world_size()} training processes ended or cannot be reached ({why}); finished epochs are kept; "
        f"continue with {option('resume')}"
    )
