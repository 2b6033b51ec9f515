"""What TensorBoard shows is what metrics.jsonl holds."""

import json
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stl_deploy.config.load import apply_overrides
from stl_deploy.errors import ToolError
from stl_deploy.training.curves import FOLDER
from stl_deploy.training.loop import train


def _read(run):
    found = EventAccumulator(str(run / FOLDER))
    found.Reload()
    return found


def _check(run, epochs):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shown = _read(run)
    for name, keys in {
        "loss": ["loss"],
        "rates/lif1": ["rates", "lif1"],
        "thresholds/lif2/max": ["thresholds", "lif2", "max"],
    }.items():
        events = shown.Scalars(name)
        assert [event.step for event in events] == [*range(1, epochs + 1)]
        for event, record in zip(events, records, strict=True):
            value = record
            for key in keys:
                value = value[key]
            assert event.value == pytest.approx(value)
    assert {"validation_accuracy", "silent/lif1", "seconds", "lr"} <= set(shown.Tags()["scalars"])
    assert not {"epoch", "epochs"} & set(shown.Tags()["scalars"])
    histogram = shown.Histograms("thresholds/lif2")[-1].histogram_value
    assert (histogram.num, histogram.max) == (20, pytest.approx(records[-1]["thresholds"]["lif2"]["max"]))
    assert np.isfinite(histogram.sum)


def test_epochs_are_shown_once_also_after_a_resume_and_a_fresh_start(tiny, tmp_path):
    config = apply_overrides(tiny, ["train.tensorboard=true"])
    train(apply_overrides(config, ["train.epochs=2"]), tmp_path)
    _check(tmp_path, 2)
    train(config, tmp_path, resume=True)
    _check(tmp_path, 3)
    train(apply_overrides(config, ["train.epochs=1", "train.seed=1"]), tmp_path)
    _check(tmp_path, 1)


def test_without_the_key_nothing_is_written_and_without_the_package_it_is_said(tiny, tmp_path, monkeypatch):
    config = apply_overrides(tiny, ["train.epochs=1"])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(config, tmp_path)
    assert not (tmp_path / FOLDER).exists()
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ToolError, match=r"tensorboard is not installed; .*pip install .*\[tensorboard\]"):
        train(apply_overrides(config, ["train.tensorboard=true"]), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
