"""The example on a small net and two epochs."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

SMALL = (
    'network=[{"kind": "flatten"}, {"kind": "linear", "features": 20}, {"kind": "lif"}, '
    '{"kind": "vote", "population": 2}]'
)


def test_the_docs_say_what_was_measured() -> None:
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "measurements" / "training-results.md").read_text()
    for result in json.loads((docs / "measurements" / "joint-decision.json").read_text()):
        gains = [row["gain"] for row in result["joined"]]
        members = "STL, SL and TL of one seed" if "SL and" in result["members"] else "STL of three seeds"
        listed = ", ".join(map(str, gains))
        assert f"| {members} | {result['weights']} | {listed} | {mean(gains):+.1f} |" in text
        assert result["samples"] == 898


def test_gains_are_counted(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "joint_decision.py"
    command = [sys.executable, script, "-o", tmp_path, "--seeds", "3", "--set", "train.epochs=1", "--set", SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(r["members"], r["weights"], len(r["joined"])) for r in results] == [
        ("STL, SL and TL", "equal", 3),
        ("STL, SL and TL", "learned", 3),
        ("STL, three seeds", "equal", 3),
        ("STL, three seeds", "learned", 3),
    ]
    for row in (row for result in results for row in result["joined"]):
        assert row["picked"] in row["test"]
        assert row["gain"] == round((row["joint"] - row["picked"]) * results[0]["samples"])
    assert "of 898, mean" in done.stderr
