"""NIR files that Rockpool and Sinabs wrote (`record_frameworks`): exported to Xylo, or refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.targets import find_format
from stl_deploy.exporters.witnesses.environment import XYLOSIM
from stl_deploy.exporters.witnesses.target import XyloSim
from stl_deploy.exporters.xylo.runner import XyloOptions
from stl_deploy.graph.run import run
from stl_deploy.runs.source import read
from stl_deploy.verbs.artifacts import export

FILES = Path(__file__).parent / "frameworks"
LAYERS = ("1_LIFTorch", "3_LIFTorch")


@pytest.fixture
def rockpool(tmp_path: Path) -> dict[str, Path]:
    """The dialect in which the outputs fire once a step, as Xylo's do, and the input."""
    dialect = {"preset": "rockpool", "nodes": {LAYERS[1]: {"spikes_per_step": "one"}}}
    (tmp_path / "dialect.json").write_text(json.dumps(dialect))
    with np.load(FILES / "rockpool.npz") as recorded:
        np.savez(tmp_path / "x.npz", x=recorded["x"])
    return {"dialect": tmp_path / "dialect.json", "input": tmp_path / "x.npz", "chip": tmp_path / "chip"}


@pytest.mark.filterwarnings("ignore:Rockpool's files do not say")
def test_rockpools_net_on_the_chip(rockpool: dict[str, Path]) -> None:
    """The graph has every spike of Rockpool's; the chip's integers nearly all of them, in their own steps."""
    with np.load(FILES / "rockpool.npz") as recorded:
        x, theirs = recorded["x"], {name: recorded[f"s{i}"] for i, name in enumerate(LAYERS)}
    net = read(FILES / "rockpool.nir", dialect=str(rockpool["dialect"]))
    reference = run(net.program, x.astype(np.float32), record=list(LAYERS))
    export(
        FILES / "rockpool.nir",
        "xylo",
        rockpool["chip"],
        dialect=str(rockpool["dialect"]),
        input_file=rockpool["input"],
        device="imu",
    )
    chip = find_format("xylo").load(rockpool["chip"]).run(x, record=True)
    for name, spikes in theirs.items():
        assert spikes.any()
        np.testing.assert_array_equal(reference.recorded[name], spikes)
        assert (chip.recorded[name] == spikes).mean() > 0.9
    if XYLOSIM.reason() is None:
        vendor = XyloSim(rockpool["chip"], XyloOptions()).run(x, record=True)
        for name in LAYERS:
            np.testing.assert_array_equal(vendor.recorded[name], chip.recorded[name])
        assert vendor.states
        for name, states in vendor.states.items():
            np.testing.assert_array_equal(states, chip.states[name])


@pytest.mark.filterwarnings("ignore:Rockpool's files do not say")
def test_outputs_that_may_fire_several_times_are_told_how_to_say_that_they_do_not(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r'dialect.*"3_LIFTorch": \{"spikes_per_step": "one"\}') as caught:
        export(FILES / "rockpool.nir", "xylo", tmp_path / "chip", dialect="rockpool")
    assert caught.value.slug == "several-spikes-out"


@pytest.mark.filterwarnings("ignore:Sinabs's files do not say")
def test_sinabs_leaves_the_synapse_out_of_its_file(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="it always passes a synapse") as caught:
        export(FILES / "sinabs.nir", "xylo", tmp_path / "chip", dialect="sinabs")
    assert caught.value.slug == "input-always-filtered"
    assert not (tmp_path / "chip").exists()
