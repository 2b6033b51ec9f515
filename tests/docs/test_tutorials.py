"""Tutorials run word for word: on a push that of snnTorch, by a stand-in; `make docs` runs those without a framework.

`make tutorials` runs them all, with their frameworks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.mcu.__main__ import BOARDS

ROOT = Path(__file__).parents[2]
SNNTORCH = """
import torch
from tests.tracing.stand_ins import Leaky as StandIn


class Leaky(StandIn):
    def __init__(self, beta, threshold=1.0, reset_mechanism="subtract"):
        super().__init__(beta, threshold, reset_mechanism)

    def reset_mem(self):
        return torch.zeros(())
"""


@pytest.mark.parametrize(
    ("page", "until"),
    [
        pytest.param("own-model", "## From the command line", marks=pytest.mark.nightly),
        ("snntorch", "## Thresholds that learn"),
    ],
)
def test_a_tutorial_runs_word_for_word(page: str, until: str, tmp_path: Path) -> None:
    """snnTorch by neurons that compute in its order, which the conformance tests hold to its own."""
    text, _, rest = (ROOT / "docs" / "tutorials" / f"{page}.md").read_text(encoding="utf-8").partition(until)
    assert rest
    (tmp_path / "snntorch.py").write_text(SNNTORCH, encoding="utf-8")
    run(text, tmp_path)
    assert (tmp_path / ("residual_c" if page == "own-model" else "tutorial_c") / "net.c").is_file()


@pytest.mark.nightly
def test_a_cnn_runs_on_an_emulated_board(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "tutorials" / "convert.md").read_text(encoding="utf-8")
    if BOARDS["Cortex-M4"].missing is None:
        text = text.replace("<!-- skip: printed by the block before -->", "<!-- output -->")
        text = re.sub(r"<!-- skip: .* -->\n", "", text)
    run(text, tmp_path)


def run(text: str, tmp_path: Path) -> None:
    """Run a page's blocks and compare what they print with what it shows."""
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "docs" / "snippets.py"), "--here", "page.md"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
