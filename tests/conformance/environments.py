"""One virtual environment for each framework, as their pinned dependencies exclude each other."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"


def environment(framework: str, cache: Path, requirements: Path = REQUIREMENTS) -> Path:
    """The Python of a framework's environment, made if it is not there or its requirements have changed."""
    wanted = (requirements / f"{framework}.txt").read_bytes()
    folder = cache / f"{framework}-py{sys.version_info.major}{sys.version_info.minor}"
    stamp, python = folder / ".installed", folder / "bin" / "python"
    digest = hashlib.sha256(wanted).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        print(f"installing {framework} into {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "-r", requirements / f"{framework}.txt"]
        subprocess.run(install, check=True)
        stamp.write_text(digest)
    return python
