"""What a wheel holds: every package and every data file of the source tree, under the one installed name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

from tests.oldest import oldest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
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


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_has_both_bounds() -> None:
    extras = PROJECT["optional-dependencies"]
    bounded = [*PROJECT["dependencies"], *extras["fast"], *extras["data"], *extras["docs"]]
    assert [each for each in bounded if ",<" not in each] == []
    assert oldest(["a-b.c>=1.2,<3"]) == ["a-b.c==1.2"]
    with pytest.raises(ValueError, match=r"'x<3' in pyproject\.toml has no lower bound"):
        oldest(["x<3"])


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_workflows_call_make_targets_that_are_there(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    jobs = yaml.safe_load(text).get("jobs", {})
    called = [word for line in text.splitlines() if "run: make " in line for word in line.split("make ")[1].split()]
    targets = [word for word in called if not word.startswith(("$", "{", "}", "matrix"))]
    for job in jobs.values():
        targets += job.get("strategy", {}).get("matrix", {}).get("target", [])
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
