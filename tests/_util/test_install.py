"""The command that brings a missing package works where the user is."""

from __future__ import annotations

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
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "sklearn", "scipy", "matplotlib", "numba"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from stl_deploy.cli import main
main(sys.argv[1:])
"""


def _without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    from tests.conformance.golden import GOLDEN

    folder = tmp_path_factory.mktemp("light")
    with np.load(GOLDEN / "norse-read-norse-conv.npz") as kept:
        (folder / "net.nir").write_bytes(kept["nir"].tobytes())
        np.savez(folder / "x.npz", x=kept["x"].astype(np.float32))
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "show net.nir",
        "check net.nir -i x.npz",
        "simulate net.nir -i x.npz --backend loihi -o y.npz",
        "export net.nir -i x.npz --to onnx -o net.onnx",
        "export net.nir -i x.npz --to netx -o net.net",
        "export net.nir -i x.npz --to nir -o net2.nir",
        "export net.nir -i x.npz --to c -o net_c",
        "energy net.nir -i x.npz",
        "fold net.nir --thresholds weights -o net3.nir",
    ],
)
def test_a_nir_file_needs_neither_torch_nor_scikit_learn_nor_matplotlib(line: str, foreign: Path) -> None:
    words = [str(foreign / word) if "." in word or word == "net_c" else word for word in line.split()]
    done = _without_torch(*words, "--dialect", "norse")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line", ["models --json", "datasets", "targets", "prices", "--version", "--help", "report --help"]
)
def test_looking_around_needs_no_torch(line: str) -> None:
    done = _without_torch(*line.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr


def test_the_rest_says_what_is_missing(foreign: Path) -> None:
    energy = ["energy", str(foreign / "net.nir"), "-i", str(foreign / "x.npz"), "--dialect", "norse"]
    for words, package in (
        (["run", "digits", "-o", str(foreign / "run")], "torch"),
        ([*energy, "-o", str(foreign / "e")], "matplotlib"),
    ):
        done = _without_torch(*words)
        assert done.returncode == 1
        assert f"stl-deploy: error: {package} is not installed; it " in done.stderr
        assert "pip install" in done.stderr
        assert "warning" not in done.stderr
    assert not (foreign / "run").exists()
    assert not (foreign / "e").exists()


def test_a_package_that_always_comes_along_is_a_defect(foreign: Path) -> None:
    code = BLOCKED.replace('"torch", ', '"h5py", ')
    done = subprocess.run([sys.executable, "-c", code, "show", foreign / "net.nir"], capture_output=True, text=True)
    assert done.returncode == 70
    assert done.stderr == (
        "stl-deploy: internal error: ModuleNotFoundError: No module named 'h5py' (this is a bug; --debug shows where)\n"
    )


def test_doctor_tells_it() -> None:
    done = _without_torch("doctor")
    assert done.returncode == 0, done.stderr
    assert "torch         not installed" in done.stderr
