"""The table of what counting costs: what it measures, and what it says of its circumstances."""

import yaml

from benchmarks import counting
from stl_deploy.config.load import config_of
from stl_deploy.energy import count_stream
from stl_deploy.nn.network import Network
from tests.benchmarks.test_onnx_speed import SMALL


def test_times_peaks_and_the_table():
    config = config_of(yaml.safe_load(SMALL))
    program = counting.make(Network(config, (1, 28, 28), 10).eval(), config)
    found = counting.measure(program, 4, 130, rounds=2)
    assert all(len(times) == 2 and min(times) > 0 for times in found["seconds"].values())
    assert found["ratio"] > 0
    few, many = found["peak_bytes"].values()
    assert many < 2.5 * few  # 32 and 130 images, in parts of 64: not with the number of images
    found["verbs"] = {"simulate": [2.0, 2.0], "energy": [2.5, 2.1]}
    text = counting.table(found | {"ratio": 1.25, "load": [0.5, 3.0]})
    assert "Counting over running: 1.25 (at most 1.3 is wanted)" in text
    assert "five convolutions of 16 channels, as many images: 1.15 (at most 1.15 is wanted)" in text
    assert "not quiet, so these are no results" in text


def test_every_layer_is_busy_and_all_images_are_seen():
    config = config_of(yaml.safe_load(SMALL))
    program = counting.make(Network(config, (1, 28, 28), 10).eval(), config)
    counts = count_stream(program, counting.parts(program, 4, 70), "spikes").counts()
    assert counts.batch == 70
    assert all(layer.spikes for layer in counts.neurons.values())


def test_the_commands_are_timed_side_by_side():
    times = counting.verbs(2, 1)
    assert {name: len(seconds) for name, seconds in times.items()} == {"simulate": 1, "energy": 1}
