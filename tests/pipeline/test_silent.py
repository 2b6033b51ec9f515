"""A network of which no layer spikes on the user's x ends each verb that judges by x with a failed check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stl_deploy as stl
from stl_deploy.errors import CheckFailed
from tests.exporters.netx.programs import Builder

MODULE = """
import torch, stl_deploy as stl
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), stl.LIF((6,), threshold=9.0))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(MODULE)
    np.savez(tmp_path / "x.npz", x=np.zeros((5, 3, 4), np.float32))
    program = Builder((4,)).linear("fc", np.ones((6, 4))).lif("lif", 1.0).program()
    stl.SpikingGraph(program).export(tmp_path / "net.nir", x=np.ones((5, 3, 4), np.float32))
    return tmp_path


@pytest.mark.parametrize(
    "verb",
    [
        "capture {0}/net.py:net --input {0}/x.npz -o {0}/made.nir",
        "fold {0}/net.nir --input {0}/x.npz -o {0}/made.nir",
        "export {0}/net.nir --input {0}/x.npz --to onnx -o {0}/made.onnx",
        "simulate {0}/net.nir --input {0}/x.npz --backend reference -o {0}/made.npz",
        "verify {0}/net.nir --input {0}/x.npz --against onnx",
    ],
    ids=lambda verb: verb.split()[0],
)
def test_a_silent_network_fails_a_check(cli: Any, folder: Path, verb: str) -> None:
    call = verb.format(folder).split()
    failed = cli(*call)
    assert (failed.code, "no layer spiked on x" in failed.err) == (1, True)
    assert cli(*call, "--allow-silent").code == 0


def test_silence_on_drawn_input_is_no_failed_check(cli: Any, folder: Path) -> None:
    program = Builder((4,)).linear("fc", np.ones((6, 4))).lif("lif", 99.0).program()
    stl.SpikingGraph(program).export(folder / "net.nir")
    for call in (("fold", "-o", folder / "made.nir"), ("export", "--to", "onnx", "-o", folder / "made.onnx")):
        verb, *options = call
        assert cli(verb, folder / "net.nir", *options).code == 0


def test_an_artifact_that_was_silent_is_not_kept(folder: Path) -> None:
    net, x = stl.read(folder / "net.nir"), np.zeros((5, 3, 4), np.float32)
    with pytest.raises(CheckFailed) as failed:
        net.export(folder / "made.onnx", x=x)
    assert failed.value.slug == "silent"
    assert not (folder / "made.onnx").exists()
    net.export(folder / "made.onnx", x=x, allow_silent=True)
