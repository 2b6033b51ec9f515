"""examples/first_steps.ipynb runs from the first cell to the last, and its results draw themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the code cells after a run in a fresh kernel."""
    pytest.importorskip("nbclient", reason="no nbclient (extra dev)")
    folder = tmp_path_factory.mktemp("notebook")
    copy = shutil.copy(NOTEBOOK, folder)
    command = [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace", "--timeout=600", copy]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(folder)}
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = json.loads(Path(copy).read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def _data(cell: dict[str, Any], kind: str) -> str:
    return "".join(text for output in cell["outputs"] for text in output.get("data", {}).get(kind, []))


def test_it_trains_captures_and_exports(ran: list[dict[str, Any]]) -> None:
    printed = "".join(text for cell in ran for output in cell["outputs"] for text in output.get("text", []))
    assert float(printed.split("%")[0]) > 90
    plain = "\n".join(_data(cell, "text/plain") for cell in ran)
    assert "0 of 51,712 spikes differ from the graph" in plain
    assert "0 of 51,712 spikes differ from the integers" in plain


def test_proof_graph_and_bill_draw_themselves(ran: list[dict[str, Any]]) -> None:
    drawn = [html for cell in ran if (html := _data(cell, "text/html"))]
    for words in ("replayed: 0 of", "SpikingGraph", "synops"):
        assert any(words in html for html in drawn), words
