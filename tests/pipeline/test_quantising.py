"""The verb quantise: one command from a trained run to a run of integers that every verb takes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stl_deploy._util.console import Console
from stl_deploy.config.load import load_config, save_config
from stl_deploy.errors import ConfigError, InputError, ParityError, UnsupportedError
from stl_deploy.exporters.netx.file import read_netx
from stl_deploy.exporters.netx.layers import same_file
from stl_deploy.integers.graph import ConvNode
from stl_deploy.integers.qat.fake_quant import LoihiLIF
from stl_deploy.integers.store import NAME, read_integers
from stl_deploy.runs.configure import configure
from stl_deploy.training import fine_tune as fine_tuning
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.fine_tune import fine_tune
from stl_deploy.training.loop import train, train_epoch
from stl_deploy.training.run_files import CHECKPOINT, MODEL
from stl_deploy.verbs import quantising
from stl_deploy.verbs.artifacts import export
from stl_deploy.verbs.quantising import QuantiseOptions
from stl_deploy.verbs.quantising import quantise as quantise_run


@pytest.fixture(scope="module")
def quantised(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised") / "q"

    def last(network, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Keep what was trained, whether or not validation liked it."""
        kept = {}
        progress = lambda record: kept.update({n: t.detach().clone() for n, t in network.state_dict().items()})  # noqa: E731
        picked = fine_tune(network, *args, **{**kwargs, "progress": progress})
        network.load_state_dict(kept)
        return picked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantising, "fine_tune", last)
        quantise_run(run_dir, folder, QuantiseOptions(epochs=2, lr=0.01, samples=200))
    return folder


def test_the_table_goes_from_float_to_quantisation_aware(quantised: Path) -> None:
    facts = json.loads((quantised / "quantised.json").read_text())
    assert facts["spikes_differing"] == 0
    assert facts["spikes_compared"] > 100_000
    stages = [row["stage"] for row in facts["rows"]]
    assert stages[:2] == ["float", "graph"]
    assert stages[-1] == "quantisation-aware"
    forms = {row["form"] for row in facts["rows"] if row["stage"] == "post-training"}
    assert {"folded", "per-neuron", "per-layer"} <= forms
    assert facts["rows"][-1]["accuracy"] > 0.5


def test_the_run_holds_integers(quantised: Path) -> None:
    net = read_netx(quantised / "net.net")
    network, _ = load_network(quantised)
    for (_, layer), (_, lif) in zip(
        [pair for pair in net.spiking if pair[1].bias is not None], network.lifs, strict=True
    ):
        assert layer.neuron.threshold.shape == ()
        assert np.abs(layer.weight).max() <= 127
        assert float(lif.threshold.detach()) == np.nextafter(np.float32(layer.neuron.threshold), np.float32(np.inf))
    assert not (quantised / CHECKPOINT).exists()


def test_training_moved_weights_and_thresholds(run_dir: Path, quantised: Path, tmp_path: Path) -> None:
    quantise_run(run_dir, tmp_path / "q", QuantiseOptions(epochs=0, samples=20))
    before, after = ([layer for _, layer in read_netx(f / "net.net").spiking] for f in (tmp_path / "q", quantised))
    assert all((a.weight != b.weight).any() for a, b in zip(before, after, strict=True) if a.bias is not None)
    thresholds = [[int(layer.neuron.threshold) for layer in layers] for layers in (before, after)]
    assert thresholds[0] != thresholds[1]


def test_weights_of_three_bits(run_dir: Path, tmp_path: Path) -> None:
    """-3 to 3, in training and in every export of the run."""
    quantise_run(run_dir, tmp_path / "q", QuantiseOptions(epochs=1, weight_bits=3, samples=20))
    weights = [layer.weight for _, layer in read_netx(tmp_path / "q" / "net.net").spiking if layer.bias is not None]
    assert {int(np.abs(weight).max()) for weight in weights} == {3}
    assert json.loads((tmp_path / "q" / "quantised.json").read_text())["spikes_differing"] == 0
    export(tmp_path / "q", "c", tmp_path / "c", verified=False)
    graph, _ = read_integers(tmp_path / "c" / NAME)
    assert {int(np.abs(node.weight).max()) for node in graph.nodes if isinstance(node, ConvNode)} == {3}


def test_exporting_the_run_again_gives_the_trained_integers(quantised: Path, tmp_path: Path) -> None:
    export(quantised, "netx", tmp_path / "again.net")
    assert same_file(read_netx(quantised / "net.net"), read_netx(tmp_path / "again.net"))


def test_a_difference_of_one_spike_is_a_failure(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantising, "compare_spikes", lambda *args: (1, 100, None, {}))
    with pytest.raises(ParityError, match="differs from the trained network in 1 of 100 spikes"):
        quantise_run(run_dir, tmp_path / "q", QuantiseOptions(epochs=0, samples=20))
    assert not (tmp_path / "q").exists()  # nothing half-written


def test_what_cannot_be_trained_is_refused_before_the_long_work(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **_options: object) -> None:
        raise InputError("not in integers")

    monkeypatch.setattr(quantising, "quantised_network", refused)
    monkeypatch.setattr(quantising, "before_training", lambda *_: pytest.fail("the table came first"))
    with pytest.raises(InputError, match="not in integers"):
        quantise_run(run_dir, tmp_path / "q", QuantiseOptions(epochs=0, samples=20))
    assert not (tmp_path / "q").exists()


RESIDUAL = (
    '{"kind": "conv", "channels": 6, "kernel": 3, "padding": 1}, {"kind": "norm"}, {"kind": "lif"}',
    '{"kind": "pool", "op": "sum"}',
    '{"kind": "residual", "layers": [{"kind": "conv", "channels": 8, "kernel": 3, "padding": 1, "stride": 2}, '
    '{"kind": "norm"}, {"kind": "lif"}, {"kind": "dropout"}, {"kind": "conv", "channels": 8, "kernel": 3, '
    '"padding": 1}, {"kind": "norm"}, {"kind": "lif", "decay": 0.3}], "shortcut": [{"kind": "conv", "channels": 8, '
    '"kernel": 1, "stride": 2}, {"kind": "norm"}, {"kind": "lif"}]}',
    '{"kind": "residual", "layers": [{"kind": "conv", "channels": 8, "kernel": 3, "padding": 1}, {"kind": "norm"}, '
    '{"kind": "lif"}]}',
    '{"kind": "flatten"}, {"kind": "linear", "features": 10}, {"kind": "li"}',
)


def test_a_run_with_skips_becomes_integers_for_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A strided projection, sums of spikes, a leaky readout; every epoch at all steps, with the run's surrogate."""
    changes = (
        f"network=[{', '.join(RESIDUAL)}]", "train.epochs=3", "train.one_step_epochs=2", "train.lr=0.01",
        "neuron.surrogate=triangular", "neuron.learn_decay=true", "train.rate_target=null",
    )  # fmt: skip
    config = configure("digits", changes)
    train(config, tmp_path / "run", curves=False)
    seen = []
    forward = LoihiLIF.forward

    def watched(lif: LoihiLIF, x: torch.Tensor) -> torch.Tensor:
        seen.append((len(x), lif.surrogate))
        return forward(lif, x)

    monkeypatch.setattr(LoihiLIF, "forward", watched)
    monkeypatch.setenv("STL_DEPLOY_FUSED", "0")
    table = quantise_run(tmp_path / "run", tmp_path / "q", QuantiseOptions(epochs=2, samples=200, input_grid=4))
    assert set(seen) == {(config.dataset.T, "triangular")}
    assert table["spikes_differing"] == 0
    assert table["spikes_compared"] == 200 * config.dataset.T * (6 * 64 + 4 * 8 * 4)
    stages = [(row["stage"], row["form"]) for row in table["rows"]]
    assert stages[2:] == [("post-training", "per-neuron"), ("quantisation-aware", "folded")]
    assert "C" in table["rows"][-1]["holds"]
    assert not (tmp_path / "q" / "net.net").exists()
    capsys.readouterr()
    with pytest.raises(UnsupportedError, match="netx, the format for Loihi, holds plain chains"):
        export(tmp_path / "q", "netx", tmp_path / "a.net", say=Console())
    assert "threshold forms" not in capsys.readouterr().err
    network, _ = load_network(tmp_path / "q")
    export(tmp_path / "q", "c", tmp_path / "c", verified=False)
    graph, _ = read_integers(tmp_path / "c" / NAME)
    for name, layer in network.layers.items():
        if isinstance(layer, torch.nn.Conv2d):
            node = graph.by_name[name]
            assert isinstance(node, ConvNode)
            factor = 16 if name == "conv1" else 1
            np.testing.assert_array_equal(layer.weight.detach().numpy(), node.weight * factor)


def test_resuming_ends_with_the_bits_of_an_uninterrupted_training(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = QuantiseOptions(epochs=3, lr=0.01, samples=20)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    quantise_run(run_dir, whole, options)
    with pytest.raises(InputError, match=r"stopped: expected .*; found nothing to resume"):
        quantise_run(run_dir, stopped, replace(options, resume=True))

    def epoch(state, *args, **kwargs):  # type: ignore[no-untyped-def]
        if state.epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(state, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning, "train_epoch", epoch)
        with pytest.raises(KeyboardInterrupt):
            quantise_run(run_dir, stopped, options)
    assert [file.name for file in stopped.iterdir()] == [quantising.UNFINISHED]
    with pytest.raises(ConfigError, match=r"train\.lr"):
        quantise_run(run_dir, stopped, replace(options, lr=0.02, resume=True))
    epochs: list[int] = []
    say = Console(quiet=True)
    monkeypatch.setattr(say, "epoch", lambda record: epochs.append(record["epoch"]))
    quantise_run(run_dir, stopped, replace(options, resume=True), say=say)
    assert epochs == [3]
    assert (stopped / MODEL).read_bytes() == (whole / MODEL).read_bytes()
    assert not (stopped / quantising.UNFINISHED).exists()


@pytest.mark.parametrize(("schedule", "share"), [("decay", 0.3), ("one_cycle", 0.03)])
def test_the_learning_rate_begins_far_below_a_one_cycle_s_peak(
    schedule: str, share: float, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seen(Exception):
        pass

    def tune(*_args: object, lr: float, **_options: object) -> int:
        assert lr == pytest.approx(share * 0.01)
        raise Seen

    run = shutil.copytree(run_dir, tmp_path / "run")
    config = load_config(run / "config.yaml")
    settings = config.train.model_copy(update={"schedule": schedule})
    save_config(config.model_copy(update={"train": settings}), run / "config.yaml")
    monkeypatch.setattr(quantising, "fine_tune", tune)
    with pytest.raises(Seen):
        quantise_run(run, tmp_path / "q", QuantiseOptions(samples=20))


def test_wrong_calls(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name another folder"):
        quantise_run(run_dir, run_dir)
    with pytest.raises(InputError, match=r"expected 0 epochs .* or more; found -1"):
        quantise_run(run_dir, tmp_path / "q", QuantiseOptions(epochs=-1))
    with pytest.raises(InputError, match=r"expected a learning rate above 0; found 0"):
        quantise_run(run_dir, tmp_path / "q", QuantiseOptions(lr=0))
    for bits in (1, 9):
        with pytest.raises(InputError, match=f"expected 2 to 8 bits, sign included; found {bits}"):
            quantise_run(run_dir, tmp_path / "q", QuantiseOptions(weight_bits=bits))
    other = shutil.copytree(run_dir, tmp_path / "other")
    with pytest.raises(InputError, match="other: holds a trained run; name another folder"):
        quantise_run(run_dir, other)


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        (f"cuda:{torch.cuda.device_count()}", r"expected cpu; found 'cuda:\d+' and \d+ CUDA devices"),
        ("gpu", "expected auto, cpu, cuda or cuda:N; found 'gpu'"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_done(
    device: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"^device: {sentence}$"):
        quantise_run(tmp_path / "run", tmp_path / "q", QuantiseOptions(device=device))
    assert not list(tmp_path.iterdir())


def test_exporting_shows_what_each_form_costs_and_keeps_the_ranges(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = export(run_dir, "netx", tmp_path / "a.net", verified=False, say=Console())
    said = capsys.readouterr().err
    rows = {row["form"]: row for row in facts["forms"]}
    assert set(rows) >= {"as folded", "folded", "per-neuron", "per-layer"}
    assert rows["folded"]["differing"] < rows["per-layer"]["differing"]
    assert f"{rows['per-layer']['accuracy']:.2%}" in said
    assert said.index("per-layer") < said.index("chosen: folded")
    assert facts["thresholds"] == "folded"
    for layer in facts["ranges"]:
        assert layer["u_worst"][0] <= layer["u_seen"][0] < layer["u_seen"][1] <= layer["u_worst"][1]
    kept = json.loads((tmp_path / "a.net.manifest.json").read_text())
    assert kept["ranges"] == json.loads(json.dumps(facts["ranges"]))


SILENT = (
    '{"kind": "flatten"}, {"kind": "linear", "features": 12}, {"kind": "lif"}',
    '{"kind": "linear", "features": 10}, {"kind": "lif", "threshold": 50.0}, {"kind": "vote", "population": 1}',
)


def test_a_silent_layer_stands_beside_its_counts_in_place_of_a_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(
        "digits", ("train.epochs=1", "dataset.T=2", "dataset.test_fraction=0.85", f"network=[{', '.join(SILENT)}]")
    )
    train(config, tmp_path / "run", curves=False)
    table = quantise_run(tmp_path / "run", tmp_path / "q", epochs=0, samples=20, say=Console())
    out = " ".join(capsys.readouterr().err.split())
    assert "lif2 silent" in out
    assert "(0.00%)" not in out
    assert re.search(r"as the trained network: 0 of [\d,]+ spikes differ \(.*lif2 silent", out)
    assert "a silent layer proves nothing" in out
    assert table["rows"][-1]["dead"]["lif2"] == "silent"
