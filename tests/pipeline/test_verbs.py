"""Every verb has a Python twin of the same name."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stl_deploy import verbs
from tests.pipeline.test_cli import VERBS


@pytest.mark.parametrize("verb", sorted({*VERBS, "lava_install", "lava_status"} - {"eval", "lava"}))
def test_twin(verb: str) -> None:
    assert callable(getattr(verbs, verb))
    assert verb in verbs.__all__


def test_unknown_verb() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'deploy'; it has: check, "):
        verbs.deploy  # noqa: B018


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = "import sys; from stl_deploy import verbs; assert not {'torch', 'onnx', 'nir'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_simulate_in_python(run_dir: Path, tmp_path: Path) -> None:
    done = verbs.simulate(run_dir, run_dir / "test.npz", "reference", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as arrays:
        assert list(arrays["y"].shape) == done["arrays"]["y"]
