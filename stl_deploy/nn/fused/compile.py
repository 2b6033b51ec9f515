"""Compile kernels without Python's lock, and keep them on disk under a key of all their sources.

Numba renews a kept function when its own file changes, not when a called file changes. With the key any change to this
package gives a new place, so nothing stale is loaded. Numba compiles anew for another clone, another release of its own
or another processor; the key covers these, too, so that a mark of compiled code is never stale.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba

from stl_deploy._util.files import user_cache
from stl_deploy._util.install import is_there
from stl_deploy._util.private import private_folder

SOURCES = Path(__file__).parent
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_BLAS = "scipy.linalg.cython_blas"


def _load_arrays_without_scipy() -> None:
    """Import numba's arrays without `scipy.linalg`, which they load to see whether it is there; no kernel calls it.

    It takes 0.5 s, and its OpenBLAS tries without end to get memory where the address space is short.
    """
    if _BLAS in sys.modules:
        return
    sys.modules[_BLAS] = None  # type: ignore[assignment]  # as Python spells a module that cannot be imported
    try:
        from numba.np import arraymath
    finally:
        del sys.modules[_BLAS]
    arraymath._HAVE_BLAS = is_there("scipy")  # as numba finds it, for kernels of others


_load_arrays_without_scipy()


@cache
def sources_key() -> str:
    """Return a key of every source file of this package, by path and time of change, and of the compiler."""
    compiler = (numba.__version__, sys.version, llvmlite.binding.get_host_cpu_name())
    digest = hashlib.sha256(repr(compiler).encode())
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(f"{path} {path.stat().st_mtime_ns} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def cache_folder() -> Path | None:
    """Return the folder of compiled code: below ``NUMBA_CACHE_DIR``, else the user's cache, else a temporary folder.

    None if none of them can be written by this user alone: then each process compiles anew. Warns if it is not the
    first of them.
    """
    asked = os.environ.get("NUMBA_CACHE_DIR")
    tried = [*([Path(asked)] if asked else []), user_cache(), Path(tempfile.gettempdir())]
    for base in tried:
        folder = _kernels_below(base)
        if folder is not None:
            break
    if folder is None or base != tried[0]:
        kept = "is compiled by each process" if folder is None else f"is kept in {folder}"
        warnings.warn(
            f"the compiled fast path {kept}: {tried[0]} cannot be written, or can be written "
            "by other users (NUMBA_CACHE_DIR names another place)",
            stacklevel=2,
        )
    return folder


def _kernels_below(base: Path) -> Path | None:
    """Return the private folder: numba unpickles its index, so another user's file there would run their code."""
    try:
        folder = private_folder(base, "numba", sources_key())
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):
        return None


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    return numba.njit(**_OPTIONS, **options)(function)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a kernel that Python calls. It is kept on disk together with its parts."""
    folder = cache_folder()
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    try:
        numba.config.CACHE_DIR = str(folder or "")  # type: ignore[attr-defined]
        return _compile(function, cache=folder is not None)
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]


def part(function: Callable[..., Any]) -> Any:
    """Compile a part of kernels; Python cannot call it."""
    return _compile(function, no_cpython_wrapper=True)


def inlined(function: Callable[..., Any]) -> Any:
    """Inline a part of kernels that takes or returns vectors: they stay in registers."""
    return _compile(function, no_cpython_wrapper=True, forceinline=True)
