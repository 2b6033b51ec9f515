"""Lock a run folder for one writer: the lock names its holder, and ends with the process."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from stl_deploy._util import system
from stl_deploy._util.files import make_folder
from stl_deploy.errors import InputError

NAME = ".lock"
_held: dict[Path, int] = {}
"""Folders that this process writes into, and the thread that does."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make ``folder`` and lock out other writers; inside, the same thread may lock again.

    Raises InputError, naming process, machine and time, where another one is at work in it. The lock is flock's: it
    goes with the process, however that ends. A file system that has no locks is used without.
    """
    place = folder.resolve()
    if _held.get(place) == threading.get_ident():
        yield
        return
    is_new = not folder.exists()
    make_folder(folder)
    descriptor = _acquire(folder)
    _held[place] = threading.get_ident()
    try:
        yield
    finally:
        del _held[place]
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()
        os.close(descriptor)
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if nothing was written


def require_no_writer(folder: Path) -> None:
    """Raise InputError, naming the process, if another one is at work in ``folder``."""
    if (folder / NAME).is_file():
        with alone_in(folder):
            pass


def _acquire(folder: Path) -> int:
    path = folder / NAME
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None
        try:
            system.lock(descriptor)
        except (BlockingIOError, PermissionError):
            holder = os.read(descriptor, 4096)
            os.close(descriptor)
            raise InputError(
                f"{folder}: {_holder(holder)} writes into it; wait until it has ended, or name another folder"
            ) from None
        except OSError:
            pass
        if _is_there(path, descriptor):
            break
        os.close(descriptor)  # its holder removed it in between
    about = {
        "process": os.getpid(),
        "machine": platform.node(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv)[:500],
    }
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(about).encode())
    return descriptor


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _holder(content: bytes) -> str:
    try:
        about = json.loads(content)
        return f"process {about['process']} on {about['machine']} (since {about['since']}: {about['command']})"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"
