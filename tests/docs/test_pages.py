"""The guides' snippets run as told, in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.timeout(900)  # they start other programs, each of which waits for torch
@pytest.mark.parametrize("page", ["python.md", "own-data.md"])
def test_a_guide_runs(page: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    command = [sys.executable, str(DOCS / "snippets.py"), "--here", str(DOCS / page)]
    folder = tmp_path / "empty"
    folder.mkdir()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
