"""Write the hashes into the requirements of the side environments: ``python -m tests.exporters.pin_requirements``.

Asks the package index through uv (which must be on PATH) for the files of every pinned version, and keeps the source
archive and the wheels for Linux and macOS of the environment's Python.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from stl_deploy.exporters.lava.environment import REQUIREMENTS, pins
from stl_deploy.exporters.witnesses.environment import WITNESSES

FILES = {REQUIREMENTS: (3, 10)} | {witness.requirements: witness.version for witness in WITNESSES.values()}


def main() -> None:
    for path, (major, minor) in FILES.items():
        options = ("--quiet", "--no-deps", "--universal", "--python-version", f"{major}.{minor}", "--format")
        command = ["uv", "pip", "compile", *options, "pylock.toml", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        packages = {entry["name"]: entry for entry in tomllib.loads(done.stdout)["packages"]}
        lines = [_hashed(line, packages, minor) for line in pins(path).splitlines()]
        path.write_text("\n".join(lines) + "\n")
        print(path, file=sys.stderr)


def _hashed(line: str, packages: dict[str, Any], minor: int) -> str:
    if line.startswith("#"):
        return line
    entry = packages[re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()]
    kept = [file for file in [*entry.get("wheels", []), entry.get("sdist")] if file and _fits(file, minor)]
    return line + "".join(f" \\\n    --hash=sha256:{file['hashes']['sha256']}" for file in kept)


def _fits(file: dict[str, Any], minor: int) -> bool:
    """Whether a file can be installed on Linux (glibc) or macOS under Python 3.``minor``."""
    name = Path(file["url"]).name
    if not name.endswith(".whl"):
        return True
    python, abi, platform = name.removesuffix(".whl").split("-")[-3:]
    for_python = any(tag in (f"cp3{minor}", f"py3{minor}", "py3") for tag in python.split("."))
    stable = "abi3" in abi and int(re.sub(r"\D", "", python.split(".")[0])[1:] or 0) <= minor
    return (for_python or stable) and bool(re.search("any|manylinux|linux_|macosx", platform))


if __name__ == "__main__":
    main()
