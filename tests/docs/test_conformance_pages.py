"""The two conformance pages are what their recorded rows give, so that a run can write them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.conformance import capture, report

DOCS = Path(__file__).parents[2] / "docs" / "measurements"


def test_files_that_others_wrote(tmp_path: Path) -> None:
    report.write(json.loads((DOCS / "conformance.json").read_text())["rows"], tmp_path)
    assert (tmp_path / "conformance.md").read_text() == (DOCS / "conformance.md").read_text()


def test_captures(tmp_path: Path) -> None:
    shutil.copy(DOCS / "capture-conformance.json", tmp_path)
    path = tmp_path / "capture-conformance.json"
    capture.write(json.loads(path.read_text())["rows"], path)
    assert path.with_suffix(".md").read_text() == (DOCS / "capture-conformance.md").read_text()
