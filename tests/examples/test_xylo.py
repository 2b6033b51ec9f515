"""The Xylo examples: a file of recordings read, and a run from there to the chip's integers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from examples.xylo import motion
from stl_deploy.errors import ToolError
from stl_deploy.verbs import check


def ts_file(path: Path, seed: int) -> Path:
    """Twelve recordings of 3 axes and 20 steps, of four classes that swing faster and faster."""
    rng, lines = np.random.default_rng(seed), ["#words: of a comment", "@seriesLength 20", "@data"]
    for name, times in (("rest", 0), ("slow", 1), ("fast", 2), ("faster", 4)) * 3:
        axes = np.sin(times * np.arange(20) / 2 + rng.uniform(0, 1, (3, 1)))
        lines.append(":".join([*(",".join(f"{value:.6f}" for value in axis) for axis in axes), name]))
    path.write_text("\n".join([*lines, ""]))
    return path


def test_a_ts_file(tmp_path: Path) -> None:
    path = tmp_path / "one.ts"
    path.write_text("#a: b\n@data\n1,2,3:4,5,6:walk\n\n7,8,9:-1,0.5,2e-1:run\n")
    x, names = motion.read_ts(path)
    assert names == ["walk", "run"]
    np.testing.assert_array_equal(x, np.float32([[[1, 4], [2, 5], [3, 6]], [[7, -1], [8, 0.5], [9, 0.2]]]))


def test_without_the_package_the_remedy_is_its_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion, "find_spec", lambda name: None)
    with pytest.raises(ToolError, match="pip install --no-deps aeon"):
        motion.recordings()


def test_from_recordings_to_the_chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for seed, part in enumerate(("TRAIN", "TEST")):
        ts_file(tmp_path / f"BasicMotions_{part}.ts", seed)
    monkeypatch.setattr(motion, "recordings", lambda: tmp_path)
    motion.main(str(tmp_path / "run"))
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == "imu"
    assert (found["sequences"], found["steps"]) == (12, 20)
    assert set(found["accuracy"]) >= {"float", "xylo"}
    assert found["our model against float"]["spikes"]["compared"] == 12 * 20 * 64
    for facts in found.get("xylosim against our model", {}).values():
        assert facts["compared"] > 0
        assert facts["differing"] == 0


@pytest.mark.parametrize(("name", "shape"), [("ecg", [4]), ("motion", [12])])
@pytest.mark.parametrize("device", ["audio3", "imu"])
def test_the_configurations_fit(name: str, shape: list[int], device: str, tmp_path: Path) -> None:
    config = yaml.safe_load(motion.CONFIG.with_name(f"{name}.yaml").read_text())
    classes = list("abcdef"[: config["network"][-2]["features"]])
    config["dataset"] |= {"input_shape": shape, "classes": classes}
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump(config))
    assert check(path, targets=["xylo"], device=device).targets == {"xylo": "approximate"}


def test_a_norm_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    """Training moves its shift from 0, which Xylo cannot hold before a synapse."""
    config = yaml.safe_load(motion.CONFIG.read_text())
    config["dataset"] |= {"input_shape": [12], "classes": list("abcd")}
    config["network"].insert(1, {"kind": "norm"})
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump(config))
    report = check(path, targets=["xylo"])
    assert [found.slug for found in report.findings if found.severity == "error"] == ["bias-before-a-synapse"]
