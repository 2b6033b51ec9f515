"""verify runs a .net file on Lava, where that is there, and holds it against the integer model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy._util.files import read_input, write_npz
from stl_deploy.errors import ParityError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.lava import target as lava_target
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.file import read_netx
from stl_deploy.exporters.netx.model import export_netx
from stl_deploy.pipeline.artifacts import SAMPLES
from stl_deploy.runs.source import open_program, open_source
from stl_deploy.verbs.artifacts import verify
from tests.exporters.lava.conftest import lava_python

__all__ = ["lava_python"]


@pytest.fixture(autouse=True)
def no_witnesses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those that are installed here would read the .net file, too."""
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(tmp_path / "none"))


def stand_in(monkeypatch: pytest.MonkeyPatch, moved: int) -> list[int]:
    """Lava is ready, and spikes as our model does but for ``moved`` spikes; returns how many samples it was given."""
    seen: list[int] = []

    def lava(path: Path, x: Any, *, deadline: float, progress: Any) -> Any:
        seen.append(x.shape[1])
        progress(1, 1)
        found = run_file(read_netx(path), x, record=True)
        key = next(iter(found.spikes))
        spikes = found.spikes[key].copy()
        spikes.reshape(-1)[:moved] ^= 1
        return replace(found, spikes={**found.spikes, key: spikes})

    monkeypatch.setattr(lava_target, "run_lava", lava)
    ready = environment.LavaStatus(True, Path("lava"), Path("python"), "0.6.0", None)
    monkeypatch.setattr(environment, "status", lambda: ready)
    return seen


def test_lava_agrees(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = stand_in(monkeypatch, 0)
    report = verify(run_dir, [run_dir / "net.net"])
    assert [run.run for run in report.runs] == ["net.net", "net.net on lava (against the integers)"]
    assert [(run.backend, run.against, run.required) for run in report.runs] == [
        ("loihi", "reference", False),
        ("lava", "loihi", True),
    ]
    assert report.runs[1].exact
    assert report.runs[1].compared > 100_000
    assert seen == [SAMPLES]
    report.require()


def test_one_spike_of_lava_that_moved_fails(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, 1)
    report = verify(run_dir, [run_dir / "net.net"])
    with pytest.raises(
        ParityError, match=r"net.net on lava \(against the integers\): 1 of [\d,]+ spikes differ from the integers"
    ):
        report.require()


def test_without_lava_or_where_it_is_left_out_that_is_said(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = stand_in(monkeypatch, 0)
    assert len(verify(run_dir, [run_dir / "net.net"], lava=False).runs) == 1
    monkeypatch.undo()
    monkeypatch.setenv("STL_DEPLOY_WITNESSES", str(run_dir / "none"))
    monkeypatch.setenv("STL_DEPLOY_LAVA", str(run_dir / "nowhere"))
    assert len(verify(run_dir, [run_dir / "net.net"], say=Console()).runs) == 1
    assert "net.net did not run on lava (no Lava environment" in capsys.readouterr().err
    assert seen == []


@pytest.mark.lava
@pytest.mark.usefixtures("lava_python")
def test_the_real_one(run_dir: Path, tmp_path: Path) -> None:
    program = open_program(open_source(run_dir))
    x, labels = read_input(run_dir / "test.npz")
    assert labels is not None
    write_npz(tmp_path / "x.npz", {"x": x[:, :4], "y": labels[:4]})
    export_netx(program, tmp_path / "a.net", calibration=np.asarray(x[:, :30]), input_scale=16.0)
    report = verify(run_dir, [tmp_path / "a.net"], input_file=tmp_path / "x.npz", deadline=200)
    assert report.runs[1].exact
    assert report.runs[1].compared > 1000
