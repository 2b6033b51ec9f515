"""The command that brings a missing package works where the user is."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stl_deploy._util import install
from stl_deploy.errors import ToolError

ROOT = Path(__file__).parents[2]
ORIGINS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["stl-deploy[fast]"]),
    ({"url": "file:///src/my%20clone", "dir_info": {"editable": True}}, ["-e", "/src/my clone[fast]"]),
    ({"url": "file:///src/clone", "dir_info": {}}, ["/src/clone[fast]"]),
    ({"url": "file:///d/s.whl", "archive_info": {}}, ["stl-deploy[fast] @ file:///d/s.whl"]),
    (
        {"url": "https://example.org/s", "vcs_info": {"vcs": "git", "commit_id": "0"}},
        ["stl-deploy[fast] @ git+https://example.org/s"],
    ),
]


@pytest.mark.parametrize(("origin", "expected"), ORIGINS)
def test_what_pip_is_told(origin: dict[str, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "installed_from", lambda: origin)
    words = shlex.split(install.command("fast"))
    assert words == [sys.executable, "-m", "pip", "install", *expected]
    assert "[" not in install.command()


def test_this_clone_is_named() -> None:
    assert str(ROOT) in install.command("data")


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(install.PACKAGES, "nothing_of_this_name", ("fast", "flies"))
    with pytest.raises(ToolError, match=r"^nothing_of_this_name is not installed; it flies: .* pip install "):
        install.require("json", "nothing_of_this_name")


def test_a_package_that_no_installer_brought_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(install, "LISTED", ("numpy", "mine"))
    found = install.versions()
    assert found["mine"] is None
    assert found["numpy"]


@pytest.mark.parametrize(("text", "found"), [(None, {}), ("{", {}), ("[]", {}), ('{"url": "x"}', {"url": "x"})])
def test_a_tree_that_tells_nothing_is_from_an_index(
    text: str | None, found: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "stl_deploy-9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stl-deploy\nVersion: 9\n")
    if text is not None:
        (about / "direct_url.json").write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert install.installed_from() == found


def test_every_extra_named_is_there() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for extra, _ in install.PACKAGES.values()} - {None} <= set(extras)


BLOCKED = """
import json, shlex, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "sklearn", "scipy", "matplotlib", "numba"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from stl_deploy.cli import main
codes = {}
for line in sys.argv[1:]:
    try:
        main(shlex.split(line))
    except SystemExit as stop:
        codes[line] = stop.code or 0
print("\\n" + json.dumps(codes))
"""


def _without_torch(*lines: str) -> tuple[dict[str, int], subprocess.CompletedProcess[str]]:
    """Exit codes of calls of the command line in one process, and what they said."""
    done = subprocess.run([sys.executable, "-c", BLOCKED, *lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    from tests.conformance.golden import GOLDEN

    folder = tmp_path_factory.mktemp("light")
    with np.load(GOLDEN / "norse-read-norse-conv.npz") as kept:
        (folder / "net.nir").write_bytes(kept["nir"].tobytes())
        np.savez(folder / "x.npz", x=kept["x"].astype(np.float32))
    return folder


def test_a_nir_file_needs_neither_torch_nor_scikit_learn_nor_matplotlib(foreign: Path) -> None:
    net, x = f"'{foreign / 'net.nir'}'", f"-i '{foreign / 'x.npz'}'"
    lines = (
        f"show {net}",
        f"check {net} {x}",
        f"simulate {net} {x} --backend loihi -o '{foreign / 'y.npz'}'",
        f"export {net} {x} --to onnx -o '{foreign / 'net.onnx'}'",
        f"export {net} {x} --to netx -o '{foreign / 'net.net'}'",
        f"export {net} {x} --to nir -o '{foreign / 'net2.nir'}'",
        f"export {net} {x} --to c -o '{foreign / 'net_c'}'",
        f"energy {net} {x}",
        f"fold {net} --thresholds weights -o '{foreign / 'net3.nir'}'",
    )
    codes, done = _without_torch(*(f"{line} --dialect norse" for line in lines))
    assert len(codes) == len(lines)
    assert set(codes.values()) == {0}, done.stderr


def test_looking_around_needs_no_torch() -> None:
    lines = ("models --json", "datasets", "targets", "prices", "doctor", "--version", "--help", "report --help")
    codes, done = _without_torch(*lines)
    assert codes == dict.fromkeys(lines, 0), done.stderr
    assert "torch         not installed" in done.stderr


def test_the_rest_says_what_is_missing(foreign: Path) -> None:
    energy = f"energy '{foreign / 'net.nir'}' -i '{foreign / 'x.npz'}' --dialect norse"
    lines = {"torch": f"run digits -o '{foreign / 'run'}'", "matplotlib": f"{energy} -o '{foreign / 'e'}'"}
    codes, done = _without_torch(*lines.values())
    assert codes == dict.fromkeys(lines.values(), 1)
    for package in lines:
        assert f"stl-deploy: error: {package} is not installed; it " in done.stderr
    assert "pip install" in done.stderr
    assert "warning" not in done.stderr
    assert not (foreign / "run").exists()
    assert not (foreign / "e").exists()


def test_a_package_that_always_comes_along_is_a_defect(foreign: Path) -> None:
    code = BLOCKED.replace('"torch", ', '"h5py", ')
    line = f"show '{foreign / 'net.nir'}'"
    done = subprocess.run([sys.executable, "-c", code, line], capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {line: 70}
    assert done.stderr == (
        "stl-deploy: internal error: ModuleNotFoundError: No module named 'h5py' (this is a bug; --debug shows where)\n"
    )
