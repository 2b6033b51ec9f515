"""A user's file runs as a module, and leaves the import path as it should be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stl_deploy._util.user_file import run_as_module


@pytest.mark.parametrize("changes", ["", "sys.path.insert(0, 'own')", "sys.path.pop(0)"])
def test_the_folder_beside_is_on_the_path_meanwhile_and_a_files_own_changes_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: str
) -> None:
    before = [*sys.path]
    monkeypatch.setattr(sys, "path", [*before])
    (tmp_path / "beside_it.py").write_text("VALUE = 3\n")
    (tmp_path / "net.py").write_text(f"import sys\nfrom beside_it import VALUE\n{changes}\n")
    with run_as_module(tmp_path / "net.py", "a_users_file") as module:
        assert module.VALUE == 3
        assert (str(tmp_path) in sys.path) == ("pop" not in changes)
    assert sys.path == (["own", *before] if "insert" in changes else before)
    for name in ("a_users_file", "beside_it"):
        monkeypatch.delitem(sys.modules, name)
