"""A witness's environment: what is wrong with it, its install and its removal."""

from __future__ import annotations

from pathlib import Path

import pytest

from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.witnesses.environment import BRIAN2, STAMP, Witness, find_witness
from stl_deploy.exporters.witnesses.target import Brian2


def test_environments_say_what_is_wrong_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path))
    place = tmp_path / "brian2"
    assert "no environment of Brian2" in str(Brian2.available())
    with pytest.raises(ToolError, match="nothing to remove"):
        BRIAN2.remove()
    BRIAN2.python.parent.mkdir(parents=True)
    BRIAN2.python.touch()
    assert "was not finished" in str(BRIAN2.reason())
    with pytest.raises(ToolError, match="remove it by hand"):
        BRIAN2.remove()
    with pytest.raises(ToolError, match="holds something that stl-deploy did not make"):
        BRIAN2.install(python=_python312(tmp_path))
    (place / STAMP).write_text('{"requirements": "others"}')
    assert "has other packages" in str(BRIAN2.reason())
    (place / "pyvenv.cfg").touch()
    assert BRIAN2.remove() > 0
    assert not place.exists()
    with pytest.raises(InputError, match=r"expected a witness: brian2, xylosim; found 'brian'"):
        find_witness("brian")
    assert find_witness("Brian2") is find_witness("brian2") is BRIAN2


def test_an_install_that_fails_leaves_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path))
    empty = tmp_path / "nothing.txt"
    empty.touch()
    witness = Witness("absent", "absent", (3, 12), "no_such_module", empty, "nothing", "none")
    with pytest.raises(ToolError, match="creating the environment failed"):
        witness.install(python=_python312(tmp_path))
    assert witness.reason() is not None


def _python312(tmp_path: Path) -> Path:
    """Something that says that it is Python 3.12 and makes no environment."""
    script = tmp_path / "python3.12"
    script.write_text('#!/bin/sh\nif [ "$2" = "-c" ]; then echo 3 12; else echo "no venv" >&2; exit 1; fi\n')
    script.chmod(0o755)
    return script
