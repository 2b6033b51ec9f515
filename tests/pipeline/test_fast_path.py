"""The compiled path is announced only where it will be compiled, and can be built ahead."""

from __future__ import annotations

import io

import pytest

from stl_deploy._util.console import Console
from stl_deploy.errors import ToolError
from stl_deploy.nn import fused
from stl_deploy.pipeline import fast_path


@pytest.mark.parametrize(
    ("warm", "device", "switch", "told"),
    [
        (False, "cpu", "1", "compiling the fast path (once, about 10 s)\n"),
        (True, "cpu", "1", ""),
        (False, "cuda", "1", ""),
        (False, "cpu", "0", ""),
    ],
)
def test_announced(warm: bool, device: str, switch: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setenv(fused.SWITCH, switch)
    monkeypatch.setattr(fused, "is_warm", lambda: warm)
    monkeypatch.setattr(fused, "works", compiled.append)
    stream = io.StringIO()
    fast_path.announce(device, Console(stream=stream))
    assert stream.getvalue() == told
    assert len(compiled) == bool(told)


def test_built_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(fused, "is_warm", lambda: bool(asked))
    monkeypatch.setattr(fused, "works", lambda dtype, kernels: asked.append(kernels) or True)
    assert fast_path.warm()["seconds"] >= 0
    assert asked == ["everything"]
    monkeypatch.setattr(fused, "works", lambda dtype, kernels: False)
    with pytest.raises(ToolError, match="does not compile here"):
        fast_path.warm()
