"""The README's links lead somewhere, and its Python runs as written on the demo's run folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from stl_deploy.report.text.run_summary import COLUMNS, LINES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_within_the_repository_lead_somewhere() -> None:
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in t]
    assert len(targets) > 10
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 111


def test_the_demo_block_is_what_a_run_prints() -> None:
    block = README.split("<!-- demo:begin -->")[1].split("<!-- demo:end -->")[0]
    lines = block.strip().splitlines()[1:-1]
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [
        "done",
        "accuracy",
        "energy",
        "parity",
        "ran",
        "next",
    ]
    assert "as in the graph, by proof" in " ".join(block.split())


def test_the_python_runs_as_written(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "replayed: 0 of " in done.stdout
    assert "Warning" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"net.onnx", "net.net", "energy.html"}
