"""One small run through the whole way, shared by the tests of the pipeline and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stl_deploy.cli import main
from stl_deploy.runs.configure import configure
from stl_deploy.verbs.whole_way import RunResult, run

SMALL = (
    "train.epochs=4",
    "train.lr=0.01",
    "dataset.test_fraction=0.2",
    'network=[{"kind": "conv", "channels": 8, "kernel": 3, "padding": 1}, {"kind": "norm"}, {"kind": "lif"}, '
    '{"kind": "pool"}, {"kind": "conv", "channels": 12, "kernel": 3, "padding": 1}, {"kind": "norm"}, {"kind": "lif"}, '
    '{"kind": "pool"}, {"kind": "flatten"}, {"kind": "linear", "features": 40}, {"kind": "lif"}, '
    '{"kind": "vote", "population": 4}]',
)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run folder of a small digits network, without Lava."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    return run(configure("digits", SMALL), folder, lava=False)


@pytest.fixture(scope="session")
def run_dir(small_run: RunResult) -> Path:
    return small_run.run_dir


class Call:
    """What a call of the command line left: exit code, stdout and stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str | Path) -> Call:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = stop.value.code
        return Call(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call
