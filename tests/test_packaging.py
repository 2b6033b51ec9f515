"""What a wheel holds: every package and every data file of the source tree, under the one installed name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = ("stl_deploy", "exporters", "energy")


def _package(folder: Path) -> str:
    dotted = ".".join(folder.relative_to(ROOT).parts)
    return dotted if dotted.startswith("stl_deploy") else f"stl_deploy.{dotted}"


def _source(package: str) -> Path:
    """Where setuptools looks for a package: its own entry in package-dir, or its parent's."""
    if package in SETUPTOOLS["package-dir"]:
        return ROOT / SETUPTOOLS["package-dir"][package]
    parent, _, last = package.rpartition(".")
    return _source(parent) / last if parent else ROOT / last


def test_every_package_is_listed_and_found() -> None:
    there = {_package(file.parent): file.parent for top in FOLDERS for file in (ROOT / top).rglob("__init__.py")}
    assert set(SETUPTOOLS["packages"]) == set(there)
    assert {package: _source(package) for package in there} == there


@pytest.mark.parametrize("top", FOLDERS)
def test_every_data_file_is_packed(top: str) -> None:
    packed = {
        file
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for file in _source(package).glob(pattern)
    }
    there = {file for file in (ROOT / top).rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert {file for file in there if file.suffix not in (".py", ".pyc")} <= packed
