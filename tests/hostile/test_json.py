"""JSON of our own that somebody damaged: brackets without end, pipes that nobody writes into."""

import os

import pytest

from stl_deploy.cli.output import kept
from stl_deploy.data.own import trust
from stl_deploy.exporters.lava import environment


def _write(path, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(kind)
    return path


_TEXTS = {"deep": "[" * 100_000, "cut": "{", "null": "null", "pipe": "pipe", "zero": "\x00"}
KINDS = pytest.mark.parametrize("kind", _TEXTS.values(), ids=_TEXTS)


@KINDS
def test_the_kept_list_of_trusted_files(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _write(tmp_path / "stl-deploy" / "trusted.json", kind)
    assert trust._kept() == set()


@KINDS
def test_what_lavas_environment_says_of_itself(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "location", lambda: tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    _write(tmp_path / environment.STAMP, kind)
    assert "was not finished or checked" in environment.status().reason


@KINDS
def test_what_an_interrupted_run_keeps(kind, tmp_path):
    _write(tmp_path / "manifest.json", kind)
    _write(tmp_path / "metrics.jsonl", kind)
    assert kept(tmp_path, ["train", "digits"]) == "no epoch was finished, so nothing is kept"
    (tmp_path / "checkpoint.safetensors").touch()
    assert "kept in" in kept(tmp_path, ["train", "digits"])
