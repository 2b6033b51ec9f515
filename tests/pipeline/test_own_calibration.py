"""What integers are chosen on: a run's own data where it has them, else random input, which every percentage says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stl_deploy import verbs
from stl_deploy.cli import main


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    return capsys.readouterr().err


def test_a_run_s_graph_is_calibrated_as_the_run(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named by its file or by its folder: the same training samples choose the integers, the test samples judge."""
    made = {}
    for name, source in (("folder", run_dir), ("file", run_dir / "net.nir")):
        said = told(["export", str(source), "--to", "netx", "-o", str(tmp_path / f"{name}.net")], capsys)
        assert "random" not in said
        made[name] = json.loads((tmp_path / f"{name}.net.manifest.json").read_text())["verified"]
    assert made["file"]["input"] == made["folder"]["input"]
    assert [run["differing"] for run in made["file"]["runs"]] == [run["differing"] for run in made["folder"]["runs"]]


def test_random_input_stands_beside_every_percentage(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(run_dir / "net.nir", tmp_path / "theirs.nir")
    said = told(["export", str(tmp_path / "theirs.nir"), "--to", "netx", "-o", str(tmp_path / "net.net")], capsys)
    tables = [line for line in said.splitlines() if "agreement" in line or "differ from the graph" in line]
    assert len(tables) == 2
    assert all("(random input)" in line for line in tables)
    assert "8 random samples" in said
    report = verbs.export(tmp_path / "theirs.nir", "onnx", tmp_path / "net.onnx")
    assert "random samples of 16 steps" in report["verified"]["input"]
