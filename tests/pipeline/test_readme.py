"""The README's links lead somewhere, and its Python runs as written on the demo's run folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_within_the_repository_lead_somewhere() -> None:
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in t]
    assert len(targets) > 10
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_the_demo_block_is_what_a_run_prints() -> None:
    block = README.split("<!-- demo:begin -->")[1].split("<!-- demo:end -->")[0]
    for line in (
        "every float32 sum is proved exact: all backends must agree bit for bit",
        "torch, folded ",
        "ONNX Runtime ",
        "Loihi integers (our model) ",
        "horowitz45_fp32 ",
    ):
        assert line in block
    (row,) = (line for line in block.splitlines() if line.startswith("ONNX Runtime "))
    assert row.split()[3] == "0"


def test_the_python_runs_as_written(run_dir: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(run_dir)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "(4, " in done.stdout
