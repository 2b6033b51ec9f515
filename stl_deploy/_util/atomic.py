"""Write files whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stl_deploy._util.temporary import temporary_beside
from stl_deploy.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the name only if the block ends well.

    Raises InputError if ``path`` is a folder or a device, or cannot be written.
    """
    make_place(path)
    with _as_input_errors(path):
        temporary = temporary_beside(path)
    try:
        with _as_input_errors(path):
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_place(path: Path) -> None:
    """Make the folder of a file to be written; raises InputError if ``path`` is a folder or a device."""
    with _as_input_errors(path):
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: {'a folder' if path.is_dir() else 'no plain file'}; name a file to write")
    make_folder(path.parent)


def require_folder(path: Path) -> None:
    """Raise InputError if a folder's path is taken by another kind of file."""
    with _as_input_errors(path):
        there = path.exists() and not path.is_dir()
    if there:
        kind = "a file" if path.is_file() else "a pipe or device"
        raise InputError(f"{path}: expected a folder to write into; found {kind}; name another")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if missing; raise InputError if that fails."""
    require_folder(path)
    with _as_input_errors(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def _as_input_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # of names that are no UTF-8


def write_json(path: Path, data: Any) -> None:
    """Write JSON (indented, no NaN) whole or not at all."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")
