"""The parity table, on few samples; and that it shows a spike that moved."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import nets, onnx_parity
from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx import OnnxModel
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.margins import Margin


def _few(case, samples=5):
    return dataclasses.replace(case, x=case.x[:, :samples])


@pytest.mark.parametrize("make", [nets.residual, nets.recurrent])
def test_the_nets_spike_in_every_layer_and_are_proved_on_the_grid_alone(make):
    case = _few(make())
    found = onnx_parity.measure([case])
    assert not any(row["differing"] for row in found["rows"] if row["proved_exact"])
    proved = {(row["sums"], row["precision"]): row["proved_exact"] for row in found["rows"]}
    assert proved == {
        (nets.GRID, "float32"): True,
        (nets.GRID, "integer"): True,
        (nets.FLOAT, "float32"): False,
        (nets.FLOAT, "exact"): True,
    }
    assert not all(proof.exact for proof in prove_exact(case.programs[nets.FLOAT]))
    program = case.programs[nets.GRID]
    recorded = onnx_parity.run(program, case.x, record=[node.name for node in program.spiking]).recorded
    assert all(0 < spikes.mean() < 1 for spikes in recorded.values())
    assert found["rows"][0]["least_rate"] == pytest.approx(min(spikes.mean() for spikes in recorded.values()))
    size = sum(spikes.size for spikes in recorded.values())
    assert {row["compared"] for row in found["rows"]} == {size}


def test_a_silent_layer_is_no_agreement():
    case = _few(nets.residual())
    silent = dataclasses.replace(case, x=np.zeros_like(case.x))
    with pytest.raises(InputError, match=r"no neuron of '.*' fires, so agreement there says nothing"):
        onnx_parity.measure([silent])


def test_a_spike_that_moved_is_counted_and_named(monkeypatch):
    case = _few(nets.residual())
    case = dataclasses.replace(case, programs={nets.GRID: case.programs[nets.GRID]})
    honest = OnnxModel.run

    def flipped(model, x, **options):
        result = honest(model, x, **options)
        if x.shape[1] == 1:  # the last chunk
            spikes = result.recorded["a.lif2"].copy()
            spikes[2, 0, 3, 1, 4] = 1 - spikes[2, 0, 3, 1, 4]
            result.recorded["a.lif2"] = spikes
        return result

    monkeypatch.setattr(OnnxModel, "run", flipped)
    monkeypatch.setattr(onnx_parity, "CHUNK", 2)
    found = onnx_parity.measure([case])
    assert [row["differing"] for row in found["rows"]] == [1, 1, 1, 1]
    (first,) = found["rows"][0]["first"]
    assert (first["layer"], first["step"], first["sample"], first["neuron"]) == ("a.lif2", 2, 4, [3, 1, 4])
    text = onnx_parity.table(found)
    assert "float32, sequence: layer a.lif2, step 2, sample 4, neuron [3, 1, 4]: reference" in text
    assert f", {Margin(**first['margin'])}\n" in text


def test_the_command_writes_json_and_table(tmp_path, digits_run):
    command = [sys.executable, "-m", "benchmarks.onnx_parity", str(digits_run), "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_without_data())
    found = json.loads((tmp_path / "onnx-parity.json").read_text())
    assert {row["network"] for row in found["rows"]} == {"digits", "residual net", "recurrent net"}
    assert not any(row["differing"] for row in found["rows"] if row["proved_exact"])
    digits = [row for row in found["rows"] if row["network"] == "digits"]
    assert all(0.3 < row["accuracy"] <= 1 for row in digits)
    assert (tmp_path / "onnx-parity.md").read_text().strip() == done.stdout.strip()
    assert "the paper's MNIST net is left out" in done.stderr


def _without_data():
    return {key: value for key, value in os.environ.items() if key != "STL_DEPLOY_DATA"}
