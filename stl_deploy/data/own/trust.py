"""Record the user's Python files that may run for their data.

A configuration that the user names is trusted, and so are its files: `allow` is called for them. A run folder may come
from another user: its configuration's files run only if this user has trained from the very file before (a hash of it
is kept in the cache), or passes ``--trust``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from stl_deploy._util.files import cache_dir, read_json, write_json
from stl_deploy._util.private import require_private
from stl_deploy._util.remedies import remedy
from stl_deploy.errors import InputError

_KEPT = "trusted.json"
allowed: set[str] = set()
"""Marks of the files that may run in this process."""
_EVERYTHING = "*"


def allow(file: Path) -> None:
    """Allow ``file``, named in a user's own configuration, to run now and whenever its run folder is read."""
    mark = _mark(file)
    kept = _kept()
    allowed.add(mark)
    if mark not in kept:
        write_json(cache_dir() / _KEPT, sorted({*kept, mark}))


def allow_everything() -> None:
    """Apply ``--trust``: any file of a configuration may run in this process."""
    allowed.add(_EVERYTHING)


def require(file: Path) -> None:
    """Raise InputError unless ``file`` may run."""
    if _EVERYTHING in allowed or (mark := _mark(file)) in allowed or mark in _kept():
        return
    raise InputError(
        f"{file}: a Python file named by a run folder, and none that you have trained from before; its code would run: "
        "read it, and "
        + remedy(cli="say --trust", python=f"allow it: stl_deploy.data.own.trust.allow(Path({str(file)!r}))")
    )


def _mark(file: Path) -> str:
    """Return a mark of the file's place and content, so that another file, or a changed one, differs."""
    try:
        return hashlib.sha256(f"{file.resolve()}\0".encode() + file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error} (key 'dataset.path')") from None


def _kept() -> set[str]:
    try:
        require_private(cache_dir() / _KEPT)
        trusted = read_json(cache_dir() / _KEPT)
    except (InputError, OSError):
        return set()
    return {mark for mark in trusted if isinstance(mark, str)} if isinstance(trusted, list) else set()
