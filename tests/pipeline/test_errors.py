"""Every error has a slug and says where; the command line prints them as JSON."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stl_deploy as stl
from docs.messages import catalogue
from stl_deploy._util.remedies import command_line, remedy
from stl_deploy.errors import CaptureError, CheckFailed, GraphError, InputError, UnsupportedError
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.passes.narrow import NotFiniteError
from stl_deploy.runs.source import open_source
from tests.graph.nets import chain, iff
from tests.refusals import refuses


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + torch.rand_like(x) > 1).float()


def test_slugs_and_places(tmp_path: Path) -> None:
    with refuses("no-such-file", where=str(tmp_path / "none.nir"), remedy=None):
        open_source(tmp_path / "none.nir")
    (tmp_path / "model.safetensors").touch()
    with refuses("no-graph", where=str(tmp_path), remedy=f"make it with stl_deploy.verbs.fold(Path('{tmp_path}'))"):
        open_source(tmp_path)
    with command_line(), refuses("no-graph", remedy=f"make it with stl-deploy fold {tmp_path}"):
        open_source(tmp_path)
    with refuses("random-numbers"):
        stl.capture(Noisy(), torch.rand(4, 3, 2))


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ("net.npz: expected x", "net.npz"),
        ("/tmp/my runs/net.npz: expected x", "/tmp/my runs/net.npz"),
        ("--dt: expected a number", "--dt"),
        ("expected one name; found a list: ['a']", None),
    ],
)
def test_a_message_begins_with_its_place(message: str, where: str | None) -> None:
    error = InputError(message)
    assert (error.where, error.slug, str(error)) == (where, "input-tests-pipeline-test-errors", message)


def test_kinds_of_places() -> None:
    assert GraphError("bad", node="fc").as_dict() == {"slug": "bad-graph", "message": "node 'fc': bad", "where": "fc"}
    unsupported = UnsupportedError("bad", node="fc", slug="s", remedy="do it")
    assert (str(unsupported), unsupported.reason) == ("node 'fc': bad; do it", "bad")
    assert (CaptureError("bad", line="net.py:3").where, CaptureError("bad", layer="lif").where) == ("net.py:3", "lif")


def test_a_remedy_has_the_words_of_each_interface() -> None:
    python = remedy(cli="--dt 1", python="dt=1")
    assert (python, python.python, python.command_line) == ("dt=1", "dt=1", "--dt 1")
    with command_line():
        assert str(InputError("expected dt", remedy=remedy(cli="--dt 1", python="dt=1"))) == "expected dt; --dt 1"


@pytest.mark.parametrize("error", [UnsupportedError("bad", node="fc", slug="s", remedy="do"), NotFiniteError("fc")])
def test_errors_come_back_from_other_processes(error: Any) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.as_dict(), again.node) == (str(error), error.as_dict(), "fc")


def test_errors_as_json(cli: Any, tmp_path: Path) -> None:
    missing = tmp_path / "none.nir"
    found = cli("check", missing, "--json")
    assert found.code == 2
    error = json.loads(found.out)["error"]
    assert (error["slug"], error["where"]) == ("no-such-file", str(missing))
    assert found.err.splitlines()[-1] == f"stl-deploy: error: {error['message']}"
    found = cli("check", "--json", "--nothing-like-it")
    assert (found.code, json.loads(found.out)["error"]["slug"]) == (2, "wrong-call")
    assert cli("check", missing).out == ""


def test_a_result_is_the_only_document(cli: Any, tmp_path: Path) -> None:
    write_nir(chain([2], iff((2,), theta=-1.0)), tmp_path / "net.nir")
    found = cli("check", tmp_path / "net.nir", "--target", "netx", "--json")
    assert (found.code, json.loads(found.out)["targets"]) == (CheckFailed.exit_code, {"netx": "unsupported"})


def test_the_catalogue() -> None:
    found = catalogue()
    assert sum(map(len, found.values())) > 900
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", slug) for slug in found)
    assert "found no such file or folder" in found["no-such-file"][0]
