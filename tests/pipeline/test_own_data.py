"""Own data the whole way: trained, resumed, evaluated, folded, exported and reported, as built-in data are."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import TensorDataset

import stl_deploy as stl
from stl_deploy._util.lock import alone_in
from stl_deploy.config.load import load_config
from stl_deploy.data.own import trust
from stl_deploy.energy.models.grid import quoted
from stl_deploy.energy.models.ratios import number
from stl_deploy.errors import ConfigError
from stl_deploy.graph.exact import prove_exact
from stl_deploy.training.loop import train
from stl_deploy.verbs.energy_of import energy
from tests.energy.test_verbs import main as cli

NETWORK = [{"kind": "linear", "features": 12}, {"kind": "lif"}, {"kind": "linear", "features": 4}, {"kind": "lif"}]
SPLIT = {"validation_fraction": 0.2, "test_fraction": 0.2}
TRAIN = {"epochs": 4, "lr": 0.03, "batch_size": 16, "device": "cpu"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trust, "allowed", set())


def _events(count=80, steps=5):
    """Two classes of sequences [N, T, 6]: the first three inputs spike more, or the last three."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 2
    rates = np.where(np.arange(6)[None] // 3 == y[:, None], 0.9, 0.1)
    return (rng.random((count, steps, 6)) < rates[:, None]).astype(np.float32), y


def _config(**dataset):
    readout = {"kind": "vote", "population": 2}
    return {"dataset": {**SPLIT, **dataset}, "network": [*NETWORK, readout], "train": TRAIN}


def _npz_config(folder: Path) -> Path:
    x, y = _events()
    np.savez(folder / "mine.npz", x=x, y=y, classes=["left", "right"])
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(_config(name="npz", path="mine.npz", encoder="sequence")))
    return path


@pytest.mark.parametrize("change", ["shift=1", "flip=true", "cutout=2"])
def test_samples_that_are_no_images_are_not_moved(tmp_path, capsys, change):
    config, out = _npz_config(tmp_path), tmp_path / "run"
    sentence = f"key 'train.{change.split('=')[0]}': expected images; found samples [6] in npz; leave it out"
    assert cli(["train", str(config), "-o", str(out), "--set", f"train.{change}"]) == 2
    assert capsys.readouterr().err == f"stl-deploy: error: {sentence}\n"
    with pytest.raises(ConfigError) as caught:
        train(load_config(config, [f"train.{change}"]), out)
    assert str(caught.value) == sentence
    assert not out.exists()


def test_an_npz_goes_the_whole_way_by_the_command_line(tmp_path, monkeypatch, capsys):
    config = _npz_config(tmp_path)
    monkeypatch.chdir("/")
    out = tmp_path / "run"
    assert cli(["run", str(config), "-o", str(out), "--no-lava"]) == 0
    assert "running 16 test samples" in capsys.readouterr().err
    assert json.loads((out / "energy.json").read_text())["source"] == "npz, 16 test samples"
    assert "test image" not in (out / "report.html").read_text()
    kept = yaml.safe_load((out / "config.yaml").read_text())["dataset"]
    assert (kept["path"], kept["T"], kept["input_shape"]) == (str(tmp_path / "mine.npz"), 5, [6])
    assert (kept["classes"], len(kept["sha256"])) == (["left", "right"], 64)
    assert "left, right" in (out / "report.html").read_text()
    assert kept["sha256"] in (out / "report.html").read_text()
    net = stl.read(out)
    assert net.program.metadata["input"] == {"coding": "spikes", "fraction_bits": 0, "max": 1.0}
    assert all(proof.exact for proof in prove_exact(net.program))
    capsys.readouterr()
    assert cli(["eval", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"]["accuracy"] > 0.9
    assert cli(["train", str(config), "-o", str(out), "--resume", "--set", "train.epochs=5"]) == 0
    x, y = _events()
    np.savez(tmp_path / "mine.npz", x=1 - x, y=y, classes=["left", "right"])
    assert cli(["eval", str(out)]) == 2
    assert "the data differ from those trained on" in capsys.readouterr().err


def test_labels_of_each_step_have_no_twin_and_that_is_said(tmp_path, capsys):
    x, y = _events()
    np.savez(tmp_path / "mine.npz", x=x, y=np.repeat(y[:, None], 5, axis=1))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(_config(name="npz", path="mine.npz", encoder="sequence")))
    out = tmp_path / "run"
    assert cli(["run", str(tmp_path / "mine.yaml"), "-o", str(out), "--no-lava", "-v"]) == 0
    assert "no ANN twin: labels are of each step, and an ANN sees one" in capsys.readouterr().err
    assert not (out / "twin").exists()


RECURRENT = [{"kind": "linear", "features": 12}, {"kind": "rlif"}, *NETWORK[2:]]


@pytest.mark.parametrize(
    ("encoder", "values", "network", "needs_data"),
    [
        ("sequence", "events", NETWORK, False),
        ("sequence", "events", RECURRENT, False),
        ("sequence", "real", NETWORK, True),
        ("spikes", "counts", NETWORK, True),
    ],
)
def test_energy_of_a_run_on_sequences_measures_the_kept_twin_as_run_does(
    encoder, values, network, needs_data, tmp_path, capsys
):
    x, y = _events()
    x *= {"events": 1, "real": 0.3, "counts": 3}[values]
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    config = _config(name="npz", path="mine.npz", encoder=encoder)
    config["network"][:-1] = network
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "run"
    assert cli(["run", str(tmp_path / "mine.yaml"), "-o", str(out), "--no-lava"]) == 0
    capsys.readouterr()
    kept = json.loads((out / "energy.json").read_text())
    assert kept["ann_twin"]["label"] == "measured"
    again = energy(out, None).as_dict()
    for key in ("ann_twin", "verdict", "comparisons"):
        assert again[key] == kept[key]
    assert energy(out, out / "test.npz").as_dict()["ann_twin"] == kept["ann_twin"]
    assert cli(["energy", str(out), "--over-steps", "-o", str(out)]) == 0
    assert json.loads((out / "tradeoff.json").read_text())["points"][-1]["kind"] == "ANN"
    (tmp_path / "mine.npz").unlink()
    capsys.readouterr()
    assert cli(["energy", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    without = json.loads(shown.out)
    sentence = "The zeros of the kept ANN twin were not measured: of each sample it takes one frame"
    assert (without["ann_twin"]["label"] == "unmeasured") == needs_data
    assert (sentence in " ".join(shown.err.split())) == needs_data
    assert any(line.startswith(sentence) for line in without["assumptions"]) == needs_data
    if encoder == "spikes":
        np.savez(tmp_path / "x.npz", x=np.zeros((5, 3, 6), np.float32))
        assert "cannot be decided from this input (encoder spikes)" in energy(out, tmp_path / "x.npz").assumptions[1]


def test_datasets_in_python_and_a_folder_that_is_moved(tmp_path):
    x, y = map(torch.from_numpy, _events())
    data = TensorDataset(x[:60], y[:60]), TensorDataset(x[60:70], y[60:70]), TensorDataset(x[70:], y[70:])
    run = stl.train(_config(name="npz", encoder="sequence"), data=data, output=tmp_path / "run")
    assert run.accuracy > 0.9
    assert run.results["samples"]["test"] == 10
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["dataset"]["path"] == "data.npz"
    net = run.graph()
    assert net.evaluate(TensorDataset(x[70:], y[70:])).accuracy == run.accuracy
    net.export(tmp_path / "net.onnx")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert cli(["eval", str(tmp_path / "moved")]) == 0
    again = stl.train(
        _config(name="npz", encoder="sequence"),
        data=data,
        output=tmp_path / "moved",
        resume=True,
        changes=["train.epochs=5"],
    )
    assert again.results["epoch"] >= 1


def test_a_preset_s_network_on_own_images(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 1, 8, 8), np.uint8)
    y = np.arange(60) % 3
    x[np.arange(60), 0, y] = 255
    narrow = ["network.0.channels=4", "network.4.channels=4", "train.epochs=2", "train.batch_size=16"]
    run = stl.train("digits", data=stl.data.from_arrays(x, y), output=tmp_path / "run", changes=narrow)
    assert run.network.classes == 3
    assert run.graph().program.inputs[0].shape == (1, 8, 8)


def test_what_comes_from_python_is_refused_before_anything_is_written(tmp_path):
    x, y = _events()
    for call, sentence in (
        (
            lambda: stl.train("digits", data=stl.data.from_arrays(x, y), output=tmp_path / "run"),
            "is the first axis time",
        ),
        (lambda: stl.train("digits", data=3, output=tmp_path / "run"), "expected a torch Dataset"),
        (lambda: stl.train(_config(name="npz")), "a configuration without a name needs a run folder"),
        (
            lambda: stl.train({"dataset": 3}, output=tmp_path / "run"),
            "configuration: key 'dataset': expected a mapping of keys to values; found 3",
        ),
        (
            lambda: stl.train("digits", data=stl.data.from_arrays(x[:, 0], y), output=tmp_path / "run"),
            r"network.0 \(conv\)",
        ),
    ):
        with pytest.raises(stl.InputError, match=sentence):
            call()
    assert not (tmp_path / "run").exists()


def test_data_of_a_refused_training_do_not_take_the_place_of_those_trained_on(tmp_path):
    x, y = _events()
    config, out = _config(name="npz", encoder="sequence"), tmp_path / "run"
    stl.train(config, data=stl.data.from_arrays(x, y), output=out, changes=["train.epochs=1"])
    before = {path: path.read_bytes() for path in out.iterdir()}
    other = stl.data.from_arrays(1 - x, y)
    with pytest.raises(stl.ConfigError, match=r"made with dataset\.sha256"):
        stl.train(config, data=other, output=out, resume=True)
    with pytest.raises(stl.ConfigError, match=r"found 'cuda:99' and \d+ CUDA devices"):
        stl.train(config, data=other, output=out, overwrite=True, changes=["train.device=cuda:99"])
    with alone_in(out), ThreadPoolExecutor(1) as other_thread:
        refused = other_thread.submit(stl.train, config, data=other, output=out, overwrite=True)
        with pytest.raises(stl.InputError, match="writes into it"):
            refused.result()
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    stl.train(config, data=other, output=out, overwrite=True, changes=["train.epochs=1"])
    assert np.array_equal(np.load(out / "data.npz")["x"], 1 - x)
    assert {path.name for path in out.iterdir()} == {path.name for path in before}
    assert cli(["eval", str(out)]) == 0
    (out / "data.npz").unlink()
    stl.train(config, data=other, output=out, resume=True, changes=["train.epochs=1"])
    assert cli(["eval", str(out)]) == 0


CODE = """
import torch
from torch.utils.data import TensorDataset

def load():
    x = torch.zeros(60, 6)
    y = torch.arange(60) % 2
    x[torch.arange(60), y * 3] = 1
    return TensorDataset(x, y)
"""


def test_a_python_file_that_ends_the_program_is_an_input_that_is_wrong(tmp_path):
    (tmp_path / "own.py").write_text("def load():\n    raise SystemExit(0)\n")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(_config(name="python", path="own.py:load")))
    with pytest.raises(stl.InputError, match=r"own\.py: line 2: SystemExit: 0"):
        stl.train(tmp_path / "own.yaml", output=tmp_path / "run")


def test_a_python_file_of_someone_else_s_run_folder_does_not_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(CODE)
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump(_config(name="python", path="mine.py:load")))
    out = tmp_path / "run"
    assert cli(["train", str(config), "-o", str(out)]) == 0
    assert cli(["eval", str(out)]) == 0
    monkeypatch.setattr(trust, "allowed", set())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    (tmp_path / "mine.py").write_text(CODE + "raise SystemExit('it ran')\n")
    again = str(out / "config.yaml")  # which messages of ours tell to take
    for verb in (
        ["eval", str(out)],
        ["fold", str(out)],
        ["train", again, "-o", str(out), "--resume"],
    ):
        capsys.readouterr()
        assert cli(verb) == 2
        assert "read it, and say --trust" in capsys.readouterr().err
    assert cli(["check", again]) == 0  # shapes stand in the configuration; the file does not run
    (tmp_path / "mine.py").write_text(CODE)
    with pytest.raises(stl.InputError, match="allow it: stl_deploy\\.data\\.own\\.trust\\.allow"):
        stl.train(again, output=tmp_path / "other")
    assert cli(["eval", str(out), "--trust"]) == 0
    assert cli(["train", again, "-o", str(out), "--resume", "--set", "train.epochs=5", "--trust"]) == 0


def test_a_data_dir_that_is_not_taken(tmp_path, capsys):
    assert cli(["train", "digits", "--data-dir", str(tmp_path), "-o", str(tmp_path / "run")]) == 2
    assert "expected none for digits; found " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_own_data_are_listed(capsys):
    assert cli(["datasets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"folder", "npz", "python"} <= set(rows)
    assert rows["npz"]["input_shape"] is None


def test_an_input_grid_may_be_said_to_training_folding_and_quantising(tmp_path, capsys):
    rng, y = np.random.default_rng(1), np.arange(60) % 2
    x = (rng.random((60, 6)) * 0.3 + np.where(np.arange(6)[None] // 3 == y[:, None], 0.6, 0)).astype(np.float32)
    np.savez(tmp_path / "real.npz", x=x, y=y)
    (tmp_path / "real.yaml").write_text(yaml.safe_dump(_config(name="npz", path="real.npz")))
    out, whole = tmp_path / "run", tmp_path / "whole"

    def declared(path):
        return stl.read(path).program.metadata["input"]["fraction_bits"]

    assert cli(["run", str(tmp_path / "real.yaml"), "-o", str(out), "--no-lava", "--no-twin"]) == 0
    assert declared(out) == 8
    assert cli(["verify", str(out), "--against", "reference"]) == 0
    assert cli(["fold", str(out), "-o", str(tmp_path / "net.nir"), "--input-grid", "3"]) == 0
    assert declared(tmp_path / "net.nir") == 3
    assert cli(["quantise", str(out), "-o", str(whole), "--epochs", "0", "--input-grid", "2"]) == 0
    assert declared(whole) == 2
    assert cli(["verify", str(whole), "--against", str(whole / "net.net"), "--no-lava"]) == 0
    resumed = ["run", str(tmp_path / "real.yaml"), "-o", str(out), "--resume", "--no-lava", "--no-twin"]
    assert cli([*resumed, "--input-grid", "5"]) == 0
    assert declared(out) == 5
    assert (
        cli(["train", "digits", "-o", str(tmp_path / "no"), "--set", "dataset.encoder=bernoulli", "--input-grid=3"])
        == 2
    )
    assert "expected none for the encoder 'bernoulli', which shows integers" in capsys.readouterr().err


def test_a_twin_of_each_frame_is_trained_measured_and_priced_at_every_step(tmp_path):
    config, out = _npz_config(tmp_path), tmp_path / "run"
    assert cli(["run", str(config), "-o", str(out), "--no-lava", "--no-frontier", "--set", "train.frames=each"]) == 0
    assert load_config(out / "twin" / "config.yaml").time_steps == 5
    kept, again = json.loads((out / "energy.json").read_text()), energy(out, None)
    assert again.as_dict()["ann_twin"] == kept["ann_twin"]
    assert "each of the 5 frames" in kept["ann_twin"]["text"]
    assert kept["ann_twin"]["accuracy"] > 0.9
    streaming = quoted(again.comparisons)
    assert streaming is not None
    assert f"each of 5 steps: the SNN {number(streaming.ratio / 5)} times that, streaming" in kept["verdict"]
