"""The example runs as its docstring says, in a folder of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "any_nir_file.py"


@pytest.mark.push(1)
def test_it_runs_without_arguments_and_leaves_its_artifacts(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, EXAMPLE, "-o", tmp_path], capture_output=True, text=True, check=True)
    assert {path.name for path in tmp_path.iterdir()} >= {"network.onnx", "network.net", "energy.json"}
    assert "dialect-unstated" in done.stderr
