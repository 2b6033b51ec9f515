"""A witness's environment whose Python installs anything, and answers every network with arrays chosen before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from stl_deploy._util.files import write_json
from stl_deploy._util.npz import write_npz
from stl_deploy.exporters.lava.environment import pins_hash
from stl_deploy.exporters.witnesses.environment import STAMP, Witness

PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) echo "{major} {minor}" ;;
  "-I -m venv "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; touch "$4/pyvenv.cfg" ;;
  *job.json)
    place=$(dirname "$3")
    cp "$place/input.npz" "{folder}/asked.npz"; cp "{folder}/answer.npz" "$place/spikes.npz"
    echo "{{}}" > "$place/done.json" ;;
esac
"""


def python(folder: Path, version: tuple[int, int]) -> Path:
    """An interpreter that says that it is of this version."""
    path = folder / "python"
    path.write_text(PYTHON.format(major=version[0], minor=version[1], folder=folder))
    path.chmod(0o755)
    return path


def ready(witness: Witness, folder: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, NDArray[Any]]) -> None:
    """Make the witness usable; ``asked.npz`` in the folder will hold the last input that it was given."""
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(folder / "environments"))
    write_npz(folder / "answer.npz", answer)
    witness.python.parent.mkdir(parents=True, exist_ok=True)
    python(folder, witness.version).rename(witness.python)
    write_json(witness.location / STAMP, {"requirements": pins_hash(witness.requirements)})
