"""Temporary files and folders that are swept if their process was killed.

Their names hold machine and process; the next maker beside them removes those of dead processes.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stl_deploy.errors import InputError

PREFIX = ".stl-deploy-"
_NAME = re.compile(re.escape(PREFIX) + r"(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,10})-")
_swept: set[tuple[int, str]] = set()


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a folder, by default in ``$TMPDIR``, that is removed at the end of the block.

    Raises InputError where none can be made in ``parent``, OSError where none can be by default.
    """
    place = parent if parent is not None else Path(tempfile.gettempdir())
    sweep(place)
    try:
        made = tempfile.TemporaryDirectory(dir=place, prefix=_prefix(), ignore_cleanup_errors=True)
    except OSError as error:
        if parent is not None:
            raise InputError(f"cannot write in {place}: {error.strerror}; name a folder that takes files") from None
        raise OSError(error.errno, f"cannot write there: {error.strerror}", str(place)) from None
    with made as name:
        yield Path(name)


def temporary_beside(path: Path) -> Path:
    """Return a new, empty file in ``path``'s folder with its suffix; raise OSError if that fails."""
    sweep(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(), suffix=path.suffix[:20])
    os.close(handle)
    return Path(name)


def sweep(place: Path) -> None:
    """Remove leftovers of killed processes of this machine and user from a folder; once per folder and process."""
    key = (os.getpid(), str(place))
    if key in _swept or sys.platform == "win32":  # there a process cannot be asked whether it lives
        return
    _swept.add(key)
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            match = _NAME.match(entry.name)
            if match is None or match["machine"] != _machine() or is_alive(int(match["process"])):
                continue
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def _prefix() -> str:
    return f"{PREFIX}{_machine()}-{os.getpid()}-"


def _machine() -> str:
    """Identify the scope of process numbers: the machine, and on Linux the namespace (a container's)."""
    where = platform.node()
    with contextlib.suppress(OSError):
        where += f" {os.stat('/proc/self/ns/pid').st_ino}"
    return f"{zlib.crc32(where.encode('utf-8', 'replace')):08x}"


def is_alive(process: int) -> bool:
    """Return whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
