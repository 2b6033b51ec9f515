"""Long work shows itself: plain lines off a terminal, one line that is taken away on it, nothing for short work."""

from __future__ import annotations

import io
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy._util import working as shown
from stl_deploy._util.working import stage, working


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, progress: bool | None = None) -> str:
    """Work whose first line is due at once; it ends when a line about its second stage is there."""
    monkeypatch.setattr("sys.stderr", stream)
    for name in ("FIRST", "TERMINAL", "ELSEWHERE"):
        monkeypatch.setattr(shown, name, 0.001)
    with working("capturing Net", progress), working("inner", progress):
        stage("tracing")
        stage("proving", 2, 1500)
        until = time.monotonic() + (200 if progress is None else 0.05)
        while "proving" not in stream.getvalue() and time.monotonic() < until:
            time.sleep(0.001)
    return stream.getvalue()


def test_plain_lines_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run(io.StringIO(), monkeypatch).splitlines()
    assert all(re.fullmatch(r"capturing Net(: [a-z0-9, ]+)? \(\d+ s\)", line) for line in lines)
    assert "capturing Net: proving 2 of 1,500 (0 s)" in lines


def test_one_line_on_a_terminal_which_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(Terminal(), monkeypatch)
    assert "\n" not in text
    assert re.search(r"\r +\r$", text)


def test_nothing_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(io.StringIO(), monkeypatch, progress=False) == ""


def test_nothing_for_short_work(capsys: pytest.CaptureFixture[str]) -> None:
    with working("capturing Net"):
        pass
    assert capsys.readouterr().err == ""
    assert not [one for one in threading.enumerate() if one.name == "stl-deploy progress"]


def test_capture_export_and_training_show_themselves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each names its stages, and takes ``progress=False``."""
    seen: list[str] = []

    class Recorded(shown._Reporter):
        """A reporter that keeps each stage, however short."""

        def __setattr__(self, name: str, value: object) -> None:
            if name == "stage":
                seen.append(str(value))
            super().__setattr__(name, value)

    monkeypatch.setattr(shown, "_Reporter", Recorded)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), stl.LIF((6,), threshold=0.2))
    net = stl.capture(model, (torch.rand(6, 4, 4) < 0.5).float())
    net.export(tmp_path / "c", to="c")
    x = np.random.default_rng(0).random((60, 6)).astype(np.float32)
    data = stl.data.from_arrays(x, np.arange(60) % 2)
    config = {
        "dataset": {"name": "npz", "path": "x.npz", "T": 3},
        "network": [{"kind": "linear", "features": 4}, {"kind": "lif"}, {"kind": "vote", "population": 2}],
        "train": {"epochs": 2},
    }
    stl.train(config, data=data, output=tmp_path / "run")
    stages = " ".join(seen)
    for part in ("tracing", "proving", "making c", "running it", "epoch 2 of 2"):
        assert part in stages
    capsys.readouterr()
    seen.clear()
    stl.capture(model, (torch.rand(6, 4, 4) < 0.5).float(), progress=False)
    net.export(tmp_path / "net.onnx", progress=False)
    assert seen == []
    assert capsys.readouterr().err == ""
