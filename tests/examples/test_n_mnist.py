"""The subset is the first recordings; its size is said; the README's numbers are those of result.json."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stl_deploy.cli import main

HERE = Path(__file__).parents[2] / "examples" / "n_mnist"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Files of the dataset's layout: a column of events under the label's number."""
    for part, count in (("Train", 70), ("Test", 30)):
        for index in range(1, count + 1):
            label = index % 10
            folder = tmp_path / "whole" / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            y = np.arange(30)
            when = 100 * y + index
            record = np.stack([np.full(30, 3 * label), y, 128 * (y % 2), when >> 8 & 255, when & 255], 1)
            (folder / f"{index:05}.bin").write_bytes(record.astype(np.uint8).tobytes())
    return tmp_path / "whole"


def _subset(whole: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, HERE / "subset.py", whole, whole.parent / "subset", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_first_recordings_train_and_their_number_is_said(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _subset(whole, "--train", "60", "--test", "20").returncode == 0
    kept = sorted(int(path.stem) for path in (whole.parent / "subset" / "Train").glob("*/*.bin"))
    assert kept == list(range(1, 61))
    monkeypatch.setenv("XDG_CACHE_HOME", str(whole.parent / "cache"))
    changes = ["train.epochs=1", "dataset.validation_fraction=0.2", "network.0.channels=2", "network.4.channels=2"]
    call = ["train", "n_mnist_small", "--data-dir", str(whole.parent / "subset"), "-o", str(whole.parent / "run")]
    with pytest.raises(SystemExit) as stop:
        main([*call, "--json", *(item for change in changes for item in ("--set", change))])
    assert not stop.value.code
    shown = capsys.readouterr()
    assert "50 training, 10 validation and 20 test samples; a subset of n_mnist, which has 70,000" in shown.err
    assert json.loads(shown.out)["samples"] == {"train": 50, "validation": 10, "test": 20, "whole": 70_000}


def test_too_few_recordings_are_said(whole: Path) -> None:
    done = _subset(whole)
    assert done.returncode == 2
    assert "Train: 70 recordings; at least 1000 are needed" in done.stderr


def test_the_readme_says_what_was_measured() -> None:
    result = json.loads((HERE / "result.json").read_text())
    readme = " ".join((HERE / "README.md").read_text().split())
    sizes = result["samples"]
    assert (sizes["train"], sizes["validation"], sizes["test"]) == (900, 100, 100)
    assert f"**{result['test']['accuracy']:.0%}** of 100 test recordings" in readme
    assert f"epoch {result['epoch']} of 40" in readme
