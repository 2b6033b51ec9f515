"""Locate an operation in the user's code, and its module."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch import nn

_HERE = Path(__file__).parent
_PASSED = (str(Path(torch.__file__).parent), str(_HERE))
"""Torch, and this package."""
_OURS = str(_HERE.parent)
_START = str(_HERE / "running.py")
"""Where the model is called: what stands further out is not the model's."""
_LIBRARIES = tuple({sysconfig.get_paths()[key] for key in ("purelib", "platlib", "stdlib")})


@dataclass(frozen=True)
class Place:
    """line: the innermost one outside of installed packages ("net.py:31"). module: the innermost module's name.

    kind: that module's class. inner: the innermost line that is a module's, or outside of torch, the framework's where
    there is one. Places are equal whatever the line: a layer's first call may stand before the loop.
    """

    line: str | None = field(compare=False)
    module: str
    kind: str = ""
    inner: str | None = None


def place(names: Mapping[int, str]) -> Place:
    """Return the caller's place; ``names`` gives each module's name by its id."""
    line: str | None = None
    innermost: str | None = None
    module: str | None = None
    kind = ""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        if module is None and _names_self(code):
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module):
                module, kind = names.get(id(owner)), type(owner).__name__
                innermost = innermost or _shown(file, frame.f_lineno)
        if file == _START:
            break
        if not file.startswith(_PASSED):
            if innermost is None:
                innermost = _shown(file, frame.f_lineno)
            if line is None and _is_theirs(file):
                line = _shown(file, frame.f_lineno)
            if line is not None and module is not None:
                break
        frame = frame.f_back
    return Place(line, module or "", kind, innermost)


def raised_at(error: BaseException) -> str | None:
    """Return the innermost line of the user's own code that an error passed through; None if there is none."""
    line = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if _is_theirs(frame.f_code.co_filename):
            line = _shown(frame.f_code.co_filename, number)
    return line


def in_module(where: Place) -> str:
    """Return the module for a message, with its class: " (in module '3', IzhikevichNode)"."""
    return f" (in module '{where.module}', {where.kind})" if where.module else ""


def _names_self(code: CodeType) -> bool:
    return "self" in code.co_varnames or "self" in code.co_cellvars or "self" in code.co_freevars


@cache
def _is_theirs(file: str) -> bool:
    return not file.startswith((*_LIBRARIES, _OURS)) and "site-packages" not in file


@cache
def _shown(file: str, number: int) -> str:
    return f"{Path(file).name}:{number}"
