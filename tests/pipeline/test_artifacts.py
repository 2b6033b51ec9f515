"""Artifacts take their place whole, and what else lies there stays."""

from pathlib import Path

import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters.c.target import CFormat
from stl_deploy.pipeline.artifacts import whole_artifact

C = CFormat()
MARK = C.folder or ""


def _write(path: Path, content: str) -> None:
    (path / "below").mkdir(parents=True)
    for name in (MARK, "below/net.c"):
        (path / name).write_text(content)


def _half(output: Path) -> None:
    with whole_artifact(output, C) as path:
        _write(path, "half")
        path.mkdir()


def test_a_folder_that_is_written_again_keeps_what_the_user_put_there(tmp_path: Path) -> None:
    _write(tmp_path / "c", "old")
    (tmp_path / "c" / "app.c").write_text("mine")
    with pytest.raises(FileExistsError):
        _half(tmp_path / "c")
    assert (tmp_path / "c" / MARK).read_text() == "old"
    with whole_artifact(tmp_path / "c", C) as path:
        _write(path, "new")
    found = {file.relative_to(tmp_path).as_posix(): file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {f"c/{MARK}": "new", "c/below/net.c": "new", "c/app.c": "mine"}


def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "app.c").write_text("mine")
    with pytest.raises(InputError, match="found another; name a new one"), whole_artifact(tmp_path, C):
        pass
