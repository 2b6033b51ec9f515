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
        (False, "cpu", "1", "compiling the fast path (once, about 15 s)\n"),
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


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ((), ["compiling what every training needs", "compiled"]),
        (("blocks",), ["loading the fast path", "loaded"]),
        (("blocks", "everything"), ["loading the fast path"]),
    ],
)
def test_built_ahead(kept: tuple[str, ...], told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()
    stream = io.StringIO()
    monkeypatch.setattr(fused, "is_warm", lambda kernels="blocks": kernels in (*kept, *asked))
    monkeypatch.setattr(fused, "works", lambda dtype, kernels="blocks": asked.append(kernels) or True)
    took = fast_path.warm(say=Console(stream=stream))
    assert took["seconds"] >= took["first_seconds"] >= 0
    assert asked == ["blocks", "everything"]
    heard = [line.split(" (")[0] for line in stream.getvalue().splitlines()]
    assert heard == [*told, "the fast path is compiled and kept"]


@pytest.mark.parametrize("fails", ["blocks", "everything"])
def test_what_does_not_compile_is_not_said_to_be_kept(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "is_warm", lambda kernels="blocks": True)
    monkeypatch.setattr(fused, "works", lambda dtype, kernels="blocks": kernels != fails)
    with pytest.raises(ToolError, match="does not compile here"):
        fast_path.warm()
