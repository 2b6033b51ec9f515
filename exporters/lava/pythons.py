"""Finding a Python 3.10, the only version Lava runs on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from stl_deploy.errors import ToolError

VARIABLE = "STL_DEPLOY_PYTHON310"


def find_python310(chosen: Path | None = None) -> Path:
    """The first Python 3.10 among: ``chosen``, $STL_DEPLOY_PYTHON310, PATH, pyenv's versions, uv's.

    Raises ToolError if ``chosen`` (or the variable's) is not one, or none is found.
    """
    for named, where in ((chosen, "--python"), (_from_environment(), VARIABLE)):
        if named is not None:
            version = python_version(named)
            if version != (3, 10):
                found = f"Python {version[0]}.{version[1]}" if version else "no Python"
                raise ToolError(f"{named} ({where}) is {found}; Lava needs Python 3.10")
            return named
    for candidate in _candidates():
        if python_version(candidate) == (3, 10):
            return candidate
    raise ToolError(
        "no Python 3.10 found on PATH, under pyenv or uv; install one (pyenv install 3.10, or uv python install 3.10) "
        f"or name it with --python or {VARIABLE}"
    )


def python_version(python: Path) -> tuple[int, int] | None:
    """(major, minor) of an interpreter, or None if it is none."""
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _from_environment() -> Path | None:
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else None


def _candidates() -> Iterator[Path]:
    for name in ("python3.10", "python3", "python"):
        found = shutil.which(name)
        if found:
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    yield from sorted(pyenv.glob("versions/3.10*/bin/python"), reverse=True)
    uv = shutil.which("uv")
    if uv:
        try:
            done = subprocess.run([uv, "python", "find", "3.10"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return
        if done.returncode == 0 and done.stdout.strip():
            yield Path(done.stdout.strip())
