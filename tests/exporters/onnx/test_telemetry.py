"""ONNX Runtime reports to its maker by default; ours does not, and leaves no file anywhere."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
RUN = """
import sys
from pathlib import Path
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel
from tests.exporters.onnx.nets import digits
program = digits()
export_onnx(program, Path(sys.argv[1]))
OnnxModel.load(Path(sys.argv[1]))
"""


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_no_device_id_no_database_and_no_file_through_a_link(tmp_path):
    for name in ("home", "cache", "temporary", "out"):
        (tmp_path / name).mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "temporary" / ".ses").symlink_to(victim)
    surroundings = {
        key: value
        for key, value in os.environ.items()
        if key not in ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
    } | {
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "temporary"),
    }
    command = [sys.executable, "-c", RUN, str(tmp_path / "out" / "net.onnx")]
    subprocess.run(command, cwd=ROOT, env=surroundings, check=True, timeout=120)
    assert victim.read_text() == "mine"
    assert _files(tmp_path) == ["out/net.onnx", "temporary/.ses", "victim"]


def test_one_place_imports_it():
    rooms = ("stl_deploy", "exporters", "energy", "tests", "benchmarks", "examples", "docs")
    importers = []
    for path in (path for room in rooms for path in (ROOT / room).rglob("*.py")):
        text = path.read_text()
        if "node_modules" in path.parts or "onnxruntime" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "onnxruntime" for name in names):
                importers.append(path.relative_to(ROOT).as_posix())
    assert importers == ["exporters/onnx/runtime.py"]
