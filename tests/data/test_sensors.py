"""Motion and sound as spike counts: worked out by hand, their inverse, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stl_deploy
from stl_deploy.config.load import config_of
from stl_deploy.data import complete, encode_axes, encode_bands, from_arrays, load_dataset
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.runs.inputs import encode_split
from tests.drawn import examples

CHIP = {"reset": "subtract", "beta": 0.75, "synapse_decay": 0.5, "multi_spike": 31, "decay_form": "shift"}


def test_rises_and_falls_by_hand() -> None:
    """In units of 0.5: up 1 (0.3 is left), up 3, stays, down 2 of 2.9, and both axes apart."""
    x = np.array([[1.0, 0.0], [1.8, 0.0], [3.2, -9.0], [3.2, -9.0], [1.6, 0.0]])
    assert encode_axes(x, 0.5).tolist() == [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [3, 0, 0, 15],
        [0, 0, 0, 3],
        [0, 2, 15, 0],
    ]


@examples(100)
@given(st.integers(0, 10**6))
def test_counts_give_the_signal_back_within_a_unit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(0, rng.uniform(0.01, 1), (2, 50, 3)), axis=1)
    unit = float(np.abs(np.diff(x, axis=1)).max()) / 14  # one step and what was left over: 15 at most
    found = encode_axes(x, unit)
    moved = found[..., 0::2].astype(int) - found[..., 1::2]
    assert found.dtype == np.uint8
    assert found.max() <= 15
    assert not (found[..., 0::2] * found[..., 1::2]).any()
    assert (np.abs(x[:, :1] + unit * np.cumsum(moved, axis=1) - x) < unit * (1 + 1e-9)).all()


def test_a_tone_is_in_its_band_and_twice_as_loud_counts_twice() -> None:
    rate, steps = 8000, 20
    time = np.arange(rate) / rate
    edges = np.geomspace(100, 3200, 11)
    for band in (2, 5, 8):
        tone = np.sin(2 * np.pi * np.sqrt(edges[band] * edges[band + 1]) * time)
        sound = np.stack([0.01 * tone, 0.02 * tone])
        counts = encode_bands(sound, rate=rate, steps=steps, unit=0.001, bands=10, high=3200)
        assert counts.shape == (2, steps, 10)
        total = counts.sum(1, dtype=int)
        assert (total.argmax(-1) == band).all()
        assert abs(total[1, band] - 2 * total[0, band]) <= 2


def test_what_a_step_leaves_over_counts_later() -> None:
    """A band of a constant drive of 0.3 units a step fires in steps 3, 6 and 9 of 10 (the filter has settled)."""
    rate = 1000
    tone = np.sin(2 * np.pi * 100 * np.arange(20 * rate) / rate)
    loud = encode_bands(tone, rate=rate, steps=200, unit=0.001, bands=1, low=50, high=200, most=255)
    level = encode_bands(tone, rate=rate, steps=200, unit=0.01, bands=1, low=50, high=200, most=255)[100:].mean()
    slow = encode_bands(tone, rate=rate, steps=200, unit=0.01 * level / 0.3, bands=1, low=50, high=200)
    assert loud.max() == 255
    assert set(slow[100:].tolist()[i][0] for i in range(100)) == {0, 1}
    assert abs(int(slow[100:].sum()) - 30) <= 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: encode_axes(np.zeros(4), 1.0), r"a signal \[..., T, axes\]"),
        (lambda: encode_axes(np.full((4, 2), np.nan), 1.0), "NaN"),
        (lambda: encode_axes(np.zeros((4, 2)), 0.0), "a unit above 0"),
        (lambda: encode_axes(np.zeros((4, 2)), float("inf")), "a unit above 0"),
        (lambda: encode_axes(np.zeros((4, 2)), 1.0, most=256), "at most 1 to 255"),
        (lambda: encode_axes(np.zeros((0, 2)), 1.0), "a signal"),
        (lambda: encode_axes(np.array([["a"]]), 1.0), "a signal"),
        (lambda: encode_bands(np.zeros(100), rate=100, steps=4, unit=1, high=50), "half of the rate"),
        (lambda: encode_bands(np.zeros(3), rate=1000, steps=4, unit=1), "one sample a step"),
        (lambda: encode_bands(np.zeros(100), rate=1000, steps=0, unit=1), "at least one step"),
    ],
)
def test_bad_signals(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def written(path: Path, x: Any) -> Path:
    np.savez(path, x=x, y=np.arange(len(x)) % 2)
    return path


def chip_net(dataset: dict[str, Any]) -> dict[str, Any]:
    layers = [{"kind": "linear", "features": 8}, {"kind": "lif"}, {"kind": "linear", "features": 2}, {"kind": "li"}]
    return {"dataset": dataset, "network": layers, "neuron": CHIP, "train": {"epochs": 1, "batch_size": 8}}


def test_a_configuration_counts_motion(tmp_path: Path) -> None:
    x = np.cumsum(np.random.default_rng(0).normal(0, 1, (40, 12, 3)), axis=1)
    path = written(tmp_path / "motion.npz", x)
    config = config_of(chip_net({"name": "npz", "path": str(path), "encoder": "axes", "sensor": {"unit": 0.25}}))
    settled = complete(config.dataset)
    assert (settled.input_shape, settled.T) == ((6,), 12)
    shown = encode_split(config.model_copy(update={"dataset": settled}), load_dataset(settled).test).x
    expected = encode_axes(x.astype(np.float32), 0.25)
    assert {row.tobytes() for row in shown.transpose(1, 0, 2).astype(np.uint8)} <= {row.tobytes() for row in expected}
    run = stl_deploy.train(config, output=tmp_path / "run")
    graph = run.graph()
    assert graph.program.metadata["input"]["coding"] == "graded"
    assert "xylo" in graph.check("xylo", device="imu").targets


def test_own_arrays_keep_the_sensor(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(0, 0.1, (24, 800)).astype(np.float32)
    data = from_arrays(x, np.arange(24) % 2)
    dataset = {"name": "npz", "encoder": "bands", "T": 10, "sensor": {"unit": 0.002, "rate": 8000, "bands": 4}}
    run = stl_deploy.train(chip_net(dataset), data=data, output=tmp_path / "run")
    assert run.graph().program.inputs[0].shape == (4,)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"encoder": "axes"}, "dataset.sensor.unit': expected what one spike stands for; found none; 0.0667 makes"),
        ({"encoder": "bands", "sensor": {"unit": 1}}, r"expected samples \[N, samples\] for the encoder 'bands'"),
        ({"encoder": "counts", "sensor": {"unit": 1}}, "expected none for the encoder 'counts'"),
        ({"name": "digits", "encoder": "axes", "sensor": {"unit": 1}}, "dataset.encoder': expected direct, bernoulli"),
    ],
)
def test_keys_that_do_not_fit(tmp_path: Path, dataset: dict[str, Any], words: str) -> None:
    path = written(tmp_path / "motion.npz", np.tile(np.arange(4.0)[:, None], (8, 1, 2)) / 1)
    own = {"path": str(path)} if dataset.get("name", "npz") == "npz" else {}
    with pytest.raises(ConfigError, match=words):
        complete(config_of(chip_net({"name": "npz", **own, **dataset})).dataset)


def test_bands_need_a_rate(tmp_path: Path) -> None:
    path = written(tmp_path / "sound.npz", np.random.default_rng(0).normal(0, 1, (8, 400)))
    with pytest.raises(ConfigError, match=r"dataset\.sensor\.rate"):
        complete(config_of(chip_net({"name": "npz", "path": str(path), "encoder": "bands", "T": 4})).dataset)


def test_the_unit_that_is_proposed_for_sound_reaches_15(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(0, 1, (8, 4000))
    path = written(tmp_path / "sound.npz", x)
    sensor = {"rate": 8000}
    dataset = {"name": "npz", "path": str(path), "encoder": "bands", "T": 10, "sensor": sensor}
    with pytest.raises(ConfigError, match="greatest count") as caught:
        complete(config_of(chip_net(dataset)).dataset)
    unit = float(str(caught.value).split("found none; ")[1].split()[0])
    assert 6 <= encode_bands(x, rate=8000, steps=10, unit=unit).max() <= 15
