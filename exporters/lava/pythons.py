"""Find the Python version that a side environment needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from stl_deploy._util.remedies import named
from stl_deploy.errors import ToolError

Version = tuple[int, int]


def find_python(version: Version, tool: str, chosen: Path | None = None) -> Path:
    """Return the first fitting Python: ``chosen``, $STL_DEPLOY_PYTHON<version>, PATH, pyenv's versions, uv's.

    Raises ToolError if ``chosen`` (or the variable's) is not one, or none is found. tool: name in messages.
    """
    dotted = f"{version[0]}.{version[1]}"
    variable = f"STL_DEPLOY_PYTHON{version[0]}{version[1]}"
    named_there = os.environ.get(variable)
    there = Path(os.path.expanduser(named_there)) if named_there else None
    for path, where in ((chosen, named("python")), (there, variable)):
        if path is not None:
            seen = python_version(path)
            if seen != version:
                described = f"Python {seen[0]}.{seen[1]}" if seen else "no Python"
                raise ToolError(f"{path} ({where}): expected Python {dotted} for {tool}; found {described}")
            return path
    for candidate in _candidates(dotted):
        if python_version(candidate) == version:
            return candidate
    raise ToolError(
        f"no Python {dotted} found on PATH, under pyenv or uv; install one (pyenv install {dotted}, or uv python "
        f"install {dotted}) or name it with {named('python')} or {variable}"
    )


def python_version(python: Path) -> Version | None:
    """Return (major, minor) of an interpreter, or None if it is none."""
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


def _candidates(dotted: str) -> Iterator[Path]:
    for name in (f"python{dotted}", "python3", "python"):
        path = shutil.which(name)
        if path:
            yield Path(path)
    pyenv = Path(os.path.expanduser(os.environ.get("PYENV_ROOT") or "~/.pyenv"))
    yield from sorted(pyenv.glob(f"versions/{dotted}.*/bin/python"), reverse=True)
    uv = shutil.which("uv")
    if uv:
        try:
            done = subprocess.run([uv, "python", "find", dotted], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return
        if done.returncode == 0 and done.stdout.strip():
            yield Path(done.stdout.strip())
