"""How kernels are compiled: without Python's lock, and kept on disk under a key of all their sources.

Numba renews a kept function when its own file changes, not when a file changes that it calls into. The key makes any
change to this package a new place, so nothing stale is ever loaded. Numba compiles anew for another clone, another
release of its own or another processor; the key covers these, too, so that a mark of what is compiled is never stale.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba

SOURCES = Path(__file__).parent
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


@cache
def sources_key() -> str:
    """A key of every source file of this package, by path and time of change, and of what compiles it."""
    compiler = (numba.__version__, sys.version, llvmlite.binding.get_host_cpu_name())
    digest = hashlib.sha256(repr(compiler).encode())
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(f"{path} {path.stat().st_mtime_ns} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def cache_folder() -> Path | None:
    """Where compiled code is kept: below ``NUMBA_CACHE_DIR``, else the user's cache, else a temporary folder.

    None where none of them can be written: then each process compiles anew. Warns where it is not the first of them.
    """
    asked, home = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    tried = [Path(asked)] if asked else []
    tried += [Path(home) if home else Path("~/.cache").expanduser(), Path(tempfile.gettempdir())]
    for base in tried:
        folder = _kernels_below(base)
        if folder is not None:
            break
    if folder is None or base != tried[0]:
        kept = "is compiled by each process" if folder is None else f"is kept in {folder}"
        warnings.warn(
            f"the compiled fast path {kept}: {tried[0]} cannot be written (NUMBA_CACHE_DIR names another place)",
            stacklevel=2,
        )
    return folder


def _kernels_below(base: Path) -> Path | None:
    try:
        folder = private_folder(base) / "stl-deploy" / "numba" / sources_key()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):
        return None


def private_folder(base: Path) -> Path:
    """``base``, or where anybody may write (a folder for temporary files) a folder in it that is this user's alone.

    Numba's index is unpickled: one that somebody else has put there would run their code. Raises OSError if it is not.
    """
    if not hasattr(os, "geteuid") or not base.exists() or not base.stat().st_mode & stat.S_IWOTH:
        return base
    folder = base / f"stl-deploy-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    return numba.njit(**_OPTIONS, **options)(function)


def compiled(function: Callable[..., Any]) -> Any:
    """A kernel, called from Python. It is kept on disk together with its parts."""
    folder = cache_folder()
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    try:
        numba.config.CACHE_DIR = str(folder or "")  # type: ignore[attr-defined]
        return _compile(function, cache=folder is not None)
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]


def part(function: Callable[..., Any]) -> Any:
    """A part of kernels; Python cannot call it."""
    return _compile(function, no_cpython_wrapper=True)


def inlined(function: Callable[..., Any]) -> Any:
    """A part of kernels that takes or gives vectors: they stay in registers."""
    return _compile(function, no_cpython_wrapper=True, forceinline=True)
